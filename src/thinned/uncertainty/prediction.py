"""The statistics of sampled predictions: mean, spread, entropy, mutual information, quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
OUTPUTS = ("logits", "probabilities", "labels", "numbers")  # what a model may return
Choice = str | int | Sequence[str | int] | None  # the argument ``outputs``
TINY = np.finfo(np.float32).tiny  # log is taken of no less, so that 0·log 0 = 0


class Wanted(NamedTuple):
    """Which output of a model is wanted: names or indices that lead to it, and its kind, one of OUTPUTS."""

    path: tuple[str | int, ...] = ()
    kind: str = "logits"

    @classmethod
    def of(cls, outputs: Choice) -> Wanted:
        """What ``outputs`` says. An entry has numbers, unless the last part is a kind; None is "logits".

        Raises TypeError if it is no name, index or sequence of these.
        """
        if outputs is None:
            return cls()
        parts = tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
        if not parts or any(not isinstance(part, str | int) or isinstance(part, bool) for part in parts):
            raise TypeError(f"outputs must be a name, an index, or several in a tuple, got {outputs!r}")
        *path, kind = parts if parts[-1] in OUTPUTS else (*parts, "numbers")
        return cls(tuple(path), str(kind))


@dataclass(frozen=True)
class Prediction:
    """A prediction with error bars, as arrays of the same library, dtype and device as x.

    Attributes:
        mean: (N, classes, …) mean probabilities, or (N, …) mean numbers.
        std: the standard deviation of the samples, in the shape of ``mean``.
        entropy: the entropy H of the mean, in nats: the whole uncertainty about the class. Its shape is
            (N, …), or (N, labels) for labels; None for numbers.
        mutual_information: H of the mean minus the mean H, in nats, in the same shape: the disagreement
            of the networks, which more data would reduce. None for numbers.
        quantiles: the quantiles of the samples, (len(quantiles), *shape of mean).
        samples: the number of samples; 0 for an approximation that draws none.
        random: qualified name -> how it was sampled, for everything that dropped.
        fixed: qualified name -> the reason, for everything that could drop but did not.
    """

    mean: Any
    std: Any
    entropy: Any
    mutual_information: Any
    quantiles: Any
    samples: int
    random: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{tuple(self.mean.shape)} of {self.samples} samples", f"random: {len(self.random)}"]
        lines += [f"  {name or '(the model)'}: {how}" for name, how in self.random.items()]
        lines += [f"not random: {len(self.fixed)}"]
        lines += [f"  {name or '(the model)'}: {why}" for name, why in self.fixed.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Summary:
    """The statistics of some rows, as NumPy arrays: the first fields of `Prediction`."""

    mean: Array
    std: Array
    entropy: Array | None
    mutual_information: Array | None
    quantiles: Array

    @classmethod
    def joined(cls, parts: Sequence[Summary]) -> Summary:
        """The statistics of all parts, row after row."""
        entropy = [p.entropy for p in parts if p.entropy is not None]
        mutual = [p.mutual_information for p in parts if p.mutual_information is not None]
        return cls(
            np.concatenate([p.mean for p in parts]),
            np.concatenate([p.std for p in parts]),
            np.concatenate(entropy) if entropy else None,
            np.concatenate(mutual) if mutual else None,
            np.concatenate([p.quantiles for p in parts], axis=1),
        )


def summarise(y: Array, outputs: str, quantiles: Sequence[float]) -> Summary:
    """The statistics of samples (S, N, *out) of a model's outputs.

    The standard deviation divides by S − 1; for one sample it is 0.
    """
    y = np.ascontiguousarray(np.moveaxis(y, 0, -1))  # (N, *out, S): the samples of a number lie side by side
    y = probabilities(y, outputs)
    mean, std = y.mean(axis=-1), y.std(axis=-1, ddof=1 if y.shape[-1] > 1 else 0)
    entropy = mutual = None
    if outputs != "numbers":
        entropy = entropy_of(mean, outputs)
        mutual = np.maximum(entropy - entropy_of(y, outputs).mean(axis=-1), 0.0)
    y.sort(axis=-1)
    return Summary(
        mean, std, entropy, mutual, np.stack([quantile(y, q) for q in quantiles] or [mean])[: len(quantiles)]
    )


def probabilities(y: Array, outputs: str) -> Array:
    """The probabilities for outputs y (N, classes, …); numbers stay as they are."""
    if outputs == "logits":
        e = np.exp(y - y.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))
    if outputs == "labels":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * y)), y.dtype)
    return y


def entropy_of(p: Array, outputs: str) -> Array:
    """The entropy in nats: −Σ p ln p over the classes, axis 1; −p ln p − (1 − p) ln(1 − p) for each label."""
    information = p * np.log(np.maximum(p, TINY))
    if outputs != "labels":
        return np.asarray(-information.sum(axis=1))
    q = 1.0 - p
    return np.asarray(-information - q * np.log(np.maximum(q, TINY)))


def quantile(ordered: Array, q: float) -> Array:
    """The q-quantile along the last axis, which must be sorted; linear between neighbours."""
    place = q * (ordered.shape[-1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[-1] - 1)
    return np.asarray(
        ordered[..., low] + (place - low) * (ordered[..., high] - ordered[..., low]), ordered.dtype
    )
