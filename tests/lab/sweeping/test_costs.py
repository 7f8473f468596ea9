"""How workers share CPUs, and how long a sweep takes."""

import pytest

from thinned.lab.sweeping.costs import Workers


@pytest.mark.parametrize(
    ("cpus", "workers", "runs", "expected"),
    [
        ([2], 1, 9, (1, 2)),
        ([2], 2, 9, (2, 1)),
        ([8], 3, 9, (3, 2)),
        ([8], 20, 2, (2, 4)),  # more workers than runs
        ([2], 4, 9, (4, 1)),  # more than cores: as asked for
        ([4, 4], 8, 9, (8, 1)),
        ([4, 4], 2, 9, (2, 4)),
        ([4, 4], 1, 9, (1, 4)),  # a run stays on one machine
        ([2, 16], 3, 9, (3, 2)),  # and fits on each
    ],
)
def test_no_cpu_is_used_twice(cpus, workers, runs, expected):
    have = Workers.share(cpus, workers, runs)
    assert (have.count, have.threads) == expected
    assert have.fit * have.threads <= sum(cpus)
    assert have.time([1.0] * runs) == -(-runs // min(have.count, have.fit))


def test_the_time_of_a_sweep_is_that_of_its_last_run():
    have = Workers.share([4], 2, 4)
    assert have.time([3.0, 1.0, 1.0, 1.0]) == 3.0
    assert have.time([1.0, 1.0, 1.0, 3.0]) == 4.0
    assert have.time([]) == 0.0
