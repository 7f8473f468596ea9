"""Every kernel gives the reference's bits: any level, size, start, rate, thread count."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, kernels
from thinned.kernels import address
from thinned.key import bernoulli, threshold

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


@needs_extension
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", LEVELS)
@given(seed=st.integers(0, 2**64 - 1), n=SIZES, start=STARTS, p=RATES)
def test_dropout_equals_the_reference(level, dtype, seed, n, start, p):
    x = np.linspace(-2, 2, n, dtype=dtype)
    x[1::7], x[2::11] = np.nan, np.inf
    code = kernels.DTYPES[np.dtype(dtype).name]
    kept, out = bernoulli(Key(seed), n, threshold(p), start), np.empty_like(x)
    cpu.dropout(code, address(x), address(out), n, start, *Key(seed).words, threshold(p), 1.7, 1, level)
    assert np.array_equal(out, np.where(kept, x * dtype(1.7), dtype(0)), equal_nan=True)
    cpu.dropout(
        code, address(x), address(x), n, start, *Key(seed).words, threshold(p), 1.7, 1, level
    )  # in place
    assert np.array_equal(out, x, equal_nan=True)


@needs_extension
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_threads_change_nothing(level, p):
    n = (1 << 21) + 12345  # several parts, the last one ragged
    x = np.linspace(-1, 1, n, dtype=np.float32)
    one, many, mask = np.empty_like(x), np.empty_like(x), np.empty(n, bool)
    cpu.dropout(0, address(x), address(one), n, 77, *Key(9).words, threshold(p), 2.0, 1, level)
    cpu.mask(address(mask), n, 77, *Key(9).words, threshold(p), 5, level)
    for workers in (2, 3, 64):
        cpu.dropout(0, address(x), address(many), n, 77, *Key(9).words, threshold(p), 2.0, workers, level)
        assert np.array_equal(one, many)
    assert np.array_equal(one != 0, mask & (x != 0))


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
    monkeypatch.setenv("THINNED_NUM_THREADS", "3")
    assert kernels.threads() == 3
    for nonsense in ("0", "-2", "many", ""):
        monkeypatch.setenv("THINNED_NUM_THREADS", nonsense)
        assert kernels.threads() == kernels.cores()
