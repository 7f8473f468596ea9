"""The list of experiments, and dry runs."""

import json

import pytest
from helpers.commands import call

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned.lab import experiments
from thinned.lab.reporting.wording import time_text
from thinned.lab.reproduce.order import Order
from thinned.lab.reproduce.overview import overview_rows
from thinned.lab.sweeping import costs, sweep


def test_the_list_tells_time_and_what_is_done(in_tmp):
    call("reproduce", "linear-theory", "--budget", "smoke")
    found = {e["name"]: e for e in json.loads(call("reproduce", "--list", "--json").stdout)}
    assert list(found) == list(experiments.names())
    assert found["linear-theory"]["done"] == {"smoke": [1, 1], "quick": [], "paper": []}
    assert all(seconds > 0 for e in found.values() for seconds in e["seconds"].values())
    rows = overview_rows([found["linear-theory"] | {"done": {"quick": [1, 3], "paper": []}}])
    assert rows[0][1].endswith("s (1 of 3)")
    assert len(rows[0]) == 4


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_a_dry_run_trains_nothing(in_tmp, workers, monkeypatch):
    monkeypatch.setattr(costs, "_speed", lambda: 1e6)
    monkeypatch.setattr(sweep, "cores", lambda: 2)
    shown = call(
        "reproduce", "mnist-gaussian", "--budget", "smoke", "--seeds", 3, "--dry-run", "--workers", workers
    )
    assert "Gaussian noise" in shown.stdout
    times = [costs.seconds(job, 1) for job in Order("mnist-gaussian", "smoke", (0, 1, 2)).jobs()]
    threads = "2 threads" if workers == 1 else "1 thread"
    time = time_text(
        times[0] * {1: 9, 2: 5, 9: 5}[workers]
    )  # small products take one thread; there are 2 cores
    line = f"about {time} in all by {workers} worker{'s' * (workers > 1)} with {threads} each"
    assert shown.stdout.splitlines()[-1] == f"{line}; nothing was trained"
    assert list(in_tmp.iterdir()) == []
