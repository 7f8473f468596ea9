"""English and Chinese: the address of each page in the other language, for the switch on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]


def other(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The address of this page in the other language, or of that language's first page."""
    chinese = context["chinese"]
    up = "../" * (pagename.count("/") + chinese)
    there = ((DOCS if chinese else DOCS / "zh") / f"{pagename}.md").exists()
    page = pagename if there or pagename in ("search", "genindex") else "index"
    context["other_language"] = f"{up}{'' if chinese else 'zh/'}{page}.html"


def setup(app: Any) -> dict[str, bool]:
    """Make it known to Sphinx."""
    app.connect("html-page-context", other)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
