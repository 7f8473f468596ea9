"""A callback for the ``Trainer`` of transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from thinned.trainers.steps import Dropping


class DropoutCallback(TrainerCallback):
    """Schedules, keys and thinning for a model of transformers; the arguments are those of `Dropping`.

    ::

        Trainer(model, args, train_dataset=data, callbacks=[DropoutCallback("linear", key=Key(0))])

    The rates are added to each entry of ``state.log_history``, as ``dropout_p``. Many models call dropout
    as a function in their attention: `Dropping.swapped` names what is not swapped; with a key its masks
    follow the key all the same.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.dropping = Dropping(*arguments, **options)
        self.micro = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Swap and thin."""
        self.dropping.begin(more["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The rates and the key of this step; with accumulated gradients, of its first micro-batch."""
        self.micro = 0
        self._step(args, state, more["model"])

    def on_substep_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The key of the next micro-batch."""
        self.micro += 1
        self._step(args, state, more["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """The end of the step's masks."""
        self.dropping.leave()
        self.dropping.check()

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Add the rates to what is logged."""
        if "loss" in (more.get("logs") or {}) and state.log_history:
            state.log_history[-1].update(self.dropping.logged())
            more["logs"].update(self.dropping.logged())

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Give each module its full rate back."""
        self.dropping.end(more["model"])

    def _step(self, args: Any, state: Any, model: Any) -> None:
        offset = (self.micro * args.world_size + args.process_index) * args.train_batch_size
        self.dropping.step(model, state.global_step, max(state.max_steps, 1), offset)
