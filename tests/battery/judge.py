"""Our own tests: each returns a p-value whose law is known, exactly or by a named approximation.

All p-values are two-sided: too good a fit is as suspect as too bad a one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from thinned import Key, kernels
from thinned.key import threshold

LAGS = (1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129)
LAGS += (256, 512, 1023, 1024, 1025, 4096, 131072)
RATES = (0.1, 0.3, 0.5, 0.75)  # dropped
CHUNK = 1 << 24
FEW = 10  # least expected count of a cell of a chi-square test
DAYS = ((np.uint32, 1 << 12, 16), (np.uint64, 1 << 23, None))  # of birthdays: words, how many, samples


Test = Callable[[np.ndarray], float]


def bit_tests() -> dict[str, Test]:
    """The tests of fair bits, packed into bytes, by name."""
    tests: dict[str, Test] = {
        "ones": lambda data: coin(ones(data), 8 * len(data)),
        "bytes": lambda data: chi_square(count(data, 1 << 8)),
        "16-bit words": lambda data: chi_square(count(data.view("<u2"), 1 << 16)),
        "16-bit words, a byte later": lambda data: chi_square(count(data[1:-1].view("<u2"), 1 << 16)),
        "16 bits 128 apart": lambda data: chi_square(count(lanes(data), 1 << 16)),
    }
    for lag in LAGS:
        tests[f"equal at lag {lag}"] = lambda data, lag=lag: coin(*agreements(data, lag))
    for kind, births, samples in DAYS:
        tests[f"birthdays in 2^{8 * np.dtype(kind).itemsize}"] = (
            lambda data, kind=kind, births=births, samples=samples: birthdays(
                data.view(kind), births, samples
            )
        )
    return tests


def unit_tests(p: float, n: int, start: int = 0) -> dict[str, float]:
    """P-values of units ``start … start + n − 1`` of one mask: how many are dropped, where, how far apart."""
    drop = 1.0 - threshold(p) / 2**32
    total, by_lane, in_group = 0, np.zeros(128, np.int64), np.zeros(129, np.int64)
    runs, products = np.zeros(1 << 12, np.int64), np.zeros(len(LAGS))
    tail = 0  # units kept since the last dropped one
    for begin in range(start, start + n, CHUNK):
        fallen = ~kernels.mask(Key(0), CHUNK, threshold(p), begin)
        total += int(np.count_nonzero(fallen))
        by_lane += fallen.reshape(-1, 128).sum(0)
        in_group += np.bincount(fallen.reshape(-1, 128).sum(1), minlength=129)
        places = np.flatnonzero(fallen)
        lengths = np.diff(places, prepend=-1 - tail) - 1
        runs += np.bincount(np.minimum(lengths, len(runs) - 1), minlength=len(runs))
        tail = CHUNK - 1 - int(places[-1])
        products += [product(fallen, lag, drop) for lag in LAGS]
    expected = n / 128 * drop
    statistic = float(((by_lane - expected) ** 2 / (expected * (1 - drop))).sum())
    lengths = np.arange(len(runs))
    law = drop * (1 - drop) ** lengths
    law[-1] = (1 - drop) ** lengths[-1]  # all longer ones
    found = {
        "dropped": two_sided(stats.binom, total, n, drop),
        "dropped by lane": both_tails(stats.chi2.cdf(statistic, 128), stats.chi2.sf(statistic, 128)),
        "dropped in a group": chi_square(in_group, stats.binom.pmf(np.arange(129), 128, drop)),
        "kept between two dropped": chi_square(runs, law),
    }
    for lag, value in zip(LAGS, products, strict=True):
        z = value / (drop * (1 - drop) * np.sqrt(n // CHUNK * (CHUNK - lag)))  # terms are uncorrelated
        found[f"correlation at lag {lag}"] = both_tails(stats.norm.cdf(z), stats.norm.sf(z))
    return found


def product(fallen: np.ndarray, lag: int, drop: float) -> float:
    """Σ (d_i − p)(d_{i+lag} − p)."""
    early, late = fallen[:-lag], fallen[lag:]
    both, each = np.count_nonzero(early & late), np.count_nonzero(early) + np.count_nonzero(late)
    return float(both - drop * each + len(late) * drop**2)


def both_tails(low: float, high: float) -> float:
    """The two-sided p-value of a continuous statistic."""
    return float(min(1.0, 2.0 * min(low, high)))


def two_sided(law: stats.rv_discrete, value: int, *parameters: float) -> float:
    """The two-sided p-value of a count; the value itself belongs to both tails."""
    return both_tails(law.cdf(value, *parameters), law.sf(value - 1, *parameters))


def coin(heads: int, n: int) -> float:
    """The exact p-value of a number of heads of n fair coins."""
    return two_sided(stats.binom, heads, n, 0.5)


def chi_square(counts: np.ndarray, law: np.ndarray | None = None) -> float:
    """Pearson's test of counts against a law, by default uniform; small cells are joined."""
    expected = counts.sum() * (np.full(len(counts), 1 / len(counts)) if law is None else law)
    if expected.min() < FEW:
        bounds, held = [0], 0.0
        for i, more in enumerate(expected):
            held += more
            if held >= FEW and expected[i + 1 :].sum() >= FEW:
                bounds.append(i + 1)
                held = 0.0
        counts, expected = np.add.reduceat(counts, bounds), np.add.reduceat(expected, bounds)
    statistic, free = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    return both_tails(stats.chi2.cdf(statistic, free), stats.chi2.sf(statistic, free))


def count(words: np.ndarray, cells: int) -> np.ndarray:
    """How often each word occurs."""
    parts = np.array_split(words, max(1, len(words) >> 22))
    return sum(np.bincount(part, minlength=cells) for part in parts)


def lanes(data: np.ndarray) -> np.ndarray:
    """16-bit words of bits 128 apart: one lane of 16 consecutive groups."""
    rows = data[: len(data) // 256 * 256].reshape(-1, 16, 16)  # 16 groups of 16 bytes
    words = []
    for part in np.array_split(rows, max(1, len(rows) >> 14)):
        bits = np.unpackbits(part, axis=-1, bitorder="little").transpose(0, 2, 1)
        words.append(np.packbits(bits, axis=-1, bitorder="little").reshape(-1).view("<u2"))
    return np.concatenate(words)


def ones(data: np.ndarray) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(data[: len(data) // 8 * 8].view(np.uint64)).sum(dtype=np.int64)) + int(
        np.bitwise_count(data[len(data) // 8 * 8 :]).sum(dtype=np.int64)
    )


def agreements(data: np.ndarray, lag: int) -> tuple[int, int]:
    """How many of n bits equal the bit ``lag`` later, and n: exactly n fair coins."""
    skip, shift = divmod(lag, 8)
    late = data[skip:]
    if shift:
        late = (late[:-1] >> np.uint8(shift)) | (late[1:] << np.uint8(8 - shift))
    n = 8 * len(late)
    return n - ones(data[: len(late)] ^ late), n


def birthdays(days: np.ndarray, births: int, samples: int | None) -> float:
    """Birthday spacings (Marsaglia 1985): equal spacings between ``births`` sorted days are Poisson.

    λ = births³/4·days a sample. L'Ecuyer and Simard 2001, doi:10.1016/S0378-4754(00)00253-6: the error of the
    law can be neglected where samples·births³ ≤ days^(5/4), as it is here.
    """
    size = 8 * days.dtype.itemsize
    samples = samples or max(1, len(days) // births)
    births = min(births, len(days) // samples)
    equal = 0
    for i in range(samples):
        spacings = np.sort(np.diff(np.sort(days[i * births : (i + 1) * births])))
        equal += int(np.count_nonzero(spacings[1:] == spacings[:-1]))
    return two_sided(stats.poisson, equal, samples * births**3 / 2.0 ** (size + 2))
