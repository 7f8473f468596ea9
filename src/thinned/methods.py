"""The table of methods: one row a method. Tests, command line and docs read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from thinned import augment, functional, theory


@dataclass(frozen=True)
class Method:
    """One row: what a method drops, who published it, and what carries it out."""

    name: str  # on the command line
    title: str  # in tables
    unit: str  # what one random decision is about
    dims: str  # the inputs it fits: "any" shape, or a layout
    summary: str
    source: str  # authors, year, arXiv or DOI
    function: Callable[..., Any]
    # Its closed form. A drop method: p -> mean and variance of what it makes of 1 in training. One that
    # replaces regions: the expected share of the image, by the arguments that theory names.
    moments: Callable[[float], tuple[float, float]] | None = None
    share: Callable[..., float] | None = None
    hand: str | None = None  # its class in thinned.scratch
    module: str | None = None  # its class in thinned.nn
    options: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({})
    )  # beside p, for hand and module too
    needs: str = ""  # what a network must have for it
    kind: str = "drop"  # or "augment": works on a batch of images before the network


_SRIVASTAVA = "Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, JMLR 15:1929-1958"
_KLAMBAUER = "Klambauer, Unterthiner, Mayr, Hochreiter 2017, arXiv:1706.02515"

_ROWS = (
    Method(
        name="dropout",
        title="Dropout",
        unit="element",
        dims="any",
        summary="zeroes elements, divides the survivors by 1 − p",
        source=_SRIVASTAVA,
        function=functional.dropout,
        moments=theory.bernoulli_moments,
        hand="Dropout",
        module="Dropout",
    ),
    Method(
        name="dropout-original",
        title="Dropout, original rule",
        unit="element",
        dims="any",
        summary="zeroes elements in training, multiplies by 1 − p in evaluation",
        source=_SRIVASTAVA,
        function=functional.dropout,
        moments=theory.mask_moments,
        hand="Dropout",
        module="Dropout",
        options=MappingProxyType({"rescale": "test"}),
    ),
    Method(
        name="thin",
        title="Thin",
        unit="feature",
        dims="(N, features) or (N, C, *spatial)",
        summary="keeps exactly k of n columns or channels for a whole batch, computes no others",
        source="Graham, Reizenstein, Robinson 2015, arXiv:1502.02478; here exactly k units survive",
        function=functional.thin_dropout,
        moments=theory.thin_moments,
        hand="ThinDropout",
    ),
    Method(
        name="gaussian",
        title="Gaussian dropout",
        unit="element",
        dims="any",
        summary="multiplies elements by N(1, p/(1 − p))",
        source=_SRIVASTAVA + ", section 10",
        function=functional.gaussian_dropout,
        moments=theory.gaussian_moments,
        hand="GaussianDropout",
        module="GaussianDropout",
    ),
    Method(
        name="alpha",
        title="Alpha dropout",
        unit="element",
        dims="any",
        summary="sets elements to where SELU saturates, keeps mean 0 and variance 1",
        source=_KLAMBAUER,
        function=functional.alpha_dropout,
        moments=theory.alpha_moments,
        module="AlphaDropout",
        needs="SELU units",
    ),
    Method(
        name="feature-alpha",
        title="Feature alpha dropout",
        unit="channel",
        dims="(N, C, *spatial)",
        summary="alpha dropout of whole channels",
        source=_KLAMBAUER + "; channels as in arXiv:1411.4280",
        function=functional.feature_alpha_dropout,
        moments=theory.alpha_moments,
        module="FeatureAlphaDropout",
        needs="SELU units",
    ),
    Method(
        name="spatial",
        title="Spatial dropout",
        unit="channel",
        dims="(N, C, *spatial)",
        summary="zeroes whole channels, divides the others by 1 − p",
        source="Tompson, Goroshin, Jain, LeCun, Bregler 2015, arXiv:1411.4280",
        function=functional.spatial_dropout,
        moments=theory.bernoulli_moments,
        hand="SpatialDropout",
        module="Dropout2d",
    ),
    Method(
        name="drop-block",
        title="DropBlock",
        unit="block",
        dims="(N, C, L), (N, C, H, W) or (N, C, D, H, W)",
        summary="zeroes contiguous blocks, a share p of the map in expectation",
        source="Ghiasi, Lin, Le 2018, arXiv:1810.12890",
        function=functional.drop_block,
        moments=theory.drop_block_moments,
        module="DropBlock2d",
    ),
    Method(
        name="drop-path",
        title="Stochastic depth",
        unit="sample",
        dims="(N, …)",
        summary="zeroes a residual branch for whole samples",
        source="Huang, Sun, Liu, Sedra, Weinberger 2016, arXiv:1603.09382",
        function=functional.drop_path,
        moments=theory.bernoulli_moments,
        module="DropPath",
    ),
    Method(
        name="drop-connect",
        title="DropConnect",
        unit="weight",
        dims="(N, in)",
        summary="zeroes weights, with a mask for each sample",
        source="Wan, Zeiler, Zhang, LeCun, Fergus 2013, ICML, PMLR 28(3):1058-1066",
        function=functional.drop_connect,
        moments=theory.bernoulli_moments,
        hand="DropConnect",
        module="DropConnectLinear",
    ),
    Method(
        name="cutout",
        title="Cutout",
        unit="region",
        dims="(N, C, H, W)",
        summary="covers squares of the input images",
        source="DeVries, Taylor 2017, arXiv:1708.04552",
        function=augment.cutout,
        share=theory.cutout_share,
        kind="augment",
    ),
    Method(
        name="cutmix",
        title="CutMix",
        unit="region",
        dims="(N, C, H, W)",
        summary="pastes a box of another image, mixes the labels by area",
        source="Yun, Han, Oh, Chun, Choe, Yoo 2019, arXiv:1905.04899",
        function=augment.cutmix,
        share=theory.cutmix_share,
        kind="augment",
    ),
    Method(
        name="attentive-cutmix",
        title="Attentive CutMix",
        unit="region",
        dims="(N, C, H, W)",
        summary="pastes the cells of another image that a model attends to most",
        source="Walawalkar, Shen, Liu, Savvides 2020, arXiv:2003.13048",
        function=augment.attentive_cutmix,
        share=theory.attentive_share,
        kind="augment",
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
