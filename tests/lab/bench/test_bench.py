"""The benchmark runs, gives readers and programs the same figures, and counts memory rightly. No timings."""

import json
import mmap
import os
import re
import resource
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

import torch
from torch import nn

from thinned import kernels
from thinned.lab import bench
from thinned.lab.bench import (
    blocks,
    compiled,
    connect,
    elements,
    estimators,
    gpu,
    memory,
    predict,
    residual,
    thin,
)
from thinned.lab.bench.harness import measure, run, show
from thinned.lab.bench.harness.measure import Effort
from thinned.lab.errors import LabError

TINY = Effort(seconds=0.0, rounds=3, few=1, patience=10.0)


@pytest.fixture
def small(monkeypatch):
    """Every benchmark in small, a few rounds."""
    monkeypatch.setattr(run, "FULL", TINY)
    monkeypatch.setattr(measure, "WARM", 1e-9)
    monkeypatch.setattr(elements, "SIZES", {"1K": 1 << 10, "512K": 1 << 12})
    monkeypatch.setattr(elements, "RATES", (0.3, 0.5))
    monkeypatch.setattr(blocks, "MAPS", ((2, 3, 8, 8), (1, 2, 7, 7), (2, 2, 6, 6)))
    monkeypatch.setattr(blocks, "JUDGED", (2, 3, 8, 8))
    monkeypatch.setattr(blocks, "TOKENS", (2, 4, 3))
    monkeypatch.setattr(connect, "BATCHES", (2, 3))
    monkeypatch.setattr(connect, "SIZES", (5, 4))
    monkeypatch.setattr(thin, "SIZES", (5, 4, 3))
    monkeypatch.setattr(thin, "CHANNELS", (2, 3, 3))
    monkeypatch.setattr(thin, "SIDE", 4)
    monkeypatch.setattr(thin, "IMAGES", 2)
    monkeypatch.setattr(thin, "BY_HAND", (((5, 4, 3), 6, 1e-4, None), ((4, 4, 3), 6, 0.0, 3.5)))
    monkeypatch.setattr(thin, "TRAINED", 30)
    monkeypatch.setattr(thin, "TESTED", 10)
    monkeypatch.setattr(compiled, "COMPILER", "aot_eager")
    monkeypatch.setattr(compiled, "WIDTHS", (4, 5))
    monkeypatch.setattr(compiled, "BATCH", 3)
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "COMPILER", "eager")
    monkeypatch.setattr(gpu, "SIZES", {"1M": 1 << 10, "16M": 1 << 11})
    monkeypatch.setattr(gpu, "STEP", (5, 4, 3, 4))
    monkeypatch.setattr(gpu, "BATCH", 6)
    monkeypatch.setattr(predict, "SAMPLES", 3)
    monkeypatch.setattr(predict, "SIZES", (5, 4, 3, 10))
    monkeypatch.setattr(predict, "IMAGES", 4)
    monkeypatch.setattr(predict, "CHANNELS", (2, 3, 3))
    monkeypatch.setattr(predict, "SIDE", 4)
    monkeypatch.setattr(predict, "PHOTOS", 2)
    monkeypatch.setattr(predict, "DATA", ("nothing-here",))
    monkeypatch.setattr(predict, "HIDDEN", (4, 3))
    monkeypatch.setattr(predict, "LIMIT", 20)
    monkeypatch.setattr(predict, "EPOCHS", 2)
    monkeypatch.setattr(predict, "MANY", 4)
    monkeypatch.setattr(predict, "NEAR", 1.0)
    monkeypatch.setattr(estimators, "HIDDEN", {(4, 3): 0.5})
    monkeypatch.setattr(estimators, "EPOCHS", 1)
    monkeypatch.setattr(estimators, "ROWS", 300)
    monkeypatch.setattr(estimators, "FEATURES", 5)
    monkeypatch.setattr(residual, "SHAPES", ((8, 3),))
    monkeypatch.setattr(memory, "peak_of", lambda label, passes: lambda: 1000.0)


@pytest.mark.parametrize("name", bench.NAMES)
def test_every_case_is_measured(small, capsys, name):
    run.run([name], json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["machine"]["torch"] == torch.__version__
    rows = printed["results"]
    assert {r["threads"] for r in rows} == ({1} if name in ("gpu", "memory") else {1, kernels.cores()})
    assert len({(r["group"], r["name"], r["threads"]) for r in rows}) == len(rows)
    for r in rows:
        assert set(r["ratios"]) == set(r["figures"]) - {r["ours"]}
        assert set(r["goals"]) == set(r["met"])
        for spread in [*r["figures"].values(), *r["ratios"].values()]:
            assert 0 <= spread["low"] <= spread["median"] <= spread["high"]
            assert r["unit"] != "s" or spread["low"] > 0


def test_the_goals_name_contestants_that_are_there(small):
    judged = [c for name in bench.NAMES for c in run.benchmark(name).cases(1) if c.goals]
    assert {c.group.split(",")[0] for c in judged} >= {
        "dropout",
        "nn.Dropout",
        "drop_block",
        "drop_connect",
        "kept for the backward pass",
        "peak extra memory",
        "Residual",
        "an epoch of 300 rows",
        "a step of training in torch",
        "a step of training in NumPy",
        "an epoch of 30 rows and its tests in NumPy",
        "3 samples",
        "moments",
        "distance from the mean probabilities of 4 samples: the mean over images and classes",
        "calibration error of 3 samples",
    }
    for c in judged:
        assert set(c.goals) <= {*c.contestants, *blocks.PEERS}, c.group  # a peer may not be installed


def test_a_page_gets_its_sections_and_keeps_the_rest(small, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench:blocks -->\nold\n<!-- /bench:blocks -->\nb\n", encoding="utf-8")
    run.run(["blocks"], markdown=True, write=page)
    text = page.read_text("utf-8")
    assert re.match(r"a\n<!-- bench:blocks -->\n`thinned bench blocks`, \d+ s: processor", text)
    assert text.endswith("|\n<!-- /bench:blocks -->\nb\n")
    assert "old" not in text
    assert capsys.readouterr().out.strip() in text
    with pytest.raises(LabError, match="must hold <!-- bench:memory -->"):
        run.run(["memory"], write=page)
    assert page.read_text("utf-8") == text


def test_a_benchmark_without_cases_leaves_its_section(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "DEVICE", "")
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:gpu -->\nold\n<!-- /bench:gpu -->\n", encoding="utf-8")
    run.run(["gpu"], markdown=True, write=page)
    assert page.read_text("utf-8") == "<!-- bench:gpu -->\nold\n<!-- /bench:gpu -->\n"
    printed = capsys.readouterr()
    assert printed.out == "\n"
    assert "gpu: this machine has nothing to measure by it" in printed.err


def test_sections_are_written_benchmark_by_benchmark(small, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    marks = "<!-- bench:{0} -->\nold {0}\n<!-- /bench:{0} -->\n"
    page.write_text(marks.format("residual") + marks.format("connect"), encoding="utf-8")

    def broken(threads):
        yield from ()
        raise RuntimeError("no memory")

    count = iter(range(2))  # the cases are counted first, on one thread and on all
    whole = connect.cases
    monkeypatch.setattr(connect, "cases", lambda t: whole(t) if next(count, None) is not None else broken(t))
    monkeypatch.setattr(kernels, "cores", lambda: 2)
    with pytest.raises(RuntimeError, match="no memory"):
        run.run(["residual", "connect"], write=page)
    text = page.read_text("utf-8")
    assert "old residual" not in text
    assert "old connect" in text


def test_the_committed_page_has_a_place_for_every_benchmark():
    show.sections_of(Path(__file__).parents[3] / "docs" / "performance.md", bench.NAMES)


def test_unknown_names_are_refused():
    with pytest.raises(LabError, match=r"benchmark must be one of blocks, compiled, connect, .*, got 'cats'"):
        run.run(["elements", "cats"])


class Hoarder(torch.autograd.Function):
    """Keeps tensors where autograd does not see them."""

    @staticmethod
    def forward(ctx, x, where):
        hidden = torch.empty(len(x), dtype=torch.float64)
        if where == "saved":
            ctx.save_for_backward(hidden)
        elif where == "context":
            ctx.hidden = {"list": [hidden, hidden[1:]]}
        elif where == "array":
            ctx.hidden = hidden.numpy()
        elif where == "closure":
            ctx.map = lambda g: g * hidden
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2, None


@pytest.mark.parametrize("where", ["saved", "context", "array", "closure", "nowhere"])
def test_what_is_kept_is_found_wherever_it_hides(where):
    x = torch.randn(1000, requires_grad=True)
    kept = memory.kept_bytes(lambda t: Hoarder.apply(t, where).view(10, 100), x)
    assert kept == (0 if where == "nowhere" else 8000)


def test_kept_bytes_of_known_functions():
    x = torch.randn(1000, requires_grad=True)
    assert memory.kept_bytes(lambda t: t + 1, x) == 0
    assert memory.kept_bytes(lambda t: t.exp(), x) == 0  # keeps its result, which is there anyway
    assert memory.kept_bytes(nn.Dropout(0.5), x) == 4000
    assert memory.kept_bytes(lambda t: t.sin().cos(), x) == 4000  # sin x, for cos


def test_the_peak_of_a_process_is_seen():
    before = memory.begin_peak()
    size = 64 << 20
    with mmap.mmap(-1, size) as block:  # new pages: an allocator could give back old ones
        for _ in range(64):
            block.write(bytes(1 << 20))
    slack = 64 * resource.getpagesize() * (os.cpu_count() or 1)  # pages are counted in batches, by core
    assert size - slack <= memory.peak() - before < 2 * size
