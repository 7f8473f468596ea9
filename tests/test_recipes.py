"""The recipes of CONTRIBUTING.md are whole: what they say is tried in a copy of the package."""

import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
from helpers import recipes

METHOD = "A new drop method"
TESTS = {  # files that go over all methods, and tests of theirs that a new method must pass
    ("tests/test_laws.py", "tests/test_methods.py"): (
        *(rf"test_law{law}\w*\[(\S+-)?" for law in range(1, 8)),
        *(rf"test_law3\[{backend}-" for backend in ("cpu", "reference", "torch")),
        r"test_law7_gradcheck\[0.3-",
        r"test_a_row_has_its_citation\[",
    ),
    ("tests/nn/test_modules.py", "tests/scratch/test_drops.py"): (
        r"test_every_method_has_its_module\[",
        r"test_keyed_mask_is_the_functions\[",
        r"test_compiled_is_eager_and_compiles_once\[",
        r"test_copies_draw_alike_and_hold_no_state\[",
        r"test_opcheck\[",
        r"test_the_layer_is_the_function\[",
        r"test_backward_is_torchs_gradient_of_the_function\[",
        r"test_backward_is_the_difference_of_two_outputs\[",
    ),
}
TINY = ("--hidden", "8", "--epochs", "2", "--seeds", "1")
USES = """
import pickle, sys
from pathlib import Path
import numpy as np, torch
import thinned, thinned.nn as tnn
from thinned import Key, scratch, uncertainty
from thinned.methods import METHODS

assert Path(thinned.__file__).is_relative_to(Path.cwd() / "src"), thinned.__file__
key, x = Key(0), np.random.default_rng(0).normal(size=(6, 5))

# the torch module and the layer by hand
module, layer = tnn.MaskingNoise(0.3), scratch.MaskingNoise(0.3)
assert repr(pickle.loads(pickle.dumps(module))) == repr(module) == "MaskingNoise(p=0.3)"
assert (tnn.MaskingNoise().p, scratch.MaskingNoise().p) == (0.25, 0.25)
y = layer.forward(x, key)
assert np.array_equal(y, thinned.masking_noise(x, 0.3, key=key))
assert np.array_equal(layer.backward(np.ones_like(x)), y / x)
assert "Masking noise" in module.__doc__ and "Masking noise" in layer.__doc__

# predictions with error bars, and moments: exact behind one linear layer
p, w = 0.3, np.random.default_rng(1).normal(size=(4, 5))
by_hand = scratch.Sequential(layer, scratch.Linear(5, 4, key=key, dtype=np.float64))
by_hand.children["1"].params["weight"][...] = w
by_torch = torch.nn.Sequential(module, torch.nn.Linear(5, 4, dtype=torch.float64))
with torch.no_grad():
    by_torch[1].weight.copy_(torch.from_numpy(w))
    by_torch[1].bias.zero_()
for net in (by_hand, by_torch):
    mean, variance = (1 - p) * x @ w.T, p * (1 - p) * (x**2) @ (w**2).T
    found = uncertainty.moments(net, x, outputs="numbers")
    assert np.allclose(found.mean, mean) and np.allclose(found.std**2, variance)
    S = 4000
    drawn = uncertainty.predict(net, x, S, key=key, outputs="numbers")
    assert np.all(np.abs(drawn.mean - mean) <= 6 * np.sqrt(variance / S))

# the page of methods
sys.path.insert(0, "examples")
import draw_methods

row, page = METHODS["masking-noise"], draw_methods.page("images")
section = page.partition("## Masking noise")[2].partition("## ")[0]
assert "y = thinned.masking_noise(x, p=0.25, key=key)" in section
assert "`thinned.nn.MaskingNoise`, `thinned.scratch.MaskingNoise`" in section
assert "https://jmlr.org/papers/v11/vincent10a.html" in section
draw_methods.check(METHODS)
draw_methods.drawing_of(row).draw(0.5).save(Path("masking-noise.png"))
"""


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    """A copy of the package with the method of the page, and the lines that each file got."""
    root = recipes.copied(tmp_path_factory.mktemp("method"))
    return root, recipes.apply(METHOD, root)


def ruff(root, paths):
    """Lines of the page are formatted as all others."""
    if importlib.util.find_spec("ruff"):
        for command in (["format", "--check"], ["check"]):
            recipes.run(root, "-m", "ruff", *command, *paths)


def test_a_method_is_at_most_25_lines_in_4_files(method):
    root, added = method
    assert len(added) <= 4
    assert sum(len(recipes.code(lines)) for lines in added.values()) <= 25
    ruff(root, added)


@pytest.mark.parametrize(("files", "needed"), TESTS.items(), ids=["laws", "classes"])
def test_the_tests_of_all_methods_hold_for_a_new_one(method, files, needed):
    """On NumPy and torch, for values and gradients, for its module and its layer."""
    pytest.importorskip("torch")
    root, _ = method
    out = recipes.run(root, "-m", "pytest", "-p", "no:cacheprovider", "-vv", "-k", "masking-noise", *files)
    for name in needed:
        assert re.search(rf"{name}masking-noise\] PASSED", out), f"{name} must be among:\n{out}"


def test_a_new_method_has_its_module_layer_predictions_and_page(method):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    root, _ = method
    (root / "uses.py").write_text(USES, encoding="utf-8")
    recipes.run(root, "uses.py")
    assert (root / "masking-noise.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_command_has_a_new_method(method, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    root, _ = method
    listed = json.loads(recipes.run(root, "-m", "thinned", "methods", "--json"))
    assert "masking-noise" in [row["name"] for row in listed]
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    np.savez(root / "tiny.npz", x=x + 3 * y[:, None], y=y)
    data = ("--data", "tiny.npz", "--methods", "none,masking-noise", "--engine", engine, "--out", engine)
    out = recipes.run(root, "-m", "thinned", "compare", *data, *TINY, "--json")
    assert [row["label"] for row in json.loads(out)["rows"]] == ["none", "masking-noise"]


def test_a_new_data_set(tmp_path):
    pytest.importorskip("sklearn")
    root = recipes.copied(tmp_path)
    ruff(root, recipes.apply("A new data set", root))
    out = recipes.run(root, "-m", "pytest", "-vv", "-k", "sizes and wine", "tests/lab/data/test_registry.py")
    assert "test_the_sizes_are_those_of_the_data[wine] PASSED" in out
    out = recipes.run(root, "-m", "thinned", "compare", "--data", "wine", *TINY, "--json")
    assert len(json.loads(out)["rows"]) == 3


def test_a_new_figure(tmp_path):
    pytest.importorskip("sklearn")
    root = recipes.copied(tmp_path)
    ruff(root, recipes.apply("A new figure in the report", root))
    recipes.run(root, "-m", "thinned", "compare", *TINY, "--out", "runs")
    (report,) = (root / "runs").glob("*/report.html")  # in the folder of its question
    assert "The gap over epochs" in report.read_text(encoding="utf-8")


def test_a_new_command(tmp_path):
    root = recipes.copied(tmp_path)
    ruff(root, recipes.apply("A new command", root))
    assert "moments" in recipes.run(root, "-m", "thinned", "--help")
    found = json.loads(recipes.run(root, "-m", "thinned", "moments", "dropout", "--p", "0.2", "--json"))
    assert found == {"mean": 1.0, "variance": pytest.approx(0.25, rel=1e-12)}


def test_a_new_kernel(tmp_path):
    """The lines fit; without a compiler, what NumPy does in their place."""
    root = recipes.copied(tmp_path)
    shutil.rmtree(root / "src")
    shutil.copytree(recipes.ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    ruff(root, [path for path in recipes.apply("A new kernel", root) if path.endswith(".py")])
    count = "import numpy as np; from thinned import kernels; print(kernels.count(np.eye(3) > 0))"
    assert recipes.run(root, "-W", "ignore", "-c", count) == "3\n"


def test_the_recipes_are_those_that_are_tried():
    page = (recipes.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    with_diffs = {s.partition("\n")[0] for s in page.split("\n## ") if "```diff" in s}
    assert with_diffs == {
        METHOD,
        "A new activation",  # test_activations.py
        "A new data set",
        "A new figure in the report",
        "A new command",
        "A new kernel",
    }


def test_a_recipe_that_does_not_fit_is_refused(tmp_path):
    root = recipes.copied(tmp_path)
    (root / "src/thinned/functional.py").write_text("# nothing\n")
    with pytest.raises(AssertionError, match=r"functional.py: CONTRIBUTING.md expects there, once"):
        recipes.apply(METHOD, root)


def test_lines_are_counted_without_docstrings():
    lines = ["", "a = 1", '    """One."""', '"""Two', "", 'lines."""', "b = 2"]
    assert recipes.code(lines) == ["a = 1", "b = 2"]
