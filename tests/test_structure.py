"""The house's order: imports go down, light imports stay light, the words are the contract's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import thinned

ROOT = Path(thinned.__file__).parent
# A module may import from its own floor's siblings inside the same package and from floors below.
FLOORS = [
    {"_checks", "_array", "_files", "theory", "activations"},
    {"key", "schedules"},
    {"kernels"},
    {"masks"},
    {"_method", "_plans"},
    {"functional", "augment"},
    {"methods"},
    {"nn", "scratch"},
    {"estimators", "uncertainty"},
    {"lab"},
    {"cli"},
    {"__main__"},
]
MAY_IMPORT_TORCH = (
    "nn/",
    "kernels/gpu.py",
    "kernels/autograd.py",
    "uncertainty/torch_graph.py",
    "uncertainty/sample_torch.py",
    "uncertainty/moments_torch.py",
    "lab/",
)
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def floor(room: str) -> int:
    for i, rooms in enumerate(FLOORS):
        if room in rooms:
            return i
    raise AssertionError(f"thinned.{room} stands on no floor of this test")


def imports(tree: ast.AST, top_only: bool) -> set[str]:
    found: set[str] = set()
    for node in tree.body if top_only and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found |= {f"{base}.{alias.name}" if base == "thinned" else base for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    tree, room = ast.parse(path.read_text(encoding="utf-8")), room_of(path)
    checks_for_types = {"key"} if room == "_checks" else set()  # under TYPE_CHECKING, or inside a check
    for name in imports(tree, top_only=False):
        if name.startswith("thinned."):
            other = name.split(".")[1]
            if other in {room, "__version__", *thinned.__all__, *checks_for_types}:
                continue
            assert floor(other) < floor(room), f"{path.name} imports thinned.{other}, which is not below"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_is_imported_only_where_it_may_be(path):
    relative = path.relative_to(ROOT).as_posix()
    names = {
        name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")), top_only=True)
    }
    if not relative.startswith(MAY_IMPORT_TORCH):
        assert "torch" not in names
    if not relative.startswith(("lab/", "estimators/")):
        assert "sklearn" not in names
    assert not names & {"pickle", "shelve", "marshal"}


def test_import_thinned_is_light():
    code = (
        "import sys, thinned; print(*{'torch', 'sklearn', 'matplotlib', 'scipy', 'rich'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == ""


def test_public_names_are_there():
    for name in thinned.__all__:
        assert callable(getattr(thinned, name)), name
        assert getattr(thinned, name).__doc__, name
