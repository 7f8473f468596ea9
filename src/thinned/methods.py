"""The table of methods: one row a method. Tests, command line and docs read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from thinned import functional, theory


@dataclass(frozen=True)
class Method:
    """One row: what a method drops, who published it, and what carries it out."""

    name: str  # on the command line
    title: str  # in tables
    unit: str  # what one random decision is about
    summary: str
    source: str  # authors, year, arXiv or DOI
    function: Callable[..., Any]
    moments: Callable[[float], tuple[float, float]]  # p -> mean and variance of a unit's factor in training
    hand: str  # its class in thinned.scratch
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # beside p, for both


_SRIVASTAVA = "Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, JMLR 15:1929-1958"

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        row.name: row
        for row in (
            Method(
                name="dropout",
                title="Dropout",
                unit="element",
                summary="zeroes elements, divides the survivors by 1 − p",
                source=_SRIVASTAVA,
                function=functional.dropout,
                moments=theory.bernoulli_moments,
                hand="Dropout",
            ),
            Method(
                name="dropout-original",
                title="Dropout, original rule",
                unit="element",
                summary="zeroes elements in training, multiplies by 1 − p in evaluation",
                source=_SRIVASTAVA,
                function=functional.dropout,
                moments=theory.mask_moments,
                hand="Dropout",
                options=MappingProxyType({"rescale": "test"}),
            ),
            Method(
                name="gaussian",
                title="Gaussian dropout",
                unit="element",
                summary="multiplies elements by N(1, p/(1 − p))",
                source=_SRIVASTAVA + ", section 10",
                function=functional.gaussian_dropout,
                moments=theory.gaussian_moments,
                hand="GaussianDropout",
            ),
        )
    }
)
