"""English and Chinese: the switch on each page, and tables of results that both languages share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
TABLE = re.compile(r"^% table: (.+)$", re.MULTILINE)


def other(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The address of this page in the other language, or of that language's start page."""
    chinese = context["chinese"]
    up = "../" * (pagename.count("/") + chinese)
    folder = DOCS if chinese else DOCS / "zh"
    there = any((folder / f"{pagename}{suffix}").exists() for suffix in (".md", ".ipynb"))
    page = pagename if there else "index"
    context["other_language"] = f"{up}{'' if chinese else 'zh/'}{page}.html"
    context["other_exists"] = there


def tables(app: Any, docname: str, source: list[str]) -> None:
    """`% table: HEADING` in a Chinese page is the table below that heading of the English page."""
    if not app.config.html_context["chinese"] or "% table:" not in source[0]:
        return
    from site_words import translated

    english = (DOCS / f"{docname}.md").read_text(encoding="utf-8")
    source[0] = TABLE.sub(lambda found: translated(table_below(english, found[1])), source[0])


def table_below(page: str, heading: str) -> str:
    """The first table and the pictures of a section."""
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading + "\n"))
    rows = re.findall(r"^\|.*\|$|^!\[.*$", text, re.MULTILINE)
    pictures = [re.sub(r"\]\(", "](../", row) for row in rows if row.startswith("!")]
    return "\n".join([*(row for row in rows if row.startswith("|")), "", *pictures])


def setup(app: Any) -> dict[str, bool]:
    """Make it known to Sphinx."""
    app.connect("html-page-context", other)
    app.connect("source-read", tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
