"""Rates over steps and over depth are the papers' formulas, stay rates, and check what they are given."""

from __future__ import annotations

import doctest
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import schedules
from thinned.schedules import SCHEDULES, constant, curriculum, depth_linear, early, late, linear

U = 2.0**-53
RATES = st.floats(0, 1)
ALL = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


def close(came: float, expected: float, roundings: int = 8) -> bool:
    return abs(came - expected) <= roundings * U * max(abs(came), abs(expected), 1.0)


@ALL
@given(p=RATES, step=st.integers(0, 10**9), steps=st.integers(1, 10**9))
def test_every_schedule_gives_rates(schedule: Callable[..., float], p: float, step: int, steps: int) -> None:
    rate = schedule(p, step, steps)
    assert 0.0 <= rate <= max(p, 0.0)
    assert schedule(p, step, steps) == rate  # no state
    assert schedule(p, steps + step, steps) == schedule(p, steps, steps)  # beyond the end: the last rate
    assert schedule(0.0, step, steps) == 0.0


@given(p=RATES, start=RATES, step=st.integers(0, 1000), steps=st.integers(1, 1000))
def test_linear(p: float, start: float, step: int, steps: int) -> None:
    rate = linear(p, step, steps, start=start)
    assert close(rate, start + (p - start) * min(step / steps, 1.0))
    assert 0.0 <= rate <= 1.0
    assert (linear(p, 0, steps, start=start), linear(p, steps, steps, start=start)) == (start, p)


def test_drop_blocks_keep_falls_from_1_to_its_end() -> None:
    keep = [1 - linear(0.1, step, 1000) for step in range(1001)]
    assert (keep[0], keep[1000]) == (1.0, 0.9)
    assert all(close(keep[step], 1 - 0.1 * step / 1000) for step in range(1001))


@given(p=RATES, until=RATES, step=st.integers(0, 1000), steps=st.integers(1, 1000))
def test_early_and_late_are_complements(p: float, until: float, step: int, steps: int) -> None:
    first, last = early(p, step, steps, until=until, decay="constant"), late(p, step, steps, since=until)
    assert first + last == p
    assert (last == p) == (min(step, steps) >= round(until * steps) or p == 0)


def test_early_falls_to_0_in_its_part() -> None:
    assert [early(0.5, step, 20, until=0.2) for step in range(6)] == [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    constants = [early(0.5, step, 20, until=0.2, decay="constant") for step in range(6)]
    assert constants == [0.5] * 4 + [0.0] * 2
    assert 0.07 * 100 > 7  # a part is a whole number of steps: not step 7 as well
    assert early(0.5, 6, 100, until=0.07, decay="constant") == 0.5
    assert early(0.5, 7, 100, until=0.07, decay="constant") == 0.0
    assert early(0.5, 0, 30, until=0.0) == 0.0
    assert early(0.5, 29, 30, until=1.0, decay="constant") == 0.5


def test_late_starts_in_the_middle() -> None:
    assert [late(0.5, step, 4) for step in range(5)] == [0.0, 0.0, 0.5, 0.5, 0.5]
    assert late(0.5, 0, 4, since=0.0) == 0.5


@given(p=RATES, gamma=st.floats(1e-6, 10.0), step=st.integers(0, 1000))
def test_curriculum(p: float, gamma: float, step: int) -> None:
    keep = (1 - (1 - p)) * math.exp(-gamma * step) + (1 - p)  # the paper's θ(t), its final value 1 − p
    assert close(1 - curriculum(p, step, 1000, gamma=gamma), keep, 16)
    # the paper's choice of γ: 10/T
    assert curriculum(p, step, 1000) == curriculum(p, step, 1000, gamma=0.01)


@given(p=RATES, layers=st.integers(1, 300))
def test_depth_linear(p: float, layers: int) -> None:
    rates = depth_linear(p, layers)
    assert len(rates) == layers
    assert rates[-1] == p
    assert list(rates) == sorted(rates)
    for layer, rate in enumerate(rates, 1):
        assert close(1 - rate, 1 - layer / layers * (1 - (1 - p)))


def test_the_papers_network_of_stochastic_depth() -> None:
    """54 blocks, p_L = 0.5: about 40 of them run in expectation (Huang et al. 2016, section 3)."""
    assert close(sum(1 - rate for rate in depth_linear(0.5, 54)), 54 - 0.5 * 55 / 2, 54 * 8)


@ALL
@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((50, 0, 10), ValueError, r"p must be in \[0, 1\], got 50"),
        ((math.nan, 0, 10), ValueError, "p must be a number, got nan"),
        (("half", 0, 10), TypeError, "p must be a number"),
        ((0.5, -1, 10), ValueError, "step must be at least 0, got -1"),
        ((0.5, 0.5, 10), TypeError, "step must be an integer"),
        ((0.5, True, 10), TypeError, "step must be an integer"),
        ((0.5, 0, 0), ValueError, "steps must be at least 1, got 0"),
        ((0.5, 0, None), TypeError, "steps must be an integer"),
    ],
)
def test_bad_arguments(
    schedule: Callable[..., float], args: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        schedule(*args)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linear(0.5, 0, 10, start=2), ValueError, r"start must be in \[0, 1\]"),
        (lambda: early(0.5, 0, 10, until=2), ValueError, r"until must be in \[0, 1\]"),
        (lambda: early(0.5, 9, 10, decay="cosine"), ValueError, "decay must be one of 'linear', 'constant'"),
        (lambda: late(0.5, 0, 10, since=-1), ValueError, r"since must be in \[0, 1\]"),
        (lambda: curriculum(0.5, 0, 10, gamma=0), ValueError, "gamma must be finite and greater than 0"),
        (lambda: depth_linear(2, 10), ValueError, r"p must be in \[0, 1\]"),
        (lambda: depth_linear(0.5, 0), ValueError, "layers must be at least 1"),
    ],
)
def test_bad_options(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_table_is_whole() -> None:
    assert list(SCHEDULES) == ["constant", "linear", "early", "late", "curriculum"]
    assert SCHEDULES["constant"] is constant
    for schedule in SCHEDULES.values():
        assert list(inspect.signature(schedule).parameters)[:3] == ["p", "step", "steps"]
        assert "arXiv" in (schedule.__doc__ or "") or schedule is constant
    assert set(schedules.__all__) == {*SCHEDULES, "SCHEDULES", "depth_linear"}


def test_the_examples_run(torch: Any) -> None:
    """Those of the docstring, which set the rates of a torch model."""
    result = doctest.testmod(schedules)
    assert result.attempted > 0
    assert result.failed == 0
