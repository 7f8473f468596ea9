"""A run to be trained, and where its like comes from in another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinned.lab.data.dataset import Dataset
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be trained: its configuration, its data, and its trainer."""

    config: Config
    dataset: Dataset
    trainer: type[Trainer] = Trainer


Recipe = Callable[[], Sequence[Job]]
"""Makes the jobs of a sweep again. It can be pickled, and is smaller than the jobs, which hold their data."""
