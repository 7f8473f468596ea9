"""The back end is found by the type of an array. A third back end takes one class, and no more."""

import subprocess
import sys

import numpy as np
import pytest

import thinned
from thinned import Key, _array


class Boxed:
    """An array of a third library: numbers in a box."""

    def __init__(self, numbers):
        self.numbers = np.asarray(numbers)

    dtype = property(lambda self: self.numbers.dtype)
    shape = property(lambda self: self.numbers.shape)
    ndim = property(lambda self: self.numbers.ndim)

    def __mul__(self, other):
        return Boxed(self.numbers * getattr(other, "numbers", other))

    def __add__(self, other):
        return Boxed(self.numbers + getattr(other, "numbers", other))


class Boxes(_array.Backend):
    package, name = __name__, "a box"

    def owns(self, kind):
        return issubclass(kind, Boxed)

    def from_numpy(self, array, like):
        return Boxed(array)

    def to_numpy(self, x):
        return x.numbers

    def zeros(self, shape, like):
        return Boxed(np.zeros(shape, like.dtype))

    def widen(self, x):
        return Boxed(_array.widen(x.numbers))

    def cast(self, y, like):
        return Boxed(y.numbers.astype(like.dtype))

    def scalar(self, value, like):
        return like.dtype.type(value)

    def where(self, kept, x, other):
        return Boxed(np.where(kept, x.numbers, getattr(other, "numbers", other)).astype(x.dtype))


@pytest.fixture
def boxes(monkeypatch):
    monkeypatch.setattr(_array, "BACKENDS", [*_array.BACKENDS, Boxes])
    monkeypatch.setattr(_array, "_found", {})


def test_a_third_back_end_is_one_class(boxes):
    x = Boxed(np.array([1.0, -2.0, 3.0], np.float16))
    assert type(_array.of(x)) is Boxes
    assert _array.floating("x", x) is x
    assert not _array.is_torch(x)
    assert not _array.is_flat(x)
    assert _array.threads(x) is None
    for factor in (0.5, np.array([0.5, 2.0, 4.0])):
        y = _array.times(x, factor, 1.0)
        assert type(y) is Boxed
        np.testing.assert_array_equal(y.numbers, _array.times(x.numbers, factor, 1.0), strict=True)
    kept = np.array([True, False, True])
    np.testing.assert_array_equal(_array.where(kept, x, 0.0).numbers, [1.0, 0.0, 3.0])
    np.testing.assert_array_equal(_array.to_like(kept, x).numbers, kept)
    with pytest.raises(TypeError, match="y must be a box, as x is, got a NumPy array"):
        _array.same_kind("y", kept, "x", x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout_takes_a_third_back_end(boxes, p, dtype):
    x = np.linspace(-2, 2, 300).astype(dtype).reshape(3, 100)
    for drop in (thinned.dropout, thinned.alpha_dropout, thinned.drop_path):
        y = drop(Boxed(x), p, key=Key(3))
        assert type(y) is Boxed
        np.testing.assert_array_equal(y.numbers, drop(x, p, key=Key(3)), strict=True)


def test_without_it_the_type_is_unknown():
    with pytest.raises(TypeError, match="x must be a NumPy array or a torch tensor, got Boxed"):
        _array.array("x", Boxed([1.0]))


def test_what_is_no_array_counts_as_numpy():
    assert type(_array.of(1.0)) is _array.NumPy
    assert type(_array.of(None)) is _array.NumPy
    assert type(_array.of(np.float32(1.0))) is _array.NumPy


def test_types_of_torch_are_found_with_their_subclasses():
    torch = pytest.importorskip("torch")
    for x in (torch.zeros(2), torch.nn.Parameter(torch.zeros(2))):
        assert _array.is_torch(x)
        assert _array.of(x).home(x) == "a torch tensor on cpu"


def test_torch_is_not_imported_for_arrays():
    code = (
        "import sys, numpy as np, thinned\n"
        "thinned.dropout(np.ones(3), key=thinned.Key(0))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
