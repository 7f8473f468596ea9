"""keep_mask: known answers, shapes, shards, torch, and bad arguments."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, keep_mask, masks
from thinned.key import words

KNOWN = json.loads(Path(__file__).with_name("known_answers.json").read_text())


@pytest.mark.parametrize(
    "row", KNOWN["keep_mask"], ids=lambda r: f"{r['seed']}-{r['p']}-{r['n']}-{r['start']}"
)
def test_known_answers(row):
    kept = keep_mask((row["n"],), row["p"], key=Key(int(row["seed"])), start=int(row["start"]))
    assert kept.dtype == bool
    assert np.packbits(kept, bitorder="little").tobytes().hex() == row["kept_hex"]


def test_units_are_counted_in_c_order():
    flat = keep_mask(60, 0.4, key=Key(1))
    assert np.array_equal(keep_mask((3, 4, 5), 0.4, key=Key(1)), flat.reshape(3, 4, 5))
    assert np.array_equal(keep_mask((2, 4, 5), 0.4, key=Key(1), start=20), flat.reshape(3, 4, 5)[1:])
    assert keep_mask((), 0.5, key=Key(1)).shape == ()
    assert keep_mask((4, 0), 0.5, key=Key(1)).shape == (4, 0)


def test_like_a_tensor_gives_a_tensor(torch):
    kept = keep_mask((3, 5), 0.4, key=Key(1), like=torch.zeros(1))
    assert kept.dtype == torch.bool
    assert np.array_equal(kept.numpy(), keep_mask((3, 5), 0.4, key=Key(1)))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"p": 50}, ValueError, r"p must be in \[0, 1\], got 50 \(did you mean 0.5\?\)"),
        ({"p": -0.1}, ValueError, r"p must be in \[0, 1\], got -0.1"),
        ({"p": float("nan")}, ValueError, "p must be a number, got nan"),
        ({"p": "0.5"}, TypeError, r"p must be a number, got '0.5' \(str\)"),
        ({"p": None}, TypeError, "p must be a number"),
        ({"shape": (3, -1)}, ValueError, r"shape\[1\] must be at least 0, got -1"),
        ({"shape": 2.5}, TypeError, "shape must be a tuple of sizes"),
        ({"key": 7}, TypeError, "key must be a thinned.Key"),
        ({"start": -1}, ValueError, "start must be in"),
        ({"start": 2**64 - 1}, ValueError, r"start \+ number of units must be at most 2\*\*64"),
    ],
)
def test_bad_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        keep_mask(**({"shape": (3,), "p": 0.5, "key": Key(0)} | arguments))


# What each method drops: brute force is in helpers/family.py, by test_laws.py


def test_units_of_the_contract():
    shape, key = (4, 5, 6, 7), Key(3)
    assert masks.elements(shape, 3) == (3 * 5 * 6 * 7, 1)
    assert masks.channels(shape, 3) == (3 * 5, 6 * 7)
    assert masks.samples(shape, 3) == (3, 5 * 6 * 7)
    assert masks.batch(shape, 3) == (0, 4 * 5 * 6 * 7)
    assert masks.blocks(shape, masks.seeds(shape, 0.5, 3, key)).shape == shape
    assert masks.blocks(shape, masks.seeds(shape, 0.5, 3, key, per_channel=False)).shape == (4, 1, 6, 7)
    assert masks.holes(shape, 3, 2, key).shape == (4, 1, 6, 7)
    assert masks.box(6, 7, 0.5, key).shape == (6, 7)
    assert masks.cells(np.ones((4, 3, 3)), 2, 6, 7).shape == (4, 1, 6, 7)


@given(width=st.integers(1, 12), size=st.integers(1, 12), axis=st.integers(0, 2))
def test_spread_is_a_running_or(width, size, axis):
    bits = keep_mask((size,) * 3, 0.7, key=Key(width))
    out = masks._spread(~bits, width, axis)
    want = np.zeros(out.shape, bool)
    for place in np.argwhere(~bits):
        run = [slice(i, i + 1) for i in place]
        run[axis] = slice(place[axis], place[axis] + width)
        want[tuple(run)] = True
    assert out.shape[axis] == size + width - 1
    assert np.array_equal(out, want)


def test_integers_are_words_scaled():
    below = np.array([1, 2, 10, 1000, 2**31])
    drawn = masks.integers(Key(1), 5, 0, below)
    assert np.array_equal(
        drawn, [int(w) * int(b) >> 32 for w, b in zip(words(Key(1), 5), below, strict=True)]
    )
    assert np.all((drawn >= 0) & (drawn < below))
