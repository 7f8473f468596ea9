"""Settings of a comparison that follow from its data, where the user gives none."""

from __future__ import annotations

import math
from typing import Any

# Chosen on held-out training data of digits and MNIST. On tables, whose columns have variance 1, dropout with
# sgd at its rate diverges (2 of 8 public tables at 256-256); adam does not.
SMALL = 5_000  # training examples; data sets below get batches of 32, and images sgd
EPOCHS, STEPS = 20, 2_000  # the default is 20 epochs, and more where they have fewer than 2,000 steps
RATE = 0.1  # of sgd with batches of 128; smaller batches get less, in proportion
IMAGE_INPUT_P = 0.2  # as in the paper

# What the command line says of each.
IN_WORDS = {
    "input_p": f"{IMAGE_INPUT_P:g} for images, as in the paper, else 0",
    "epochs": f"{EPOCHS}, or as many as {STEPS:,} steps take",
    "batch": f"128, below {SMALL:,} examples 32",
    "optimizer": f"adam; sgd for fewer than {SMALL:,} images",
    "lr": f"0.001; for sgd {RATE:g} * batch / 128, at most {RATE:g}",
}


def defaults(
    examples: int,
    shape: tuple[int, ...],
    optimizer: str | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
) -> dict[str, Any]:
    """Optimizer, epochs, batch and rate: as given, else the default for so many examples of that shape."""
    if optimizer is None:
        optimizer = "sgd" if examples < SMALL and len(shape) > 1 else "adam"
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
