"""The recipes of CONTRIBUTING.md: what its diffs say, written into a copy of the package and of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import thinned

ROOT = Path(__file__).parents[2]
DIFF = re.compile(r"^```diff\n\+\+\+ (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def recipe(heading: str) -> dict[str, list[str]]:
    """The files that the section of that heading changes: the path, and its diff in parts."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"CONTRIBUTING.md must have a section {heading!r}"
    return {path: re.split(r"^@@\n", diff, flags=re.MULTILINE) for path, diff in DIFF.findall(section)}


def copied(target: Path) -> Path:
    """A copy of the package that is under test, of the tests and of the examples."""
    ignore = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".hypothesis")
    shutil.copytree(Path(thinned.__file__).parent, target / "src" / "thinned", ignore=ignore)
    for folder in ("tests", "examples"):
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    for file in ("pyproject.toml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, target / file)
    return target


def apply(heading: str, root: Path) -> dict[str, list[str]]:
    """Change the files below ``root`` as the recipe says; the lines that each gets."""
    added = {}
    for path, parts in recipe(heading).items():
        file = root / path
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for part in filter(None, parts):
            lines = part.splitlines()
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] not in other) for other in "+-")
            assert not text or text.count(old) == 1, f"{path}: CONTRIBUTING.md expects there, once:\n{old}"
            text = text.replace(old, new) if text else new
        file.write_text(text, encoding="utf-8")
        added[path] = [line[1:] for part in parts for line in part.splitlines() if line[:1] == "+"]
    return added


def run(root: Path, *arguments: str) -> str:
    """A Python process on the copy: what it prints. Fails with all of that unless it exits with 0."""
    known = {
        "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")
    }  # what it read from modules takes long
    environment = os.environ | known | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def code(lines: list[str]) -> list[str]:
    """The lines that are neither blank nor part of a docstring."""
    text = re.sub(r'^ *"""(.*?)"""\n', "", "\n".join(lines) + "\n", flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if line.strip()]
