"""What a release needs: versions that agree, workflows that are read, the tools of the public CI."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thinned

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_versions_agree():
    found = {
        name: re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)[1]
        for name, pattern in {
            "pyproject.toml": r'^version = "(.*)"$',
            "src/thinned/__init__.py": r'^__version__ = "(.*)"$',
            "CITATION.cff": r"^version: (.*)$",
        }.items()
    }
    assert set(found.values()) == {thinned.__version__}
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {thinned.__version__.partition('.dev')[0]}" in changelog


def test_addresses_stand_in_one_place():
    """Those of the repository and of the site: in pyproject.toml; a citation file cannot look them up."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    urls = dict(re.findall(r'^(Documentation|Source|Issues|Changelog) = "(.*)"$', project, re.MULTILINE))
    assert urls["Issues"] == urls["Source"] + "/issues"
    assert urls["Changelog"] == urls["Source"] + "/blob/main/CHANGELOG.md"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^repository-code: (.*)$", citation, re.MULTILINE) == [urls["Source"]]
    folders = ("src", "docs", "examples", ".github", ".ci", "tests")
    pages = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*.*"))]
    texts = [path for path in pages if path.suffix in (".py", ".md", ".yml", ".html", ".cff", ".toml", ".js")]
    address = re.compile("|".join(re.escape(urls[name]) for name in ("Documentation", "Source")))
    have = {path.name for path in texts if address.search(path.read_text(encoding="utf-8"))}
    assert have == {"pyproject.toml", "CITATION.cff"}


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        (
            "vendor.github-issue-forms",
            [ROOT / ".github" / "ISSUE_TEMPLATE" / f"{n}.yml" for n in ("bug", "idea")],
        ),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_for_the_host_fit_their_schema(schema, files):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_workflows_call_is_there():
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([\w-]+)", text)) <= targets
    for path in re.findall(r"python (?:-W error )?(tests/\S+\.py)", text):
        assert (ROOT / path).exists(), path


def test_ratios_of_two_benchmarks(tmp_path):
    def result(ratio):
        row = {"group": "g", "name": "n", "threads": 1, "ratios": {"torch": {"median": ratio}}}
        return {"results": [row]}

    files = []
    for name, ratio in (("before", 0.5), ("after", 0.75)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(result(ratio)))
    command = [sys.executable, str(ROOT / "tests" / "ratios.py"), *map(str, files)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| g: n | 1 | torch | 0.50 | 0.75 | 1.50 |" in table


def test_the_examples_of_pages_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\n```\nno code\n```\n\n```python\nprint(2)\n```\n")
    notebook = tmp_path / "notebook.md"
    notebook.write_text("```{code-cell}\nb = 1\n```\n\n```{code-cell}\n:tags: [x]\nassert b == 1\n```\n")
    wrong = tmp_path / "wrong.md"
    wrong.write_text("```python\n1 / 0\n```\n")
    run = [sys.executable, str(ROOT / "tests" / "readme.py")]
    done = subprocess.run([*run, str(page), str(notebook)], capture_output=True, text=True, check=True)
    assert done.stdout.count("example") == 3
    assert subprocess.run([*run, str(wrong)], capture_output=True).returncode != 0
