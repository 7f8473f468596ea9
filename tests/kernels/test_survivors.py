"""Survivors taken out, put back and stepped: NumPy's own indexing and the dense rules are the judge."""

import itertools

import numpy as np
import pytest

from thinned import Key, _array, choose, kernels
from thinned.kernels import survivors
from thinned.kernels.survivors import Penalty
from thinned.key import normals

BACKENDS = ["cpu", "reference", "torch"]
DTYPES = ["float32", "float64"]
SHAPES = [(7,), (7, 5), (64, 33), (6, 4, 3, 3), (5, 3, 2), (1, 1), (0, 4), (4, 0), (3, 2, 0)]
BIG = (211, 1009)  # more than one block, and threads of unequal parts
ON = pytest.mark.parametrize("backend", BACKENDS)


def random(seed, shape, dtype="float64"):
    return normals(Key(seed), int(np.prod(shape))).reshape(shape).astype(dtype)


def pick(n, p, key):
    """About (1 − p)·n of n indices, one at least."""
    return choose(key, n, max(1, n - round(p * n)))


def choices(shape):
    """None, some, one, all: of the rows and of the columns."""
    every = [
        [None, *(pick(n, p, Key(n)) for p in (0.5, 1.0, 0.0) if n)] for n in (*shape[:2], 0)[: len(shape)]
    ]
    every += [[None]] if len(shape) < 2 else []
    if shape == BIG:
        every = [some[:2] for some in every]
    return itertools.product(*every[:2])


def cells(shape, rows, cols):
    """The same by NumPy's open mesh."""
    axes = [np.arange(n) if i is None else i for n, i in zip(shape, (rows, cols), strict=False)]
    return np.ix_(*axes)


def to(backend, monkeypatch):
    """How an array goes to the backend; the same memory."""
    if backend == "reference":
        monkeypatch.setattr(kernels, "extension", lambda: None)
    if backend == "torch":
        return pytest.importorskip("torch").from_numpy
    return lambda x: x


@ON
@pytest.mark.parametrize("dtype", ["float16", *DTYPES])
@pytest.mark.parametrize("shape", [*SHAPES, BIG], ids=str)
def test_take_place_and_add(backend, dtype, shape, monkeypatch):
    own = to(backend, monkeypatch)
    w = random(1, shape, dtype)
    for rows, cols in choices(shape):
        where = cells(shape, rows, cols)
        few = survivors.take(own(w), rows, cols)
        assert _array.is_torch(few) == (backend == "torch")
        assert np.array_equal(np.asarray(few), w[where])
        room = own(np.full(w[where].shape, 7, dtype))
        assert survivors.take(own(w), rows, cols, room) is room
        assert np.array_equal(np.asarray(room), w[where])
        dense = np.zeros_like(w)
        dense[where] = w[where]
        assert np.array_equal(np.asarray(survivors.place(few, rows, cols, shape)), dense)
        room = own(np.full(shape, 7, dtype))
        assert survivors.place(few, rows, cols, shape, room) is room
        assert np.array_equal(np.asarray(room), dense)
        survivors.add(room, few, rows, cols)
        assert np.array_equal(np.asarray(room), dense + dense)


def test_what_is_large_is_placed_around_the_caches():
    shape, rows, cols = (1300, 1717), pick(1300, 0.5, Key(1)), pick(1717, 0.5, Key(2))
    few = random(3, (len(rows), len(cols)))
    for odd in (0, 1, 3):  # rows that start anywhere within a cache line
        room = np.full(odd + 1300 * 1717, 7.0)[odd:].reshape(shape)
        dense = np.zeros(shape)
        dense[np.ix_(rows, cols)] = few
        assert np.array_equal(survivors.place(few, rows, cols, shape, room), dense)


def test_bfloat16_is_moved_too():
    torch = pytest.importorskip("torch")
    w = torch.linspace(-1, 1, 35).reshape(7, 5).bfloat16()
    rows, cols = pick(7, 0.5, Key(1)), pick(5, 0.5, Key(2))
    few = survivors.take(w, rows, cols)
    assert torch.equal(few, w[torch.from_numpy(rows)][:, torch.from_numpy(cols)])
    assert torch.equal(survivors.take(survivors.place(few, rows, cols, (7, 5)), rows, cols), few)


@ON
def test_arrays_with_gaps(backend, monkeypatch):
    own = to(backend, monkeypatch)
    whole = random(1, (14, 10))
    w, rows, cols = whole[::2, ::2], pick(7, 0.5, Key(1)), pick(5, 0.5, Key(2))
    few = w[np.ix_(rows, cols)]
    assert np.array_equal(np.asarray(survivors.take(own(w), rows, cols)), few)
    step = w.copy()
    step[np.ix_(rows, cols)] -= 0.1 * few
    survivors.sgd(own(w), None, own(few), rows, cols, lr=0.1)
    assert np.array_equal(w, step)
    assert np.array_equal(whole[1::2], random(1, (14, 10))[1::2])


def dense_sgd(w, v, g, lr, momentum, nesterov, penalty):
    """The rule, on whole arrays."""
    if penalty.l1:
        g = g + penalty.l1 * np.sign(w)
    if penalty.l2:
        g = g + penalty.l2 * w
    v[...] = v * momentum + g if momentum else g
    w -= lr * (g + momentum * v if nesterov else v)


def dense_adam(w, m, v, g, step, lr, shrink, penalty):
    """The rule in the paper's order, on whole arrays."""
    if penalty.l1:
        g = g + penalty.l1 * np.sign(w)
    if penalty.l2:
        g = g + penalty.l2 * w
    m[...] = m * 0.9 + g * (1 - 0.9)
    v[...] = v * 0.99 + g * g * (1 - 0.99)
    unbias1, unbias2 = 1 - 0.9**step, (1 - 0.99**step) ** 0.5
    w *= 1 - shrink
    w -= m / (np.sqrt(v) + 1e-7 * unbias2) * (lr * unbias2 / unbias1)


PENALTIES = [Penalty(), Penalty(0, 0.01), Penalty(0.01, 0), Penalty(0.02, 0.3)]
STEPPED = [(7,), (7, 5), (6, 4, 3, 3), (1, 1), (0, 4), (4, 0), BIG]


@ON
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", STEPPED, ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(backend, dtype, shape, penalty, momentum, nesterov, monkeypatch):
    """Bit for bit the dense rule, with the gradients of the others 0."""
    own = to(backend, monkeypatch)
    for rows, cols in choices(shape):
        w, v = random(1, shape, dtype), random(2, shape, dtype) if momentum else np.zeros(shape, dtype)
        want_w, want_v = w.copy(), v.copy()
        for t in range(2):
            g = random(3 + t, w[cells(shape, rows, cols)].shape, dtype)
            whole = np.zeros_like(w)
            whole[cells(shape, rows, cols)] = g
            dense_sgd(want_w, want_v, whole, 0.1, momentum, nesterov, penalty)
            rule = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "penalty": penalty}
            survivors.sgd(own(w), own(v) if momentum else None, own(g), rows, cols, **rule)
        assert np.array_equal(w, want_w)
        assert not momentum or np.array_equal(v, want_v)


@ON
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", STEPPED, ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("shrink", [0.0, 0.01])
def test_adam(backend, dtype, shape, penalty, shrink, monkeypatch):
    own = to(backend, monkeypatch)
    for rows, cols in choices(shape):
        w, m, v = (random(i, shape, dtype) for i in range(3))
        v = abs(v)
        want = w.copy(), m.copy(), v.copy()
        for t in range(1, 3):
            g = random(3 + t, w[cells(shape, rows, cols)].shape, dtype)
            whole = np.zeros_like(w)
            whole[cells(shape, rows, cols)] = g
            dense_adam(*want, whole, t, 0.1, shrink, penalty)
            rule = {"step": t, "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-7, "shrink": shrink}
            rule["penalty"] = penalty
            survivors.adam(own(w), own(m), own(v), own(g), rows, cols, **rule)
        for got, expected in zip((w, m, v), want, strict=True):
            assert np.array_equal(got, expected)


@ON
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 5), (64, 33), (6, 4, 3, 3), (0, 4), BIG], ids=str)
def test_clip(backend, dtype, shape, monkeypatch):
    own = to(backend, monkeypatch)
    for rows, _ in choices(shape):
        w = random(1, shape, dtype)
        before, flat = w.copy(), w.reshape(len(w), int(np.prod(shape[1:])))
        norms = np.linalg.norm(flat.astype(np.float64), axis=1)
        bound = 1.001 * float(np.median(norms)) if len(w) else 1.0
        survivors.clip(own(w), rows, bound)
        chosen = np.isin(np.arange(len(w)), np.arange(len(w)) if rows is None else rows)
        factor = np.where(chosen, np.minimum(1, bound / norms), 1).reshape(-1, *[1] * (len(shape) - 1))
        assert np.array_equal(w[(factor == 1).ravel()], before[(factor == 1).ravel()])
        # a rounding of the factor, one of the product, and those of a sum in double precision
        bound = 2 * np.finfo(dtype).eps + flat.shape[1] * np.finfo(np.float64).eps
        assert np.allclose(w, before * factor, rtol=bound, atol=0)


@pytest.mark.skipif(kernels.extension() is None, reason="the C++ extension was not built")
def test_threads_change_nothing(monkeypatch):
    rows, cols = pick(BIG[0], 0.5, Key(1)), pick(BIG[1], 0.5, Key(2))

    def everything():
        w, m, v = random(1, BIG), random(2, BIG), abs(random(3, BIG))
        out = []
        for r, c in ((None, None), (rows, None), (None, cols), (rows, cols)):
            few = survivors.take(w, r, c)
            survivors.sgd(w, None, few, r, c, lr=0.1)
            survivors.sgd(w, m, few, r, c, lr=0.1, momentum=0.9)
            survivors.adam(w, m, v, few, r, c, step=2, lr=0.1)
            survivors.clip(w, r, 30.0)
            out += [few, survivors.place(few, r, c, BIG)]
        return [*out, w, m, v]

    monkeypatch.setenv("THINNED_NUM_THREADS", "1")
    one = everything()
    for workers in ("2", "3", "64"):
        monkeypatch.setenv("THINNED_NUM_THREADS", workers)
        assert all(np.array_equal(a, b) for a, b in zip(one, everything(), strict=True))


@ON
def test_what_is_no_number_shows(backend, monkeypatch):
    """A NaN stays one, in a gradient and in a weight; it goes nowhere else."""
    own = to(backend, monkeypatch)
    w, v, g = random(1, (6, 5)), np.zeros((6, 5)), random(2, (3, 5))
    rows = np.array([1, 2, 4])
    g[1, 3], w[0, 0] = np.nan, np.nan
    survivors.sgd(own(w), own(v), own(g), rows, lr=0.1, momentum=0.5, penalty=Penalty(0.1, 0.1))
    assert np.array_equal(np.argwhere(np.isnan(w)), [[0, 0], [2, 3]])
    survivors.clip(own(w), None, 0.1)
    assert np.isnan(w).any(axis=1).tolist() == [True, False, True, False, False, False]


@pytest.mark.skipif(kernels.extension() is None, reason="the C++ extension was not built")
@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_agree(dtype):
    """Steps have the same bits at each level of the instruction set."""
    cpu, n = kernels.extension(), 1003
    part, size = (1, n, 1, 0, 0, 0, 0), np.dtype(dtype).itemsize

    def both(level):
        w, m, v, g = random(1, n, dtype), random(2, n, dtype), abs(random(3, n, dtype)), random(4, n, dtype)
        at = [kernels.address(x) for x in (w, m, v, g)]
        cpu.adam(*at, part, size, 0.9, 0.99, 0.1, 0.01, 0.1, 1e-7, 0.99, 0.1, 0.2, 1, level)
        cpu.sgd(at[0], at[1], at[3], part, size, 0.1, 0.9, True, 0.1, 0.2, 1, level)
        return np.stack([w, m, v])

    plain = both("plain")
    assert all(np.array_equal(both(level), plain) for level in cpu.levels())
    with pytest.raises(ValueError, match="level must be one of"):
        both("none")
