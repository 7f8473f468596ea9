"""Comparisons: which methods apply, and the jobs that they give."""

import pytest
from helpers.comparison import BASE, DATA

from thinned.lab import choices, compare
from thinned.lab.errors import LabError


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(LabError, match=r"'dropuot' \(did you mean dropout\?\)"):
        compare.known_methods(["none", "dropuot"])
    with pytest.raises(LabError, match="none, dropout"):
        compare.known_methods(["zzzzzz"])
    with pytest.raises(LabError, match="at least one"):
        compare.known_methods([])


def test_all_are_the_methods_that_fit():
    assert compare.known_methods(["all"]) == choices.applicable()
    assert compare.known_methods(["none", "none", "dropout"]) == ["none", "dropout"]


def test_a_method_that_does_not_fit_says_why():
    with pytest.raises(LabError, match=r"got spatial: it works on \(N, C, \*spatial\)"):
        compare.known_methods(["spatial"])
    with pytest.raises(LabError, match="got alpha: it needs SELU units"):
        compare.known_methods(["alpha"])


def test_jobs_go_seed_after_seed():
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    assert [(job.config.seed, job.config.method) for job in todo] == [
        (0, "none"), (0, "dropout"), (1, "none"), (1, "dropout"),
    ]  # fmt: skip
    assert todo[1].config == BASE
    assert todo[0].config.p == 0.0
