"""The streams of `make battery` are made of the masks, and its tests tell good bits from bad."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from battery import judge, streams

from thinned import Key, keep_mask
from thinned.key import bernoulli, threshold

N = 1 << 17  # bytes


def first(name, count):
    """The first bits of a stream."""
    return np.unpackbits(next(streams.STREAMS[name]()), bitorder="little")[:count].astype(bool)


def test_masks_of_one_key():
    assert np.array_equal(first("half", 1000), keep_mask(1000, 0.5, key=Key(0)))
    assert np.array_equal(first("far", 1000), keep_mask(1000, 0.5, key=Key(0), start=2**39 - 2**29))


@pytest.mark.parametrize(("name", "p"), [("third", 0.3), ("tenth", 0.1)])
def test_fair_bits_of_an_unfair_mask(name, p):
    pairs = keep_mask((2000, 2), p, key=Key(0))
    expected = [a for a, b in pairs if a != b]
    assert np.array_equal(first(name, len(expected)), expected)


@pytest.mark.parametrize(("name", "step"), [("seeds", 1), ("seeds-high", 1 << 32)])
def test_neighbouring_seeds_unit_by_unit(name, step):
    found = first(name, 3 * streams.SEEDS).reshape(3, streams.SEEDS)
    for i in (0, 1, 77, streams.SEEDS - 1):
        assert np.array_equal(found[:, i], keep_mask(3, 0.5, key=Key(i * step)))


def test_folded_keys():
    found = first("folded", 5 * 128).reshape(5, 128)
    for i, bits in enumerate(found):
        assert np.array_equal(bits, keep_mask(128, 0.5, key=Key(0).fold_in(i)))
    names = streams.MODULES
    found = first("training", 2 * len(names) * 128).reshape(2, len(names), 128)
    for step in range(2):
        for bits, name in zip(found[step], names, strict=True):
            assert np.array_equal(bits, keep_mask(128, 0.5, key=Key(0).fold_in(step).fold_in(name)))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.77])
def test_planes_spell_the_numbers_that_are_compared(p):
    numbers = np.packbits(first("planes", 32 * 300), bitorder="little").view("<u4")
    assert np.array_equal(numbers < threshold(p), bernoulli(Key(0), 300, threshold(p)))


def test_a_stream_is_taken_in_order():
    chunks = iter([np.arange(5, dtype=np.uint8), np.arange(5, 12, dtype=np.uint8)])
    assert streams.take(chunks, 9).tolist() == list(range(9))


BAD = {
    "a bias": lambda u: (u < 0.51, "ones"),
    "a repeated byte": lambda u: (np.tile((u < 0.5)[:8], len(u) // 8), "bytes"),
    "each 32 bits twice": lambda u: (
        np.repeat(u.reshape(-1, 32)[:, None], 2, axis=1).ravel() < 0.5,
        "equal at lag 32",
    ),
    "a lane that stands still": lambda u: (np.where(np.arange(len(u)) % 128 == 5, 0, u) < 0.5, None),
    "all the same": lambda u: (u < 2, "equal at lag 1"),
    "words that come again": lambda u: (np.tile(u[: len(u) // 8] < 0.5, 8), "birthdays in 2^64"),
}


@pytest.mark.parametrize("defect", BAD)
def test_defects_are_found(defect):
    bits, test = BAD[defect](np.random.default_rng(0).random(8 * N))
    data = streams.pack(np.asarray(bits))
    found = {name: ask(data) for name, ask in judge.bit_tests().items()}
    assert min(found.values()) < 1e-9
    if test:
        assert found[test] < 1e-9, found


def test_p_values_are_uniform_where_bits_are_random():
    """Of 62 p-values of two seeds, Bonferroni: any below 10⁻⁶/62 has a chance of 10⁻⁶."""
    for seed in (1, 2):
        data = np.random.default_rng(seed).integers(0, 256, N, np.uint8)
        found = {name: ask(data) for name, ask in judge.bit_tests().items()}
        assert all(1e-6 / 62 < p <= 1 for p in found.values()), (seed, found)


def test_units_of_another_rate_are_found(monkeypatch):
    monkeypatch.setattr(judge, "CHUNK", 1 << 20)
    assert min(judge.unit_tests(0.3, 1 << 20).values()) > 1e-6 / 28
    monkeypatch.setattr(judge, "threshold", lambda p: threshold(0.31) if p == 0.3 else threshold(p))
    real = judge.kernels.mask
    monkeypatch.setattr(
        judge.kernels, "mask", lambda key, n, limit, start: real(key, n, threshold(0.3), start)
    )
    found = judge.unit_tests(0.3, 1 << 20)
    assert found["dropped"] < 1e-9
    assert found["dropped in a group"] < 1e-9
    assert found["kept between two dropped"] < 1e-9


def test_coins_and_chi_square_are_known():
    assert judge.coin(5, 10) == 1.0
    assert judge.coin(0, 10) == pytest.approx(2 / 1024)
    assert judge.agreements(np.array([0b10101010] * 4, np.uint8), 2) == (24, 24)  # of whole bytes
    assert judge.agreements(np.array([0b10101010] * 4, np.uint8), 1) == (0, 24)
    assert judge.chi_square(np.array([50, 50])) == 0.0  # too good
    assert judge.chi_square(np.array([60, 40])) == pytest.approx(2 * 0.0455003, rel=1e-5)
