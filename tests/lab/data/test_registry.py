"""Data sets by name, their sizes, and the arguments of load."""

import numpy as np
import pytest
from helpers.data import check, line, real

from thinned.lab.data.registry import BUILT_IN, load


def test_names_and_arguments(tmp_path):
    assert {"digits", "spiral", "mnist", "cifar10"} <= set(BUILT_IN)
    assert "did you mean mnist?" in line(load, "mnits")
    assert "got 'table.xlsx'" in line(load, "table.xlsx")
    assert "no such file (looked in" in line(load, tmp_path / "mine.npz")
    assert "leave them out" in line(load, "spiral", label="y")
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="test_share"):
            load("spiral", test_share=share)
    with pytest.raises(ValueError, match="limit"):
        load("spiral", limit=0)
    with pytest.raises(TypeError, match="limit"):
        load("spiral", limit=2.5)


def test_limit_takes_nested_parts():
    large, small = check(load("spiral", limit=500)), check(load("spiral", limit=50))
    assert (len(large.x_train), len(large.x_test)) == (500, 100)
    assert (len(small.x_train), len(small.x_test)) == (50, 10)
    np.testing.assert_array_equal(small.x_train, large.x_train[:50])
    np.testing.assert_array_equal(small.x_test, large.x_test[:10])
    assert len(load("spiral", limit=1).x_test) == 1
    assert len(load("spiral", limit=10**9).x_train) == 3000
    assert len({small.fingerprint, large.fingerprint, load("spiral").fingerprint}) == 3


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_sizes_are_those_of_the_data(name):
    pytest.importorskip("jieba" if name == "words" else "sklearn")
    places = {"mnist": "mnist", "cifar10": "cifar-10-batches-bin"}
    dataset = load(name, data_dir=real(places[name]) if name in places else None)
    known = BUILT_IN[name]
    assert dataset.x_train.shape == (known.examples, known.inputs)
    assert len(dataset.classes) == known.classes
