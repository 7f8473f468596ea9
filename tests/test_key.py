"""Contract 1: Philox, keys, words, normals, choose, Bernoulli bits by planes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, choose
from thinned.key import bernoulli, normals, permutation, philox4x32, threshold, words

KNOWN = json.loads(Path(__file__).with_name("known_answers.json").read_text())
SEEDS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123's kat_vectors, "philox 4x32 10"
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, answer):
    counter, key = ([int(word, 16) for word in text.split()] for text in (counter, key))
    assert " ".join(f"{int(word):08x}" for word in philox4x32(tuple(counter), tuple(key))) == answer


def test_philox_broadcasts():
    rows = philox4x32((np.arange(5, dtype=np.uint32), 1, 2, 3), (4, 5))
    for i in range(5):
        assert [int(row[i]) for row in rows] == [int(word) for word in philox4x32((i, 1, 2, 3), (4, 5))]


@pytest.mark.parametrize(
    "row", KNOWN["keep_mask"], ids=lambda r: f"{r['seed']}-{r['p']}-{r['n']}-{r['start']}"
)
def test_bernoulli_known_answers(row):
    kept = bernoulli(Key(int(row["seed"])), row["n"], threshold(row["p"]), int(row["start"]))
    assert np.packbits(kept, bitorder="little").tobytes().hex() == row["kept_hex"]


@pytest.mark.parametrize("row", KNOWN["fold_in"], ids=lambda r: f"{r['seed']}-{r['data']}")
def test_fold_in_known_answers(row):
    data = int(row["data"]) if row["data"].isdigit() else row["data"]
    assert Key(int(row["seed"])).fold_in(data).words == (row["k0"], row["k1"])


def test_words_and_choose_known_answers():
    for row in KNOWN["words"]:
        assert words(Key(int(row["seed"])), len(row["words"])).tolist() == row["words"]
    for row in KNOWN["choose"]:
        assert choose(Key(int(row["seed"])), row["n"], row["k"]).tolist() == row["indices"]


def test_bernoulli_reads_the_number_that_the_planes_spell():
    """The definition word for word: U_i from all 32 planes, kept where U_i < T."""
    key, start, n = Key(77), 130, 300
    numbers = []
    for i in range(start, start + n):
        lane = i % 128
        planes = [
            int(philox4x32((i // 128, 0, k, 0), key.words)[lane // 32]) >> lane % 32 & 1 for k in range(32)
        ]
        numbers.append(sum(bit << 31 - k for k, bit in enumerate(planes)))
    for p in (0.0, 1e-9, 0.1, 0.5, 0.625, 0.999, 1.0):
        expected = [number < threshold(p) for number in numbers]
        assert bernoulli(key, n, threshold(p), start).tolist() == expected, p


@given(SEEDS, st.integers(0, 600), st.integers(0, 2**50), st.floats(0, 1), st.integers(0, 600))
def test_a_shard_gets_its_part(seed, n, start, p, cut):
    cut = min(cut, n)
    whole = bernoulli(Key(seed), n, threshold(p), start)
    parts = [bernoulli(Key(seed), m, threshold(p), s) for m, s in ((cut, start), (n - cut, start + cut))]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(words(Key(seed), n, start)[cut:], words(Key(seed), n - cut, start + cut))
    assert np.array_equal(normals(Key(seed), n, start)[cut:], normals(Key(seed), n - cut, start + cut))


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_masks_are_nested(seed, p, q):
    low, high = sorted((p, q))
    survive_low, survive_high = (bernoulli(Key(seed), 1000, threshold(r)) for r in (low, high))
    assert not np.any(survive_high & ~survive_low)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_is_p(p):
    """|share − p| is at most 6 standard deviations of a binomial share: one failure in 5·10⁸."""
    n, seed = 1 << 20, 5
    share = 1 - bernoulli(Key(seed), n, threshold(p)).mean()
    assert abs(share - p) <= 6 * math.sqrt(p * (1 - p) / n), f"seed {seed}: {share}"


def test_neighbouring_seeds_and_folded_keys_are_independent():
    """The agreement of two fair masks is binomial(n, 1/2)."""
    n = 1 << 18
    keys = [
        Key(0),
        Key(1),
        Key(2**32),
        Key(0).fold_in(0),
        Key(0).fold_in(1),
        Key(0).fold_in("0"),
        Key(1).fold_in(0),
    ]
    masks = [bernoulli(key, n, threshold(0.5)) for key in keys]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs(np.mean(a == b) - 0.5) <= 6 * 0.5 / math.sqrt(n)


def test_normals_have_the_moments_of_normals():
    n = 1 << 18
    z = normals(Key(3), n)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - mean) <= 6 * math.sqrt(variance / n), power
    w = words(Key(3), 2).astype(float)
    radius, angle = math.sqrt(-2 * math.log((w[0] + 1) / 2**32)), 2 * math.pi * w[1] / 2**32
    assert z[:2] == pytest.approx([radius * math.cos(angle), radius * math.sin(angle)], rel=1e-15)


@given(SEEDS, st.integers(0, 200))
def test_choose_takes_the_smallest_words(seed, n):
    order = sorted(range(n), key=lambda i: (int(words(Key(seed), n)[i]), i))
    assert permutation(Key(seed), n).tolist() == order
    assert choose(Key(seed), n, n // 2).tolist() == sorted(order[: n // 2])


def test_keys_are_values():
    assert Key(5) == Key(5)
    assert Key(5) != Key(6)
    assert len({Key(5), Key(5)}) == 1
    assert Key(np.int64(5)) == Key(5)
    assert repr(Key(5)) == "Key(seed=5)"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Key(-1), ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        (lambda: Key(2**64), ValueError, "seed must be in"),
        (lambda: Key(0.5), TypeError, r"seed must be an integer, got 0.5 \(float\)"),
        (lambda: Key(True), TypeError, "seed must be an integer"),
        (lambda: Key(0).fold_in(-1), ValueError, "data must be in"),
        (lambda: Key(0).fold_in(1.0), TypeError, "data must be an integer"),
        (lambda: choose(Key(0), 3, 4), ValueError, "k must be at most n = 3, got 4"),
        (lambda: choose(0, 3, 2), TypeError, r"key must be a thinned.Key, such as Key\(0\), got 0 \(int\)"),
    ],
)
def test_bad_arguments(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
