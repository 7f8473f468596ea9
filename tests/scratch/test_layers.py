"""The drop layers with structure, Maxout and the normalisations by hand, against the same judges."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import (
    F64,
    SIZE,
    N,
    NormMagnitude,
    assert_same_grads,
    fill,
    gamma,
    judge_by_differences,
    judge_by_torch,
    magnitudes,
    operations,
    random,
    within,
)

from thinned import Key, keep_mask
from thinned.scratch import (
    SGD,
    Adam,
    BatchNorm,
    DropConnect,
    Dropout,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Linear,
    Maxout,
    Normalize,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    SpatialDropout,
    load_params,
    mlp,
    save_params,
)

FLAT, LINE, PLANE, ROOM = (N, 6), (3, 6, 4), (2, 6, 3, 2), (2, 6, 2, 1, 3)
WIDE: dict[str, Any] = {"eps": 0.5, **F64}  # where the bound on 1/√(σ² + ε) must not need σ²
REGULARISED: dict[str, Any] = {"l1": 0.03, "l2": 0.2, "bias_l1": 0.05, "bias_l2": 0.3, **F64}


def norm_net() -> Sequential:
    return Sequential(
        Linear(6, 8, key=Key(1), l2=0.1, **F64),
        BatchNorm(8, **WIDE),
        ReLU(),
        Dropout(0.3),
        Linear(8, 6, key=Key(2), **F64),
        LayerNorm(6, **WIDE),
        GroupNorm(2, 6, **WIDE),
    )


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "spatial-1d": (lambda: SpatialDropout(0.4), LINE),
    "spatial-2d": (lambda: SpatialDropout(0.4), PLANE),
    "spatial-3d": (lambda: SpatialDropout(0.4), ROOM),
    "drop-connect": (lambda: DropConnect(6, 4, 0.4, key=Key(0), **F64), FLAT),
    "drop-connect-batch": (lambda: DropConnect(6, 4, 0.4, key=Key(0), per_sample=False, **F64), FLAT),
    "drop-connect-regularised": (lambda: DropConnect(6, 4, 0.4, key=Key(0), **REGULARISED), FLAT),
    "drop-connect-0": (lambda: DropConnect(6, 4, 0.0, key=Key(0), **F64), FLAT),
    "maxout": (lambda: Maxout(6, 4, pieces=3, key=Key(0), **F64), FLAT),
    "maxout-1": (lambda: Maxout(6, 4, pieces=1, key=Key(0), **F64), FLAT),
    "maxout-regularised": (lambda: Maxout(6, 4, key=Key(0), **REGULARISED), FLAT),
    "batch-flat": (lambda: BatchNorm(6, **WIDE), FLAT),
    "batch-1d": (lambda: BatchNorm(6, **WIDE), LINE),
    "batch-2d": (lambda: BatchNorm(6, **WIDE), PLANE),
    "batch-3d": (lambda: BatchNorm(6, affine=False, **WIDE), ROOM),
    "instance-1d": (lambda: InstanceNorm(6, affine=True, **WIDE), LINE),
    "instance-2d": (lambda: InstanceNorm(6, **WIDE), PLANE),
    "instance-3d": (lambda: InstanceNorm(6, affine=True, **WIDE), ROOM),
    "group-flat": (lambda: GroupNorm(2, 6, **WIDE), FLAT),
    "group-1d": (lambda: GroupNorm(3, 6, **WIDE), LINE),
    "group-2d": (lambda: GroupNorm(6, 6, **WIDE), PLANE),
    "group-3d": (lambda: GroupNorm(1, 6, affine=False, **WIDE), ROOM),
    "layer-1": (lambda: LayerNorm(6, **WIDE), FLAT),
    "layer-2": (lambda: LayerNorm((3, 2), **WIDE), PLANE),
    "layer-3": (lambda: LayerNorm((6, 3, 2), affine=False, **WIDE), PLANE),
    "layer-alone": (lambda: LayerNorm((6, 4), **WIDE), (6, 4)),
    "net-norms": (norm_net, FLAT),
    "mlp-maxout": (
        lambda: mlp((6, 5, 4), key=Key(3), drop=Dropout, activation="maxout", pieces=3, l2=0.1, **F64),
        FLAT,
    ),
    "mlp-drop-connect": (
        lambda: mlp((6, 5, 4), key=Key(3), drop=None, connect=DropConnect, input_p=0.2, l1=0.01, **F64),
        FLAT,
    ),
}
KEYS = pytest.mark.parametrize("key", [Key(11), None], ids=["training", "evaluation"])
LAYERS = pytest.mark.parametrize("name", CASES)
NORMS = [name for name, (make, _) in CASES.items() if isinstance(make(), Normalize)]


def case(name: str) -> tuple[Any, np.ndarray]:
    """A layer, filled, and its input; running statistics are not those of the start."""
    make, shape = CASES[name]
    layer, x = fill(make()), random("x", *shape)
    if "batch-" in name and isinstance(layer, BatchNorm):
        layer.forward(2 * random("earlier", *shape) - 1, Key(0))
    return layer, x


@KEYS
@LAYERS
def test_backward_is_the_finite_difference(name: str, key: Key | None) -> None:
    layer, x = case(name)
    judge_by_differences(layer, x, key)


@KEYS
@LAYERS
def test_backward_is_torchs_autograd(name: str, key: Key | None, torch: Any) -> None:
    layer, x = case(name)
    judge_by_torch(torch, layer, x, key)


@KEYS
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_torchs_with_the_usual_eps(name: str, key: Key | None, torch: Any) -> None:
    layer, x = case(name)
    layer.eps = 1e-5
    layer.forward(x, key)
    _, scale, _ = layer.recall()
    judge_by_torch(torch, layer, x, key, NormMagnitude(layer, floor=1 / float(scale.max()) ** 2))


@LAYERS
def test_input_and_gradient_are_left_alone_and_grads_are_filled_in_place(name: str) -> None:
    layer, x = case(name)  # x must not be written to: its flag says so
    held = {n: grad for n, _, grad in layer.named_params()}
    y = layer.forward(x, Key(1))
    weights = random("weights", *y.shape)
    first = layer.backward(weights).copy()
    grads = {n: grad.copy() for n, grad in held.items()}
    y *= 0  # what a caller does to the output is not the layer's business
    np.testing.assert_array_equal(layer.backward(weights), first)
    for n, _, grad in layer.named_params():
        assert grad is held[n]
        np.testing.assert_array_equal(grad, grads[n])


@LAYERS
def test_param_grads_are_those_of_backward(name: str) -> None:
    full, x = case(name)
    short, key = copy.deepcopy(full), Key(6)
    weights = random("weights", *full.forward(x, key).shape)
    full.backward(weights)
    short.forward(x, key)
    assert short.param_grads(weights) is None
    assert_same_grads(full, short)


@LAYERS
def test_backward_checks_that_forward_was_and_the_shape(name: str) -> None:
    layer, x = case(name)
    fresh = CASES[name][0]()
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        fresh.backward(random("x", N, 4))
    if not isinstance(layer, SpatialDropout):  # linear: any gradient will do
        layer.forward(x, Key(1))
        with pytest.raises(ValueError, match=r"grad must have shape .* as in the last forward pass, got"):
            layer.backward(random("x", 7, 7))


@LAYERS
def test_key_is_checked(name: str) -> None:
    layer, x = case(name)
    if not isinstance(layer, (Maxout, InstanceNorm, GroupNorm, LayerNorm)):  # the same with a key as without
        with pytest.raises(TypeError, match=r"key must be a thinned\.Key"):
            layer.forward(x, 7)


@pytest.mark.parametrize("name", [n for n in CASES if "connect" in n or "maxout" in n or n in NORMS])
def test_float32_is_float64_rounded(name: str) -> None:
    wide, x = case(name)
    narrow = CASES[name][0]()
    stack = [narrow, *getattr(narrow, "children", {}).values()]
    for layer in (*stack, *(inner.linear for inner in stack if isinstance(inner, Maxout))):
        layer.dtype = np.dtype(np.float32)
        for arrays in (layer.params, layer.grads, layer.buffers):
            arrays.update({n: a.astype(np.float32) for n, a in arrays.items()})
    for (_, to), (_, array) in zip(narrow.named_arrays(), wide.named_arrays(), strict=True):
        to[...] = array
        array[...] = to
    key, x = Key(11), x.astype(np.float32)
    y = narrow.forward(x, key)
    weights = random("weights", *y.shape).astype(np.float32)
    gradient, twin = narrow.backward(weights), magnitudes(wide)
    bound = 2 * gamma(operations(wide), 2.0**-24)
    within(y, wide.forward(x.astype(np.float64), key), bound * twin.forward(np.abs(x), key))
    within(gradient, wide.backward(weights.astype(np.float64)), bound * twin.backward(np.abs(weights)))
    assert y.dtype == gradient.dtype == np.float32
    for (_, _, grad), (_, _, exact), (_, _, size) in zip(
        narrow.named_params(), wide.named_params(), twin.named_params(), strict=True
    ):
        assert grad.dtype == np.float32
        within(grad, exact, bound * size)


# ---- spatial dropout ----


@pytest.mark.parametrize("shape", [LINE, PLANE, ROOM])
def test_spatial_dropout_drops_channels(shape: tuple[int, ...]) -> None:
    layer, x, key = SpatialDropout(0.3), random("x", *shape), Key(3)
    kept = keep_mask(shape[:2], 0.3, key=key).reshape(*shape[:2], *[1] * (len(shape) - 2))
    y = layer.forward(x, key)
    within(y, np.where(kept, x / 0.7, 0), gamma(3) * np.abs(y))
    np.testing.assert_array_equal(layer.forward(x), x)
    assert layer.__dict__ == {"params": {}, "grads": {}, "buffers": {}, "p": 0.3, "_saved": (None,)}


# ---- DropConnect ----


def test_drop_connect_masks_each_samples_weights() -> None:
    layer, x, key = fill(DropConnect(6, 4, 0.4, key=Key(0), **F64)), random("x", N, 6), Key(3)
    w, b = layer.params["weight"], layer.params["bias"]
    kept = keep_mask((N, 4, 6), 0.4, key=key)
    for one, units, xn in zip(layer.forward(x, key), kept, x, strict=True):
        size = (np.abs(w) @ np.abs(xn)) / 0.6 + np.abs(b)
        within(one, (np.where(units, w, 0) / 0.6) @ xn + b, gamma(2 * 6 + 8) * size)
    layer.per_sample = False
    shared = np.where(keep_mask((4, 6), 0.4, key=key), w, 0) / 0.6
    size = np.abs(x) @ np.abs(shared).T + np.abs(b)
    within(layer.forward(x, key), x @ shared.T + b, gamma(2 * 6 + 8) * size)


@pytest.mark.parametrize("per_sample", [True, False])
def test_drop_connect_evaluates_the_mean_network(per_sample: bool) -> None:
    drop = fill(DropConnect(6, 4, 0.4, key=Key(0), per_sample=per_sample, **F64))
    mean = fill(Linear(6, 4, key=Key(0), **F64))
    x, weights = random("x", N, 6), random("weights", N, 4)
    size = magnitudes(mean).forward(np.abs(x))
    within(drop.forward(x), mean.forward(x), 2 * gamma(operations(mean)) * size)
    np.testing.assert_array_equal(drop.backward(weights), mean.backward(weights))
    assert_same_grads(drop, mean)


def test_drop_connect_keeps_nothing_but_x_and_the_key() -> None:
    layer, x = DropConnect(6, 4, key=Key(0), **F64), random("x", N, 6)
    layer.forward(x, Key(4))
    assert layer.recall()[0] is x
    assert layer.recall()[1:] == (Key(4),)
    assert not any(
        isinstance(value, np.ndarray) for name, value in layer.__dict__.items() if name not in ("_saved",)
    )


def test_drop_connect_of_all_weights() -> None:
    for per_sample in (True, False):
        layer = fill(DropConnect(6, 4, 1.0, key=Key(0), per_sample=per_sample, **F64))
        y = layer.forward(random("x", N, 6), Key(1))
        np.testing.assert_array_equal(y, np.tile(layer.params["bias"], (N, 1)))
        assert not layer.backward(y).any()
        assert not layer.grads["weight"].any()
        np.testing.assert_array_equal(layer.grads["bias"], y.sum(axis=0))


def test_drop_connect_selects() -> None:
    """A NaN among the dropped weights of a sample is gone, there and back."""
    layer, x, key = DropConnect(6, 4, 0.5, key=Key(0), **F64), random("x", 40, 6), Key(3)
    layer.params["weight"][1, 2] = np.nan
    kept = keep_mask((40, 4, 6), 0.5, key=key)[:, 1, 2]
    assert 0 < kept.sum() < 40
    np.testing.assert_array_equal(np.isnan(layer.forward(x, key)[:, 1]), kept)
    back = layer.backward(random("weights", 40, 4))
    np.testing.assert_array_equal(np.isnan(back[:, 2]), kept)
    assert np.isfinite(np.delete(back, 2, axis=1)).all()
    assert np.isfinite(layer.grads["weight"]).all()


def test_a_sample_does_not_depend_on_the_others() -> None:
    """As many samples as it takes for several blocks of masks: each as in a batch of its own first part."""
    n_in, n_out, n = 300, 200, 40  # 60,000 weights a mask
    layer, key = DropConnect(n_in, n_out, key=Key(0), **F64), Key(3)
    x, weights = random("x", n, n_in), random("weights", n, n_out)
    y, gradient = layer.forward(x, key), layer.backward(weights)
    size, size_back = (
        magnitudes(layer).forward(np.abs(x), key),
        2 * np.abs(weights) @ np.abs(layer.params["weight"]),
    )
    for part in (1, 3, 21):
        y_part = layer.forward(x[:part], key)
        within(y_part, y[:part], 2 * gamma(operations(layer)) * size[:part])
        gradient_part = layer.backward(weights[:part])
        within(gradient_part, gradient[:part], 2 * gamma(operations(layer)) * size_back[:part])


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_drop_connect_in_training_means_evaluation(p: float) -> None:
    """As for dropout, by Hoeffding 1963: terms w_j x_j r_j of range w_j x_j/(1 − p)."""
    trials, delta = 4096, 1e-9
    layer, x = fill(DropConnect(6, 4, p, key=Key(0), **F64)), random("x", 6)
    y = layer.forward(np.tile(x, (trials, 1)), Key(8)).mean(axis=0)
    terms = layer.params["weight"] * x / (1 - p)
    chance = np.sqrt((terms**2).sum(axis=1) * math.log(2 * 4 / delta) / (2 * trials))
    size = np.abs(terms).sum(axis=1) + np.abs(layer.params["bias"])
    within(y, layer.forward(x[None])[0], chance + gamma(trials + 40) * size)


# ---- Maxout ----


def test_maxout_is_the_largest_of_linear_layers() -> None:
    layer, x = fill(Maxout(6, 4, pieces=3, key=Key(0), **F64)), random("x", N, 6)
    w, b = layer.params["weight"].reshape(3, 4, 6), layer.params["bias"].reshape(3, 4)
    z = np.einsum("ni,joi->njo", x, w) + b
    size = magnitudes(layer).forward(np.abs(x))
    within(layer.forward(x, Key(1)), z.max(axis=1), 2 * gamma(operations(layer)) * size)
    np.testing.assert_array_equal(layer.forward(x, Key(1)), layer.forward(x))


def test_maxout_with_a_piece_of_zeros_is_relu() -> None:
    layer, x = fill(Maxout(6, 4, key=Key(0), **F64)), random("x", N, 6)
    for param in layer.params.values():
        param[4:] = 0
    chain = Sequential(Linear(6, 4, key=Key(0), **F64), ReLU())
    chain.set_params({f"0.{name}": param[:4].copy() for name, param in layer.params.items()})
    bound = 2 * gamma(operations(chain)) * magnitudes(chain).forward(np.abs(x))
    within(layer.forward(x), chain.forward(x), bound)


def test_among_equal_pieces_the_first_counts() -> None:
    layer, weights = Maxout(6, 4, pieces=3, key=Key(0), init=0.0, **F64), random("weights", N, 4)
    layer.forward(random("x", N, 6))
    layer.backward(weights)
    np.testing.assert_array_equal(layer.grads["bias"][:4], weights.sum(axis=0))
    assert not layer.grads["bias"][4:].any()


def test_maxout_shows_nan() -> None:
    layer = Maxout(6, 4, pieces=3, key=Key(0), **F64)
    layer.params["bias"][2 * 4 + 1] = np.nan
    assert (np.isnan(layer.forward(random("x", N, 6))) == [False, True, False, False]).all()


def test_max_norm_of_each_piece() -> None:
    layer = Maxout(6, 40, pieces=3, key=Key(0), max_norm=0.9, **F64)
    before = layer.params["weight"].copy()
    norm = np.sqrt((before**2).sum(axis=1))
    assert (norm > 0.9).any()
    assert (norm <= 0.9).any()
    SGD(0.1).step(layer)  # gradients are zero: the projection alone
    after = layer.params["weight"]
    np.testing.assert_array_equal(after[norm <= 0.9], before[norm <= 0.9])
    assert (np.sqrt((after**2).sum(axis=1)) <= 0.9 * (1 + gamma(20))).all()


@pytest.mark.parametrize(
    ("init", "std"), [("he", (1 / 400) ** 0.5), ("xavier", (2 / 500) ** 0.5), (0.01, 0.01)]
)
def test_first_weights_of_maxout(init: Any, std: float) -> None:
    weight = Maxout(400, 100, pieces=3, key=Key(0), init=init, **F64).params["weight"]
    # Σ z² of n normal numbers is within 2√(n·t) + 2t of n but for a chance of 2e⁻ᵗ (Laurent, Massart 2000)
    n, t = weight.size, math.log(2 / 1e-9)
    assert n == 400 * 100 * 3
    assert abs((weight**2).sum() / std**2 - n) <= 2 * math.sqrt(n * t) + 2 * t


# ---- normalisations ----


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


def test_empty_batches() -> None:
    for layer, shape in (
        (BatchNorm(6), (0, 6)),  # in evaluation
        (InstanceNorm(6), (0, 6, 3)),
        (GroupNorm(2, 6), (0, 6)),
        (LayerNorm(6), (0, 6)),
        (DropConnect(6, 6, key=Key(0)), (0, 6)),
        (Maxout(6, 6, key=Key(0)), (0, 6)),
    ):
        x = np.zeros(shape, np.float32)
        assert layer.forward(x).shape == shape
        assert layer.backward(x).shape == shape
        assert not any(grad.any() for grad in layer.grads.values())
    drop = DropConnect(6, 4, key=Key(0))
    assert drop.forward(np.zeros((0, 6), np.float32), Key(1)).shape == (0, 4)
    assert drop.backward(np.zeros((0, 4), np.float32)).shape == (0, 6)


# ---- buffers ----


def batch_net(seed: int = 0) -> Sequential:
    return Sequential(
        Linear(6, 16, key=Key(seed), l2=1e-3), BatchNorm(16), ReLU(), Dropout(0.3), Linear(16, 4, key=Key(9))
    )


def train(net: Sequential, optimizer: Any, start: int, stop: int) -> None:
    loss, x, labels = SoftmaxCrossEntropy(), random("x", 32, 6).astype(np.float32), np.arange(32) % 4
    for t in range(start, stop):
        loss.forward(net.forward(x, Key(1).fold_in(t)), labels)
        net.param_grads(loss.backward())
        optimizer.step(net)


def test_buffers_are_saved_and_not_learned() -> None:
    net = batch_net()
    saved, learned = net.get_params(), [name for name, _, _ in net.named_params()]
    assert [name for name in saved if name not in learned] == ["1.running_mean", "1.running_var"]
    train(net, SGD(0.1), 0, 1)
    buffers = {name: array for name, array in net.get_params().items() if "running" in name}
    optimizer = Adam(0.1)
    optimizer.step(net)
    assert not any("running" in name for name in optimizer.state())
    for name, array in buffers.items():
        np.testing.assert_array_equal(net.get_params()[name], array)
        assert (array != saved[name]).any()
    net.children["1"].buffers["running_var"][0] = np.inf
    assert not net.finite()


def test_training_with_buffers_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, half, x = batch_net(), batch_net(), random("x", 32, 6)
    train(whole, SGD(0.1, 0.9), 0, 10)
    optimizer = SGD(0.1, 0.9)
    train(half, optimizer, 0, 5)
    half.predict(x)  # an evaluation in between
    save_params(tmp_path / "net.npz", half.get_params())
    fresh, later = batch_net(seed=99), SGD(0.1, 0.9)
    fresh.set_params(load_params(tmp_path / "net.npz"))
    np.testing.assert_array_equal(fresh.predict(x), half.predict(x))
    later.load(optimizer.state())
    train(fresh, later, 5, 10)
    for (name, one), (_, other) in zip(whole.named_arrays(), fresh.named_arrays(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    np.testing.assert_array_equal(fresh.predict(x), whole.predict(x))


def test_set_params_checks_buffers() -> None:
    net = batch_net()
    params = net.get_params()
    held = net.children["1"].buffers["running_mean"]
    with pytest.raises(ValueError, match=r"missing 1\.running_var, unknown none"):
        net.set_params({name: array for name, array in params.items() if name != "1.running_var"})
    with pytest.raises(ValueError, match=r"1.running_mean'\] must have shape \(16,\), got \(3,\)"):
        net.set_params({**params, "1.running_mean": np.zeros(3)})
    net.set_params({**params, "1.running_mean": np.ones(16)})
    assert net.children["1"].buffers["running_mean"] is held
    assert (held == 1).all()


def test_a_net_with_everything_learns() -> None:
    x, labels, loss = random("x", 32, 6).astype(np.float32), np.arange(32) % 4, SoftmaxCrossEntropy()
    net = Sequential(
        Maxout(6, 32, pieces=3, key=Key(0), max_norm=4.0),
        BatchNorm(32),
        DropConnect(32, 32, 0.2, key=Key(1)),
        LayerNorm(32),
        ReLU(),
        Linear(32, 4, key=Key(2)),
    )
    optimizer = Adam(0.01)
    for t in range(200):
        loss.forward(net.forward(x, Key(3).fold_in(t)), labels)
        net.backward(loss.backward())
        optimizer.step(net)
    np.testing.assert_array_equal(net.predict(x).argmax(axis=1), labels)  # random labels, by heart


# ---- mlp ----


def test_mlp_of_each_kind() -> None:
    def kinds(net: Sequential) -> list[str]:
        return [type(layer).__name__ for layer in net.children.values()]

    sizes, key = (6, 8, 7, 4), Key(1)
    maxout = mlp(sizes, key=key, drop=Dropout, input_p=0.2, activation="maxout", pieces=3, max_norm=2.0)
    assert kinds(maxout) == ["Dropout", *["Maxout", "Dropout"] * 2, "Linear"]
    assert maxout.children["1"].pieces == 3
    assert [maxout.children[i].linear.max_norm for i in "13"] == [2.0, 2.0]
    assert maxout.children["5"].max_norm is None
    shared = partial(DropConnect, per_sample=False)
    connect = mlp(sizes, key=key, drop=None, connect=shared, p=0.4, input_p=0.1)
    assert kinds(connect) == [*["DropConnect", "ReLU"] * 2, "DropConnect"]
    assert [connect.children[i].p for i in "024"] == [0.1, 0.4, 0.4]
    plain = mlp(sizes, key=key, drop=None)
    for (_, a), (_, b) in zip(connect.named_arrays(), plain.named_arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SpatialDropout(50), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: DropConnect(6, 4, 50, key=Key(0)), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: DropConnect(6, 4, math.nan, key=Key(0)), ValueError, "p must be a number, got nan"),
        (lambda: DropConnect(0, 4, key=Key(0)), ValueError, "n_in must be at least 1"),
        (lambda: DropConnect(6, 4, key=0), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: DropConnect(6, 4, key=Key(0), rate=1), TypeError, "unexpected keyword argument 'rate'"),
        (lambda: Maxout(6, 4, pieces=0, key=Key(0)), ValueError, "pieces must be at least 1, got 0"),
        (lambda: Maxout(6, 0, key=Key(0)), ValueError, "n_out must be at least 1, got 0"),
        (lambda: Maxout(6, 4, key=Key(0), init="zeros"), ValueError, "init must be one of 'he', 'xavier'"),
        (lambda: Maxout(6, 4, key=Key(0), max_norm=0), ValueError, "max_norm must be finite and greater"),
        (lambda: BatchNorm(0), ValueError, "channels must be at least 1, got 0"),
        (lambda: BatchNorm(6, eps=0), ValueError, "eps must be finite and greater than 0"),
        (lambda: BatchNorm(6, momentum=1.5), ValueError, r"momentum must be in \[0, 1\]"),
        (lambda: BatchNorm(6, dtype=np.float16), ValueError, "dtype must be float32 or float64"),
        (lambda: GroupNorm(4, 6), ValueError, "channels must be a multiple of groups = 4, got 6"),
        (lambda: GroupNorm(0, 6), ValueError, "groups must be at least 1, got 0"),
        (lambda: LayerNorm(()), ValueError, r"shape must have at least one axis, got \(\)"),
        (lambda: LayerNorm((6, 0)), ValueError, r"shape\[1\] must be at least 1, got 0"),
        (lambda: LayerNorm(6.5), TypeError, "shape must be a tuple of sizes"),  # type: ignore[arg-type]
        (
            lambda: mlp((6, 4), key=Key(0), drop=Dropout, connect=DropConnect),
            ValueError,
            "connect must be None with a drop",
        ),
        (
            lambda: mlp((6, 5, 4), key=Key(0), drop=None, connect=DropConnect, activation="maxout"),
            ValueError,
            "connect must be None with a drop or with maxout",
        ),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


FLAT_6, SPATIAL_6, BATCH_32 = (
    r"x must have shape \(N, 6\), got",
    r"x must have shape \(N, 6, \*spatial\), got",
    r"x must have shape \(\*batch, 3, 2\), got",
)


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (DropConnect(6, 4, key=Key(0)), np.zeros((2, 5)), ValueError, FLAT_6 + r" \(2, 5\)"),
        (Maxout(6, 4, key=Key(0)), np.zeros(6), ValueError, FLAT_6 + r" \(6,\)"),
        (BatchNorm(6), np.zeros((2, 5)), ValueError, SPATIAL_6 + r" \(2, 5\)"),
        (BatchNorm(6), np.zeros(6), ValueError, SPATIAL_6 + r" \(6,\)"),
        (GroupNorm(2, 6), np.zeros((2, 5, 3)), ValueError, SPATIAL_6 + r" \(2, 5, 3\)"),
        (LayerNorm((3, 2)), np.zeros((3, 3)), ValueError, BATCH_32 + r" \(3, 3\)"),
        (LayerNorm((3, 2)), np.zeros(2), ValueError, BATCH_32 + r" \(2,\)"),
        (BatchNorm(6), np.zeros((2, 6), int), TypeError, "x must hold floating-point numbers"),
        (LayerNorm(6), [[0.0] * 6], TypeError, "x must be a NumPy array, got list"),
        (SpatialDropout(), np.zeros(6), ValueError, r"^x must"),
        (SpatialDropout(), np.zeros((2, 6, 2), int), TypeError, r"^x must"),
    ],
)
@KEYS
def test_bad_inputs(layer: Layer, x: Any, error: type[Exception], message: str, key: Key | None) -> None:
    with pytest.raises(error, match=message):
        layer.forward(x, key)
    assert layer._saved is None or isinstance(layer, SpatialDropout)
