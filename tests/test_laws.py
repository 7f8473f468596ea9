"""The laws, on every row of the table and every backend and dtype."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thinned import Key, keep_mask
from thinned.methods import METHODS

ROWS = pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
MASKED = pytest.mark.parametrize(
    "method", [m for m in METHODS.values() if m.hand == "Dropout"], ids=lambda m: m.name
)
NUMPY_DTYPES = ["float16", "float32", "float64"]
TORCH_DTYPES = ["float16", "bfloat16", "float32", "float64"]
SEEDS = st.integers(0, 2**64 - 1)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


def apply(method, x, p, key=Key(0), training=True):
    return method.function(x, p, key=key, training=training, **method.options)


def ones(shape, dtype, torch=None):
    return np.ones(shape, dtype) if torch is None else torch.ones(shape, dtype=getattr(torch, dtype))


# 1. p = 0 and evaluation return the input; p = 1 gives exact zeros and zero gradients.


@ROWS
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_law1_numpy(method, dtype):
    x = np.linspace(-3, 3, 24, dtype=dtype).reshape(2, 3, 4)
    x[0, 0, 0] = np.nan
    assert apply(method, x, 0.0) is x
    if method.options.get("rescale") != "test":
        assert apply(method, x, 0.7, training=False) is x
    zeros = apply(method, x, 1.0)
    assert zeros.dtype == x.dtype
    assert zeros.shape == x.shape
    assert not np.any(zeros), "exact zeros, NaN gone"


@ROWS
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law1_torch(method, dtype, torch):
    x = torch.linspace(-3, 3, 24).to(getattr(torch, dtype)).reshape(2, 3, 4).requires_grad_()
    assert apply(method, x, 0.0) is x
    if method.options.get("rescale") != "test":
        assert apply(method, x, 0.7, training=False) is x
    zeros = apply(method, x, 1.0)
    assert (zeros.dtype, zeros.shape) == (x.dtype, x.shape)
    assert not zeros.any()
    zeros.sum().backward()
    assert not x.grad.any()


def test_original_rule_multiplies_in_evaluation():
    x = np.linspace(-1, 1, 9)
    assert np.array_equal(apply(METHODS["dropout-original"], x, 0.25, training=False), x * 0.75)


# 2. Bad rates, dtypes and keys: the argument, the rule, what came.


@ROWS
@pytest.mark.parametrize(
    ("p", "kind"),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (50, ValueError),
        (float("nan"), ValueError),
        ("0.5", TypeError),
        (None, TypeError),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_law2_rates(method, p, kind, training):
    with pytest.raises(kind, match=r"^p must be"):
        apply(method, np.ones(3), p, training=training)


@ROWS
@pytest.mark.parametrize("x", [np.arange(3), np.array([True]), np.ones(2, complex), [1.0, 2.0], 3.0, None])
def test_law2_inputs(method, x):
    with pytest.raises(TypeError, match=r"^x must"):
        apply(method, x, 0.5)


@ROWS
def test_law2_torch_inputs(method, torch):
    for x in (torch.arange(3), torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=r"^x must hold floating-point numbers, got dtype torch"):
            apply(method, x, 0.5)


@ROWS
def test_law2_key(method):
    with pytest.raises(TypeError, match=r"^key must be a thinned.Key"):
        apply(method, np.ones(3), 0.5, key=0)


# 3. Dropping selects: survivors are x times the row's factor, the rest is exactly zero, NaN or not.


@MASKED
@given(
    seed=SEEDS,
    p=st.floats(0, 1, exclude_min=True),
    x=hnp.arrays(np.float64, SHAPES, elements=st.floats(width=64)),
)
def test_law3(method, seed, p, x):
    kept = keep_mask(x.shape, p, key=Key(seed))
    scale = 1 / (1 - p) if method.options.get("rescale", "train") == "train" and p < 1 else 1.0
    with np.errstate(all="ignore"):
        expected = np.where(kept, x * scale, 0.0)
    assert np.array_equal(apply(method, x, p, Key(seed)), expected, equal_nan=True)


# 4. Mean and variance agree with theory, within the bound of a sample of that size.


@ROWS
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8])
def test_law4(method, p):
    n, seed = 1 << 18, 11
    factor = apply(method, np.ones(n), p, Key(seed))
    mean, variance = method.moments(p)
    # 6 standard errors; the variance's from the fourth moment, at most that of dropout's two points or 3σ⁴
    fourth = max(np.mean((factor - mean) ** 4), 3 * variance**2)
    assert abs(factor.mean() - mean) <= 6 * math.sqrt(variance / n), f"seed {seed}"
    assert abs(np.mean((factor - mean) ** 2) - variance) <= 6 * math.sqrt(fourth / n), f"seed {seed}"


# 5. Same key, same mask: NumPy, torch, dtypes, strides, thread counts.


@ROWS
@given(seed=SEEDS, shape=SHAPES, p=st.floats(0, 1))
def test_law5_torch_is_numpy(method, seed, shape, p):
    torch = pytest.importorskip("torch")
    x = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    ours = apply(method, torch.from_numpy(x.copy()), p, Key(seed))
    assert np.array_equal(ours.numpy(), apply(method, x, p, Key(seed)))


@ROWS
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law5_dtypes_share_the_mask(method, dtype, torch):
    kept = apply(method, np.ones((50, 30)), 0.4, Key(8)) != 0
    assert np.array_equal(apply(method, ones((50, 30), dtype, torch), 0.4, Key(8)).ne(0).numpy(), kept)
    if dtype in NUMPY_DTYPES:
        assert np.array_equal(apply(method, ones((50, 30), dtype), 0.4, Key(8)) != 0, kept)


@ROWS
def test_law5_strides_change_nothing(method, torch):
    x = np.linspace(-1, 1, 120, dtype=np.float32).reshape(4, 5, 6)
    expected = apply(method, x.transpose(2, 0, 1).copy(), 0.4, Key(8))
    assert np.array_equal(apply(method, x.transpose(2, 0, 1), 0.4, Key(8)), expected)
    assert np.array_equal(apply(method, torch.from_numpy(x).permute(2, 0, 1), 0.4, Key(8)).numpy(), expected)
    assert np.array_equal(apply(method, np.asfortranarray(x), 0.4, Key(8)), apply(method, x, 0.4, Key(8)))
    assert np.array_equal(
        apply(method, x[:, ::-2], 0.4, Key(8)), apply(method, x[:, ::-2].copy(), 0.4, Key(8))
    )


@ROWS
def test_law5_thread_count(method, torch):
    x = torch.linspace(-1, 1, (1 << 20) + 999)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = apply(method, x, 0.3, Key(8))
        torch.set_num_threads(2)
        assert torch.equal(apply(method, x, 0.3, Key(8)), one)
    finally:
        torch.set_num_threads(before)


@ROWS
def test_the_input_is_left_alone(method):
    x = np.linspace(-1, 1, 1000)
    before = x.copy()
    apply(method, x, 0.5, Key(1))
    assert np.array_equal(x, before)


# 6. Dtypes, empty arrays, zero-sized batches.


@ROWS
@pytest.mark.parametrize("shape", [(), (0,), (0, 3, 4), (5, 0)])
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law6(method, shape, dtype, torch):
    for p in (0.0, 0.5, 1.0):
        out = apply(method, ones(shape, dtype, torch).requires_grad_(), p)
        assert (out.dtype, tuple(out.shape)) == (getattr(torch, dtype), shape)
        out.sum().backward()
        if dtype in NUMPY_DTYPES:
            out = apply(method, ones(shape, dtype), p)
            assert (out.dtype, out.shape) == (np.dtype(dtype), shape)


@MASKED
def test_law6_half_is_scaled_in_single_and_rounded_once(method, torch):
    """(x·(1/(1 − p))) in float32, rounded to half: what torch computes, too."""
    x = np.linspace(-3, 3, 4096).astype(np.float16)
    wide = apply(method, x.astype(np.float32), 0.3, Key(2)).astype(np.float16)
    assert np.array_equal(apply(method, x, 0.3, Key(2)), wide)
    assert np.array_equal(apply(method, torch.from_numpy(x), 0.3, Key(2)).numpy(), wide)


# 7. Gradients.


@ROWS
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_law7_gradcheck(method, p, torch):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: apply(method, x, p, Key(3)), (x,))
    assert torch.autograd.gradgradcheck(lambda x: apply(method, x, p, Key(3)), (x,))


@ROWS
def test_law7_numpy_backward_is_forward_of_the_gradient(method, torch):
    x = torch.linspace(-1, 1, 60, dtype=torch.float64).requires_grad_()
    grad = np.cos(np.arange(60.0))
    apply(method, x, 0.4, Key(3)).backward(torch.from_numpy(grad))
    assert np.array_equal(x.grad.numpy(), apply(method, grad, 0.4, Key(3)))


@MASKED
def test_nothing_is_saved_for_backward(method, torch):
    saved = []
    x = torch.ones(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        apply(method, x, 0.5)
    assert saved == []
