"""Closed forms: what each method does on average. NumPy alone; the judge of everything else."""

from __future__ import annotations


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
