"""Every kernel gives the reference's bits: any level, size, start, rate, thread count."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, kernels
from thinned.kernels import address, maps
from thinned.kernels.work import Noise, Select
from thinned.key import bernoulli, normals, threshold

cpu = kernels.extension()
LEVELS = cpu.levels() if cpu is not None else []
needs_extension = pytest.mark.skipif(cpu is None, reason="the C++ extension was not built")

SIZES = st.one_of(st.integers(0, 700), st.integers(8000, 20000))
# around the edges of words, groups, blocks, and where a group's number passes 2**32
STARTS = st.builds(
    lambda base, more: base + more,
    st.sampled_from([0, 64, 128, 8192, 2**33, 2**39 - 5000, 2**63]),
    st.integers(0, 300),
)
RATES = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0**-32, 1e-12, 1 - 1e-9])
)


@needs_extension
@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**64 - 1), n=SIZES, start=STARTS, p=RATES)
def test_masks_equal_the_reference(level, seed, n, start, p):
    out = np.empty(n, bool)
    cpu.mask(address(out), n, start, *Key(seed).words, threshold(p), 1, level)
    assert np.array_equal(out, bernoulli(Key(seed), n, threshold(p), start))


def reference(x, kept, scale, shift, fill):
    """The map by NumPy, operation by operation; half precision in single, rounded once."""
    wide = np.promote_types(x.dtype, np.float32).type
    with np.errstate(all="ignore"):
        y = x.astype(wide) * wide(scale)
        y = np.where(kept, y + wide(shift) if shift or fill else y, wide(fill))
        return y.astype(x.dtype)


def same_bits(a, b):
    """Equal, NaN for NaN and −0 for −0."""
    numbers = ~np.isnan(a)
    bits = f"u{a.itemsize}"
    return np.array_equal(numbers, ~np.isnan(b)) and np.array_equal(
        a[numbers].view(bits), b[numbers].view(bits)
    )


def some_numbers(n, dtype):
    """Numbers with NaN, infinity and −0 among them."""
    x = np.linspace(-2, 2, n).astype(dtype)
    x[1::7], x[2::11], x[3::13] = np.nan, np.inf, -0.0
    return x


MAPS = st.sampled_from([(1.7, 0.0, 0.0), (2.0, 0.0, 0.0), (0.9, 0.25, -1.1)])  # scale, shift, fill


@needs_extension
@pytest.mark.parametrize("dtype", kernels.CODES, ids=str)
@pytest.mark.parametrize("level", LEVELS)
@given(
    seed=st.integers(0, 2**64 - 1),
    n=SIZES,
    start=STARTS,
    p=RATES,
    how=MAPS,
    inner=st.sampled_from([1, 1, 2, 63, 64, 1000]),
)
def test_drop_equals_the_reference(level, dtype, seed, n, start, p, how, inner):
    x, out = some_numbers(n, dtype), np.empty(n, dtype)
    kept = np.repeat(bernoulli(Key(seed), -(-n // inner), threshold(p), start), inner)[:n]
    map_ = (*Key(seed).words, threshold(p), start, inner, *how, level)
    cpu.drop(kernels.CODES[dtype], address(x), address(out), n, 1, *map_)
    assert same_bits(out, reference(x, kept, *how))
    cpu.drop(kernels.CODES[dtype], address(x), address(x), n, 1, *map_)
    assert same_bits(out, x), "in place"


@needs_extension
@pytest.mark.parametrize("dtype", kernels.CODES, ids=str)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    order=st.permutations(range(4)),
    steps=st.lists(st.sampled_from([1, 2, -1, -3]), min_size=4, max_size=4),
    broadcast=st.booleans(),
)
def test_strides_change_nothing(dtype, shape, order, steps, broadcast):
    shape = [*shape, *[1] * (4 - len(shape))]
    x = some_numbers(int(np.prod([3 * n for n in shape])), dtype).reshape([3 * n for n in shape])
    x = x[tuple(slice(None, None, step) for step in steps)].transpose(order)
    if broadcast:
        x = np.broadcast_to(x[:, :1], x.shape)
    drop, noise = Select(threshold(0.3), 5, 1, 1.7), Noise(5, 0.5)
    for how in (drop, noise):
        plain = maps.apply(np.ascontiguousarray(x), how, (1, 2))
        assert same_bits(maps.apply(x, how, (1, 2)), plain)


@needs_extension
@pytest.mark.parametrize("level", LEVELS)
def test_halves_are_rounded_as_numpy_rounds_them(level):
    """Every float16 there is, by several factors: subnormal, halfway, overflowing."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for scale in (1.0, 0.5, 1.7, 2.0**-11, 3.0e-8, 1e4, -1.0):
        out = np.empty_like(x)
        cpu.drop(
            kernels.CODES[x.dtype],
            address(x),
            address(out),
            x.size,
            1,
            0,
            0,
            1 << 32,
            0,
            1,
            scale,
            level=level,
        )
        assert same_bits(out, reference(x, np.True_, scale, 0, 0)), scale


@needs_extension
@pytest.mark.parametrize("level", LEVELS)
def test_brain_floats_are_rounded_as_torch_rounds_them(level):
    torch = pytest.importorskip("torch")
    x = torch.arange(1 << 16).to(torch.uint16).view(torch.bfloat16)
    for scale in (1.0, 0.5, 1.7, 1e-30, 3e38):
        out, code = torch.empty_like(x), kernels.DTYPES["bfloat16"]
        cpu.drop(code, x.data_ptr(), out.data_ptr(), len(x), 1, 0, 0, 1 << 32, 0, 1, scale, level=level)
        want = (x.float() * np.float32(scale)).bfloat16()
        assert same_bits(
            out.view(torch.float16).numpy()[~x.isnan()], want.view(torch.float16).numpy()[~x.isnan()]
        )
        assert torch.equal(out.isnan(), want.isnan()), scale


@needs_extension
@pytest.mark.parametrize(
    "how", [(1.7, 0.0, 0.0), (2.0, 0.0, 0.0), (4.0, 0.0, 0.0), (0.9, 0.25, -1.1)], ids=str
)
@pytest.mark.parametrize("level", LEVELS)
def test_brain_floats_are_dropped_as_torch_selects_them(level, how):
    """Every bfloat16 there is; factors that are powers of two have a way of their own."""
    torch = pytest.importorskip("torch")
    x = torch.arange(1 << 16).to(torch.uint16).view(torch.bfloat16)
    scale, shift, fill = map(np.float32, how)
    for p, start in ((0.5, 0), (0.3, 77)):
        kept = torch.from_numpy(bernoulli(Key(9), len(x), threshold(p), start))
        y = torch.where(kept, x.float() * scale + shift if shift else x.float() * scale, torch.tensor(fill))
        out, want, code = torch.empty_like(x), y.bfloat16(), kernels.DTYPES["bfloat16"]
        words = (*Key(9).words, threshold(p), start, 1)
        cpu.drop(code, x.data_ptr(), out.data_ptr(), len(x), 1, *words, *how, level)
        number = ~want.isnan()
        assert torch.equal(out[number].view(torch.int16), want[number].view(torch.int16)), p
        assert torch.equal(out.isnan(), want.isnan()), p


@needs_extension
@given(seed=st.integers(0, 2**64 - 1), n=SIZES, start=STARTS)
def test_normals_are_the_references_to_their_rounding(seed, n, start):
    """And at each level to the last bit."""
    outs = [np.empty(n) for _ in LEVELS]
    for out, level in zip(outs, LEVELS, strict=True):
        cpu.normals(address(out), n, start, *Key(seed).words, 1, level)
        assert np.array_equal(out, outs[0]), level
    want = normals(Key(seed), n, start)
    # ln u, a square root, a cosine and their product: less than 8 roundings, in units of |z| + radius
    assert np.all(abs(outs[0] - want) <= 8 * np.finfo(float).eps * np.sqrt(2 * 32 * np.log(2)))


@needs_extension
@pytest.mark.parametrize("dtype", kernels.CODES, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_noise_is_made_of_the_normals(level, dtype):
    x, start = np.linspace(-2, 2, 1000).astype(dtype), 2**34 - 333
    z, out = kernels.normals(Key(3), x.size, start), np.empty_like(x)
    cpu.noise(kernels.CODES[dtype], address(x), address(out), x.size, 1, *Key(3).words, start, 0.5, level)
    wide = np.promote_types(dtype, np.float32)
    assert same_bits(out, (x.astype(wide) * (1.0 + 0.5 * z).astype(wide)).astype(dtype))


@needs_extension
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("inner", [1, 300])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_threads_change_nothing(level, inner, p):
    n = (1 << 21) + 12345  # several parts, the last one ragged
    x = np.linspace(-1, 1, n, dtype=np.float32)
    one, many, mask = np.empty_like(x), np.empty_like(x), np.empty(n, bool)
    drop, noise = (*Key(9).words, threshold(p), 77, inner, 2.0), (*Key(9).words, 77, 0.5)
    cpu.drop(0, address(x), address(one), n, 1, *drop, level=level)
    cpu.mask(address(mask), n, 77, *Key(9).words, threshold(p), 5, level)
    for workers in (2, 3, 64):
        cpu.drop(0, address(x), address(many), n, workers, *drop, level=level)
        assert np.array_equal(one, many)
    assert np.array_equal(one != 0, np.repeat(mask, inner)[:n] & (x != 0))
    cpu.noise(0, address(x), address(one), n, 1, *noise, level)
    cpu.noise(0, address(x), address(many), n, 3, *noise, level)
    assert np.array_equal(one, many)


TEAM = """
import os, numpy as np, torch, thinned, thinned.nn as tnn
from thinned import Key
torch.set_num_threads(2)
x = torch.ones(1 << 21)
torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # now torch has its team
y = thinned.dropout(x, 0.3, key=Key(4)).numpy()
assert np.array_equal(y, thinned.dropout(x.numpy(), 0.3, key=Key(4)))
child = os.fork()
if child == 0:  # in which torch's team is gone
    os._exit(not np.array_equal(y, thinned.dropout(x, 0.3, key=Key(4)).numpy()))
assert os.waitpid(child, 0)[1] == 0
"""


@needs_extension
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_torchs_own_threads_give_the_same_and_a_fork_is_safe():
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-W", "ignore", "-c", TEAM], check=True, timeout=120)


@needs_extension
def test_unknown_levels_are_refused():
    out = np.ones(8, bool)
    with pytest.raises(ValueError, match="level must be one of"):
        cpu.mask(address(out), 8, 0, 0, 0, 0, 1, "sse9")


@needs_extension
def test_memory_is_used_again_and_bounded():
    size = 3 * kernels.POOLED
    first = kernels.empty((3, kernels.POOLED // 4), np.float32)
    where = address(first)
    assert where % 64 == 0
    view = first[1:]
    del first
    assert address(kernels.empty((size // 4,), np.float32)) != where, "still in use by a view"
    del view
    again = kernels.empty((size // 8,), np.float64)
    assert address(again) == where
    try:
        cpu.keep_at_most(size)
        del again
        assert cpu.waiting() <= size
        cpu.keep_at_most(0)
        assert cpu.waiting() == 0
    finally:
        cpu.keep_at_most(256 << 20)


PROGRAM = """
import sys, warnings
sys.modules["thinned.kernels._cpu"] = None  # as if it had not been built
import numpy as np, thinned
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(3):
        y = thinned.dropout(np.ones(1000, np.float32), 0.3, key=thinned.Key(4))
assert [str(w.message).startswith("thinned runs on NumPy alone") for w in seen] == [True], seen
sys.stdout.buffer.write(y.tobytes())
"""


def test_without_the_extension_numpy_gives_the_same_and_says_so_once():
    import thinned

    out = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True).stdout
    assert out == thinned.dropout(np.ones(1000, np.float32), 0.3, key=Key(4)).tobytes()


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert kernels.threads() == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("THINNED_NUM_THREADS", "3")
    assert kernels.threads() == 3
    for nonsense in ("0", "-2", "many", ""):
        monkeypatch.setenv("THINNED_NUM_THREADS", nonsense)
        assert kernels.threads() == kernels.cores()
