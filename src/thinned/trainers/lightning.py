"""A callback for Lightning's ``Trainer``."""

from __future__ import annotations

import sys
from typing import Any

if "lightning.pytorch" in sys.modules:  # the caller's Lightning: the two packages do not mix
    from lightning.pytorch import Callback  # type: ignore[import-not-found, unused-ignore]
else:
    from pytorch_lightning import Callback  # type: ignore[assignment, unused-ignore]

from thinned.trainers.steps import Dropping


class DropoutCallback(Callback):
    """Schedules, keys and thinning for a ``LightningModule``; the arguments are those of `Dropping`.

    ::

        trainer = Trainer(callbacks=[DropoutCallback("early", key=Key(0), until=0.2)])

    Rates are logged in each step as ``dropout_p``, with the module's ``log_dict``: every logger gets them.
    Import ``lightning.pytorch`` before this module if you use that package and not ``pytorch_lightning``.

    ``training_step`` is not the model's ``forward``: for ``thin`` name the part that it calls.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.dropping = Dropping(*arguments, **options)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Swap and thin, before the optimizer is made."""
        if stage == "fit":
            self.dropping.begin(pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The rates and the key of this step."""
        micro = batch_idx % trainer.accumulate_grad_batches
        offset = (micro * trainer.world_size + trainer.global_rank) * samples(batch)
        steps = max(int(trainer.estimated_stepping_batches), 1)
        self.dropping.step(pl_module, trainer.global_step, steps, offset)
        pl_module.log_dict(self.dropping.logged())

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The end of the step's masks."""
        self.dropping.leave()
        self.dropping.check()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The end of the step's masks, after an error as well."""
        self.dropping.leave()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Give each module its full rate back."""
        self.dropping.end(pl_module)


def samples(batch: Any) -> int:
    """The number of samples in a batch: the length of its first array. Raises TypeError if it has none."""
    if hasattr(batch, "shape"):
        return len(batch)
    parts = batch.values() if hasattr(batch, "values") else batch if isinstance(batch, (tuple, list)) else ()
    for part in parts:
        return samples(part)
    raise TypeError(f"batch must hold a tensor, got {type(batch).__name__}")
