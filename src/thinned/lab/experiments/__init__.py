"""Experiments, one file each: settings, what is trained, and the source's own figures.

A new experiment is one new file here: `my_experiment.py` defines `EXPERIMENT`, whose name is `my-experiment`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil

from thinned.lab.errors import CallError
from thinned.lab.grids.experiment import Experiment


@functools.cache
def names() -> tuple[str, ...]:
    """The names of all experiments, in the order of their places."""
    return tuple(sorted(_files(), key=lambda name: (load(name).place, name)))


def load(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        CallError: there is none; the message suggests the nearest name.
    """
    if name not in _files():
        near = difflib.get_close_matches(name, _files(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise CallError(f"experiment must be one of {', '.join(names())}, got {name!r}{hint}")
    experiment: Experiment = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").EXPERIMENT
    return experiment


def _files() -> list[str]:
    """The experiments' names as their files say them."""
    return [file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__)]
