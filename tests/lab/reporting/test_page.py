"""Pages, rows, curves and pictures refuse what makes no sense."""

import base64

import pytest
from helpers.pages import page, row, run

from thinned.lab.reporting.from_runs import Row, Series
from thinned.lab.reporting.page import Figure, Reference

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"row 'a'.*got 2, 1 and 0"):
        Row("a", [0.1, 0.2], [0.1], [], 1)
    with pytest.raises(ValueError, match="status must be one of done, diverged, failed, stopped, got 'lost'"):
        Row("a", [0.1], [0.1], [], 1, ["lost"])
    with pytest.raises(ValueError, match=r"columns\['x'\] must have 2 values as epoch has, got 1"):
        Series("a", 0, [1, 2], {"x": [1.0]})
    with pytest.raises(ValueError, match="rows must have 2 cells"):
        Reference(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="rows must have different labels, got a"):
        page([row("a", [0.1]), row("a", [0.1])], [])
    with pytest.raises(ValueError, match="series must have labels of rows, got b"):
        page([row("a", [0.1])], [run("b", 0, [0.1])])
    for wrong in ({}, {"svg": "<svg/>", "png": PNG}, {"png": b"GIF"}, {"svg": "<svg"}, {"svg": "<svg/>"}):
        with pytest.raises(ValueError, match="must"):
            Figure("t", "c", "a", **wrong)
