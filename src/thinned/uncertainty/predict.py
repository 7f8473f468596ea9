"""Predictions from many thinned networks (`predict`, `sample`) and from the mean one (`weight_scaling`)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from thinned import _array, _checks
from thinned.key import Key, is_key
from thinned.uncertainty.prediction import (
    OUTPUTS,
    Array,
    Choice,
    Prediction,
    Summary,
    Wanted,
    probabilities,
    summarise,
)

MEMORY = 1 << 28  # bytes of a batch, if batch_size is None
PATIENCE = 2.0  # seconds until a progress bar appears
Report = Callable[[float], object]  # is called with the share that is done, from 0 to 1


class Sampler(Protocol):
    """Draws samples of a model's outputs. The layers before its first random layer run once."""

    @property
    def random(self) -> Mapping[str, str]:
        """Qualified name -> how it is sampled, for everything that drops."""

    @property
    def fixed(self) -> Mapping[str, str]:
        """Qualified name -> the reason, for everything that could drop but does not."""

    @property
    def outputs(self) -> str | None:
        """One of OUTPUTS, if the model decides it; else None."""

    def take(self, x: Any, start: int, stop: int) -> Any:
        """Rows of x in the form that the model takes."""

    def evaluate(self, x: Any) -> Any:
        """The model's outputs in evaluation."""

    def draw(self, x: Any, first: int, samples: int, key: Key, progress: Report) -> Array:
        """The outputs of the samples, (S, rows, *out); ``first`` is the index in x of the first row."""

    def row_bytes(self, x: Any, samples: int) -> int:
        """About the bytes that a row of a batch takes."""


def predict(
    model: Any,
    x: Any,
    samples: int = 100,
    *,
    key: Key,
    outputs: Choice = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    thin: bool = True,
    layers: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | Report = True,
) -> Prediction:
    """Mean, spread and entropy of a model's predictions over its dropout masks (Monte-Carlo dropout).

    ``model`` is a torch module, a `thinned.scratch.Network`, a `DropoutMLPClassifier` or a
    `DropoutMLPRegressor`; ``x`` is its input (N, …). A torch module may have several inputs of N rows each: a
    tuple, or a dict by the names of its arguments. Everything that can drop does. All else, BatchNorm too,
    is as in evaluation. The model does not change: a copy of its modules runs, which shares its parameters.
    The layers before the first random layer run once.

    ``outputs`` says what the model returns: ``"logits"`` (N, classes, …) for a softmax over axis 1;
    ``"probabilities"`` of that shape; ``"labels"``, one logit for each yes-or-no label; ``"numbers"`` for
    regression. None is right for an estimator, which knows it, and means ``"logits"`` for other models. If a
    torch module returns a dict or named tuple, this is also the name of its entry; without one of that name
    ``"logits"`` or the only entry is taken. Of another tuple it is the first. Any other name or index takes
    that entry, as numbers; a tuple leads into several, and may end with the kind:
    ``("hidden_states", -1)``, ``(1, "logits")``.

    With ``thin``, dropout of whole units in a chain of layers, as `thinned.nn.thin` and
    `thinned.scratch.Thin` find it, is sampled by thinned networks if a sample is one row of the chain. Each
    unit survives with probability 1 − p, the same units in all rows of a sample, and only these are computed.
    All other masks are drawn for each sample and row, and many samples run as one batch. Each row has the
    distribution of plain dropout, with ``thin`` or without.

    ``layers`` names what drops, in a torch module: dropouts, or parts of the model that have some; ``"last"``
    is the last dropout alone. None is all.

    ``batch_size`` is the number of rows at once; None takes what fits in 256 MB. It does not change the
    prediction of a key, up to the rounding of products. ``progress=True`` shows a bar if the work takes long,
    in a terminal with `rich` installed; a function is called with the share done.

    Raises TypeError or ValueError if an argument has a wrong kind or range, or if the model's outputs do not
    fit ``outputs``; ValueError if nothing in the model drops.

    Gal and Ghahramani 2016, arXiv:1506.02142. The mutual information: Houlsby, Huszár, Ghahramani and
    Lengyel 2011, arXiv:1112.5745.
    """
    shares = [_checks.probability(f"quantiles[{i}]", q) for i, q in enumerate(quantiles)]
    sampler, x, kind = sampler_of(model, x, outputs, thin, layers)
    batches = _drawn(sampler, x, samples, key, batch_size, progress)
    parts = [summarise(_fitting(y, kind), kind, shares) for y in batches]
    return prediction(Summary.joined(parts), x, samples, sampler)


def sample(
    model: Any,
    x: Any,
    samples: int = 100,
    *,
    key: Key,
    outputs: Choice = None,
    thin: bool = True,
    layers: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | Report = True,
) -> Any:
    """The samples behind the statistics of `predict`, (samples, N, classes, …) or (samples, N, …).

    Arguments and errors are those of `predict`. The same key gives the same samples.
    """
    sampler, x, kind = sampler_of(model, x, outputs, thin, layers)
    parts = []
    for y in _drawn(sampler, x, samples, key, batch_size, progress):
        flat = _fitting(y, kind).reshape(-1, *y.shape[2:])
        parts.append(probabilities(flat, kind).reshape(y.shape))
    return as_given(np.concatenate(parts, axis=1), x)


def weight_scaling(model: Any, x: Any, *, outputs: Choice = None, batch_size: int | None = None) -> Any:
    """The prediction of the mean network, in one pass: the model's evaluation, as probabilities or numbers.

    Arguments, errors and shapes are those of `predict` and its ``mean``.

    The rule of weight scaling: Srivastava et al. 2014, JMLR 15:1929-1958, section 4.
    """
    sampler, x, kind = sampler_of(model, x, outputs, thin=False, functions=False)
    rows = rows_at_once(sampler, x, 1, batch_size)
    parts = []
    for first in range(0, max(1, x.shape[0]), rows):
        y = _array.to_numpy(sampler.evaluate(sampler.take(x, first, first + rows)))
        parts.append(probabilities(_fitting(y[None], kind)[0], kind))
    return as_given(np.concatenate(parts), x)


def sampler_of(
    model: Any,
    x: Any,
    outputs: Choice,
    thin: bool,
    layers: str | Sequence[str] | None = None,
    functions: bool = True,
) -> tuple[Sampler, Any, str]:
    """The sampler of a model, the first array of x, and the kind of outputs, one of OUTPUTS."""
    from thinned.scratch import Network
    from thinned.uncertainty.sample_scratch import ScratchSampler

    if hasattr(model, "steps") and hasattr(model[-1], "sampled"):  # a pipeline of scikit-learn
        model, x = model[-1], model[:-1].transform(x) if len(model.steps) > 1 else x
    sampler: Sampler
    wanted = Wanted.of(outputs)
    torch = sys.modules.get("torch")
    if isinstance(model, Network):
        sampler, x = ScratchSampler(model, bool(thin)), _array.floating("x", x)
    elif hasattr(model, "sampled"):
        net, x, own = model.sampled(x)
        sampler = ScratchSampler(net, bool(thin), own)
    elif torch is not None and isinstance(model, torch.nn.Module):
        from thinned.uncertainty.sample_torch import torch_sampler
        from thinned.uncertainty.torch_inputs import arrays_of

        arrays = arrays_of(x)
        x = next(iter(arrays.values()))
        sampler = torch_sampler(model, arrays, bool(thin), wanted, layers, functions)
    else:
        raise TypeError(
            "model must be a torch module, a thinned.scratch.Network or a fitted estimator of "
            f"thinned.estimators, got {type(model).__name__}"
        )
    if isinstance(sampler, ScratchSampler) and layers is not None:
        raise ValueError(f"layers must be None for a {type(model).__name__}, got {layers!r}")
    if isinstance(sampler, ScratchSampler) and _array.is_torch(x):
        raise TypeError("x must be a NumPy array for a network of thinned.scratch, got a torch tensor")
    if len(x.shape) == 0:
        raise ValueError("x must have samples in its first dimension, got shape ()")
    said = sampler.outputs
    if said is not None and outputs not in (None, said):
        raise ValueError(f"outputs must be {said!r} for this estimator, got {outputs!r}")
    if isinstance(sampler, ScratchSampler) and wanted.path:
        _checks.one_of("outputs", outputs, OUTPUTS)
    return sampler, x, said or wanted.kind


def _drawn(
    sampler: Sampler, x: Any, samples: int, key: Key, batch_size: int | None, progress: bool | Report
) -> Iterator[Array]:
    """The outputs of the samples, for one batch of rows after the other."""
    samples, key = _checks.positive_int("samples", samples), is_key("key", key)
    if not sampler.random:
        why = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in sampler.fixed.items())
        raise ValueError(f"model must hold dropout with p > 0, got nothing that drops{why and f' ({why})'}")
    rows, n = rows_at_once(sampler, x, samples, batch_size), max(1, x.shape[0])
    with _bar(progress) as report:
        for first in range(0, n, rows):
            part = sampler.take(x, first, first + rows)
            start, share = first / n, min(rows, n - first) / n
            yield sampler.draw(part, first, samples, key, lambda done, a=start, b=share: report(a + b * done))  # type: ignore[misc]


def prediction(summary: Summary, x: Any, samples: int, sampler: Sampler) -> Prediction:
    """The statistics as arrays like x, with the report of what was sampled."""
    values = {name: value if value is None else as_given(value, x) for name, value in vars(summary).items()}
    return Prediction(**values, samples=samples, random=sampler.random, fixed=sampler.fixed)


def as_given(y: Array, x: Any) -> Any:
    """y as an array like x, on its device; as a tensor also in its dtype, if that is a floating one."""
    y = _array.to_like(y, x)
    return _array.cast(y, x) if _array.is_torch(x) and _array.is_floating(x) else y


def _fitting(y: Array, outputs: str) -> Array:
    """Samples (S, N, …). Raises ValueError if they do not fit ``outputs``."""
    if outputs in ("logits", "probabilities") and y.ndim < 3:
        raise ValueError(
            f"model must return (N, classes, …) for outputs={outputs!r}, got {y.shape[1:]}: for regression "
            "use outputs='numbers'"
        )
    if outputs == "probabilities" and y.size and not (y.min() >= 0.0 and y.max() <= 1.0 + 1e-3):
        raise ValueError(f"model must return probabilities, got numbers from {y.min():g} to {y.max():g}")
    return y


def rows_at_once(sampler: Sampler, x: Any, samples: int, batch_size: int | None) -> int:
    """The number of rows in a batch."""
    if batch_size is not None:
        return _checks.positive_int("batch_size", batch_size)
    if x.shape[0] == 0:
        return 1
    return max(1, MEMORY // sampler.row_bytes(sampler.take(x, 0, 1), samples))


@contextmanager
def _bar(progress: bool | Report) -> Iterator[Report]:
    """The function to call with the share done: the caller's, that of a bar, or one that does nothing."""
    if callable(progress):
        yield progress
        return
    if not progress or not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda done: None
        return
    begin, bar = time.perf_counter(), Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("sampling", total=1.0)

    def report(done: float) -> None:
        if not bar.live.is_started and time.perf_counter() - begin > PATIENCE:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield report
    finally:
        bar.stop()
