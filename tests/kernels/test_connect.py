"""DropConnect's products: the sums that are promised, bit for bit, at every level, on any threads."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.family import on, ramp
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, kernels
from thinned.kernels import address, connect
from thinned.kernels.work import Draw
from thinned.key import bernoulli, threshold

cpu = kernels.extension()
LEVELS = cpu.levels() if cpu is not None else []
needs_extension = pytest.mark.skipif(cpu is None, reason="the C++ extension was not built")
DTYPES = ["float32", "float64"]
# N, out, in: around strips of 16 and 32 numbers, groups of 8 samples and rows, tiles of 2**14 units
SHAPES = st.one_of(
    st.tuples(st.integers(1, 18), st.integers(1, 18), st.integers(1, 100)),
    st.sampled_from([(9, 30, 784), (2, 3, 16_384), (2, 2, 20_003), (17, 700, 31), (1, 1, 1)]),
)
STARTS = st.builds(
    lambda base, more: base + more, st.sampled_from([0, 2**39 - 500, 2**63]), st.integers(0, 200)
)
RATES = st.sampled_from([0.1, 0.5, 0.75, 1e-12])


def arrays(shape, dtype, seed):
    """x, W and ∂L/∂y of some sizes, NaN and ∞ among the weights."""
    n, rows, columns = shape
    rng = np.random.default_rng(seed)
    x, w, g = (rng.normal(size=size).astype(dtype) for size in ((n, columns), (rows, columns), (n, rows)))
    w.flat[:: 3 * columns + 1] = np.nan
    w.flat[1 :: 5 * columns + 2] = np.inf
    return x, w, g


def in_order(x, w, g, draw):
    """y, ∂L/∂x and ∂L/∂W by the order of summation that connect.cpp states, in the dtype of x."""
    shape = (len(x), *w.shape)
    kept = bernoulli(draw.key, int(np.prod(shape)), draw.limit, draw.start).reshape(shape)
    scale, zero = x.dtype.type(draw.scale), x.dtype.type(0)
    with np.errstate(all="ignore"):
        terms = np.where(kept, w, zero) * x[:, None]
        size = 128 // x.dtype.itemsize  # partial sums, by i mod size, added in halves
        sums = np.zeros((*shape[:2], size), x.dtype)
        for i in range(0, shape[2], size):
            sums[..., : min(size, shape[2] - i)] += terms[..., i : i + size]
        while size > 1:
            size //= 2
            sums = sums[..., :size] + sums[..., size:]
        grad_x, grad_w = np.zeros_like(x), np.zeros_like(w)
        for o in range(shape[1]):
            grad_x += np.where(kept[:, o], w[o], zero) * g[:, o, None]
        for n in range(shape[0]):
            grad_w += np.where(kept[n], g[n, :, None] * x[n], zero)
        return sums[..., 0] * scale, grad_x * scale, grad_w * scale


def native(x, w, g, draw, threads, level):
    """The same, by the extension."""
    results = []
    for which, (a, b, like) in enumerate([(x, w, g), (g, w, x), (g, x, w)]):
        out = np.full_like(like, 7)
        where = (address(a), address(b), address(out), (len(x), *w.shape))
        how = (draw.start, *draw.key.words, draw.limit, draw.scale, threads, level)
        cpu.connect(which, kernels.DTYPES[x.dtype.name], *where, *how)
        results.append(out)
    return results


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
@given(shape=SHAPES, seed=st.integers(0, 2**64 - 1), start=STARTS, p=RATES)
def test_the_sums_are_those_of_the_stated_order(level, dtype, shape, seed, start, p):
    operands, draw = arrays(shape, dtype, seed), Draw(Key(seed), threshold(p), 1.7, start)
    for ours, want in zip(native(*operands, draw, 1, level), in_order(*operands, draw), strict=True):
        assert np.array_equal(ours, want, equal_nan=True)


@needs_extension
@pytest.mark.parametrize("shape", [(40, 300, 401), (3000, 7, 250), (2, 1500, 1801)])
@pytest.mark.parametrize("level", LEVELS)
def test_threads_change_nothing(level, shape):
    """Over 2**22 units, that is eight threads: more rows than samples, and fewer, than that."""
    operands, draw = arrays(shape, "float32", 5), Draw(Key(5), threshold(0.3), 2.0, 77)
    one = native(*operands, draw, 1, level)
    for threads in (2, 3, 64):
        for ours, want in zip(native(*operands, draw, threads, level), one, strict=True):
            assert np.array_equal(ours, want, equal_nan=True)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_products_to_rounding(p, dtype, backend):
    """|error| ≤ γ_k·Σ|terms| in any order, γ_k = ku/(1 − ku), for k − 2 additions and two products a term.

    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    x, w, g = arrays((33, 40, 130), dtype, 3)
    w[~np.isfinite(w)] = 1
    draw = Draw(Key(3), threshold(p), 1 / (1 - p), 1000)
    kept = bernoulli(draw.key, 33 * 40 * 130, draw.limit, draw.start).reshape(33, 40, 130)
    with on(backend):
        ours = connect.forward(x, w, draw), *connect.backward(g, x, w, draw)
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    specs = [("noi,oi,ni->no", (w, x), 130), ("noi,oi,no->ni", (w, g), 40), ("noi,no,ni->oi", (g, x), 33)]
    for result, (spec, operands, terms) in zip(ours, specs, strict=True):
        want = draw.scale * np.einsum(spec, kept, *operands)
        most = draw.scale * np.einsum(spec, kept, *map(abs, operands))
        unit = np.finfo(dtype).eps / 2
        k = (terms + 2) * (2 if dtype == "float64" else 1)  # in double, what is wanted is rounded as well
        assert np.all(abs(result - want) <= k * unit / (1 - k * unit) * most)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_only_what_is_needed_is_computed(backend):
    x, w, g = arrays((3, 4, 5), "float32", 1)
    draw = Draw(Key(1), threshold(0.5), 2.0, 0)
    with on(backend):
        both = connect.backward(g, x, w, draw)
        for needed in ((True, False), (False, True), (False, False)):
            for wanted, mine, full in zip(needed, connect.backward(g, x, w, draw, needed), both, strict=True):
                assert np.array_equal(mine, full, equal_nan=True) if wanted else mine is None


@pytest.mark.parametrize("limit", [0, 1 << 31])
@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
def test_nothing_to_sum_is_zero(shape, limit):
    n, rows, columns = shape
    draw = Draw(Key(1), limit, 2.0, 0)
    x, w, g = np.ones((n, columns)), np.ones((rows, columns)), np.ones((n, rows))
    for ours, like in zip(
        (connect.forward(x, w, draw), *connect.backward(g, x, w, draw)), (g, x, w), strict=True
    ):
        assert np.array_equal(ours, np.zeros_like(like))


# Without the extension: masks in blocks of samples


@given(block=st.integers(1, 200), n=st.integers(0, 9))
def test_blocks_of_samples_change_nothing(block, n):
    x, w, g = arrays((n, 4, 6), "float64", 1)
    w[~np.isfinite(w)] = 1
    draw = Draw(Key(1), threshold(0.4), 1 / 0.6, 120)
    with on("reference"):
        want = connect.forward(x, w, draw), *connect.backward(g, x, w, draw)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connect, "BLOCK", block)
            got = connect.forward(x, w, draw), *connect.backward(g, x, w, draw)
    for mine, theirs in zip(got, want, strict=True):
        assert np.allclose(mine, theirs, rtol=0, atol=1e-12)


def test_blocks_of_samples_bound_the_memory():
    """512 masks of 256 × 256 would be 32 MiB as bytes, 128 MiB as weights; a block is 1 MiB and 4 MiB."""
    x, w, draw = (
        ramp((512, 256), "float32"),
        ramp((256, 256), "float32"),
        Draw(Key(1), 1 << 31, 2.0, 0),
    )
    tracemalloc.start()
    try:
        with on("reference"):
            connect.forward(x, w, draw)
            connect.backward(x, x, w, draw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 24 << 20, "two blocks of products, one of masks, the results"


# With it: nothing beside the results


PEAK = """
import numpy as np, thinned
from thinned.functional import drop_connect_gradient
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) << 10
x, w, key = np.ones((6, 4096), np.float32), np.ones((4096, 4096), np.float32), thinned.Key(1)
thinned.drop_connect(x, w[:4096 // 64], p=0.5, key=key)
before = peak()
y = thinned.drop_connect(x, w, p=0.5, key=key)
forward = peak()
grads = drop_connect_gradient(y, x, w, 0.5, key=key)
print((forward - before) / w.nbytes, (peak() - before) / w.nbytes)
"""


@needs_extension
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_is_that_of_the_weights():
    """Six masks would be 6 times the weights. Forward: no copy of them; with the gradients: theirs alone."""
    out = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    forward, both = map(float, out.split())
    assert forward < 1
    assert both < 2
