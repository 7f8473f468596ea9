"""Closed forms of what each method does on average. NumPy alone, so that they can judge the rest."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
ALPHA_PRIME = -SELU_SCALE * SELU_ALPHA  # where SELU saturates: −1.7580993408473766


def bernoulli_moments(p: float) -> tuple[float, float]:
    """Mean and variance of dropout's factor: 0 with probability p, else 1/(1 − p).

    Srivastava et al. 2014, JMLR 15:1929-1958: mean 1, variance p/(1 − p). At p = 1 all is zero.
    """
    return (1.0, p / (1.0 - p)) if p < 1.0 else (0.0, 0.0)


def mask_moments(p: float) -> tuple[float, float]:
    """Mean and variance of the original rule's factor in training: 0 with probability p, else 1.

    Srivastava et al. 2014, JMLR 15:1929-1958: mean 1 − p, variance p(1 − p).
    """
    return 1.0 - p, p * (1.0 - p)


def gaussian_moments(p: float) -> tuple[float, float]:
    """Mean and variance of Gaussian dropout's factor, N(1, p/(1 − p)).

    Srivastava et al. 2014, section 10: the same mean and variance as dropout's factor.
    """
    return bernoulli_moments(p)


def thin_moments(p: float) -> tuple[float, float]:
    """Mean and variance of the factor of `thin`, which is that of dropout: 0, or 1/(1 − p)."""
    return bernoulli_moments(p)


def thin_covariance(p: float, n: int, panel: int) -> float:
    """Cov of the survival of two of n ≥ 2 units in one row, in panels of so many units.

    The row keeps K = ⌊(1 − p)P⌋ or one more of P panels. Two units share a panel with probability c, and
    are kept together; else two panels are kept with E[K(K − 1)]/(P(P − 1)).
    """
    share, together, k, more, panels = _windows(p, n, panel)
    pairs = k * (k - 1) + 2 * k * more
    return together * share + (1.0 - together) * pairs / max(panels * (panels - 1), 1) - share**2


def thin_pair_covariance(p: float, n: int, panel: int) -> tuple[float, float]:
    """Cov of the survival of a unit in two rows whose groups are a pair, and of two units, one in each row.

    Both windows hold a panel with max(0, 1 − 2p), and K and K′ panels each. For an even P is K = K′; for an
    odd one they are ⌈(1 − p)P⌉ together with max(0, 2f − 1), each with f. Rows of different pairs have no
    covariance: a unit's survival, and that of two units, are independent there.
    """
    share, together, k, more, panels = _windows(p, n, panel)
    both = max(0.0, 2.0 * share - 1.0)
    product = k * k + 2 * k * more + (more if panels % 2 == 0 else max(0.0, 2.0 * more - 1.0))
    apart = (product - panels * both) / max(panels * (panels - 1), 1)
    return both - share**2, together * both + (1.0 - together) * apart - share**2


def _windows(p: float, n: int, panel: int) -> tuple[float, float, int, float, int]:
    """1 − p; the chance that two units share a panel; ⌊(1 − p)P⌋ and the chance of one more; P."""
    panels = -(-n // panel)
    sizes = [panel] * (panels - 1) + [n - panel * (panels - 1)]
    together = sum(size * (size - 1) for size in sizes) / (n * (n - 1))
    k = math.floor((1.0 - p) * panels)
    return 1.0 - p, together, k, (1.0 - p) * panels - k, panels


def alpha_constants(p: float) -> tuple[float, float]:
    """The affine map y = a·(x or α′) + b that keeps mean 0 and variance 1: (a, b).

    Klambauer et al. 2017, arXiv:1706.02515: with q = 1 − p, a = (q + α′²q(1 − q))^−½ and b = −a(1 − q)α′.
    At p = 1 all is zero.
    """
    q = 1.0 - p
    if q == 0.0:
        return 0.0, 0.0
    a = (q + ALPHA_PRIME**2 * q * (1.0 - q)) ** -0.5
    return a, -a * (1.0 - q) * ALPHA_PRIME


def alpha_moments(p: float) -> tuple[float, float]:
    """Mean and variance of alpha dropout's output for x = 1: a + b with probability 1 − p, else aα′ + b.

    So mean a(1 − p), as b = −apα′, and variance a²p(1 − p)(1 − α′)².
    """
    a, _ = alpha_constants(p)
    return a * (1.0 - p), a**2 * p * (1.0 - p) * (1.0 - ALPHA_PRIME) ** 2


def drop_connect_moments(
    x: Floats, weight: Floats, bias: Floats | None = None, p: float = 0.5
) -> tuple[Floats, Floats]:
    """Mean and variance of DropConnect's outputs over the masks: two (N, out) arrays.

    Wan et al. 2013, PMLR 28(3):1058-1066, for survivors divided by 1 − p: mean xWᵀ + b, variance
    p/(1 − p)·x²(W²)ᵀ. At p = 1 the mean is b, the variance 0.
    """
    mean, variance = bernoulli_moments(p)
    return mean * (x @ weight.T) + (0.0 if bias is None else bias), variance * (x**2 @ (weight**2).T)


def drop_block_moments(p: float) -> tuple[float, float]:
    """Mean and variance of DropBlock's factor on a map of many blocks: 1 and p/(1 − p).

    On any map the factors of a sample have mean 1 exactly, over its own units, unless all are dropped.
    """
    return bernoulli_moments(p)


Block = int | tuple[int, ...]  # places along each axis, or one number for all


def block_sizes(block: Block, spatial: Sequence[int]) -> tuple[int, ...]:
    """The places of a block along each axis of a map, at most those of the map."""
    sizes = (block,) * len(spatial) if isinstance(block, int) else block
    if len(sizes) != len(spatial):
        raise ValueError(f"block_size must have one number for each of {len(spatial)} axes, got {block}")
    return tuple(map(min, sizes, spatial))


@functools.lru_cache(maxsize=1024)
def drop_block_rate(p: float, block: Block, spatial: tuple[int, ...], *, exact: bool = True) -> float:
    """The rate γ at which seeds fall, for an expected dropped share p of a map of that size.

    A place is kept where none of the m seeds above it fell: the share is the mean over the places of
    1 − (1 − γ)^m, edges included, and γ is where that equals p. ``exact=False`` gives the paper's
    γ = p/blockᵈ·∏ size/(size − block + 1), at most 1, which ignores overlaps and edges. p = 1 drops all.

    Ghiasi, Lin and Le 2018, arXiv:1810.12890.
    """
    if p in (0.0, 1.0) or 0 in spatial:
        return p
    sizes = block_sizes(block, spatial)
    if not exact:
        pairs = list(zip(spatial, sizes, strict=True))
        return min(1.0, p * math.prod(n / (b * (n - b + 1)) for n, b in pairs))
    m, share = _seeds_above(block, spatial)
    if np.all(m == 1.0):
        return p
    # With s = −ln(1 − γ): −ln E[e^(−ms)] = −ln(1 − p). The left is concave and rises from 0, so Newton's
    # steps from 0 climb to the root without passing it.
    target, s, step = -math.log1p(-p), 0.0, math.inf
    while step > 1e-15 * s:
        kept, lost = float(share @ np.exp(-m * s)), float(share @ -np.expm1(-m * s))
        log_kept = math.log1p(-lost) if lost < 0.5 else math.log(kept)  # of the smaller one: nothing cancels
        step = (target + log_kept) * kept / float((share * m) @ np.exp(-m * s))
        s += max(step, 0.0)
    return -math.expm1(-s)


def drop_block_share(rate: float, block: Block, spatial: Sequence[int]) -> float:
    """The expected dropped share of a map, where seeds fall at that rate γ: the mean of 1 − (1 − γ)^m."""
    m, share = _seeds_above(block, spatial)
    return float(1.0 - share @ (1.0 - rate) ** m)


def drop_block_variance(rate: float, block: Block, spatial: Sequence[int]) -> float:
    """The variance of a map's dropped share, where seeds fall at that rate γ.

    The mean over pairs of places of q^(m + m′ − m″) − q^(m + m′): q = 1 − γ, m″ the seeds above both.
    """
    above = [_above(*pair) for pair in zip(spatial, block_sizes(block, spatial), strict=True)]
    m = _outer([a.sum(1) for a in above])
    both = _outer([a @ a.T for a in above])
    q, either = 1.0 - rate, m[:, None] + m[None, :]
    return float(np.mean(q ** (either - both) - q**either))


def _above(size: int, block: int) -> Floats:
    """(size, valid) of 0 and 1: whether the block of a seed covers a place."""
    block = min(block, size)
    place, seed = np.arange(size)[:, None], np.arange(size - block + 1)[None, :]
    return ((seed <= place) & (place < seed + block)).astype(np.float64)


def _seeds_above(block: Block, spatial: Sequence[int]) -> tuple[Floats, Floats]:
    """The numbers of seeds above a place, and the share of places that have each.

    Along an axis they are 1, 2, …, top, …, top, …, 2, 1.
    """
    values, shares = [], []
    for size, b in zip(spatial, block_sizes(block, spatial), strict=True):
        top = min(b, size - b + 1)
        places = np.full(top, 2.0)
        places[-1] = size - 2 * (top - 1)
        values.append(np.arange(1.0, top + 1))
        shares.append(places / size)
    return _outer(values), _outer(shares)


def cutout_share(size: int, spatial: Sequence[int], holes: int = 1) -> float:
    """The expected share of an image that cutout covers, clipping at the edges included.

    A place at coverage q = ∏ (centres that reach it)/length is cut by none of the holes with (1 − q)^holes.

    DeVries and Taylor 2017, arXiv:1708.04552.
    """
    q = _outer([_reach(length, size) for length in spatial])
    return float(np.mean(1.0 - (1.0 - q) ** holes))


def cutmix_share(share: float, spatial: Sequence[int]) -> float:
    """The expected share of an image inside CutMix's box of ⌊length·√share⌋ an axis, clipped at the edges.

    Yun et al. 2019, arXiv:1905.04899; there ``share`` is 1 − λ, λ ~ Beta(α, α).
    """
    sides = [math.floor(length * math.sqrt(share)) for length in spatial]
    pairs = zip(spatial, sides, strict=True)
    return math.prod(float(_reach(length, side).mean()) for length, side in pairs)


def attentive_share(patches: int, grid: int) -> float:
    """The share of an image that comes from its partner: patches/grid².

    Walawalkar, Shen, Liu and Savvides 2020, arXiv:2003.13048.
    """
    return patches / grid**2


def _reach(length: int, side: int) -> Floats:
    """For each place of an axis, the share of centres c whose [c − ⌊side/2⌋, …) of that side covers it."""
    last = np.arange(length) + side // 2  # the centres that cover it are those in (last − side, last]
    return np.maximum(np.minimum(last, length - 1) - np.maximum(last - side + 1, 0) + 1, 0) / length


def beta_moments(alpha: float) -> tuple[float, float]:
    """Mean and variance of Beta(α, α): ½ and 1/(4(2α + 1))."""
    return 0.5, 0.25 / (2.0 * alpha + 1.0)


def _outer(axes: Sequence[Floats]) -> Floats:
    """The outer product of one factor an axis, flattened in C order."""
    product: Floats = functools.reduce(lambda a, b: np.kron(a, b).astype(np.float64), axes)
    return product


# Linear and logistic regression with dropout on the inputs. X: (N, d), y: (N,), w: (d,); R drops with p.
# Γ² = diag(XᵀX): Srivastava et al. 2014, section 9.1; Baldi and Sadowski 2013, NIPS 26.


def gamma_squared(x: Floats) -> Floats:
    """The diagonal of Γ² = diag(XᵀX): the sum of squares of each input, (d,)."""
    return np.asarray(np.einsum("nd,nd->d", x, x))


def penalty_weight(p: float) -> float:
    """p(1 − p), the variance of a mask: the weight of ‖Γw‖² in the loss; largest at p = ½."""
    return p * (1.0 - p)


def linear_loss(x: Floats, y: Floats, w: Floats, p: float) -> float:
    """E‖y − (R∗X)w‖² over the masks = ‖y − (1 − p)Xw‖² + p(1 − p)‖Γw‖².

    With w̃ = (1 − p)w, the weights of evaluation: ‖y − Xw̃‖² + p/(1 − p)·‖Γw̃‖², a ridge penalty in the units
    of the data.
    """
    residual = y - (1.0 - p) * (x @ w)
    return float(residual @ residual) + linear_penalty(x, w, p)


def linear_penalty(x: Floats, w: Floats, p: float) -> float:
    """p(1 − p)‖Γw‖², which dropout adds to the loss of the network with scaled weights."""
    return float(penalty_weight(p) * gamma_squared(x) @ w**2)


def linear_gradient(x: Floats, y: Floats, w: Floats, p: float) -> Floats:
    """E[∂E_D/∂w] over the masks = ∂E_N/∂w + p(1 − p)Γ²w, with E = ½‖·‖², (d,).

    E_D = ½‖y − (R∗X)w‖² is the loss of one thinned network, E_N = ½‖y − (1 − p)Xw‖² that of the network
    with scaled weights.
    """
    ensemble = -(1.0 - p) * (x.T @ (y - (1.0 - p) * (x @ w)))
    return np.asarray(ensemble + penalty_weight(p) * gamma_squared(x) * w)


def linear_minimiser(x: Floats, y: Floats, p: float) -> Floats:
    """The w that minimises `linear_loss`: (1 − p)w = (XᵀX + p/(1 − p)·Γ²)⁻¹Xᵀy, (d,), for p < 1."""
    ridge = x.T @ x + np.diag(p / (1.0 - p) * gamma_squared(x))
    return np.asarray(np.linalg.lstsq(ridge, x.T @ y, rcond=None)[0] / (1.0 - p))


def logistic_penalty(x: Floats, w: Floats, p: float) -> float:
    """Dropout's penalty on the logistic loss, to second order: ½·p/(1 − p)·Σ_n s_n(1 − s_n)Σ_j x_nj²w_j².

    s_n = 1/(1 + e^{−x_n·w}); survivors divided by 1 − p; the labels cancel. This is a ridge
    penalty that is small for rare inputs and where the model is sure.

    Wager, Wang and Liang 2013, NIPS 26, arXiv:1307.1493.
    """
    s = 0.5 * (1.0 + np.tanh(0.5 * (x @ w)))
    return float(0.5 * p / (1.0 - p) * (s * (1.0 - s)) @ (x**2 @ w**2))


def layer_penalty(x: Floats, weight: Floats, p: float) -> float:
    """The variance that dropping its inputs adds to a layer's outputs: p/(1 − p)·Σ_j E[x_j²]·‖W_·j‖².

    The sum over the outputs, the mean over the samples. ``x``: (N, in), the inputs without dropout;
    ``weight``: (out, in).
    """
    return float(p / (1.0 - p) * np.mean(x**2, axis=0) @ np.sum(weight**2, axis=0))


def subnetworks(n: int, k: int | None = None) -> int:
    """The number of thinned networks of n units: 2ⁿ; with exactly k survivors: n!/(k!(n − k)!)."""
    return 1 << n if k is None else math.comb(n, k)


def effective_subnetworks(n: int, p: float) -> float:
    """The effective number of networks that share the training, e to the entropy of the mask; 2ⁿ at p = ½."""
    return math.exp(n * mask_entropy(p))


def mask_entropy(p: float) -> float:
    """−p ln p − (1 − p) ln(1 − p), the entropy of a unit's mask in nats; largest, ln 2, at p = ½."""
    return -sum(q * math.log(q) for q in (p, 1.0 - p) if q > 0.0)
