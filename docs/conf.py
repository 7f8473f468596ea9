"""The site: Sphinx reads docs/ in English, and docs/zh/ in Chinese with the tag zh (see build.py)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import thinned

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "site"))
CHINESE = tags.has("zh")  # noqa: F821, Sphinx gives the name

project = "thinned"
author = "The thinned authors"
copyright = "MIT licence"
version = release = thinned.__version__
language = "zh_CN" if CHINESE else "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
    "site_math",
    "site_languages",
]
exclude_patterns = ["zh", "site", "results", "images"] if not CHINESE else []
nitpicky = False
suppress_warnings = ["myst.header", "mystnb.mime_priority"]  # pages begin where they like

# Text
myst_enable_extensions = ["dollarmath", "amsmath", "html_image", "attrs_inline", "deflist"]
myst_heading_anchors = 3
myst_words_per_minute = 200

# Notebooks: run once for both languages, as their code is the same.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "notebooks")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True

# API
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
doctest_global_setup = "import numpy as np, thinned"
add_module_names = False

# Look
html_theme = "furo"
html_title = "thinned"
html_static_path = ["site/static"] if not CHINESE else ["../site/static"]
templates_path = ["site/templates"]
html_css_files = ["site.css"]
html_extra_path = ["explore.html"] if not CHINESE else ["../explore.html"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7fb2ea", "color-brand-content": "#7fb2ea"},
    "top_of_page_buttons": [],
}
html_context = {"chinese": CHINESE}
mathjax_path = ""
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Any) -> None:
    """Pages that are shown on the site and lie elsewhere in the repository."""
    app.connect("source-read", _links)


def _links(app: Any, docname: str, source: list[str]) -> None:
    """A link that leaves docs/ (to a source file) leads to the repository."""
    address = "https://github.com/thinned/thinned/blob/main/"
    source[0] = re.sub(
        r"\]\(\.\./(?!zh/|\.\./)((?:src|tests|examples|\.ci)/[^)]*)\)", rf"]({address}\1)", source[0]
    )
