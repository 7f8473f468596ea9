"""DropBlock's kernel: the reference's numbers, bit for bit, for any map, block, level, number of threads."""

import numpy as np
import pytest
from helpers.family import on
from hypothesis import given
from hypothesis import strategies as st

import thinned
from thinned import Key, functional, kernels, masks
from thinned.kernels import address

cpu = kernels.extension()
LEVELS = cpu.levels() if cpu is not None else []
needs_extension = pytest.mark.skipif(cpu is None, reason="the C++ extension was not built")
# (N, C, *spatial) of 1, 2 and 3 axes; rows of less than a word, of a word, and of more
SHAPES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 300)),
    st.tuples(
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.sampled_from([1, 7, 31, 63, 64, 65, 130])
    ),
    st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 9)] * 3),
)
CALLS = {
    "shape": SHAPES,
    "p": st.sampled_from([0.01, 0.1, 0.5, 0.9, 1.0]),
    "block": st.one_of(st.integers(1, 9), st.integers(60, 140)),
    "seed": st.integers(0, 2**64 - 1),
    "offset": st.sampled_from([0, 1, 2**31 + 3]),
    "per_channel": st.booleans(),
}


def numbers(shape, seed, dtype="float32"):
    """Normal ones, NaN and ∞ among them."""
    x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    x.flat[::7], x.flat[3::11] = np.nan, np.inf
    return x


def native(x, fall, threads, level, out):
    """The kernel itself."""
    n, channels, *spatial = x.shape
    flat = (1,) * (3 - len(spatial))
    where = kernels.DTYPES[x.dtype.name], address(x), address(out)
    maps = n, channels, channels if fall.per_channel else 1, (*flat, *spatial), (*flat, *fall.sizes)
    cpu.drop_block(*where, *maps, fall.start, *fall.key.words, fall.limit, threads, level)
    return out


def reference(x, p, block, seed, offset, per_channel):
    with on("reference"):
        return functional.drop_block(
            x, p, block, key=Key(seed), sample_offset=offset, per_channel=per_channel
        )


@needs_extension
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("level", LEVELS)
@given(**CALLS)
def test_every_level_gives_the_references_numbers(level, dtype, shape, p, block, seed, offset, per_channel):
    x = numbers(shape, seed, dtype)
    fall = masks.seeds(shape, p, block, Key(seed), offset, per_channel=per_channel)
    want = reference(x, p, block, seed, offset, per_channel)
    assert np.array_equal(native(x, fall, 1, level, np.full_like(x, 7)), want, equal_nan=True)
    assert np.array_equal(native(x, fall, 1, level, x), want, equal_nan=True), "in place"


@needs_extension
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_threads_change_nothing(level, per_channel):
    x = numbers((7, 16, 150, 151), 4)  # over 2**21 numbers: four threads
    fall = masks.seeds(x.shape, 0.2, 7, Key(4), 3, per_channel=per_channel)
    one = native(x, fall, 1, level, np.empty_like(x))
    for threads in (2, 3, 64):
        assert np.array_equal(native(x, fall, threads, level, np.empty_like(x)), one, equal_nan=True)


@needs_extension
@given(**CALLS)
def test_bfloat16_is_scaled_in_single_and_rounded_once(shape, p, block, seed, offset, per_channel):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(numbers(shape, seed)).bfloat16()
    got = functional.drop_block(x, p, block, key=Key(seed), sample_offset=offset, per_channel=per_channel)
    want = reference(x.float().numpy(), p, block, seed, offset, per_channel)
    assert torch.equal(got.isnan(), torch.from_numpy(want).isnan())
    assert torch.equal(got.nan_to_num(7), torch.from_numpy(want).bfloat16().nan_to_num(7))


def test_the_result_keeps_the_strides_of_the_input(torch):
    x = torch.randn(2, 5, 9, 8).to(memory_format=torch.channels_last).requires_grad_()
    y = thinned.drop_block(x, 0.3, 3, key=Key(2))
    assert y.stride() == x.stride()
    y.sum().backward()
    assert torch.equal(x.grad, thinned.drop_block(torch.ones(2, 5, 9, 8), 0.3, 3, key=Key(2)))


def test_the_view_of_an_imaginary_part(torch):
    """torch keeps its sign beside the memory."""
    x = torch.complex(torch.randn(2, 3, 8), torch.randn(2, 3, 8)).conj().imag
    assert x.is_neg()
    want = thinned.drop_block(x.clone().resolve_neg().contiguous(), 0.3, 3, key=Key(2))
    assert torch.equal(thinned.drop_block(x, 0.3, 3, key=Key(2)), want)
