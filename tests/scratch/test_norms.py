"""The normalisations, against torch's and against one another."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import (
    F64,
    SIZE,
    NormMagnitude,
    gamma,
    judge_by_torch,
    magnitudes,
    operations,
    random,
    within,
)
from helpers.layers import CASES, FLAT, KEYS, LINE, NORMS, PLANE, ROOM, WIDE, case

from thinned import Key
from thinned.scratch import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Sequential,
    SpatialDropout,
)


@KEYS
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_torchs_with_the_usual_eps(name: str, key: Key | None, torch: Any) -> None:
    layer, x = case(name)
    layer.eps = 1e-5
    layer.forward(x, key)
    _, scale, _ = layer.recall()
    judge_by_torch(torch, layer, x, key, NormMagnitude(layer, floor=1 / float(scale.max()) ** 2))


@pytest.mark.parametrize("name", NORMS)
def test_norms_normalise(name: str) -> None:
    layer, x = CASES[name][0](), random("x", *CASES[name][1]) * 3 + 2
    layer.eps = 1e-12
    y = layer.forward(x, Key(1)).reshape(layer.view(x.shape))
    axes = layer.axes(y.ndim)
    bound = gamma(2 * SIZE) * NormMagnitude(
        layer, floor=float(x.reshape(y.shape).var(axis=axes).min())
    ).forward(np.abs(x))
    mean, square = y.mean(axis=axes), np.square(y).mean(axis=axes)
    assert (np.abs(mean) <= bound.max()).all()
    # σ²/(σ² + ε) falls short of 1 by at most ε/σ²
    short = 1e-12 / x.reshape(y.shape).var(axis=axes)
    assert (np.abs(square - 1) <= short + 2 * math.sqrt(SIZE) * bound.max()).all()


def test_the_four_are_one() -> None:
    """Where their axes are the same, the layers are: groups of one channel, one group, a batch of one."""
    x, one = random("x", *PLANE), random("one", 1, *PLANE[1:])
    pairs: list[tuple[Any, Any, np.ndarray]] = [
        (GroupNorm(6, 6, affine=False, **WIDE), InstanceNorm(6, **WIDE), x),
        (GroupNorm(1, 6, affine=False, **WIDE), LayerNorm(PLANE[1:], affine=False, **WIDE), x),
        (BatchNorm(6, affine=False, **WIDE), InstanceNorm(6, **WIDE), one),
    ]
    for a, b, batch in pairs:
        twin = magnitudes(a)
        size = twin.forward(np.abs(batch))
        within(a.forward(batch, Key(1)), b.forward(batch, Key(1)), 2 * gamma(operations(a)) * size)
        weights = random("weights", *batch.shape)
        bound = 2 * gamma(operations(a)) * twin.backward(np.abs(weights))
        within(a.backward(weights), b.backward(weights), bound)


@pytest.mark.parametrize("shape", [FLAT, LINE, PLANE, ROOM])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
def test_running_statistics_are_torchs(
    shape: tuple[int, ...], dtype: str, momentum: float, torch: Any
) -> None:
    kind = {
        2: torch.nn.BatchNorm1d,
        3: torch.nn.BatchNorm1d,
        4: torch.nn.BatchNorm2d,
        5: torch.nn.BatchNorm3d,
    }
    ours = BatchNorm(6, momentum=momentum, dtype=dtype)
    theirs = kind[len(shape)](6, momentum=momentum, dtype=getattr(torch, dtype))
    u = {"float32": 2.0**-24, "float64": 2.0**-53}[dtype]
    steps, s = 5, 0.0
    for t in range(steps):
        x = (random(f"batch {t}", *shape) * (t + 1) + t).astype(dtype)
        s = max(s, float(np.abs(x).max()))
        ours.forward(x, Key(t))
        theirs(torch.from_numpy(x.copy()))
    n = math.prod(shape) // 6
    for name, size in (("running_mean", s), ("running_var", 1 + 4 * s**2 * n / (n - 1))):
        assert ours.buffers[name].dtype == np.dtype(dtype)
        within(ours.buffers[name], getattr(theirs, name).numpy(), 2 * gamma(2 * n + 6 * steps + 8, u) * size)
    before = {name: buffer.copy() for name, buffer in ours.buffers.items()}
    ours.forward(x)
    for name, buffer in ours.buffers.items():  # evaluation leaves them alone
        np.testing.assert_array_equal(buffer, before[name])


def test_statistics_are_taken_in_float64() -> None:
    """In float32, a mean of 10⁴ would leave σ = 1 three digits, and E x² − μ² none."""
    x = (random("x", 64, 3, 5) + 1e4).astype(np.float32)
    for narrow, wide in (
        (BatchNorm(3), BatchNorm(3, **F64)),
        (InstanceNorm(3), InstanceNorm(3, **F64)),
        (GroupNorm(1, 3), GroupNorm(1, 3, **F64)),
        (LayerNorm((3, 5)), LayerNorm((3, 5), **F64)),
    ):
        exact = wide.forward(x.astype(np.float64), Key(1))
        within(narrow.forward(x, Key(1)), exact, gamma(6, 2.0**-24) * np.abs(exact))


def test_big_numbers_do_not_overflow() -> None:
    x = np.array([[1e30], [-1e30], [3e30]], np.float32)
    net = Sequential(BatchNorm(1))
    exact = BatchNorm(1, **F64).forward(x.astype(np.float64), Key(0))
    within(net.forward(x, Key(0)), exact, gamma(6, 2.0**-24) * np.abs(exact))
    assert not net.finite()  # the running variance is, in float32, not to be had


@pytest.mark.parametrize(
    ("layer", "shape", "values"),
    [
        (BatchNorm(6), (1, 6), 1),
        (BatchNorm(6), (0, 6), 0),
        (BatchNorm(6), (1, 6, 1, 1), 1),
        (InstanceNorm(6), (4, 6), 1),
        (InstanceNorm(6), (4, 6, 1), 1),
        (InstanceNorm(6), (4, 6, 0), 0),
        (GroupNorm(6, 6), (4, 6), 1),
        (LayerNorm(1), (4, 1), 1),
    ],
    ids=repr,
)
def test_too_few_values(layer: Layer, shape: tuple[int, ...], values: int) -> None:
    before = copy.deepcopy(layer.buffers)
    message = rf"x must give {type(layer).__name__} at least 2 values .*, got {values} "
    with pytest.raises(ValueError, match=message):
        layer.forward(np.zeros(shape, np.float32), Key(0))
    for name, buffer in layer.buffers.items():
        np.testing.assert_array_equal(buffer, before[name])


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: BatchNorm(0), ValueError, "channels must be at least 1, got 0"),
        (lambda: BatchNorm(6, eps=0), ValueError, "eps must be finite and greater than 0"),
        (lambda: BatchNorm(6, momentum=1.5), ValueError, r"momentum must be in \[0, 1\]"),
        (lambda: BatchNorm(6, dtype=np.float16), ValueError, "dtype must be float32 or float64"),
        (lambda: GroupNorm(4, 6), ValueError, "channels must be a multiple of groups = 4, got 6"),
        (lambda: GroupNorm(0, 6), ValueError, "groups must be at least 1, got 0"),
        (lambda: LayerNorm(()), ValueError, r"shape must have at least one axis, got \(\)"),
        (lambda: LayerNorm((6, 0)), ValueError, r"shape\[1\] must be at least 1, got 0"),
        (lambda: LayerNorm(6.5), TypeError, "shape must be a tuple of sizes"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


SPATIAL_6 = r"x must have shape \(N, 6, \*spatial\), got"
BATCH_32 = r"x must have shape \(\*batch, 3, 2\), got"


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (BatchNorm(6), np.zeros((2, 5)), ValueError, SPATIAL_6 + r" \(2, 5\)"),
        (BatchNorm(6), np.zeros(6), ValueError, SPATIAL_6 + r" \(6,\)"),
        (GroupNorm(2, 6), np.zeros((2, 5, 3)), ValueError, SPATIAL_6 + r" \(2, 5, 3\)"),
        (LayerNorm((3, 2)), np.zeros((3, 3)), ValueError, BATCH_32 + r" \(3, 3\)"),
        (LayerNorm((3, 2)), np.zeros(2), ValueError, BATCH_32 + r" \(2,\)"),
        (BatchNorm(6), np.zeros((2, 6), int), TypeError, "x must hold floating-point numbers"),
        (LayerNorm(6), [[0.0] * 6], TypeError, "x must be a NumPy array, got list"),
    ],
)
@KEYS
def test_bad_inputs(layer: Layer, x: Any, error: type[Exception], message: str, key: Key | None) -> None:
    with pytest.raises(error, match=message):
        layer.forward(x, key)
    assert layer._saved is None or isinstance(layer, SpatialDropout)
