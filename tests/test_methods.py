"""The table of methods is whole: every row has what the laws, the command line and the docs read."""

import inspect
import re

import pytest

import thinned
from thinned import augment, functional, scratch, theory
from thinned.methods import METHODS

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


@EACH
def test_a_row_has_its_class(method):
    if method.kind == "augment":
        assert method.scratch is None
        assert method.module is None
        return
    assert method.scratch or method.module
    if method.scratch:
        assert hasattr(scratch, method.scratch)


@EACH
def test_a_row_has_its_module(method):
    if method.module:
        pytest.importorskip("torch")
        from thinned import nn

        assert hasattr(nn, method.module)


def test_every_public_method_has_a_row():
    functions = {m.function.__name__ for m in METHODS.values()}
    assert set(thinned.__all__) - functions == {"Key", "choose", "keep_mask"}
