"""The layout: imports go down without circles, light imports stay light, tests mirror the folders."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import thinned

ROOT, TESTS = Path(thinned.__file__).parent, Path(__file__).parent
# A module may import from its own room and from the floors below.
FLOORS = [
    {"_checks", "_array", "_files", "theory", "activations"},
    {"key", "schedules"},
    {"kernels"},
    {"masks"},
    {"_method", "_plans"},
    {"functional", "augment"},
    {"methods"},
    {"nn", "scratch"},
    {"uncertainty"},
    {"estimators", "trainers"},
    {"lab"},
    {"cli"},
    {"__main__"},
]
MAY_IMPORT_TORCH = (
    "nn/",
    "trainers/",
    "kernels/gpu.py",
    "kernels/autograd.py",
    "uncertainty/torch_graph.py",
    "uncertainty/torch_callers.py",
    "uncertainty/torch_chains.py",
    "uncertainty/torch_inputs.py",
    "uncertainty/sample_torch.py",
    "uncertainty/moments_torch.py",
    "lab/",
)
ALL = sorted(ROOT.rglob("*.py"))
SOURCES = [path for path in ALL if path != ROOT / "__init__.py"]
TEST_ROOMS = {"battery", "helpers", "peers"}  # folders of tests that mirror no folder of the library


def module(path: Path) -> str:
    """The name by which a file is imported."""
    name = ".".join(("thinned", *path.relative_to(ROOT).with_suffix("").parts))
    return name.removesuffix(".__init__")


FILES = {module(path): path for path in [*ALL, *ROOT.rglob("*.pyi")]}


def floor(room: str) -> int:
    for i, rooms in enumerate(FLOORS):
        if room in rooms:
            return i
    raise AssertionError(f"FLOORS of this test must have thinned.{room}")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, top_only: bool) -> set[str]:
    """The names that a file imports; ``top_only`` leaves out those inside functions and conditions."""
    found: set[str] = set()
    for node in tree.body if top_only and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports must be absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_files(path: Path) -> set[str]:
    """The files of this library that a file imports anywhere, by module name.

    ``from a.b import c`` is the file of ``a.b.c`` if there is one, otherwise that of ``a.b``. A package's
    ``__init__.py`` counts if something is imported from the package itself.
    """
    names = imports(parse(path), top_only=False)
    return {name if name in FILES else name.rpartition(".")[0] for name in names} & FILES.keys()


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Import circles, as many as show that there are any: each with its files in order."""
    graph, found = {name: {*others} for name, others in graph.items()}, []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return found
        except CycleError as error:
            circle = error.args[1][::-1]  # each imports the next
            found.append(" → ".join(circle))
            graph[circle[0]].discard(circle[1])


def test_no_file_imports_itself_through_others():
    found = circles({name: imported_files(path) for name, path in FILES.items()})
    assert not found, "import circles:\n" + "\n".join(found)


def test_no_room_of_the_lab_imports_itself_through_others():
    """A room is a folder of `lab`, or a file beside the folders."""
    rooms: dict[str, set[str]] = {}
    for name, path in FILES.items():
        if name.startswith("thinned.lab."):
            room = name.split(".")[2]
            others = {
                other.split(".")[2] for other in imported_files(path) if other.startswith("thinned.lab.")
            }
            rooms[room] = rooms.get(room, set()) | (others - {room})
    found = circles(rooms)
    assert not found, "import circles:\n" + "\n".join(found)


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert len(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"d"}})) == 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    room = module(path).split(".")[1]
    for name in imports(parse(path), top_only=False):
        if name.startswith("thinned."):
            other = name.split(".")[1]
            if other not in {room, "__version__", *thinned.__all__}:
                assert floor(other) < floor(room), f"{path.name} imports thinned.{other}, which is not below"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_is_imported_only_where_it_may_be(path):
    relative = path.relative_to(ROOT).as_posix()
    names = {name.split(".")[0] for name in imports(parse(path), top_only=True)}
    if not relative.startswith(MAY_IMPORT_TORCH):
        assert "torch" not in names
    if not relative.startswith(("lab/", "estimators/")):
        assert "sklearn" not in names
    assert not names & {"pickle", "shelve", "marshal"}


@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_file_says_what_it_has(path):
    said = (ast.get_docstring(parse(path)) or "").split("\n")[0]
    assert said.endswith((".", ":")), "the first line must be a sentence"
    assert len(said.split()) >= 3, f"{said!r} says too little"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.[ch]pp")), ids=lambda p: p.name)
def test_each_kernel_says_what_it_does(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if line and not line.startswith("#pragma once"))
    assert first.startswith("// "), f"{first!r} must be a comment that says what the file has"


def test_tests_mirror_folders():
    """A folder a/b of the library has the tests a/b/test_*.py or a/test_b.py, and no others have folders."""
    rooms = {path.parent.relative_to(ROOT) for path in SOURCES}
    untested = [
        room.as_posix()
        for room in sorted(rooms)
        if not any((TESTS / room).glob("test_*.py"))
        and not (TESTS / room.parent / f"test_{room.name}.py").exists()
    ]
    assert not untested, f"folders without tests of their name: {untested}"
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    strangers = {f.as_posix() for f in folders if f.parts[:1] not in {(name,) for name in TEST_ROOMS}}
    strangers -= {room.as_posix() for room in rooms}
    assert not strangers, f"folders of tests without a folder of the library: {sorted(strangers)}"


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
