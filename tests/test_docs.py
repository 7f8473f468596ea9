"""The pages: their links lead somewhere, their examples run, and they name no path of one machine."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = [*PAGES, ROOT / "docs" / "explore.html", ROOT / "Makefile", ROOT / "pyproject.toml"]
# A path that only one machine has, and a source named by its number in a folder outside the repository.
LOCAL = re.compile(r"(?<![\w.:/])/(?:home|root|Users|work|tmp|mnt|opt|srv)/|\b[A-Z]:\\|\bsources?[ /]0\d")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`|^ {4}.*?$", re.DOTALL | re.MULTILINE)


def name(path):
    return path.relative_to(ROOT).as_posix()


def links(text):
    """The targets of Markdown links and of images, outside code and on this site."""
    text = CODE.sub("", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text):
    """What a page's headings are called in links: GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub(lambda found: found[0].strip("`"), text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "explore.html"], ids=name)
def test_links_lead_somewhere(page):
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name(page)} links to {target}, which is not there"
        if anchor:
            known = anchors(file.read_text(encoding="utf-8"))
            assert anchor in known, f"{name(page)} links to {target}; the headings are {sorted(known)}"


def test_the_links_are_found():
    text = '[a](x.md#b) `[no](code)` <img src="i.png"> [out](https://example.org)\n\n    [no](either)\n'
    assert links(text) == ["x.md#b", "i.png"]
    assert anchors("# Thin: on `these` alone\n\n## What p means\n") == {"thin-on-these-alone", "what-p-means"}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_page_names_a_path_of_one_machine(path):
    found = LOCAL.search(path.read_text(encoding="utf-8"))
    assert not found, f"{name(path)} has {found.group()!r}"


def test_newcomers_find_the_way():
    assert "docs/design.md" in links((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("i", range(3))
def test_the_examples_of_the_readme_run(i, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    assert len(examples[i].splitlines()) <= 10
    exec(examples[i], {})
    assert capsys.readouterr().out


PASTED = ("start", "estimators", "predictions", "thin", "thin-residual", "how-to/rates")


@pytest.mark.parametrize("page", PASTED)
def test_the_examples_of_a_page_run_one_after_the_other(page):
    """Pasted in their order, they know every name that they use. Notebooks run when the site is built."""
    for module in ("torch", "sklearn", "skl2onnx"):
        pytest.importorskip(module)
    text, names = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), {"__name__": page}
    for i, example in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)):
        exec(compile(example, f"{page}.md, example {i}", "exec"), names)


def test_the_design_page_names_every_room():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    layout = page.partition("## Layout")[2].partition("### Where does it belong?")[0]
    source = ROOT / "src" / "thinned"
    rooms = {f"{path.parent.name}/" for path in source.rglob("*.[ch]pp") if path.parent != source}
    rooms |= {f"{path.parent.name}/" for path in source.rglob("*.py") if path.parent != source}
    rooms |= {path.name for path in source.glob("*.py") if path.name != "__main__.py"}
    missing = [
        room for room in sorted(rooms) if not re.search(rf"^ *{re.escape(room)} ", layout, re.MULTILINE)
    ]
    assert not missing, f"the layout in docs/design.md has no line for {missing}"


def test_files_that_the_design_page_names_are_there():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+/|[\w./]+\.(?:py|pyi|hpp|cpp|txt|md))`", page))
    named |= set(re.findall(r"^ +([\w./]+\.py) ", page, re.MULTILINE))
    places = [ROOT, ROOT / "src" / "thinned", ROOT / "src" / "thinned" / "lab"]
    missing = [
        path
        for path in sorted(named)
        if "NAME" not in path and not any((place / path).exists() for place in places)
    ]
    assert not missing, f"docs/design.md names {missing}, which are not there"
