"""The learning rate over training: the schedules by name, and the rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.03  # share of the training in which the "linear" rate rises


def constant(done: float) -> float:
    """The full rate throughout."""
    return 1.0


def linear(done: float) -> float:
    """It rises over the first 3 % of the training, then falls to 0 in a straight line."""
    return min(done / WARM_UP, (1.0 - done) / (1.0 - WARM_UP))


def cycle(done: float) -> float:
    """It rises over the first 30 % of the training, then falls to 0, both as a cosine.

    Large rates need the long rise where a whole batch shares a mask. Smith and Topin 2018,
    arXiv:1708.07120.
    """
    turned = done / 0.3 if done < 0.3 else (1.0 - done) / 0.7
    return 0.5 - 0.5 * math.cos(math.pi * turned)


def halve(done: float) -> float:
    """Halved after 1/6, 2/6, 3/6 and 4/6 of the training: after epochs 50, 100, 150 and 200 of 300."""
    return 0.5 ** min(4, math.floor(6.0 * done))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear": linear,
    "cycle": cycle,
    "halve": halve,
}


def rate(step: int, steps: int, *, lr: float, schedule: str, decay: float) -> float:
    """The learning rate of step 0 … steps − 1, taken in the middle of the step."""
    return lr * SCHEDULES[schedule]((step + 0.5) / steps) / (1.0 + decay * step)
