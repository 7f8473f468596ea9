"""Engines, devices and precisions: their names, and what applies where. Imports no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from thinned import functional, masks
from thinned.activations import ACTIVATIONS
from thinned.methods import DROPS, METHODS, Row

ENGINES = ("numpy", "torch")
DEVICES = ("cpu", "cuda")
# 32: torch's default; on a GPU, convolutions may use TF32. bf16: products by autocast, parameters in float32.
# float16 is missing because it needs a scaled loss.
PRECISIONS = ("32", "bf16")
OPTIMIZERS = ("adam", "sgd")
USUAL = {"device": "cpu", "precision": "32"}  # the defaults, and the only values where NumPy computes


def listed(names: Iterable[str]) -> str:
    """`a, b or c`, for a help text."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


def applicable() -> list[str]:
    """Names of the methods that fit a dense network; ``"none"`` comes first."""
    return ["none", *(row.name for row in METHODS.values() if fits_dense(row))]


def fits_dense(row: Row) -> bool:
    """Whether a method works on (N, features) inside a network of ReLU or logistic units."""
    units = (masks.ELEMENT, masks.FEATURE, masks.WEIGHT)
    return row.kind == "drop" and row.method.unit in units and not row.needs


def is_thin(method: str) -> bool:
    """Whether a method computes only the survivors; it then drops inputs as dropout does."""
    return DROPS.get(method) is functional.THIN


def drops_weights(method: str) -> bool:
    """Whether a method drops weights, with a mask for each sample."""
    return DROPS.get(method) is functional.DROP_CONNECT


def can(engine: str, activation: str) -> bool:
    """Whether the engine has the layers of a dense network with this activation."""
    return engine == "numpy" or ACTIVATIONS[activation].torch is not None


def text(config: Mapping[str, Any]) -> str:
    """Engine, device and number format of a configuration, in the words of a report."""
    if config["engine"] != "torch":
        return f"{config['engine']}, {config['dtype']}"
    return f"torch on {config['device']}, {config['dtype']} parameters, precision {config['precision']}"
