"""Runs that tests of several rooms read."""

import dataclasses

import pytest
from helpers.comparison import BASE, DATA

from thinned.lab import compare
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.job import Job


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two methods, two seeds, one of them diverged."""
    out = tmp_path_factory.mktemp("made")
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    wild = dataclasses.replace(BASE, seed=2, lr=1e30, schedule="constant")
    return out, sweep.run([*todo, Job(wild, DATA)], out)
