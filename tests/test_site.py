"""The Chinese pages have the headings, code and figures of the English ones. `make docs` builds them all."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCS / "zh").as_posix() for path in (DOCS / "zh").rglob("*.md"))
FENCE = re.compile(r"^```.*?^```|^---\n.*?^---\n", re.DOTALL | re.MULTILINE)
WANTED = {"start.md", "methods.md", "theory.md", "results.md", "glossary.md"} | {
    f"tutorials/{page.name}" for page in (DOCS / "tutorials").glob("*.md")
}


def chinese():
    spec = importlib.util.spec_from_file_location("chinese", DOCS / "site" / "chinese.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(text):
    """Level and text of each heading, outside code."""
    return [
        (len(marks), name) for marks, name in re.findall(r"^(#+) (.+)$", FENCE.sub("", text), re.MULTILINE)
    ]


def programs(text):
    """The code of a page without comments, which are translated."""
    code = re.findall(r"^```(?:python|\{code-cell\})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r" *#.*", "", program) for program in code]


def test_every_page_that_a_reader_needs_is_there():
    assert set(PAGES) >= WANTED


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_headings(page):
    """Above each Chinese heading, a comment has the English one."""
    english = headings((DOCS / page).read_text(encoding="utf-8"))
    text = FENCE.sub("", (DOCS / "zh" / page).read_text(encoding="utf-8"))
    found = re.findall(r"^% en: (.+)\n(#+) (.+)$", text, re.MULTILINE)
    assert [(len(marks), name) for name, marks, _ in found] == english
    assert len(found) == len(headings(text)), "a heading has no English one above it"


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_code_and_figures(page):
    module = chinese()
    english = (DOCS / page).read_text(encoding="utf-8")
    text = (DOCS / "zh" / page).read_text(encoding="utf-8")
    whole = module.whole(text, english, page, page.count("/"))
    assert not re.search(r"^% (cell|table)", whole, re.MULTILINE)
    assert programs(whole) == programs(english)
    assert len(re.findall(r"<img|!\[", whole)) == len(re.findall(r"<img|!\[", english))


def test_figures_stay_and_words_are_translated():
    rows = ["| system | seeds | time to train |", "| --- | --- | --- |", "| no drop | 3 | 2 min |"]
    english = "\n".join(["## A", "", *rows, "", "![x](results/a.svg)", ""])
    text = chinese().tables(english, "A")
    assert "| 不失活 | 3 | 2 分钟 |" in text
    assert "results/a.svg" in text
    with pytest.raises(ValueError, match="heading B"):
        chinese().tables(english, "B")


def test_links_to_english_pages_leave_the_chinese_ones():
    text = "[a](../thin.md#x) [b](start.md)"
    assert chinese().whole(text, "", "p.md", 0) == '<a href="../thin.html#x">a</a> [b](start.md)'
    text = "[a](../../thin.md) [b](../start.md)"
    assert chinese().whole(text, "", "p.md", 1) == '<a href="../../thin.html">a</a> [b](../start.md)'


def test_lines_of_chinese_are_joined_without_a_space():
    text = "掩模，\n`x` 与\n权重。\n```\nx  # 注\n```\n与 x\n相同：\n- 一\n  二\n1. 三\n"
    assert chinese().whole(text, "", "p.md", 0) == (
        "掩模，`x` 与权重。\n```\nx  # 注\n```\n与 x\n相同：\n- 一二\n1. 三\n"
    )
