"""A run to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from thinned.lab.data.dataset import Dataset
from thinned.lab.training.config import Config
from thinned.lab.training.train import Trainer


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be trained: its configuration, its data, and who trains it."""

    config: Config
    dataset: Dataset
    trainer: type[Trainer] = Trainer
