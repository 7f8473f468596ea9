"""Products of rows that keep units of their own, against a dense product of masked units."""

import numpy as np
import pytest

from thinned import Key, kernels, masks
from thinned.kernels import groups as products
from thinned.kernels.groups import Rows

SIZES = [
    (0, 3, 5, 1),
    (1, 1, 1, 1),
    (5, 7, 4, 2),
    (33, 40, 600, 4),
    (64, 600, 45, 16),
    (70, 530, 1050, 16),
    (121, 100, 192, 16),
    (120, 270, 600, 16),
    (40, 1100, 520, 3),
    (300, 513, 512, 70),
]


def picked(n, rate, key, groups, has):
    return masks.picks(n, rate, key, groups) if has else None


def mask(picks, n, rows, groups):
    """(rows, n): which units each row keeps."""
    if picks is None:
        return np.ones((rows.n and len(groups), n), bool)
    return picks.units[groups]


def compact(x, picks, groups):
    """The units of each row's group side by side, among zeros."""
    if picks is None:
        return x
    out = np.zeros((len(x), picks.width), x.dtype)
    for i, g in enumerate(groups):
        kept = x[i, picks.survivors[g]]
        out[i, : len(kept)] = kept
    return out


@pytest.fixture(params=["native", "plain"])
def path(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(products, "_reach", lambda *arrays: None)
    elif kernels.extension() is None or "avx2" not in kernels.extension().levels():
        pytest.skip("the native kernel is for processors with AVX2")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True), (False, False)], ids=str)
@pytest.mark.parametrize(("n", "n_in", "n_out", "groups"), SIZES)
def test_the_product_and_its_gradients_are_those_of_a_masked_layer(
    n, n_in, n_out, groups, sides, kind, dtype, path
):
    seed, rate, first, scale = n * 7 + n_in, 0.4, 5, 1.25
    rng = np.random.default_rng(seed)
    of_out, of_in = (
        picked(size, rate, Key(seed + i), groups, has)
        for i, (size, has) in enumerate(zip((n_out, n_in), sides, strict=True))
    )
    rows = Rows(groups, first)
    group = (first + np.arange(n)) % groups
    kept_out, kept_in = mask(of_out, n_out, rows, group), mask(of_in, n_in, rows, group)
    x, grad = (rng.normal(size=(n, size)) * kept for size, kept in ((n_in, kept_in), (n_out, kept_out)))
    weight, bias = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)

    def given(a):
        a = np.ascontiguousarray(a.astype(dtype))
        return a if kind == "numpy" else pytest.importorskip("torch").from_numpy(a)

    def check(got, want, terms):
        bound = (terms + 2) * np.finfo(dtype).eps * 2
        assert np.all(np.abs(np.asarray(got, np.float64) - want) <= bound), f"seed {seed}"

    sides = {"out_units": of_out, "in_units": of_in, "rows": rows}
    small_x, small_grad = given(compact(x, of_in, group)), given(compact(grad, of_out, group))
    got = products.product(small_x, given(weight), given(bias), **sides, scale=scale)
    want = compact((scale * x @ weight.T + bias) * kept_out, of_out, group)
    sizes = scale * np.abs(x) @ np.abs(weight).T + np.abs(bias)
    check(got, want, n_in * compact(sizes, of_out, group))
    got = products.gradient_of_input(small_grad, given(weight), **sides, scale=scale)
    want = compact(scale * grad @ weight * kept_in, of_in, group)
    check(got, want, n_out * compact(scale * np.abs(grad) @ np.abs(weight), of_in, group))
    got = products.gradient_of_weight(small_grad, small_x, (n_out, n_in), **sides, scale=scale)
    check(got, scale * grad.T @ x, n * (scale * np.abs(grad).T @ np.abs(x)))
    got = products.gradient_of_bias(small_grad, n_out, out_units=of_out, rows=rows)
    check(got, grad.sum(0), n * np.abs(grad).sum(0))
