"""What is particular to each method; the laws that all share are in test_laws.py."""

import inspect
import math

import numpy as np
import pytest
from helpers.family import BACKENDS, OUT, on, ramp, weight_for

import thinned
from thinned import Key, functional, keep_mask, theory

X = ramp((4, 5, 6))


# Channels, samples


@pytest.mark.parametrize("spatial", [(), (7,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("function", [thinned.spatial_dropout, thinned.feature_alpha_dropout])
def test_a_channel_is_one_unit(function, spatial):
    y = function(np.ones((8, 9, *spatial)), 0.5, key=Key(1)).reshape(8, 9, -1)
    assert np.array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
    assert np.array_equal(y[:, :, 0] > 0, keep_mask((8, 9), 0.5, key=Key(1)))


def test_drop_path_modes():
    x = np.ones((40, 3, 2))
    y = thinned.drop_path(x, 0.5, key=Key(2))
    assert np.array_equal(y[:, 0, 0] != 0, keep_mask(40, 0.5, key=Key(2)))
    for seed in range(20):
        kept = bool(keep_mask(1, 0.5, key=Key(seed))[0])
        for offset in (0, 7, 2**50):  # every shard decides the same
            y = thinned.drop_path(x, 0.5, key=Key(seed), mode="batch", sample_offset=offset)
            assert np.array_equal(y, x * (2.0 if kept else 0.0))
    with pytest.raises(ValueError, match=r"^mode must be one of 'sample', 'batch', got 'row'"):
        thinned.drop_path(x, 0.5, key=Key(0), mode="row")


# DropBlock


@pytest.mark.parametrize(
    ("block", "kind", "message"),
    [
        (0, ValueError, "block_size must be at least 1, got 0"),
        (-3, ValueError, "block_size must be at least 1, got -3"),
        (2.5, TypeError, "block_size must be an integer, got 2.5"),
        (True, TypeError, "block_size must be an integer"),
        (None, TypeError, "block_size must be an integer"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_drop_block_sizes_that_are_none(block, kind, message, training):
    with pytest.raises(kind, match=f"^{message}"):
        thinned.drop_block(X, 0.1, block, key=Key(0), training=training)


@pytest.mark.parametrize(("p", "training"), [(0.1, True), (0.1, False), (0.0, True)])
def test_drop_block_sizes_of_another_rank(p, training):
    for shape, block in (((2, 3, 8), (3, 3)), ((2, 3, 8, 8), (3,)), ((2, 3, 4, 4, 4), (3, 3))):
        axes = len(shape) - 2
        with pytest.raises(
            ValueError, match=f"^block_size must have one number for each of {axes} axes, got"
        ):
            thinned.drop_block(np.ones(shape), p, block, key=Key(0), training=training)


def test_blocks_of_one_are_dropout_by_place():
    kept = thinned.drop_block(X, 0.4, 1, key=Key(3)) != 0
    assert np.array_equal(kept, keep_mask(X.shape, 0.4, key=Key(3)))


def test_a_block_larger_than_the_map_is_the_map():
    x = np.ones((50, 3, 4, 5))
    y = thinned.drop_block(x, 0.5, 7, key=Key(3))
    assert np.array_equal(y[:, :, 0, 0] != 0, keep_mask((50, 3), 0.5, key=Key(3)))
    assert np.array_equal(y != 0, np.broadcast_to((y != 0)[:, :, :1, :1], y.shape))


def test_a_block_clipped_in_one_axis_only():
    y = thinned.drop_block(np.ones((200, 1, 2, 30)), 0.2, 4, key=Key(3)) != 0
    assert np.array_equal(y[:, :, 0], y[:, :, 1]), "the short axis goes whole"
    rows = ["".join("x" if kept else " " for kept in row) for row in y[:, 0, 0]]
    holes = [len(hole) for row in rows for hole in row.replace("x", ",").split(",") if hole]
    assert holes
    assert min(holes) >= 4


def test_drop_block_with_one_mask_for_all_channels():
    y = thinned.drop_block(np.ones((5, 6, 12, 12)), 0.3, 3, key=Key(4), per_channel=False)
    assert np.array_equal(y, np.broadcast_to(y[:, :1], y.shape))


def test_drop_block_rescales_each_sample_by_its_own_survivors():
    y = thinned.drop_block(np.ones((6, 3, 9, 9)), 0.3, 3, key=Key(4))
    for sample in y:
        assert np.allclose(sample[sample != 0], sample.size / np.count_nonzero(sample), rtol=1e-15)


def test_drop_block_by_the_papers_rate_drops_less():
    """As published: overlaps and edges are overlooked, so less than p is dropped. Ours drops p."""
    x = np.ones((2000, 1, 14, 14))
    paper = np.mean(thinned.drop_block(x, 0.4, 7, key=Key(1), exact_rate=False) == 0)
    gamma = theory.drop_block_rate(0.4, 7, (14, 14), exact=False)
    bound = 6 * math.sqrt(theory.drop_block_variance(gamma, 7, (14, 14)) / 2000)
    assert abs(paper - theory.drop_block_share(gamma, 7, (14, 14))) <= bound
    assert theory.drop_block_share(gamma, 7, (14, 14)) < 0.35


# Alpha dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_is_torchs_affine_map(p, torch):
    """The two values that torch's alpha_dropout makes of 1 are ours, to float32's rounding."""
    theirs = torch.nn.functional.alpha_dropout(torch.ones(4096), p, training=True).unique()
    ours = torch.from_numpy(np.unique(thinned.alpha_dropout(np.ones(4096), p, key=Key(1))))
    assert len(ours) == 2
    assert torch.allclose(theirs.double(), ours, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("function", [thinned.alpha_dropout, thinned.feature_alpha_dropout])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(function, p):
    n = 1 << 16
    x = thinned.key.normals(Key(5), n).reshape(n, 1)
    y = function(x, p, key=Key(6))
    a, b = theory.alpha_constants(p)
    # y is a normal of deviation a around b, or the constant c: its moments about 0
    c = a * theory.ALPHA_PRIME + b
    fourth = (1 - p) * (b**4 + 6 * a**2 * b**2 + 3 * a**4) + p * c**4
    assert abs(y.mean()) <= 6 / math.sqrt(n)
    assert abs(np.mean(y**2) - 1) <= 6 * math.sqrt((fourth - 1) / n)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_alpha_gradient_is_torchs(features, p, torch):
    function = thinned.feature_alpha_dropout if features else thinned.alpha_dropout
    x = torch.from_numpy(X).requires_grad_()
    grad = np.cos(X)
    function(x, p, key=Key(3), sample_offset=9).backward(torch.from_numpy(grad))
    ours = functional.alpha_gradient(grad, p, key=Key(3), features=features, sample_offset=9)
    assert np.array_equal(x.grad.numpy(), ours)


# DropConnect

B = np.array([0.5, -1.0, 2.0])
N_IN = ramp((20, 6))


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_the_bias_is_never_dropped(per_sample, p):
    w = weight_for(N_IN)
    y = thinned.drop_connect(N_IN, w, B, p, key=Key(1), per_sample=per_sample)
    bare = thinned.drop_connect(N_IN, w, None, p, key=Key(1), per_sample=per_sample)
    assert np.allclose(y, bare + B, rtol=0, atol=1e-12)
    if p == 1.0:
        assert np.array_equal(y, np.broadcast_to(B, y.shape))


def test_drop_connect_in_evaluation_is_the_mean_network():
    y = thinned.drop_connect(N_IN, weight_for(N_IN), B, 0.4, key=Key(1), training=False)
    assert np.allclose(y, N_IN @ weight_for(N_IN).T + B, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_drop_connect_has_the_moments_of_theory(training, p):
    """In training over masks, and in Gaussian inference: the same mean and variance for each output."""
    n = 20_000
    x, w = np.array([0.7, -1.2, 0.4, 2.0]), np.array([[1.0, 0.2, -0.5, 0.3], [0.0, 1.5, 0.8, -0.1]])
    y = thinned.drop_connect(
        np.tile(x, (n, 1)), w, B[:2], p, key=Key(2), training=training, inference="gaussian"
    )
    mean, variance = theory.drop_connect_moments(x[None], w, B[:2], p)
    assert np.all(np.abs(y.mean(0) - mean) <= 6 * np.sqrt(variance / n))
    # A sum of independent two-point terms: its fourth moment is 3σ⁴ and the terms' excess
    excess = ((x * w) ** 4).sum(1) * p * (1 - 6 * p * (1 - p)) / (1 - p) ** 3 if training else 0.0
    bound = 6 * np.sqrt((2 * variance**2 + excess) / n)
    assert np.all(np.abs(np.mean((y - mean) ** 2, axis=0) - variance) <= bound)


def test_gaussian_inference_at_the_ends(torch):
    for x in (N_IN, torch.from_numpy(N_IN)):
        w = weight_for(x)
        options = {"key": Key(2), "training": False, "inference": "gaussian"}
        assert (thinned.drop_connect(x, w, None, 0.0, **options) == x @ w.T).all()
        assert not thinned.drop_connect(x, w, None, 1.0, **options).any()
        half = thinned.drop_connect(x, w, None, 0.5, **options)
        assert (
            thinned.drop_connect(x[3:7], w, None, 0.5, sample_offset=3, **options) - half[3:7]
        ).max() < 1e-12


@pytest.mark.parametrize(
    "options", [{}, {"per_sample": False}, {"training": False}, {"training": False, "inference": "gaussian"}]
)
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_drop_connect_gradients(options, p, torch):
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)
    x[0] = 0  # no variance at all: the root's gradient is 0, not NaN
    w = weight_for(x)
    if options.get("inference") == "gaussian":
        x = x[1:]
    tensors = [t.clone().requires_grad_() for t in (x, w, torch.from_numpy(B))]
    assert torch.autograd.gradcheck(
        lambda *t: thinned.drop_connect(*t, p, key=Key(1), sample_offset=3, **options), tensors
    )


def test_gaussian_inference_without_variance_has_finite_gradients(torch):
    x = torch.zeros(2, 5, requires_grad=True)
    thinned.drop_connect(
        x, torch.ones(3, 5), p=0.5, key=Key(1), training=False, inference="gaussian"
    ).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 5), 3.0))


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_drop_connect_gradient_is_autograds(per_sample, p, backend, torch):
    x = torch.from_numpy(N_IN).requires_grad_()
    w = weight_for(N_IN)
    w_ = torch.from_numpy(w).requires_grad_()
    grad = np.cos(np.arange(20.0 * OUT)).reshape(20, OUT)
    options = {"key": Key(3), "per_sample": per_sample, "sample_offset": 9}
    thinned.drop_connect(x, w_, None, p, **options).backward(torch.from_numpy(grad))
    arrays = (grad, N_IN, w)
    if backend == "torch":
        arrays = tuple(torch.from_numpy(a) for a in arrays)
    with on(backend):
        ours = functional.drop_connect_gradient(*arrays, p, **options)
    for mine, theirs in zip(ours, (x.grad, w_.grad), strict=True):
        assert np.allclose(np.asarray(mine), theirs.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_sample", [True, False])
def test_a_nan_input_reaches_no_dropped_weight(per_sample, torch):
    x = np.full((2, 6), np.nan)
    units = (2, OUT, 6) if per_sample else (1, OUT, 6)
    dropped = ~keep_mask(units, 0.5, key=Key(1)).any(axis=0)
    assert dropped.any()
    w = weight_for(x)
    _, ours = functional.drop_connect_gradient(
        np.ones((2, OUT)), x, w, 0.5, key=Key(1), per_sample=per_sample
    )
    w_ = torch.from_numpy(w).requires_grad_()
    thinned.drop_connect(torch.from_numpy(x), w_, p=0.5, key=Key(1), per_sample=per_sample).sum().backward()
    for grad in (ours, w_.grad.numpy()):
        assert np.array_equal(grad == 0, dropped)


@pytest.mark.parametrize(
    ("grad", "kind", "message"),
    [
        (np.ones((20, 4)), ValueError, r"grad must have shape \(20, 3\), got \(20, 4\)"),
        (np.ones(3), ValueError, r"grad must have shape \(20, 3\), got \(3,\)"),
        (np.ones((20, 3), int), TypeError, "grad must hold floating-point numbers, got dtype int64"),
        (None, TypeError, "grad must be a NumPy array or a torch tensor, got NoneType"),
    ],
)
@pytest.mark.parametrize("per_sample", [True, False])
def test_gradients_that_do_not_fit(grad, kind, message, per_sample):
    with pytest.raises(kind, match=f"^{message}"):
        functional.drop_connect_gradient(grad, N_IN, weight_for(N_IN), key=Key(0), per_sample=per_sample)


def test_a_gradient_of_another_dtype_is_taken_in_that_of_x():
    grad, w = np.cos(np.arange(60.0)).reshape(20, 3), weight_for(N_IN)
    ours = functional.drop_connect_gradient(grad.astype(np.float32), N_IN, w, key=Key(0))
    want = functional.drop_connect_gradient(grad.astype(np.float32).astype(float), N_IN, w, key=Key(0))
    for mine, theirs in zip(ours, want, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("weight", "bias", "kind", "message"),
    [
        (np.ones((3, 5)), None, ValueError, r"weight must have shape \(out, 6\), got \(3, 5\)"),
        (np.ones(6), None, ValueError, r"weight must have shape \(out, 6\), got \(6,\)"),
        (np.ones((3, 6), int), None, TypeError, "weight must hold floating-point numbers, got dtype int64"),
        (
            np.ones((3, 6), np.float32),
            None,
            TypeError,
            "weight must have the dtype of x, float64, got float32",
        ),
        (None, None, TypeError, "weight must be a NumPy array or a torch tensor, got NoneType"),
        (np.ones((3, 6)), np.ones(4), ValueError, r"bias must have shape \(3,\), got \(4,\)"),
        (np.ones((3, 6)), np.ones((3, 1)), ValueError, r"bias must have shape \(3,\), got \(3, 1\)"),
        (np.ones((3, 6)), 0.5, TypeError, "bias must be a NumPy array or a torch tensor, got float"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_weights_that_do_not_fit(weight, bias, kind, message, training):
    with pytest.raises(kind, match=f"^{message}"):
        thinned.drop_connect(N_IN, weight, bias, 0.5, key=Key(0), training=training)


def test_drop_connect_mixes_no_kinds(torch):
    with pytest.raises(TypeError, match=r"^weight must be a NumPy array, as x is, got a torch tensor on cpu"):
        thinned.drop_connect(N_IN, torch.ones(3, 6), key=Key(0))
    with pytest.raises(ValueError, match=r"^inference must be one of 'mean', 'gaussian', got 'exact'"):
        thinned.drop_connect(N_IN, weight_for(N_IN), key=Key(0), inference="exact")


def test_autocast_leaves_the_sums_in_single(torch):
    x, w = torch.linspace(-1, 1, 60).reshape(10, 6).requires_grad_(), torch.ones(3, 6)
    want = thinned.drop_connect(x, w, p=0.5, key=Key(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = thinned.drop_connect(x, w, p=0.5, key=Key(1))
        got.sum().backward()
    assert torch.equal(got, want)


# All of them


def test_the_signatures_of_the_contract():
    """Contract 2: names, order, defaults; key and what follows by keyword alone."""
    contract = {
        "dropout": "(x, p=0.5, *, key, training=True, rescale='train')",
        "spatial_dropout": "(x, p=0.5, *, key, training=True)",
        "drop_block": "(x, p=0.1, block_size=7, *, key, training=True, per_channel=True)",
        "drop_path": "(x, p=0.1, *, key, training=True, mode='sample')",
        "drop_connect": "(x, weight, bias=None, p=0.5, *, key, training=True, per_sample=True)",
        "gaussian_dropout": "(x, p=0.5, *, key, training=True)",
        "alpha_dropout": "(x, p=0.5, *, key, training=True)",
        "feature_alpha_dropout": "(x, p=0.5, *, key, training=True)",
        "cutout": "(images, size, *, key, holes=1, fill=0.0)",
        "cutmix": "(images, labels, *, key, alpha=1.0, classes=None)",
        "attentive_cutmix": "(images, labels, attention, *, key, patches=6, grid=7, classes=None)",
    }
    for name, signature in contract.items():
        parameters = inspect.signature(getattr(thinned, name)).parameters.values()
        bare = [p.replace(annotation=p.empty) for p in parameters]
        ours = str(inspect.Signature([p for p in bare if f" {p.name}" in f" {signature[1:]}"]))
        assert ours == signature, name


def test_units_are_numbered_below_2_to_the_64():
    with pytest.raises(ValueError, match=r"^sample_offset must leave unit numbers below 2\*\*64, got"):
        thinned.dropout(np.ones((2, 2)), 0.5, key=Key(0), sample_offset=2**64 - 1)
    assert thinned.dropout(np.ones(2), 0.5, key=Key(0), sample_offset=2**64 - 2).shape == (2,)


def test_functorch_sees_a_gradient(torch):
    x = torch.linspace(-1, 1, 12)
    grad = torch.func.grad(lambda x: thinned.alpha_dropout(x, 0.5, key=Key(1)).sum())(x)
    assert torch.equal(grad, functional.alpha_gradient(torch.ones(12), 0.5, key=Key(1)))


@pytest.mark.parametrize("noise", [(4, 1, 6), (None, 1, None), (1, 5, 6), (4, 5, 1), (1, 1, 1)])
@pytest.mark.parametrize("rescale", ["train", "test"])
def test_noise_shape(noise, rescale):
    x = np.ones((4, 5, 6))
    y = thinned.dropout(x, 0.5, key=Key(2), noise_shape=noise, rescale=rescale)
    units = tuple(n if m is None else m for n, m in zip(x.shape, noise, strict=True))
    kept = thinned.keep_mask(units, 0.5, key=Key(2))
    assert np.array_equal(y, np.where(kept, 2.0 if rescale == "train" else 1.0, 0.0) * x)
    part = thinned.dropout(
        x[2:],
        0.5,
        key=Key(2),
        noise_shape=(None if units[0] > 1 else 1, *noise[1:]),
        sample_offset=2,
        rescale=rescale,
    )
    assert np.array_equal(part, y[2:])
    torch = pytest.importorskip("torch")
    t = torch.ones(4, 5, 6, dtype=torch.float64, requires_grad=True)
    out = thinned.dropout(t, 0.5, key=Key(2), noise_shape=noise, rescale=rescale)
    assert np.array_equal(out.detach().numpy(), y)
    assert np.array_equal(torch.autograd.grad(out.sum(), t)[0].numpy(), y)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_noise_shape_must_fit(training, p):
    """A wrong shape is found in evaluation too, and where nothing is dropped."""
    x = np.ones((4, 5, 6))
    for noise in ((4, 5), (4, 2, 6), (4, 5, 6, 1), ()):
        with pytest.raises(ValueError, match=r"^noise_shape must have 1 or the size of x"):
            thinned.dropout(x, p, key=Key(0), noise_shape=noise, training=training)
    for noise in (4, (4, 1.0, 6), (4, True, 6)):
        with pytest.raises(TypeError, match=r"^noise_shape(\[1\])? must be"):
            thinned.dropout(x, p, key=Key(0), noise_shape=noise, training=training)
    with pytest.raises(ValueError, match=r"^noise_shape\[0\] must be at least 0, got -1"):
        thinned.dropout(x, p, key=Key(0), noise_shape=(-1, 1, 1), training=training)
    y = thinned.dropout(x, p, key=Key(0), noise_shape=[None, 1, 6], training=training)
    assert np.array_equal(y, x) == (not training or p == 0.0)


def test_channels_last():
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    y = thinned.spatial_dropout(np.moveaxis(x, 1, -1), 0.5, key=Key(1), data_format="channels_last")
    assert np.array_equal(np.moveaxis(y, -1, 1), thinned.spatial_dropout(x, 0.5, key=Key(1)))
    with pytest.raises(ValueError, match=r"^data_format must be one of"):
        thinned.spatial_dropout(x, key=Key(1), data_format="NHWC")


def test_blocks_of_several_sizes_and_unscaled_paths():
    x = np.ones((200, 2, 12, 14))
    y = thinned.drop_block(x, 0.2, (3, 5), key=Key(0))
    same = thinned.drop_block(x, 0.2, 4, key=Key(0))
    assert np.array_equal(thinned.drop_block(x, 0.2, (4, 4), key=Key(0)), same)
    share, error = (y == 0).mean((1, 2, 3)).mean(), (y == 0).mean((1, 2, 3)).std() / len(x) ** 0.5
    assert abs(share - 0.2) <= 6 * error
    kept = thinned.drop_path(x, 0.5, key=Key(0), scale_by_keep=False)
    assert np.array_equal(kept, thinned.drop_path(x, 0.5, key=Key(0)) / 2)
