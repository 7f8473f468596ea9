"""Parts of a mask: a block of an array gets what the whole array has there."""

import itertools

import numpy as np
import pytest
from helpers import family

import thinned
from thinned import Key
from thinned.kernels import maps
from thinned.kernels.shards import part
from thinned.kernels.work import Part, Rule

torch = pytest.importorskip("torch")

SHAPE = (4, 6, 5, 3)
BLOCKS = list(itertools.product(*([slice(0, n), slice(n // 2, n), slice(0, n // 2)] for n in SHAPE)))


def options(case):
    method = case.method.method
    return [method.settings(**case.more)[name] for name in method.names]


def plans(case):
    return case.method.method.plan(SHAPE, 0.4, 2, *options(case))


@pytest.mark.parametrize(
    "case", [case for case in family.CASES if not case.linear and not isinstance(plans(case), Rule)], ids=str
)
def test_a_block_gets_its_part(case):
    how, words = plans(case), Key(5).words
    x = np.linspace(-2, 2, np.prod(SHAPE)).reshape(SHAPE)
    whole = maps.apply(x, how, words)
    for block in BLOCKS:
        first = tuple(piece.start for piece in block)
        here = part(how, SHAPE, x[block].shape, first)
        assert np.array_equal(maps.apply(x[block], here, words), whole[block]), (block, here)
        of = torch.from_numpy(x[block].copy())
        assert np.array_equal(maps.plainly(of, here, words).numpy(), whole[block])
        factors = maps.apply(np.ones(SHAPE), how.gradient(), words)[block]
        assert np.array_equal(maps.apply(np.ones_like(x[block]), here.gradient(), words), factors)


def test_neighbouring_units_are_a_map_of_the_same_kind():
    """So that they take the compiled kernel."""
    how = thinned.functional.DROPOUT.plan(SHAPE, 0.4, 0)
    assert not isinstance(part(how, SHAPE, (2, *SHAPE[1:]), (2, 0, 0, 0)), Part)
    assert isinstance(part(how, SHAPE, (4, 3, 5, 3), (0, 3, 0, 0)), Part)


@pytest.mark.parametrize("case", [case for case in family.CASES if not case.linear], ids=str)
def test_a_dtensor_of_one_process(case, mesh):
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    method, more = case.method.method, options(case)
    x = torch.linspace(-2, 2, 360, dtype=torch.float64).reshape(SHAPE)
    expected = method(x, 0.4, Key(5), True, 2, *more)
    sums = DTensor.from_local(x, mesh, [Partial()], run_check=False)
    for like in (*(distribute_tensor(x, mesh, [place]) for place in (Shard(0), Shard(1), Replicate())), sums):
        like.requires_grad_()
        y = method(like, 0.4, Key(5), True, 2, *more)
        assert isinstance(y, DTensor)
        assert torch.equal(y.full_tensor(), expected)
        (grad,) = torch.autograd.grad(y.full_tensor().sum(), like)
        factors = method.gradient(torch.ones_like(x), 0.4, Key(5), 2, *more)
        torch.testing.assert_close(grad.full_tensor(), factors)


def test_a_module_takes_a_dtensor(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    import thinned.nn as tnn

    x = torch.ones(6, 8)
    for kind in (tnn.Dropout, tnn.GaussianDropout, tnn.AlphaDropout, tnn.DropPath):
        drop = kind(0.5)
        with tnn.keyed(drop, Key(1), 0):
            expected = drop(x)
        with tnn.keyed(drop, Key(1), 0):
            y = drop(distribute_tensor(x, mesh, [Shard(1)]))
        assert torch.equal(y.full_tensor(), expected)
    linear = tnn.DropConnectLinear(8, 3)
    with pytest.raises(TypeError, match="input must be a plain tensor"):
        linear(distribute_tensor(x, mesh, [Shard(0)]))
