"""Networks pretrained as a Boltzmann machine without labels, then finetuned by gradient descent."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from thinned import Key, _checks, _files, scratch
from thinned.lab.grids.grid import GridConfig, GridTrainer
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import digest
from thinned.lab.training.trainer import STEP

BATCH = 100  # examples in a batch of pretraining, and persistent chains
ITERATIONS, GIBBS = 5, 1  # joint training: mean-field updates, and steps of the chains
DRAW = 300.0  # multiplications that take about as long as sampling one unit


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(GridConfig):
    """A run whose network is first pretrained as a Boltzmann machine of the same layers.

    Args:
        machine: "dbn", or "dbm", which adds joint training of all layers.
        pretraining, joint: epochs of each restricted machine and of joint training, as shares of `epochs`.
        machine_lr, joint_lr, machine_l2: rates and L2 of pretraining; the rates fall linearly to 0.
    """

    machine: str = "dbn"
    pretraining: float = 0.5
    joint: float = 0.25
    machine_lr: float = 0.05
    joint_lr: float = 0.0005
    machine_l2: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.one_of("machine", self.machine, ("dbn", "dbm"))
        _checks.one_of("activation", self.activation, ("sigmoid",))
        for name in ("pretraining", "joint", "machine_lr", "joint_lr"):
            _checks.positive(name, getattr(self, name))
        _checks.non_negative("machine_l2", self.machine_l2)


class Pretrained(GridTrainer):
    """Pretrains before the first epoch. Runs that differ only in finetuning share the pretrained machine.

    The machine is saved beside the run's folder, in a file named by a hash of its settings. The seconds of
    pretraining count for the first epoch of every run that uses it.
    """

    config: PretrainedConfig

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate number of multiplications of pretraining and finetuning."""
        dense = GridTrainer.work(settings, examples, inputs, classes)
        sizes, epochs = (inputs, *settings["hidden"]), settings["epochs"]
        weights, units, steps = sum(a * b for a, b in pairwise(sizes)), sum(sizes), examples / BATCH
        each = 6 * weights + 2 * DRAW * units  # three passes for the step, two for the gradient, and one more
        total = (each * examples + len(sizes) * STEP * steps) * _epochs(
            settings.get("pretraining", PretrainedConfig.pretraining), epochs
        )
        if settings.get("machine") == "dbm":
            each = (2 * ITERATIONS + 2 * GIBBS + 2) * weights + GIBBS * DRAW * units
            total += (each * examples + len(sizes) * STEP * steps) * _epochs(
                settings.get("joint", PretrainedConfig.joint), epochs
            )
        return dense + total

    def next_epoch(self, tell: Callable[[float, float], None]) -> dict[str, float] | None:
        """Train an epoch of finetuning; before the first, pretrain."""
        if self.epoch == 0:
            machine, seconds = self.pretrained(tell)
            machine.initialise(self.net)
            self.seconds += seconds
        return super().next_epoch(tell)

    def pretrained(self, tell: Callable[[float, float], None]) -> tuple[scratch.DBN | scratch.DBM, float]:
        """The machine and its seconds of training; read from its file, if there is one."""
        c, path = self.config, self._path()
        key = Key(c.seed).fold_in("pretrain")
        how: dict[str, Any] = {"key": key.fold_in("init"), "l2": c.machine_l2, "dtype": c.dtype}
        sizes = (self.x.shape[1], *c.hidden)
        machine = scratch.DBN(sizes, **how) if c.machine == "dbn" else scratch.DBM(sizes, **how)
        if path and path.exists():
            with contextlib.suppress(ValueError, KeyError):  # damaged: train again
                found = _files.load_npz(path)
                read = [(param, found[name].reshape(param.shape)) for name, param in machine.named_arrays()]
                seconds = float(found["seconds"])
                for param, array in read:
                    param[...] = array
                return machine, seconds
        started = time.perf_counter()
        self._train(machine, key, lambda epoch, error: tell(0.0, error))
        seconds = time.perf_counter() - started
        if path:
            _files.save_npz(path, {**dict(machine.named_arrays()), "seconds": np.array(seconds)})
        return machine, seconds

    def _train(
        self, machine: scratch.DBN | scratch.DBM, key: Key, tell: Callable[[int, float], None]
    ) -> None:
        """Train the machine layer by layer; a DBM then as a whole."""
        c = self.config
        x: Any = self.x
        if c.engine == "torch":
            import torch

            x = torch.from_numpy(self.x)
        how: dict[str, Any] = {"batch": BATCH, "tell": tell}
        greedy = {"epochs": _epochs(c.pretraining, c.epochs), "lr": c.machine_lr, **how}
        if isinstance(machine, scratch.DBN):
            machine.fit(x, key=key, **greedy)
            return
        machine.pretrain(x, key=key, **greedy)
        joint = {"epochs": _epochs(c.joint, c.epochs), "lr": c.joint_lr, "k": GIBBS, **how}
        machine.iterations = ITERATIONS
        machine.fit(x, key=key.fold_in("joint"), **joint)

    def _path(self) -> Folder | None:
        """The file of the machine, beside the runs; None if the run has no folder."""
        if self.folder is None:
            return None
        c = self.config
        names = ("machine", "hidden", "pretraining", "joint", "machine_lr", "joint_lr", "machine_l2")
        decides = {
            name: getattr(c, name) for name in (*names, "epochs", "seed", "engine", "dtype", "version")
        }
        text = json.dumps({**decides, "data": self.data.fingerprint}, sort_keys=True)
        return self.folder.parent / f"{c.machine}-seed{c.seed}-{digest(text)}.npz"


def _epochs(share: float, epochs: int) -> int:
    """This share of the epochs, at least one."""
    return max(1, math.floor(share * epochs + 0.5))
