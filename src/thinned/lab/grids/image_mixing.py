"""Training on mixed images: CutMix, and Attentive CutMix, which first trains an attending network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned import Key, _checks, attentive_cutmix, cutmix
from thinned.key import words
from thinned.lab.grids.residual_net import ImageConfig, ImageNet, ImageTrainer, image_shape
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.run import Run
from thinned.lab.training import fabric, train, trainer

MIXES = ("none", "cutmix", "attentive", "cells")
SECONDS, ERROR = "seconds of training the network that attends", "its test error, %"


@dataclass(frozen=True, kw_only=True)
class MixConfig(ImageConfig):
    """A run on mixed images.

    Args:
        mix: "none", "cutmix", "attentive" (Attentive CutMix), or "cells" (the same with random cells).
        grid, patches: for the last two, the number of pasted cells out of grid × grid.
    """

    mix: str = "none"
    grid: int = 8
    patches: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.one_of("mix", self.mix, MIXES)
        if self.mix in ("attentive", "cells"):
            _checks.positive_int("grid", self.grid)
            _checks.integer("patches", self.patches, 0, self.grid**2 + 1)
        else:  # they have no effect
            object.__setattr__(self, "grid", 0)
            object.__setattr__(self, "patches", 0)


class MixTrainer(ImageTrainer):
    """Trains the residual network on mixed images."""

    config: MixConfig
    attention: np.ndarray | None = None  # (N, grid, grid), for all training images
    attended: Mapping[str, float] = {}  # figures of the attending network

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate number of multiplications; Attentive CutMix trains two networks."""
        networks = 2 if settings.get("mix") == "attentive" else 1
        return networks * ImageTrainer.work(settings, examples, inputs, classes)

    def next_epoch(self, tell: Callable[[float, float], None]) -> dict[str, float] | None:
        """Train one epoch; before the first, train the attending network."""
        if self.config.mix == "attentive" and self.attention is None:
            self._attend(tell)
        return super().next_epoch(tell)

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The number of errors; a mixed image counts as the class with the largest share."""
        return super().wrong(outputs, targets.argmax(axis=1) if targets.ndim == 2 else targets)

    def measure(self) -> dict[str, Any]:
        """The training time and the test error of the attending network."""
        return dict(self.attended)

    def _attend(self, tell: Callable[[float, float], None]) -> None:
        """Train the same network without mixing, as a run inside this one, and keep its attention."""
        c = self.config
        seed = Key(c.seed).fold_in("attend").seed
        config = dataclasses.replace(c, system="attends", mix="none", seed=seed, validation=0.0)
        assert self.folder is not None
        folder = self.folder / "attends"
        stored = train.train(config, self.data, folder, _Passed(tell, self.epoch), trainer=ImageTrainer)
        if stored.status != "done":
            raise RuntimeError(f"the attending network {stored.status} in epoch {stored.result.get('epoch')}")
        attending = ImageTrainer(config, self.data)
        attending.resume(Run(folder, config))
        assert isinstance(attending.net, ImageNet)
        self.attention = looks(attending.net, self.x, c.grid)
        self.attended = {SECONDS: stored.seconds, ERROR: 100 * stored.result["test_error"]}

    def _order(self) -> np.ndarray:
        """The order of the examples in this epoch, kept to find the attention of each batch."""
        self.order = super()._order()
        return self.order

    def _step(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[float, float]:
        """One update on mixed images; a batch of one image is not mixed."""
        if self.config.mix != "none" and len(x) > 1:
            x, y = self._mixed(x, y, step)
        return super()._step(x, y, step)

    def _mixed(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The mixed images (B, features) and their shares of the classes (B, classes)."""
        c, key = self.config, self.mask_key.fold_in(step).fold_in(self.config.mix)
        images, classes = x.reshape(-1, *image_shape(self.data.shape)), len(self.data.classes)
        if c.mix == "cutmix":
            images, shares = cutmix(images, y, key=key, classes=classes)
        else:
            images, shares = attentive_cutmix(
                images, y, self._scores(len(x), step, key), key=key, patches=c.patches, grid=c.grid,
                classes=classes,
            )  # fmt: skip
        return images.reshape(x.shape), shares

    def _scores(self, n: int, step: int, key: Key) -> np.ndarray:
        """Scores (n, grid, grid) that decide which cells are pasted: attention or random numbers."""
        grid = self.config.grid
        if self.attention is None:
            return words(key.fold_in("scores"), n * grid**2).astype(np.float64).reshape(n, grid, grid)
        first = step % self.steps * self.batch
        attention: np.ndarray = self.attention[self.order[first : first + n]]
        return attention


class _Passed(Progress):
    """Reports progress of the attending network as part of the current epoch of the run."""

    def __init__(self, tell: Callable[[float, float], None], epoch: int) -> None:
        self.tell, self.epoch = tell, epoch

    def step(self, done: float, loss: float) -> None:
        self.tell(self.epoch, loss)


def looks(net: ImageNet, x: np.ndarray, grid: int) -> np.ndarray:
    """The attention of a network over each image: (N, features) -> (N, grid, grid)."""
    from thinned.nn import attention_map, last_features

    blocks = (net.on.tensor(net.inputs(x[i : i + trainer.BLOCK])) for i in range(0, len(x), trainer.BLOCK))
    return np.concatenate(
        [fabric.array(attention_map(last_features(net.on.model, block), grid)) for block in blocks]
    )
