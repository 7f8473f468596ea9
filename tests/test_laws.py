"""The laws, on every row of the table and every backend and dtype."""

import math

import numpy as np
import pytest
from helpers.family import (
    BACKENDS,
    CASES,
    EACH,
    FACTORS,
    NUMPY_DTYPES,
    RATES,
    SEEDS,
    TORCH_DTYPES,
    close,
    expected,
    kept_units,
    on,
    ones,
    ramp,
    run,
    weight_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thinned import Key, functional, masks, theory

ON = pytest.mark.parametrize("backend", BACKENDS)


# 1. p = 0 and evaluation return the input; p = 1 gives exact zeros and zero gradients.


def is_unchanged(case, y, x):
    """The input itself; for a linear layer, the plain layer."""
    if not case.linear:
        return y is x
    return bool((y == functional.drop_connect(x, weight_for(x), p=0.0, key=Key(9))).all())


@EACH
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_law1_numpy(case, dtype):
    x = ramp(case.shape, dtype)
    assert is_unchanged(case, case(x, 0.0), x)
    if case.facts.evaluation is None:
        assert is_unchanged(case, case(x, 0.7, training=False), x)
    x[0, 0], x[-1, -1] = np.nan, np.inf
    zeros = case(x, 1.0)
    assert zeros.dtype == x.dtype
    assert zeros.shape == ((20, 3) if case.linear else x.shape)
    assert not np.any(zeros), "exact zeros, NaN gone"


@EACH
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law1_torch(case, dtype, torch):
    x = ramp(case.shape, dtype, torch).requires_grad_()
    assert is_unchanged(case, case(x, 0.0), x)
    if case.facts.evaluation is None:
        assert is_unchanged(case, case(x, 0.7, training=False), x)
    with torch.no_grad():
        x[0, 0], x[-1, -1] = torch.nan, torch.inf
    zeros = case(x, 1.0)
    assert zeros.dtype == x.dtype
    assert not zeros.detach().float().numpy().any()
    zeros.backward(torch.full_like(zeros, torch.inf))
    assert not x.grad.float().numpy().any()


@pytest.mark.parametrize("case", [c for c in CASES if c.facts.evaluation], ids=str)
def test_law1_another_evaluation(case):
    x = ramp(case.shape)
    assert np.array_equal(case(x, 0.25, training=False), case.facts.evaluation(x, 0.25))


# 2. Bad rates, dtypes, ranks and keys: the argument, the rule, what came.


@EACH
@pytest.mark.parametrize(
    ("p", "kind"),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (50, ValueError),
        (float("nan"), ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_law2_rates(case, p, kind, training):
    with pytest.raises(kind, match=r"^p must be"):
        case(np.ones(case.shape), p, training=training)


@EACH
@pytest.mark.parametrize("x", [np.arange(3), np.array([True]), np.ones(2, complex), [1.0, 2.0], 3.0, None])
def test_law2_inputs(case, x):
    with pytest.raises(TypeError, match=r"^x must"):
        case(x, 0.5)


@EACH
def test_law2_torch_inputs(case, torch):
    for x in (torch.arange(3), torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=r"^x must hold floating-point numbers, got dtype torch"):
            case(x, 0.5)


@EACH
@pytest.mark.parametrize("training", [True, False])
def test_law2_ranks(case, training):
    low, high = case.ranks
    for rank in range(7):
        x = np.ones((2,) * rank)
        if low <= rank <= high:
            case(x, 0.5, training=training)
        else:
            with pytest.raises(ValueError, match=r"^x must have shape \(N.*, got \("):
                case(x, 0.5, training=training)


@EACH
def test_law2_key_and_offset(case):
    x = np.ones(case.shape)
    with pytest.raises(TypeError, match=r"^key must be a thinned.Key"):
        case(x, 0.5, key=0)
    with pytest.raises(ValueError, match=r"^sample_offset must be in \[0, 2\*\*64\), got -1"):
        case(x, 0.5, sample_offset=-1)
    with pytest.raises(TypeError, match=r"^sample_offset must be an integer, got 1.5"):
        case(x, 0.5, sample_offset=1.5)


# 3. Dropping selects: survivors are x times the row's factor, the rest is what the row says, NaN or not.


@EACH
@ON
@given(data=st.data(), seed=SEEDS, p=RATES)
@settings(max_examples=25)
def test_law3(case, backend, data, seed, p):
    finite = st.floats(-100, 100) if case.linear else st.floats(width=64)
    x = data.draw(hnp.arrays(np.float64, case.shapes(), elements=finite))
    want = expected(case, x, p, seed)
    assert close(case, run(backend, case, x, p, Key(seed)), want, x, p)


@pytest.mark.parametrize("case", [c for c in CASES if c.facts.selects], ids=str)
@ON
def test_law3_nan_in_a_dropped_unit_is_gone(case, backend):
    """No NaN in the result, and none in the gradient, for any dtype."""
    x = ramp((2, 6) if case.linear else case.shape)
    kept, more = kept_units(case, x.shape, 0.5, 1), {}
    assert kept.any()
    if case.linear:
        dropped = ~kept.any(axis=0)  # for all samples
        assert dropped.any()
        more["weight"] = np.where(dropped, np.inf, weight_for(x))
    else:
        dropped = ~kept
        x[dropped] = np.nan
    if backend != "torch":
        with on(backend):
            assert np.isfinite(case(x, 0.5, Key(1), **more)).all()
        return
    import torch

    for dtype in TORCH_DTYPES:
        x_, *w = (torch.from_numpy(a).to(getattr(torch, dtype)).requires_grad_() for a in (x, *more.values()))
        y = case(x_, 0.5, Key(1), **({"weight": w[0]} if w else {}))
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x_.grad).all()
        assert not w or not w[0].grad[torch.from_numpy(dropped)].any()


# 4. Rate, mean and variance agree with theory, within the bound of a sample of that size.


def draws(case, p, units=1 << 16, seed=11):
    """What the method makes of 1, for that many units: an array with a value for each unit."""
    shape = {"element": (units,), "channel": (units // 64, 64, 2), "sample": (units, 2)}
    if case.linear:
        n = units // 32
        return case(np.ones((n, 1)), p, Key(seed), weight=np.ones((32, 1)))
    x = case(np.ones(shape[case.method.unit]), p, Key(seed))
    return x.reshape(-1, 2)[:, 0] if case.method.unit in ("channel", "sample") else x


INDEPENDENT = [c for c in CASES if c.method.unit not in ("block", "feature") and not c.shares_mask]


@pytest.mark.parametrize("case", INDEPENDENT, ids=str)
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8])
def test_law4(case, p):
    factor = draws(case, p)
    n = factor.size
    mean, variance = case.method.moments(p)
    # 6 standard errors; the variance's from the fourth moment
    assert abs(factor.mean() - mean) <= 6 * math.sqrt(variance / n)
    bound = variance * 6 * math.sqrt(max(case.facts.fourth(p) - 1, 0) / n) + 1e-12
    assert abs(np.mean((factor - mean) ** 2) - variance) <= bound


ONE_DECISION = [c for c in CASES if c not in INDEPENDENT and c.method.unit != "feature"]


@pytest.mark.parametrize("case", ONE_DECISION, ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_law4_one_decision_a_batch(case, p):
    """Those that decide for a whole batch: over keys. For DropBlock, the sum of each sample."""
    keys, shape = 2000, (2, 1, 6)
    if case.linear:
        factor = np.array(
            [case(np.ones((2, 1)), p, Key(i), weight=np.ones((1, 1)))[:, 0] for i in range(keys)]
        )
    else:
        factor = np.array([case(np.ones(shape), p, Key(i)).mean(axis=(1, 2)) for i in range(keys)])
    if case.method.unit == "block":
        assert np.all((np.abs(factor - 1) < 1e-12) | (factor == 0)), (
            "the mean of a sample is kept, or all is gone"
        )
        return
    mean, variance = case.method.moments(p)
    assert np.array_equal(factor[:, 0], factor[:, 1]), "one decision"
    assert abs(factor[:, 0].mean() - mean) <= 6 * math.sqrt(variance / keys)


@pytest.mark.parametrize("case", [c for c in CASES if c.method.unit == "feature"], ids=str)
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_law4_groups(case, p, n):
    """Over the keys, each unit of each group has theory's moments, also where p·n is no whole number."""
    keys, groups = 500, case.options.get("groups", masks.GROUPS)
    factor = np.array([case(np.ones((groups, n)), p, Key(i)) for i in range(keys)])
    mean, variance = theory.thin_moments(p)
    assert np.all(abs(factor.mean(axis=0) - mean) <= 6 * math.sqrt(variance / keys))
    survivors = (factor > 0).sum(axis=2) / masks.panel_size(n)
    panels = -(-n // masks.panel_size(n))
    assert np.all(abs(survivors - (1 - p) * panels) < 1)
    assert set(np.unique(factor)) <= {0.0, 1 / (1 - p) if p < 1 else 0.0}


MAPS = [
    ((14, 14), 7),  # a peer realises 20 % here
    ((7, 7), 7),  # and 93 % here
    ((4, 4), 7),  # smaller than the block
    ((14, 14), 4),
    ((8, 3), 4),
    ((1, 1), 1),
    ((30,), 2),
    ((9,), 7),
    ((6, 5, 4), 3),
]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("p", [0.1, 0.4])
@pytest.mark.parametrize(("spatial", "block"), MAPS)
def test_law4_drop_block_drops_what_it_was_asked_to(spatial, block, p, per_channel):
    maps = 600
    shape = (maps // 2, 2, *spatial) if per_channel else (maps, 2, *spatial)
    y = functional.drop_block(np.ones(shape), p, block, key=Key(5), per_channel=per_channel)
    rate = theory.drop_block_rate(p, block, spatial)
    bound = 6 * math.sqrt(theory.drop_block_variance(rate, block, spatial) / maps)
    assert abs(np.mean(y == 0) - p) <= bound
    one = [functional.drop_block(np.ones((1, 1, *spatial)), p, block, key=Key(i)) for i in range(maps)]
    assert abs(np.mean(np.array(one) == 0) - p) <= bound, "batches of one sample"


@EACH
def test_law4_neighbouring_seeds_are_independent(case):
    """Seeds s and s + 1, and a key and its children: they agree on as many units as chance has it."""
    x = np.ones(
        (512, 1) if case.linear else (64, 64, 3) if case.ranks[0] > 2 else (4096,) + (1,) * case.ranks[0]
    )
    if case.shares_mask and case.method.unit != "feature":
        pytest.skip("one decision a batch")
    if case.method.unit == "feature":
        x = np.ones((case.options.get("groups", masks.GROUPS), 4096))

    def units(key):
        y = case(x, 0.5, key, **({"weight": np.ones((3, 1))} if case.linear else {}))
        return y > (0 if case.facts.selects else 1)

    before = units(Key(7))
    for key in (Key(8), Key(7 + 2**32), Key(7).fold_in(0), Key(0)):
        both = np.mean(before == units(key))
        rate = np.mean(before)
        # independent with that rate: agreement r² + (1 − r)², whose deviation is at most ½/√units
        maps = 64 if case.options.get("per_channel", True) is False else 64 * 64
        panels = (len(x) + 1) // 2 * (4096 // masks.panel_size(4096))  # of a pair: its groups agree together
        independent = {"block": maps, "feature": panels}.get(case.method.unit, before.size)
        assert abs(both - (rate**2 + (1 - rate) ** 2)) <= 6 * 0.5 / math.sqrt(independent), key


# 5. Same key, same mask: NumPy, its reference, torch, dtypes, strides, thread counts, shards.


@EACH
@given(data=st.data(), seed=SEEDS, p=RATES)
@settings(max_examples=25)
def test_law5_backends_agree(case, data, seed, p):
    pytest.importorskip("torch")
    x = ramp(data.draw(case.shapes()), "float32")
    want = run("reference", case, x, p, Key(seed))
    assert close(case, run("cpu", case, x, p, Key(seed)), want, x, p)
    assert close(case, run("torch", case, x, p, Key(seed)), want, x, p)


@EACH
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law5_dtypes_share_the_mask(case, dtype, torch):
    def kept(x):
        more = {"weight": x[:OUT_ROWS]} if case.linear else {}
        y = case(x, 0.4, Key(8), **more)
        return (y if isinstance(y, np.ndarray) else y.float().numpy()) > 0

    shape = (40, 1) if case.linear else (20, 6, 9)
    want = kept(np.ones(shape))
    assert np.array_equal(kept(ones(shape, dtype, torch)), want)
    if dtype in NUMPY_DTYPES:
        assert np.array_equal(kept(ones(shape, dtype)), want)


OUT_ROWS = 30


@EACH
@ON
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_law5_strides_change_nothing(case, backend, dtype):
    x = ramp((12, 10), dtype) if case.linear else ramp((6, 8, 7), dtype)
    for view in (x.T, np.asfortranarray(x), x[:, ::-2] if backend != "torch" else x[:, ::2], x[1:]):
        copy = view.copy()
        assert close(
            case, run(backend, case, view, 0.4, Key(8)), run(backend, case, copy, 0.4, Key(8)), copy, 0.4
        )


@EACH
def test_law5_channels_last_changes_nothing(case, torch):
    if case.linear:
        pytest.skip("no channels")
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    assert torch.equal(case(x.to(memory_format=torch.channels_last), 0.4, Key(8)), case(x, 0.4, Key(8)))


@EACH
def test_law5_thread_count(case, torch):
    x = torch.linspace(-1, 1, 1 << 18).reshape((1 << 10, 1 << 8) if case.linear else (1 << 10, 4, 64))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = case(x, 0.3, Key(8))
        torch.set_num_threads(2)
        assert torch.allclose(case(x, 0.3, Key(8)), one, rtol=0, atol=1e-4 if case.linear else 0.0)
    finally:
        torch.set_num_threads(before)


@EACH
@ON
@given(data=st.data(), seed=SEEDS, p=RATES, offset=st.sampled_from([0, 3, 2**40]))
@settings(max_examples=15)
def test_law5_a_shard_gets_its_part(case, backend, data, seed, p, offset):
    """f(x)[i:j] = f(x[i:j], sample_offset=i), also where the batch is itself a shard."""
    low, _ = case.ranks
    shape = data.draw(case.shapes(min_side=1)) if low else (6, 2, 3)
    i, j = sorted(data.draw(st.tuples(*[st.integers(0, shape[0])] * 2)))
    x = ramp(shape)
    whole = run(backend, case, x, p, Key(seed), sample_offset=offset)
    part = run(backend, case, x[i:j], p, Key(seed), sample_offset=offset + i)
    assert close(case, part, whole[i:j], x[i:j], p)
    if p < 1:
        assert close(case, whole, expected(case, x, p, seed, offset), x, p)


@EACH
def test_law5_no_sample_knows_of_the_others(case):
    """What stands in the other samples changes nothing in one."""
    x = ramp(case.shape)
    before = case(x, 0.4, Key(8))
    for value in (np.nan, np.inf, 1e300):
        other = np.full_like(x, value)
        other[2] = x[2]
        with np.errstate(all="ignore"):
            assert np.array_equal(case(other, 0.4, Key(8))[2], before[2])


@EACH
@given(seed=SEEDS, p=st.floats(0.01, 0.99), q=st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_law5_masks_are_nested(case, seed, p, q):
    """What survives a larger p survives a smaller one."""
    p, q = sorted((p, q))
    few, many = kept_units(case, case.shape, q, seed), kept_units(case, case.shape, p, seed)
    assert np.all(many | ~few)


@EACH
def test_the_input_is_left_alone(case, torch):
    for x in (ramp(case.shape), ramp(case.shape, "float32", torch)):
        before = x.copy() if isinstance(x, np.ndarray) else x.clone()
        case(x, 0.5, Key(1))
        assert (x == before).all()


# 6. Dtypes, empty arrays, zero-sized batches; half precision is computed in single and rounded once.


EMPTY = [(), (0,), (0, 4), (5, 0), (0, 3, 4), (2, 0, 4), (2, 3, 0)]
FITTING = [(c, s) for c in CASES for s in EMPTY if c.ranks[0] <= len(s) <= c.ranks[1]]


@pytest.mark.parametrize(("case", "shape"), FITTING, ids=str)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law6(case, shape, dtype, torch):
    out_shape = (shape[0], 3) if case.linear else shape
    for p in (0.0, 0.5, 1.0):
        out = case(ones(shape, dtype, torch).requires_grad_(), p)
        assert (out.dtype, tuple(out.shape)) == (getattr(torch, dtype), out_shape)
        out.sum().backward()
        if dtype in NUMPY_DTYPES:
            out = case(ones(shape, dtype), p)
            assert (out.dtype, out.shape) == (np.dtype(dtype), out_shape)


@EACH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_law6_half_is_computed_in_single_and_rounded_once(case, dtype, torch):
    shape = (64, 64) if case.linear else (16, 16, 16)
    half = ramp(shape, dtype, torch)
    if case.linear and not case.options.get("per_sample", True):
        pytest.skip("one masked matrix, rounded, then torch's own product")
    more = {"weight": weight_for(half)} if case.linear else {}
    wide = case(half.float(), 0.3, Key(2), **{k: v.float() for k, v in more.items()})
    assert torch.equal(case(half, 0.3, Key(2), **more), wide.to(half.dtype))
    if dtype == "float16":
        more = {k: v.numpy() for k, v in more.items()}
        got = case(half.numpy(), 0.3, Key(2), **more)
        if case.linear:
            eps = float(np.finfo(np.float16).eps)
            assert np.allclose(got, wide.numpy(), rtol=eps, atol=1e-5), "another order of the sum, in single"
        else:
            assert np.array_equal(got, wide.numpy().astype(np.float16))


@EACH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_law6_many_units_overflow_no_half(case, dtype, torch):
    """A sample of 90,000 units: counted in half, they would be infinitely many."""
    x = ones((1, 90_000) if case.linear else (1, 1, 90_000), dtype, torch)
    more = {"weight": x[:, :] / 90_000} if case.linear else {}
    y = case(x, 0.1, Key(3), **more).float()
    assert torch.isfinite(y).all()
    keeps_sum = case.linear or case.method.unit == "block"
    if keeps_sum:
        # a factor rounded to dtype, and 6 deviations of the kept share for a linear layer
        bound = torch.finfo(x.dtype).eps * 2 + (6 * math.sqrt(0.1 / 0.9 / 90_000) if case.linear else 0)
        assert abs(float(y.sum() if case.linear else y.mean()) - 1) <= bound


# 7. Gradients.


@EACH
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_law7_gradcheck(case, p, torch):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)
    x = x.reshape((8, 5) if case.linear else (2, 4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: case(x, p, Key(3), sample_offset=4), (x,))
    if not case.linear:
        assert torch.autograd.gradgradcheck(lambda x: case(x, p, Key(3), sample_offset=4), (x,))


@FACTORS
def test_law7_numpy_backward_is_forward_of_the_gradient(case, torch):
    x = ramp(case.shape, "float64", torch).requires_grad_()
    grad = np.cos(np.arange(120.0)).reshape(case.shape)
    case(x, 0.4, Key(3)).backward(torch.from_numpy(grad))
    assert np.array_equal(x.grad.numpy(), case(grad, 0.4, Key(3)))


@FACTORS
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_law7_survivors_scale_gradients_as_values(case, dtype, torch):
    x = ones(case.shape, dtype, torch).requires_grad_()
    y = case(x, 0.4, Key(3))
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@EACH
def test_nothing_is_saved_for_backward_but_the_key(case, torch):
    saved = []
    x = torch.ones(case.shape, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        case(x, 0.5)
    if case.linear:
        assert all(t.numel() <= max(x.numel(), 18) for t in saved), "x and W, no mask for each sample"
    else:
        assert saved == []
