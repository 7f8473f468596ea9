"""The site: Sphinx reads docs/ in English, and docs/zh/ in Chinese with the tag zh (see build.py)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import thinned

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "site"))
PROJECT = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
REPOSITORY = re.findall(r'^Source = "(.*)"$', PROJECT, re.MULTILINE)[0] + "/blob/main/"  # its one place
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
exclude_patterns = ["zh", "site", "results", "images", "results-notes.md"] if not CHINESE else []
nitpicky = False
suppress_warnings = [
    "myst.header",
    "mystnb.mime_priority",
    "misc.highlighting_failure",
]  # pages begin where they like

# Text
myst_enable_extensions = ["dollarmath", "amsmath", "html_image", "attrs_inline", "deflist"]
myst_heading_anchors = 3
myst_words_per_minute = 200

# Notebooks: run once for both languages, as their code is the same.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "notebooks")
nb_execution_timeout = 600  # a cell on a busy machine; on two free cores a notebook takes under two minutes
nb_execution_raise_on_error = True
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # their products are small: on a busy machine, more threads only wait
nb_merge_streams = True

# API
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
doctest_global_setup = "import numpy as np, thinned"
add_module_names = False

# Look
html_theme = "furo"
html_title = "thinned"
html_static_path = ["site/static"]
html_js_files = ["search.js"]
templates_path = ["site/templates"]
html_css_files = ["site.css"]
html_extra_path = ["explore.html"] if not CHINESE else []
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
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
    """What a page or a docstring needs before Sphinx reads it."""
    app.connect("source-read", _links)
    app.connect("source-read", _forgotten)
    app.connect("autodoc-process-docstring", _plain)
    app.connect("autodoc-skip-member", _others)


def _links(app: Any, docname: str, source: list[str]) -> None:
    """A link to a file beside docs/ leads to its page on the site, or to the repository."""
    up = "../" * docname.count("/")
    text = (
        source[0]
        .replace("../CONTRIBUTING.md", f"{up}contributing.md")
        .replace("../CHANGELOG.md", f"{up}changelog.md")
        .replace("](explore.html)", f"]({up}explore-page.md)")
    )
    source[0] = re.sub(r"\]\((?:\.\./)+((?:src|tests|examples|\.ci)/[^)]*)\)", rf"]({REPOSITORY}\1)", text)


def _forgotten(app: Any, docname: str, source: list[str]) -> None:
    """A new page that index.md does not name yet stands behind the last page of the background."""
    if docname == "index" and not CHINESE:
        named = {*source[0].split(), *(Path(pattern).stem for pattern in exclude_patterns), "index"}
        new = sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in named)
        source[0] = source[0].replace("\nmethods-notes\n", "\n".join(["", "methods-notes", *new, ""]), 1)


def _plain(app: Any, what: str, name: str, object: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have literals and lists, and no other marks: `*`, `|` and `_` stand for themselves."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "::")):
            parts = re.split(r"(``.*?``|`.*?`)", line)
            lines[i] = "".join(
                part if part.startswith("`") else re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts
            )


def _others(app: Any, what: str, name: str, object: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to a class: its docstrings refer to its own pages."""
    return True if name.endswith("_request") or name == "get_metadata_routing" else None
