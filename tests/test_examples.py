"""The examples run, and write the pages that are in docs/."""

import re

import numpy as np
import pytest
from helpers.examples import ROOT, load

import thinned
from thinned.methods import METHODS

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def draw_methods():
    return load("draw_methods")


@pytest.fixture(scope="module")
def drawn(draw_methods, tmp_path_factory):
    """A docs folder with the page and small pictures."""
    docs = tmp_path_factory.mktemp("drawn") / "docs"
    draw_methods.main([str(docs / "images" / "methods"), "--scale", "0.5"])
    return docs


def test_each_method_has_its_picture(drawn):
    files = sorted(file.name for file in (drawn / "images" / "methods").iterdir())
    assert files == sorted(f"{name}.png" for name in METHODS)
    assert all((drawn / "images" / "methods" / file).read_bytes()[:4] == b"\x89PNG" for file in files)


def test_the_committed_page_is_what_the_script_writes(drawn):
    committed = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert committed == (drawn / "methods.md").read_text(encoding="utf-8"), (
        "run: python examples/draw_methods.py docs/images/methods"
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
def test_the_page_has_a_section_for_each_method(drawn, method):
    section = (drawn / "methods.md").read_text(encoding="utf-8").partition(f"\n## {method.title}\n")[2]
    section = section.partition("\n## ")[0]
    assert f"thinned.{method.function.__name__}(" in section
    assert f'src="images/methods/{method.name}.png"' in section
    assert re.search(r'alt="[^"]{40,}"', section), "each picture needs a text that says what it shows"
    assert "](https://" in section.partition("Source: ")[2]
    picture = ROOT / "docs" / "images" / "methods" / f"{method.name}.png"
    assert picture.stat().st_size < 60_000


def test_each_call_on_the_page_runs(drawn):
    calls = re.findall(
        r"```python\n(.*?)\n```", (drawn / "methods.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(calls) == len(METHODS)
    images = np.ones((4, 3, 8, 8))
    given = {"images": images, "labels": np.eye(4), "attention": np.ones((4, 7, 7)), "size": 3}
    for call in calls:
        x = np.ones((4, 5)) if "weight" in call else images
        exec(call, {"thinned": thinned, "key": thinned.Key(0), "x": x, "weight": np.ones((2, 5)), **given})


def test_pictures_are_the_same_each_time(draw_methods, drawn, tmp_path):
    again = tmp_path / "again.png"
    draw_methods.DRAWINGS["gaussian"].draw(0.5).save(again)
    assert again.read_bytes() == (drawn / "images" / "methods" / "gaussian.png").read_bytes()


def test_a_row_that_needs_a_drawing_is_named(draw_methods):
    with pytest.raises(SystemExit, match=r"new has no drawing: add a function under @drawing\('new'\)"):
        draw_methods.check({**METHODS, "new": METHODS["drop-connect"]})
    draw_methods.check({**METHODS, "new": METHODS["dropout"]})
    with pytest.raises(SystemExit, match="cutout is drawn, but no row"):
        draw_methods.check({name: row for name, row in METHODS.items() if name != "cutout"})


@pytest.mark.parametrize(
    "name", [name for name, row in METHODS.items() if row.unit not in ("weight", "region")]
)
def test_the_plain_drawing_fits_each_unit(name, draw_methods, tmp_path):
    drawing = draw_methods.plain(METHODS[name])
    drawing.draw(0.5).save(tmp_path / "plain.png")
    assert (tmp_path / "plain.png").stat().st_size < 60_000
    assert METHODS[name].title in drawing.alt


def test_digits_are_turned_about_their_middle():
    turned = load("draw_predictions").turned
    images = np.zeros((2, 28, 28), np.float32)
    images[:, 6:22, 6:22] = np.random.default_rng(0).random((2, 16, 16))
    rows = images.reshape(2, -1)
    assert np.allclose(turned(rows, 0.0), rows, atol=1e-5)
    quarter = turned(rows, 90.0).reshape(2, 28, 28)
    assert any(np.allclose(quarter, np.rot90(images, k, (1, 2)), atol=1e-4) for k in (1, 3))
    assert np.allclose(turned(turned(rows, 90.0), -90.0), rows, atol=1e-4)


def test_the_pictures_of_predictions_are_drawn(tmp_path, monkeypatch):
    example = load("draw_predictions")
    monkeypatch.setattr(example, "HIDDEN", 8)
    rng = np.random.default_rng(0)

    def digits(name, limit=None):
        from thinned.lab.data.dataset import Dataset

        shape = (28, 28) if name == "mnist" else (32, 32, 3)
        x, y = rng.random((60, np.prod(shape)), dtype=np.float32), rng.permutation(np.arange(60) % 10)
        return Dataset(name, x[:40], y[:40], x[20:], y[20:], tuple("0123456789"), shape, "")

    monkeypatch.setattr(example, "load", digits)
    monkeypatch.setattr(example, "strange", lambda count: rng.random((20, 784), dtype=np.float32))
    example.main([str(tmp_path), "--epochs", "1"])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "rejection.png",
        "strange.png",
        "turned.png",
    ]


@pytest.fixture(scope="module")
def same_masks():
    from torch import distributed

    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    return load("same_masks")


SAME = ["one process, once more", "gradient accumulation, 8 parts", "activation checkpointing"]


def is_rounding(example, runs, base):
    """No mask bit differs; the losses differ by rounding, which 4 steps of 8·16 rows add up."""
    for name, by in runs.items():
        masks, loss = example.differences(by["thinned"], base["thinned"])
        assert masks == 0, name
        assert loss <= example.STEPS * example.BATCH * example.LENGTH * np.finfo(float).eps * 4, (name, loss)
        assert by["torch"].losses.shape == base["torch"].losses.shape


def bases(example):
    return {library: example.train(library, example.network(library)) for library in example.LIBRARIES}


def test_masks_are_the_same_in_one_process(same_masks):
    runs = {
        name: {library: same_masks.ALONE[name](library) for library in same_masks.LIBRARIES} for name in SAME
    }
    is_rounding(same_masks, runs, bases(same_masks))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_masks_are_the_same_compiled_with_a_memory_budget(same_masks):
    found = same_masks.compiled("thinned", budget=0.5)
    base = bases(same_masks)
    is_rounding(same_masks, {"compiled": {"thinned": found, "torch": base["torch"]}}, base)


def test_masks_are_the_same_in_two_processes(same_masks):
    """DDP, FSDP2, tensor and sequence parallel."""
    runs = same_masks.spread(2)
    assert len(runs) == 4
    is_rounding(same_masks, runs, bases(same_masks))


def test_the_page_has_a_row_for_each_way():
    page = (ROOT / "docs" / "same-masks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (\S+) \| (\S+) \| .* \|$", page, re.MULTILINE)
    shown = [row for row in rows if row[0] not in ("training", "---")]
    assert len(shown) == 16
    assert all(masks == "0" and float(loss) < 1e-12 for _, masks, loss in shown)


def test_torchs_keys():
    """The lines on the page about torch's own keys."""
    torch = pytest.importorskip("torch")
    random = pytest.importorskip("torch.func._random")
    for seed in (0, 42, 2**63 + 5, 2**64 - 1):
        theirs = random.key(thinned.Key(seed).seed)
        assert theirs.dtype == torch.uint64
        assert thinned.Key(theirs[0].item()) == thinned.Key(seed)
        assert theirs[1].item() == 0
