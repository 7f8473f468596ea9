"""What a user sees of training: lines, or bars."""

import io
import math
import time
from types import SimpleNamespace

import pytest
from helpers.comparison import BASE, DATA

from thinned.lab import compare
from thinned.lab.reporting.progress_bars import Bars, Lines
from thinned.lab.sweeping import sweep


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_progress_tells_every_run(tmp_path, kind):
    from rich.console import Console

    console = Console(record=True, force_terminal=kind is Bars, width=200, file=io.StringIO())
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    with kind(console) as progress:
        sweep.run(todo, tmp_path, progress)
    shown = console.export_text()
    assert "[4/4] dropout-seed1-" in shown
    assert "test error" in shown


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_a_run_that_begins_again_is_counted_once(made, monkeypatch, kind):
    from rich.console import Console

    run, clock = made[1][0], [0.0]
    monkeypatch.setattr(
        "thinned.lab.reporting.progress_bars.time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    progress = kind(Console(record=True, force_terminal=kind is Bars, width=200, file=io.StringIO()))
    name, other = run.folder.name, made[1][1].folder.name
    progress.plan(2, 4, {name: 2.0, other: 2.0})
    progress.step_of(name, 1, 0.5)  # of a run that is not known to have begun
    assert progress.left() == math.inf
    progress.begin(name, 2, 0)
    progress.begin(other, 2, 0)
    clock[0] = 10.0
    progress.step_of(name, 1, 0.5)
    assert progress.left() == 30.0  # an epoch of four took ten seconds
    progress.begin(name, 2, 1)  # its worker died after a checkpoint
    progress.step_of(name, 1.5, 0.5)
    clock[0] = 20.0
    progress.step_of(other, 1, 0.5)
    assert progress.left() == pytest.approx(20 / 1.5 * 1.5)
    progress.end(run)
    assert progress.left() == pytest.approx(20 / 2 * 1)
    if kind is Bars:
        assert len(progress.bars.tasks) == 2  # all runs, and the other


def test_a_run_that_goes_on_is_said_now_and_then(monkeypatch):
    from rich.console import Console

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(console)
    lines.plan(2, 20, {"a": 10.0, "b": 10.0})
    lines.begin("a", 10, 0)
    for second in range(100):
        clock[0] = float(second)
        lines.step(second / 10, 0.5)
    printed = console.file.getvalue().splitlines()
    assert len(printed) == 3
    assert printed[0] == "[0/2] a: epoch 3 of 10, loss 0.5; about 3 min left"


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_a_time_that_is_given_is_shown(monkeypatch, kind):
    from rich.console import Console

    clock = [0.0]
    monkeypatch.setattr(
        "thinned.lab.reporting.progress_bars.time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    console = Console(record=True, force_terminal=kind is Bars, width=200, file=io.StringIO())
    progress = kind(console)
    for passed in (0.0, 10.0, 40.0):
        clock[0] = passed
        progress.spend("tuning none, 3 trials", 100.0 - passed)
    if kind is Bars:
        (task,) = progress.bars.tasks
        assert (task.description, task.total, task.completed) == ("tuning none, 3 trials", 100.0, 40.0)
    else:
        assert console.export_text() == "thinned: tuning none, 3 trials; 60 s left\n"
