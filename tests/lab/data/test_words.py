"""Chinese words, of jieba's dictionary."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.data import check, line

from thinned.lab.data import words
from thinned.lab.data.registry import load

WORDS = [
    ("一个", "m"),
    ("一些", "m"),
    ("大小", "n"),
    ("大学生活", "n"),
    ("小学", "n"),
    ("学", "n"),
    ("行", "v"),
]


@pytest.fixture
def dictionary(tmp_path, monkeypatch):
    """A dictionary with these lines in the place of jieba's; 4 words for training, 1 for testing."""

    def write(lines):
        (tmp_path / "dict.txt").write_text("\n".join(lines), encoding="utf-8")

    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(words, "TRAIN", 4)
    monkeypatch.setattr(words, "TEST", 1)
    return write


def test_words_of_the_dictionary():
    pytest.importorskip("jieba")
    dataset = check(load("words"))
    assert dataset.x_train.shape == (words.TRAIN, words.INPUTS)
    assert dataset.x_test.shape == (words.TEST, words.INPUTS)
    assert dataset.fingerprint == load("words").fingerprint
    assert "chosen with Key(0)" in dataset.note


def test_single_characters_are_left_out(dictionary):
    dictionary([*(f"{word} 3 {kind}" for word, kind in WORDS), "", "damaged line of text"])
    entries = words._entries()
    assert entries == WORDS[:5]
    table = words.words()
    assert (len(table.x_train), len(table.x_test)) == (4, 1)
    assert set(table.classes) <= {"m", "n"}


def test_inputs_are_the_first_and_the_last_character_and_the_length(monkeypatch):
    monkeypatch.setattr(words, "TRAIN", 4)
    spelled = [word for word, _ in WORDS[:5]]
    x = words._inputs(spelled)
    n = words.CHARACTERS
    assert np.flatnonzero(x.sum(axis=1) < 3).tolist() == [4]  # its first character is in no training word
    # 一 and 大 begin two training words each; the last characters are 个, 些, 小, 活, in this order
    assert x[:, :2].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]
    assert x[:, n : n + 4].argmax(axis=1)[:4].tolist() == [0, 1, 2, 3]
    assert x[4, n : n + 4].sum() == 0
    assert x[:, 2 * n :].tolist() == [[1, 0, 0, 0]] * 3 + [[0, 0, 1, 0]] + [[1, 0, 0, 0]]


def test_a_missing_or_short_dictionary(dictionary, monkeypatch):
    dictionary(["一个 3 m", "大小 3 n"])
    assert "must have 5 words, got 2" in line(load, "words")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install jieba" in line(load, "words")
