"""Settings of a comparison that follow from its data, where the user gives none."""

from __future__ import annotations

import math
from typing import Any

# Chosen on held-out training data of digits and MNIST.
SMALL = 5_000  # training examples; data sets below get batches of 32 and sgd by default
EPOCHS, STEPS = 20, 2_000  # the default is 20 epochs, and more where they have fewer than 2,000 steps
RATE = 0.1  # of sgd with batches of 128; smaller batches get less, in proportion
IMAGE_INPUT_P = 0.2  # as in the paper

# What the command line says of each.
IN_WORDS = {
    "input_p": f"{IMAGE_INPUT_P:g} for images, as in the paper, else 0",
    "epochs": f"{EPOCHS}, or as many as {STEPS:,} steps take",
    "batch": f"128, below {SMALL:,} examples 32",
    "optimizer": f"adam, below {SMALL:,} examples sgd",
    "lr": f"0.001; for sgd {RATE:g} * batch / 128, at most {RATE:g}",
}


def defaults(
    examples: int, optimizer: str | None, epochs: int | None, batch: int | None, lr: float | None
) -> dict[str, Any]:
    """Optimizer, epochs, batch and rate: as given, else the default for that number of training examples."""
    if optimizer is None:
        optimizer = "sgd" if examples < SMALL else "adam"
    if batch is None:
        batch = 32 if examples < SMALL else 128
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(examples / max(1, batch))))
    if lr is None:
        lr = 0.001 if optimizer == "adam" else RATE * min(max(1, batch), 128) / 128
    return {"optimizer": optimizer, "epochs": epochs, "batch": batch, "lr": lr}


def input_rate(shape: tuple[int, ...], input_p: float | None) -> float:
    """The probability of dropping an input of that shape: as given, else the default."""
    if input_p is None:
        return IMAGE_INPUT_P if len(shape) > 1 else 0.0
    return input_p
