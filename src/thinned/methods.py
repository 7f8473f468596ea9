"""The table of methods: one row a method. Tests, command line and docs read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from thinned import augment, functional, masks, theory
from thinned._method import Kind, Method


class Augmentation(NamedTuple):
    """A method that replaces regions of input images, and the share that it is expected to replace."""

    function: Callable[..., Any]
    share: Callable[..., float]  # by the arguments that theory names
    unit: masks.Unit = masks.REGION


@dataclass(frozen=True)
class Row:
    """One row: a method, its names, and who published it."""

    name: str  # on the command line
    title: str  # in tables
    summary: str
    source: str  # authors, year, arXiv or DOI
    method: Method | Augmentation
    needs: str = ""  # what a network must have for it

    @property
    def function(self) -> Callable[..., Any]:
        """The public function."""
        return self.method.function

    @property
    def options(self) -> Mapping[str, Any]:
        """The arguments, beside p, that choose the method: of its function and of its classes."""
        return self.method.given if isinstance(self.method, Method) else {}

    @property
    def kind(self) -> str:
        """``"drop"``, or ``"augment"`` for what works on a batch of images before the network."""
        return "drop" if isinstance(self.method, Method) else "augment"

    @property
    def unit(self) -> str:
        """What one random decision is about."""
        return self.method.unit.name

    @property
    def dims(self) -> str:
        """The inputs that it fits: "any" shape, or a layout."""
        return self.method.unit.layout

    @property
    def moments(self) -> Callable[..., tuple[float, float]] | None:
        """Of a drop method: p -> mean and variance of what it makes of 1 in training."""
        return self.method.moments if isinstance(self.method, Method) else None

    @property
    def share(self) -> Callable[..., float] | None:
        """Of an augmentation: the expected share of the image that it replaces."""
        return self.method.share if isinstance(self.method, Augmentation) else None


_SRIVASTAVA = "Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, JMLR 15:1929-1958"
_KLAMBAUER = "Klambauer, Unterthiner, Mayr, Hochreiter 2017, arXiv:1706.02515"

_ROWS = (
    Row(
        name="dropout",
        title="Dropout",
        summary="zeroes elements, divides the survivors by 1 − p",
        source=_SRIVASTAVA,
        method=functional.DROPOUT,
    ),
    Row(
        name="dropout-original",
        title="Dropout, original rule",
        summary="zeroes elements in training, multiplies by 1 − p in evaluation",
        source=_SRIVASTAVA,
        method=functional.ORIGINAL,
    ),
    Row(
        name="thin",
        title="Thin",
        summary="groups of samples share which columns or channels they keep; no others are computed",
        source="Graham, Reizenstein, Robinson 2015, arXiv:1502.02478; there the whole batch shares one pick",
        method=functional.THIN,
    ),
    Row(
        name="gaussian",
        title="Gaussian dropout",
        summary="multiplies elements by N(1, p/(1 − p))",
        source=_SRIVASTAVA + ", section 10",
        method=functional.GAUSSIAN,
    ),
    Row(
        name="alpha",
        title="Alpha dropout",
        summary="sets elements to where SELU saturates, keeps mean 0 and variance 1",
        source=_KLAMBAUER,
        method=functional.ALPHA,
        needs="SELU units",
    ),
    Row(
        name="feature-alpha",
        title="Feature alpha dropout",
        summary="alpha dropout of whole channels",
        source=_KLAMBAUER + "; channels as in arXiv:1411.4280",
        method=functional.FEATURE_ALPHA,
        needs="SELU units",
    ),
    Row(
        name="spatial",
        title="Spatial dropout",
        summary="zeroes whole channels, divides the others by 1 − p",
        source="Tompson, Goroshin, Jain, LeCun, Bregler 2015, arXiv:1411.4280",
        method=functional.SPATIAL,
    ),
    Row(
        name="drop-block",
        title="DropBlock",
        summary="zeroes contiguous blocks, a share p of the map in expectation",
        source="Ghiasi, Lin, Le 2018, arXiv:1810.12890",
        method=functional.DROP_BLOCK,
    ),
    Row(
        name="drop-path",
        title="Stochastic depth",
        summary="zeroes a residual branch for whole samples",
        source="Huang, Sun, Liu, Sedra, Weinberger 2016, arXiv:1603.09382",
        method=functional.DROP_PATH,
    ),
    Row(
        name="drop-connect",
        title="DropConnect",
        summary="zeroes weights, with a mask for each sample",
        source="Wan, Zeiler, Zhang, LeCun, Fergus 2013, ICML, PMLR 28(3):1058-1066",
        method=functional.DROP_CONNECT,
    ),
    Row(
        name="cutout",
        title="Cutout",
        summary="covers squares of the input images",
        source="DeVries, Taylor 2017, arXiv:1708.04552",
        method=Augmentation(augment.cutout, theory.cutout_share),
    ),
    Row(
        name="cutmix",
        title="CutMix",
        summary="pastes a box of another image, mixes the labels by area",
        source="Yun, Han, Oh, Chun, Choe, Yoo 2019, arXiv:1905.04899",
        method=Augmentation(augment.cutmix, theory.cutmix_share),
    ),
    Row(
        name="attentive-cutmix",
        title="Attentive CutMix",
        summary="pastes the cells of another image that a model attends to most",
        source="Walawalkar, Shen, Liu, Savvides 2020, arXiv:2003.13048",
        method=Augmentation(augment.attentive_cutmix, theory.attentive_share),
    ),
)

METHODS: Mapping[str, Row] = MappingProxyType({row.name: row for row in _ROWS})
DROPS: Mapping[str, Method] = MappingProxyType(
    {row.name: row.method for row in _ROWS if isinstance(row.method, Method)}
)


def classes(base: Kind, by_hand: Mapping[Method, Kind], home: dict[str, Any]) -> dict[Method, Kind]:
    """The class of every drop method: those written by hand, and for each other method one that is made here.

    A class that is made is a subclass of ``base``; it is entered into ``home``, the names of the calling
    module.
    """
    found = dict(by_hand)
    for method in DROPS.values():
        if method not in found:
            made = found[method] = method.named_class(base, home["__name__"])
            home[made.__name__] = made
    return found
