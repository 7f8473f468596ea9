"""How cases are measured: contestants in turn, ratios, goals. No timings."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

import torch

from thinned import kernels
from thinned.lab.bench.harness import measure, show
from thinned.lab.bench.harness.measure import Case, Effort, Spread, contest
from thinned.lab.errors import LabError

TINY = Effort(seconds=0.0, rounds=3, few=1, patience=10.0)


def case(goals, **others):
    """A case of bytes, whose figures are known."""
    works = {label: lambda value=value: value for label, value in {"ours": 10.0, **others}.items()}
    return Case("sizes", "a row", "ours", works, goals, unit="B")


def test_contestants_take_turns_on_the_threads_of_the_case():
    calls, threads = [], []
    works = {label: lambda label=label: calls.append(label) for label in "abc"}
    works["threads"] = lambda: threads.append((torch.get_num_threads(), kernels.threads()))
    before = torch.get_num_threads()
    result = contest(Case("turns", "", "a", works, threads=3), TINY)
    assert set(threads) == {(3, 3)}
    assert torch.get_num_threads() == before
    assert {"a", "b", "c"} <= set(calls)
    assert set(result.ratios) == {"b", "c", "threads"}


def test_what_runs_before_each_call_is_not_timed(monkeypatch):
    order, clock = [], [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def work(label, seconds):
        order.append(label)
        clock[0] += seconds

    works = {"ours": lambda: work("ours", 0.25), "other": lambda: work("other", 0.5)}
    result = contest(Case("written", "", "ours", works, before=lambda: work("write", 4.0)), TINY)
    assert order[::2] == ["write"] * (len(order) // 2)
    assert set(order[1::2]) == {"ours", "other"}
    assert {label: spread.median for label, spread in result.figures.items()} == {"ours": 0.25, "other": 0.5}


def test_goals_are_judged_by_the_ratio():
    result = contest(case({"half": 2.0, "more": 0.4}, half=5.0, more=20.0, none=0.0))
    assert result.ratios["half"] == Spread(2.0, 2.0, 2.0)
    assert result.ratios["none"].median == float("inf")
    assert result.met("half")
    assert not result.met("more")
    assert show.verdict(result, "half") == "half ≤ 2: met"
    assert show.verdict(result, "more") == "more ≤ 1/2.50: missed"
    with pytest.raises(LabError, match="must return a number, got str"):
        contest(case({}, wrong="x"))


def test_the_quartiles_of_two_are_between_them():
    assert Spread.of([1.0, 9.0]) == Spread(5.0, 3.0, 7.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("few", "least"), [(None, 5), (2, 2)])
def test_a_case_of_long_works_says_how_many_rounds(monkeypatch, few, least):
    monkeypatch.setattr(measure, "LONG", 0.0)  # all works are long
    calls = []
    works = {"ours": lambda: calls.append(1), "other": lambda: None}
    contest(Case("long", "", "ours", works, few=few), Effort(seconds=1e9, rounds=1, few=5, patience=-1.0))
    assert len(calls) == 1 + least, "one to warm up"
