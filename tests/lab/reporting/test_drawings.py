"""Small pictures: where marks lie, and what is said of them in words."""

import re

import numpy as np
import pytest
from helpers.svg import inside

from thinned.lab.reporting import drawings

STYLES = {"none": 0, "dropout": 1}


def circles(figure):
    return [tuple(map(float, pair)) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', figure.svg)]


def test_intervals_are_in_order_on_one_axis():
    rows = {"dropout": (-1.0, -3.0, 1.0), "a name far too long for any picture": (2.0, 1.0, 3.0)}
    figure = drawings.intervals("", "errors", rows, STYLES, "")
    (x1, y1), (x2, y2) = circles(figure)
    assert x1 < x2
    assert y1 < y2
    zero = float(re.search(r'class="axis" d="M([\d.]+)', figure.svg)[1])
    assert x1 < zero < x2
    assert "a name far too long…" in figure.svg
    assert "dropout: -1, from -3 to 1" in figure.alt
    inside(figure.svg)


@pytest.mark.parametrize("classes", [2, 10, 20])
def test_a_matrix_names_its_mistakes(classes):
    counts = 10 * np.eye(classes)
    counts[0, 1] = 3
    names = [f"class number {i}" for i in range(classes)]
    figure = drawings.matrix("", names, counts, "")
    assert figure.svg.count('class="miss"') == 1
    assert figure.svg.count('class="cell"') == classes
    assert "class number 0 for class number 1: 3.0" in figure.alt
    inside(figure.svg)


def test_a_calibrated_network_lies_on_the_diagonal():
    figure = drawings.reliability("", {"none": [(0.5, 0.5, 0.2), (0.9, 0.9, 0.8)]}, STYLES, "")
    (axis,) = re.findall(r'class="axis" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', figure.svg)
    x0, y0, x1, y1 = map(float, axis)
    for x, y in circles(figure)[:2]:
        assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.01)


def test_scatter():
    x = np.array([0.0, 500.0, 1000.0])
    figure = drawings.scatter("", "target", "prediction", x, x + 10, "")
    assert len(circles(figure)) == 3
    inside(figure.svg)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5)])
def test_pictures_are_png(shape):
    assert drawings.picture(np.random.default_rng(0).random(shape), 0.0, 1.0).startswith(b"\x89PNG")
