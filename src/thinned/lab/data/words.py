"""Chinese words and their word class, of the dictionary that the package jieba has."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from thinned.key import Key, permutation
from thinned.lab.data.table import Array, Floats, Table, make
from thinned.lab.errors import LabError

TRAIN, TEST = 20_000, 10_000
CLASSES, CHARACTERS, LENGTHS = 10, 512, (2, 3, 4, 5)  # 5: and more
INPUTS = 2 * CHARACTERS + len(LENGTHS)


def words() -> Table:
    """20,000 words for training and 10,000 for testing, of the ten largest classes.

    Inputs say which of the 512 commonest the first and the last character is, and how long the word is.

    Source: Sun Junyi, jieba, https://github.com/fxsjy/jieba, file ``dict.txt``.
    """
    entries = _entries()
    common = {name for name, _ in _commonest((kind for _, kind in entries), CLASSES)}
    entries = [(word, kind) for word, kind in entries if kind in common]
    if len(entries) < TRAIN + TEST:
        raise LabError(
            f"words: jieba's dictionary must have {TRAIN + TEST:,} words, got {len(entries):,}; reinstall it"
        )
    chosen = [entries[i] for i in permutation(Key(0), len(entries))[: TRAIN + TEST]]
    spelled, kinds = [word for word, _ in chosen], np.array([kind for _, kind in chosen])
    x = _inputs(spelled)
    split = f"{TEST:,} words, chosen with Key(0), are test data"
    return make(Path("words"), x[:TRAIN], kinds[:TRAIN], x[TRAIN:], kinds[TRAIN:], split)


def _entries() -> list[tuple[str, str]]:
    """Word and class of each line, of words of two characters or more."""
    spec = importlib.util.find_spec("jieba")
    path = Path(spec.origin).with_name("dict.txt") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise LabError("words: jieba, which has them, is missing; run pip install jieba")
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(line[0], line[2]) for line in lines if len(line) == 3 and len(line[0]) > 1]


def _inputs(spelled: list[str]) -> Floats:
    """(N,) words -> (N, INPUTS) of 0 and 1; which characters are common is counted in training words."""
    x = np.zeros((len(spelled), INPUTS), np.float32)
    for start, place in ((0, 0), (CHARACTERS, -1)):
        characters = [word[place] for word in spelled]
        column = {each: i for i, (each, _) in enumerate(_commonest(characters[:TRAIN], CHARACTERS), start)}
        _mark(x, [column.get(each, -1) for each in characters])
    longest = LENGTHS[-1]
    _mark(x, [INPUTS - 1 - longest + min(len(word), longest) for word in spelled])
    return x


def _mark(x: Floats, columns: list[int]) -> None:
    """1 in that column of each row; −1: in none."""
    where: Array = np.array(columns)
    rows = np.flatnonzero(where >= 0)
    x[rows, where[rows]] = 1.0


def _commonest(values: Iterable[str], n: int) -> list[tuple[str, int]]:
    """The n commonest values and their numbers, the commonest first; of equals, the first by code point."""
    return sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))[:n]
