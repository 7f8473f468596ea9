"""Pictures: lines with error bars, and tiles."""

import io
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from thinned.lab.reporting import figures

pytest.importorskip("matplotlib")


def test_lines_are_svg_with_a_bar_for_each_deviation():
    curves = {
        "a & b": [figures.Point(1, 2.0, 0.5), figures.Point(10, 1.0)],
        "c": [figures.Point(1, math.nan)],
    }
    figure = figures.lines("t", "x", "y", curves, log=True)
    tree = ET.fromstring(figure.svg)
    names = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text") if text.get("class")]
    assert names == ["a & b"]
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) == 2  # the curve, and one bar
    assert figure.themed
    with pytest.raises(ValueError, match="finite"):
        figures.lines("t", "x", "y", {"a": []})


@pytest.mark.parametrize("name", ["dropout", "thin, 16 unpaired groups of rows"])
def test_a_long_name_widens_the_picture(name):
    svg = figures.lines("t", "x", "y", {name: [figures.Point(1, 2.0)]}).svg
    width = float(ET.fromstring(svg).get("width"))
    assert width >= float(re.search(r'class="name c0" x="(\d+)"', svg)[1]) + 7 * len(name)
    assert (width == figures.WIDTH) == (name == "dropout")


def test_tiles_are_a_png_with_a_square_a_unit():
    from matplotlib import image

    weights = np.arange(5 * 12, dtype=float).reshape(5, 12) - 30
    figure = figures.tiles("features", weights, (3, 4), "", columns=4)
    sheet = image.imread(io.BytesIO(figure.png))
    times = 640 // (4 * 5 + 1)  # each pixel of a feature is a square of so many
    assert sheet.shape[:2] == (times * (2 * 4 + 1), times * (4 * 5 + 1))
