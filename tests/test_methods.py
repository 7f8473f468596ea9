"""The table of methods is whole: every row has what the laws, the command line and the docs read."""

import inspect
import re

import pytest

import thinned
from thinned import functional, scratch, theory
from thinned.methods import METHODS


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
def test_a_row_is_whole(method):
    assert METHODS[method.name] is method
    assert method.title
    assert method.unit in {"element", "channel", "block", "sample", "feature", "weight", "region"}
    assert method.summary
    assert getattr(functional, method.function.__name__) is method.function
    assert method.function.__name__ in thinned.__all__
    assert re.search(r"\b(19|20)\d\d\b.*(arXiv:|doi:|JMLR)", method.source), (
        "a citation: authors, year, arXiv, DOI or JMLR"
    )
    assert getattr(theory, method.moments.__name__) is method.moments
    assert hasattr(scratch, method.hand)
    for option in method.options:
        assert option in inspect.signature(method.function).parameters
