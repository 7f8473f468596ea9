"""The table of methods is whole: every row has what the laws, the command line and the docs read."""

import inspect
import re

import pytest

import thinned
from thinned import augment, functional, theory
from thinned._method import USUAL
from thinned.methods import DROPS, METHODS, classes

EACH = pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)


@EACH
def test_a_row_is_whole(method):
    assert METHODS[method.name] is method
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", method.name)
    assert method.title
    assert method.unit in {"element", "channel", "block", "sample", "feature", "weight", "region"}
    assert method.dims == "any" or method.dims.startswith("(N, ")
    assert method.summary
    home = functional if method.kind == "drop" else augment
    assert getattr(home, method.function.__name__) is method.function
    assert method.function.__name__ in thinned.__all__
    for option in method.options:
        assert option in inspect.signature(method.function).parameters


@EACH
def test_a_row_has_its_citation(method):
    assert re.search(r"\b(19|20)\d\d\b.*(arXiv:|doi:|JMLR|PMLR)", method.source), (
        "authors, year, and arXiv, DOI, JMLR or PMLR"
    )
    documented = inspect.getdoc(method.function)
    assert "Source: " in documented
    year = re.search(r"\b(19|20)\d\d\b", method.source).group()
    assert year in documented.partition("Source: ")[2], "the function cites what its row cites"


@EACH
def test_a_row_has_its_closed_form(method):
    """Of the factor where it drops, of the share where it replaces regions; tested in test_theory.py."""
    form, other = (method.moments, method.share) if method.kind == "drop" else (method.share, method.moments)
    assert getattr(theory, form.__name__) is form
    assert other is None


def test_the_methods_that_drop_are_the_rows_that_drop():
    assert {name: METHODS[name].method for name in DROPS} == dict(DROPS)
    assert [name for name in METHODS if name not in DROPS] == [
        name for name, row in METHODS.items() if row.kind == "augment"
    ]


class Base:
    """Takes p and options, as layers and torch modules do."""

    def __init__(self, p=USUAL, **options):
        vars(self).update(self.method.settings(p, **options))


def test_a_class_by_hand_comes_before_a_made_one():
    class ByHand(Base):
        method = functional.DROP_PATH

    home = {"__name__": __name__}
    found = classes(Base, {functional.DROP_PATH: ByHand}, home)
    assert list(found) == [functional.DROP_PATH, *(one for one in DROPS.values() if one.name != "drop_path")]
    assert found[functional.DROP_PATH] is ByHand
    assert "DropPath" not in home
    assert home["SpatialDropout"] is found[functional.SPATIAL]
    assert found[functional.SPATIAL].__name__ == "SpatialDropout"
    assert found[functional.SPATIAL].__module__ == __name__


def test_a_made_class_is_what_its_method_says():
    kind = functional.DROP_BLOCK.named_class(Base, __name__)
    assert str(inspect.signature(kind)) == (
        "(p: 'float' = 0.1, *, block_size: 'int | tuple[int, ...]' = 7, per_channel: 'bool' = True, "
        "exact_rate: 'bool' = True)"
    )
    assert kind.__doc__.startswith("DropBlock: zero contiguous blocks")
    assert "`thinned.drop_block`" in kind.__doc__
    assert vars(kind(0.3, block_size=2)) == {
        "p": 0.3,
        "block_size": 2,
        "per_channel": True,
        "exact_rate": True,
    }
    assert kind().p == 0.1
    with pytest.raises(TypeError, match="drop_block has no option size"):
        kind(0.3, size=2)
    with pytest.raises(ValueError, match="block_size must be"):
        kind(0.3, block_size=0)


def test_every_public_method_has_a_row():
    functions = {m.function.__name__ for m in METHODS.values()}
    assert set(thinned.__all__) - functions == {"Key", "choose", "keep_mask", "load", "mixup"}
