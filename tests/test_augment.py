"""The laws on the rows that replace regions of images, and what is particular to each."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thinned
from thinned import Key, augment, theory
from thinned.key import permutation
from thinned.methods import METHODS

ROWS = [m for m in METHODS.values() if m.kind == "augment"]
EACH = pytest.mark.parametrize("method", ROWS, ids=lambda m: m.name)
SEEDS = st.integers(0, 2**64 - 1)
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def images_of(shape, dtype="float64", torch=None):
    """Image n is n + 1 all over: one sees where each place came from."""
    x = np.broadcast_to(np.arange(1.0, shape[0] + 1).reshape(-1, 1, 1, 1), shape)
    return x.astype(dtype) if torch is None else torch.from_numpy(x.copy()).to(getattr(torch, dtype))


def attention_for(n, grid=7):
    return np.cos(np.arange(n * grid * grid, dtype=np.float64) ** 2).reshape(n, grid, grid)


def apply(method, images, key=Key(0), **more):
    """The images that a row makes; and the labels, None for cutout."""
    if method.name == "cutout":
        return method.function(images, **{"size": 5, "key": key, **more}), None
    n = len(images) if hasattr(images, "__len__") else 0
    labels, attention = np.arange(n) % 3, attention_for(n)
    if not isinstance(images, np.ndarray) and hasattr(images, "device"):
        import torch

        labels, attention = torch.from_numpy(labels).to(images.device), torch.from_numpy(attention)
    more = {"labels": labels, "classes": 3, "key": key, **more}
    if method.name == "attentive-cutmix":
        more.setdefault("attention", attention)
    return method.function(images, **more)


# The laws


@EACH
@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (np.ones((2, 3, 8, 8), bool), TypeError, "must hold floating-point numbers, got dtype bool"),
        (None, TypeError, "must be a NumPy array or a torch tensor, got NoneType"),
        (
            np.ones((2, 8, 8)),
            ValueError,
            r"must have shape .* or \(N, T, C, H, W\), got \(2, 8, 8\)",
        ),
        (np.ones((2, 1, 1, 1, 8, 8)), ValueError, r"must have shape \(N, C, H, W\) or"),
    ],
)
def test_law2_images(method, images, kind, message):
    with pytest.raises(kind, match=f"^images {message}"):
        apply(method, images)


@EACH
def test_law2_key(method):
    with pytest.raises(TypeError, match=r"^key must be a thinned.Key"):
        apply(method, np.ones((2, 3, 8, 8)), key=7)


@EACH
@given(seed=SEEDS)
@settings(max_examples=20)
def test_law3_a_place_is_replaced_in_all_channels_or_in_none(method, seed):
    x = images_of((5, 3, 9, 11))
    y, labels = apply(method, x, Key(seed))
    assert np.array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    partner = None if labels is None else permutation(Key(seed).fold_in("partner"), 5) + 1
    for i, image in enumerate(y):
        assert set(np.unique(image)) <= {i + 1, 0 if partner is None else partner[i]}


@EACH
def test_law3_nan_in_a_replaced_region_is_gone(method):
    """A NaN is where an image that has it was kept or pasted, and nowhere else."""
    # a key by which every image has another for its partner
    key = next(k for k in map(Key, range(99)) if np.all(permutation(k.fold_in("partner"), 4) != np.arange(4)))
    x = images_of((4, 1, 14, 14))
    y, _ = apply(method, x, key)
    kept = y == x
    assert not kept.all()
    if method.name == "cutout":
        assert np.array_equal(apply(method, np.where(kept, x, np.nan), key)[0], y)
        return
    partner = permutation(key.fold_in("partner"), 4)
    poisoned = x.copy()
    poisoned[0] = np.nan
    mixed, _ = apply(method, poisoned, key)
    for i in range(4):
        assert np.array_equal(np.isnan(mixed[i]), np.where(kept[i], i == 0, partner[i] == 0))


@EACH
@given(seed=SEEDS, shape=st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(7, 12)] * 2))
@settings(max_examples=20)
def test_law5_torch_is_numpy(method, seed, shape):
    torch = pytest.importorskip("torch")
    if shape[0] == 1 and method.name != "cutout":
        shape = (2, *shape[1:])
    x = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    ours, labels = apply(method, x, Key(seed))
    theirs, theirs_labels = apply(method, torch.from_numpy(x), Key(seed))
    assert np.array_equal(theirs.numpy(), ours)
    if labels is not None:
        assert np.array_equal(theirs_labels.numpy(), labels)
        assert labels.dtype == np.float32


@EACH
def test_law5_strides_change_nothing(method, torch):
    x = np.linspace(-1, 1, 4 * 3 * 9 * 8).reshape(4, 9, 8, 3).transpose(0, 3, 1, 2)
    want, _ = apply(method, x.copy(), Key(2))
    assert np.array_equal(apply(method, x, Key(2))[0], want)
    last = torch.from_numpy(x.copy()).to(memory_format=torch.channels_last)
    assert np.array_equal(apply(method, last, Key(2))[0].numpy(), want)


@EACH
def test_the_input_is_left_alone(method):
    x = images_of((4, 3, 9, 8))
    before = x.copy()
    apply(method, x)
    assert np.array_equal(x, before)


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 3, 9, 8), (0, 3, 9, 8), (3, 0, 9, 8)])
def test_law6(method, dtype, shape, torch):
    y, labels = apply(method, images_of(shape, dtype, torch))
    assert (y.dtype, tuple(y.shape)) == (getattr(torch, dtype), shape)
    assert labels is None or tuple(labels.shape) == (shape[0], 3)
    if dtype != "bfloat16":
        y, labels = apply(method, images_of(shape, dtype))
        assert (y.dtype, y.shape) == (np.dtype(dtype), shape)
        assert labels is None or labels.shape == (shape[0], 3)


@EACH
def test_law7_gradcheck(method, torch):
    x = torch.linspace(-1, 1, 2 * 1 * 8 * 7, dtype=torch.float64).reshape(2, 1, 8, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: apply(method, x, Key(5))[0], (x,))
    assert torch.autograd.gradgradcheck(lambda x: apply(method, x, Key(5))[0], (x,))


# Cutout


@pytest.mark.parametrize(("size", "holes", "spatial"), [(8, 1, (32, 32)), (5, 3, (20, 9)), (40, 1, (16, 12))])
def test_law4_cutout_covers_what_theory_says(size, holes, spatial):
    n = 4000
    covered = thinned.cutout(np.ones((n, 1, *spatial)), size, key=Key(1), holes=holes).reshape(n, -1) == 0
    share = covered.mean(axis=1)
    # a share lies in [0, 1]: its deviation is at most √(m(1 − m)) around a mean m
    want = theory.cutout_share(size, spatial, holes)
    assert abs(share.mean() - want) <= 6 * math.sqrt(want * (1 - want) / n)


def test_a_hole_is_a_square_of_that_size():
    """Also where size is odd, at which the authors' code covers one less."""
    for size in (1, 4, 5):
        y = thinned.cutout(np.ones((300, 1, 21, 21)), size, key=Key(1)) == 0
        extents = {(int(a.any(1).sum()), int(a.any(0).sum())) for a in y[:, 0]}
        assert max(extents) == (size, size)
        areas = y.sum(axis=(1, 2, 3))
        assert all(area == a.any(1).sum() * a.any(0).sum() for area, a in zip(areas, y[:, 0], strict=True))


def test_centres_are_uniform():
    """Size 1 shows the centre: χ² of 12 cells with 11 degrees of freedom; its deviation is √22."""
    n = 6000
    counts = (thinned.cutout(np.ones((n, 1, 3, 4)), 1, key=Key(4)) == 0).sum(axis=(0, 1))
    chi = float(((counts - n / 12) ** 2).sum() / (n / 12))
    assert abs(chi - 11) <= 6 * math.sqrt(22)


def test_cutout_of_a_shard():
    x = images_of((9, 2, 8, 8))
    y = thinned.cutout(x, 3, key=Key(2), holes=2)
    assert np.array_equal(thinned.cutout(x[4:7], 3, key=Key(2), holes=2, sample_offset=4), y[4:7])


def test_cutout_fill_and_nothing():
    x = images_of((9, 2, 8, 8))
    assert thinned.cutout(x, 0, key=Key(2)) is x
    assert set(np.unique(thinned.cutout(x, 3, key=Key(2), fill=-2.5))) == {*range(1, 10), -2.5}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"size": -1}, ValueError, "size must be at least 0, got -1"),
        ({"size": 2.5}, TypeError, "size must be an integer, got 2.5"),
        ({"holes": 0}, ValueError, "holes must be at least 1, got 0"),
        ({"fill": "grey"}, TypeError, "fill must be a number, got 'grey'"),
        ({"sample_offset": -1}, ValueError, "sample_offset must be in"),
    ],
)
def test_cutout_arguments(arguments, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        thinned.cutout(np.ones((2, 1, 8, 8)), **{"size": 2, "key": Key(0), **arguments})


# CutMix


@given(seed=SEEDS, n=st.integers(2, 6), h=st.integers(1, 12), w=st.integers(1, 12))
@settings(max_examples=40)
def test_labels_are_mixed_by_the_area_of_the_box(seed, n, h, w):
    x, labels = images_of((n, 1, h, w)), np.arange(n)
    y, mixed = thinned.cutmix(x, labels, key=Key(seed), classes=n)
    for i in range(n):
        area = [float(np.mean(y[i] == j + 1)) for j in range(n)]
        partner = permutation(Key(seed).fold_in("partner"), n)[i]
        if partner != i:
            assert np.allclose(mixed[i], area, rtol=0, atol=2 * np.finfo(np.float32).eps)
    assert np.allclose(mixed.sum(axis=1), 1, rtol=0, atol=4 * np.finfo(np.float32).eps)


def test_law4_cutmix_pastes_what_theory_says():
    """Over Beta(1, 1), a uniform λ: the integral of theory's share, by the middles of 2,000 intervals."""
    n, spatial = 4000, (16, 12)
    labels = np.eye(2)
    shares = []
    for seed in range(n):
        _, mixed = thinned.cutmix(np.zeros((2, 1, *spatial)), labels, key=Key(seed).fold_in("x"))
        if permutation(Key(seed).fold_in("x").fold_in("partner"), 2)[0] == 1:
            shares.append(mixed[0, 1])
    want = np.mean([theory.cutmix_share((i + 0.5) / 2000, spatial) for i in range(2000)])
    assert abs(np.mean(shares) - want) <= 6 * np.std(shares) / math.sqrt(len(shares)) + 1 / 2000


@pytest.mark.parametrize("alpha", [0.02, 0.3, 1.0, 4.0, 300.0])
def test_beta_has_its_moments(alpha):
    n = 3000
    lam = np.array([augment._beta(Key(seed), alpha) for seed in range(n)])
    mean, variance = theory.beta_moments(alpha)
    # excess kurtosis of Beta(α, α): −6/(2α + 3)
    fourth = variance**2 * (3 - 6 / (2 * alpha + 3))
    assert np.all((lam >= 0) & (lam <= 1))
    assert abs(lam.mean() - mean) <= 6 * math.sqrt(variance / n)
    assert abs(np.mean((lam - mean) ** 2) - variance) <= 6 * math.sqrt((fourth - variance**2) / n)


@pytest.mark.parametrize("alpha", [1.0, 2.5, 40.0])
@pytest.mark.parametrize("x", [-1.5, -0.8, 0.3, 1.0, 2.5])
def test_gamma_variables_are_accepted_by_the_ratio_of_densities(alpha, x, monkeypatch):
    """y = d(1 + cx)³, x normal, is kept with Gamma(y)·dy/dx over the density of x, 1 at its peak."""
    d = alpha - 1 / 3
    c = 1 / math.sqrt(9 * d)
    if 1 + c * x <= 0:
        return

    def log_ratio(x):
        y = d * (1 + c * x) ** 3
        return (alpha - 1) * math.log(y) - y + 2 * math.log(1 + c * x) + x * x / 2

    ratio = math.exp(log_ratio(x) - log_ratio(0))
    first = Key(5).fold_in(0)
    monkeypatch.setattr(augment, "normals", lambda key, n: [x if key == first else 0.0])
    for factor, value in ((0.999, (1 + c * x) ** 3), (1.001, 1.0)):  # accepted; refused, so the next: x = 0
        u = factor * ratio
        if u < 1:
            monkeypatch.setattr(augment, "words", lambda key, n, start, u=u: [int(u * 2**32)])
            assert math.exp(augment._log_gamma_variable(Key(5), alpha)) == pytest.approx(d * value)


def test_soft_labels_keep_their_dtype(torch):
    x, soft = images_of((4, 1, 8, 8)), np.eye(4, 5)
    for dtype in ("float16", "float32", "float64"):
        _, mixed = thinned.cutmix(x, soft.astype(dtype), key=Key(5))
        assert mixed.dtype == dtype
        _, again = thinned.cutmix(torch.from_numpy(x), torch.from_numpy(soft.astype(dtype)), key=Key(5))
        assert np.array_equal(again.numpy(), mixed)
    _, hard = thinned.cutmix(x, np.arange(4), key=Key(5), classes=5)
    assert np.array_equal(hard, thinned.cutmix(x, soft.astype(np.float32), key=Key(5))[1])
    for dtype in (np.uint8, np.int32):
        assert np.array_equal(thinned.cutmix(x, np.arange(4, dtype=dtype), key=Key(5), classes=5)[1], hard)


BAD_LABELS = [
    ({"labels": np.arange(3)}, ValueError, r"labels must have shape \(4,\) or \(4, classes\), got \(3,\)"),
    ({"labels": np.ones((4, 2, 2))}, ValueError, r"labels must have shape \(4,\) or \(4, classes\), got"),
    ({"labels": np.ones(4)}, TypeError, r"labels of shape \(N,\) must hold integers, got dtype float64"),
    ({"labels": np.ones(4, bool)}, TypeError, r"labels of shape \(N,\) must hold integers, got dtype bool"),
    ({"labels": np.ones((4, 3), int)}, TypeError, r"labels of shape \(N, classes\) must hold floating"),
    ({"labels": [0, 1, 2, 0]}, TypeError, "labels must be a NumPy array or a torch tensor, got list"),
    ({"labels": np.array([0, 1, 2, 3])}, ValueError, r"labels must be in \[0, 3\), got 0 to 3"),
    ({"labels": np.array([0, 1, 2, -1])}, ValueError, r"labels must be in \[0, 3\), got -1 to 2"),
    ({"classes": None}, ValueError, "classes must be given with integer labels"),
    ({"classes": 0}, ValueError, "classes must be at least 1, got 0"),
    ({"classes": 2.0}, TypeError, "classes must be an integer, got 2.0"),
    ({"labels": np.ones((4, 2))}, ValueError, "classes must be 2, the columns of labels, got 3"),
    ({"images": np.ones((1, 1, 8, 8))}, ValueError, "images must be at least 2, to be mixed with each other"),
]
MIXES = pytest.mark.parametrize("method", [m for m in ROWS if m.name != "cutout"], ids=lambda m: m.name)


@MIXES
@pytest.mark.parametrize(("arguments", "kind", "message"), BAD_LABELS)
def test_labels_that_do_not_fit(method, arguments, kind, message):
    arguments = {"images": np.ones((4, 1, 8, 8)), **arguments}
    with pytest.raises(kind, match=f"^{message}"):
        apply(method, arguments.pop("images"), **arguments)


@MIXES
def test_images_and_labels_are_of_one_kind(method, torch):
    with pytest.raises(
        TypeError, match=r"^labels must be a NumPy array, as images is, got a torch tensor on"
    ):
        apply(method, np.ones((4, 1, 8, 8)), labels=torch.arange(4))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan"), "1"])
def test_alpha_is_positive(alpha):
    with pytest.raises((ValueError, TypeError), match=r"^alpha must be"):
        thinned.cutmix(np.ones((2, 1, 8, 8)), np.arange(2), key=Key(0), classes=2, alpha=alpha)


# Attentive CutMix


def test_the_cells_of_highest_attention_are_pasted():
    x, attention = images_of((4, 2, 14, 21)), attention_for(4)
    y, mixed = thinned.attentive_cutmix(x, np.arange(4), attention, key=Key(6), classes=4)
    partner = permutation(Key(6).fold_in("partner"), 4)
    assert np.any(partner != np.arange(4))
    for i, j in enumerate(partner):
        top = np.sort(attention[j].ravel())[-6]
        pasted = np.kron(attention[j] >= top, np.ones((2, 3))).astype(bool)
        assert np.array_equal(y[i, 0], np.where(pasted, j + 1, i + 1))
        want = np.zeros(4)
        want[i] += 1 - 6 / 49
        want[j] += 6 / 49
        assert np.allclose(mixed[i], want, rtol=0, atol=2 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("patches", [0, 6, 49])
def test_law4_attentive_share(patches):
    x = images_of((4, 1, 14, 14))
    y, _ = thinned.attentive_cutmix(x, np.arange(4), attention_for(4), key=Key(6), patches=patches, classes=4)
    partner = permutation(Key(6).fold_in("partner"), 4)
    moved = partner != np.arange(4)
    share = np.mean(y != x, axis=(1, 2, 3))[moved]
    assert np.allclose(share, theory.attentive_share(patches, 7), rtol=1e-15)


def test_an_image_that_the_grid_does_not_divide_is_covered_whole():
    x = images_of((2, 1, 10, 9))
    key = next(Key(s) for s in range(99) if permutation(Key(s).fold_in("partner"), 2)[0] == 1)
    y, _ = thinned.attentive_cutmix(x, np.arange(2), attention_for(2), key=key, patches=49, classes=2)
    assert np.array_equal(y, x[::-1])


def test_of_equal_cells_the_first_are_taken():
    x, flat = images_of((2, 1, 4, 4)), np.zeros((2, 2, 2))
    key = next(Key(s) for s in range(99) if permutation(Key(s).fold_in("partner"), 2)[0] == 1)
    y, _ = thinned.attentive_cutmix(x, np.arange(2), flat, key=key, patches=1, grid=2, classes=2)
    assert np.array_equal(y[0, 0] == 2, np.kron([[1, 0], [0, 0]], np.ones((2, 2))).astype(bool))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"attention": np.ones((4, 6, 7))},
            ValueError,
            r"attention must have shape \(4, 7, 7\), got \(4, 6, 7\)",
        ),
        (
            {"attention": np.ones((3, 7, 7))},
            ValueError,
            r"attention must have shape \(4, 7, 7\), got \(3, 7, 7\)",
        ),
        ({"attention": np.full((4, 7, 7), np.nan)}, ValueError, "attention must hold numbers, got nan"),
        ({"attention": np.ones((4, 7, 7), int)}, TypeError, "attention must hold floating-point numbers"),
        ({"attention": None}, TypeError, "attention must be a NumPy array or a torch tensor, got NoneType"),
        ({"patches": 50}, ValueError, r"patches must be in \[0, 50\), got 50"),
        ({"patches": -1}, ValueError, r"patches must be in \[0, 50\), got -1"),
        ({"grid": 0}, ValueError, "grid must be at least 1, got 0"),
        ({"grid": 9}, ValueError, "grid must be at most the images' height and width, 8 and 8, got 9"),
    ],
)
def test_attention_that_does_not_fit(arguments, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        apply(METHODS["attentive-cutmix"], np.ones((4, 1, 8, 8)), **arguments)


# What else images and labels may be.


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@EACH
def test_integers_and_videos(method, dtype):
    images = images_of((3, 2, 12, 14))
    expected, _ = apply(method, images)
    whole, _ = apply(method, images.astype(dtype))
    assert whole.dtype == dtype
    assert np.array_equal(whole, expected)
    video, _ = apply(method, np.stack([images, images], 1))
    assert np.array_equal(video, np.stack([expected, expected], 1))


def test_rectangles_and_fills():
    images = np.ones((40, 3, 9, 11))
    y = thinned.cutout(images, (5, 2), key=Key(0), fill=(0.5, 0.25, 0.0))
    cut = y[:, 0] != 1
    assert cut.any(2).sum(1).max() == 5
    assert cut.any(1).sum(1).max() == 2
    for c, value in enumerate((0.5, 0.25, 0.0)):
        assert np.array_equal(y[:, c] == value, cut)
    with pytest.raises(ValueError, match=r"^fill must be a number or 3, one for each channel, got 2"):
        thinned.cutout(images, 3, key=Key(0), fill=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"^fill must be a value of images of uint8, got 0.5"):
        thinned.cutout(images.astype(np.uint8), 3, key=Key(0), fill=0.5)
    for fill in (300, -1, np.inf):
        with pytest.raises(ValueError, match=r"^fill must be a value of images of uint8, got"):
            thinned.cutout(images.astype(np.uint8), 3, key=Key(0), fill=(fill, 0, 0))


def test_labels_of_places_are_pasted_with_the_images():
    images = images_of((4, 3, 8, 8))
    mixed, labels = thinned.cutmix(images, images[:, 0].astype(int), key=Key(1))
    assert labels.dtype == int
    assert np.array_equal(labels, mixed[:, 0])
    seen = [thinned.cutmix(images, images[:, 0].astype(int), key=Key(k))[1] for k in range(8)]
    assert any(len(np.unique(each[0])) == 2 for each in seen)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup(alpha):
    images, labels = images_of((4, 3, 8, 8)), np.eye(4)
    mixed, shares = thinned.mixup(images, labels, key=Key(5), alpha=alpha)
    np.testing.assert_allclose(mixed[:, 0, 0, 0], shares @ np.arange(1.0, 5.0))
    np.testing.assert_allclose(shares.sum(1), 1.0)
    partner = permutation(Key(5).fold_in("partner"), 4)
    assert np.array_equal(shares > 0, np.eye(4, dtype=bool) | np.eye(4, dtype=bool)[partner])
    assert np.array_equal(
        thinned.mixup(images, np.arange(4), key=Key(5), alpha=alpha, classes=4)[1], shares.astype(np.float32)
    )
    torch = pytest.importorskip("torch")
    theirs, _ = thinned.mixup(torch.from_numpy(images), torch.from_numpy(labels), key=Key(5), alpha=alpha)
    np.testing.assert_array_equal(theirs.numpy(), mixed)
