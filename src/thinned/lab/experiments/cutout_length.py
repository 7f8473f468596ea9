"""`cutout-length`: the error over the length of the squares that are cut out of training images."""

from __future__ import annotations

from thinned.lab.grids import residual_net
from thinned.lab.grids.grid import Axis, Group, System, errors
from thinned.lab.reporting.wording import number

LENGTHS = (0, 4, 8, 12, 16, 20, 24)


def headline(groups: Group) -> str:
    """Where the error is lowest."""
    stats = errors(groups)
    if not stats:
        return ""
    low = min(stats, key=lambda name: stats[name].mean)
    return f"The test error is lowest with {low}: {number(stats[low].mean)} %."


EXPERIMENT = residual_net.ImageGrid(
    name="cutout-length",
    place=180,
    title="How much to cut out",
    summary="The test error of a residual network over the length of the square that is cut out of each "
    "training image. The paper finds that accuracy first rises with the length, then falls.",
    source="DeVries and Taylor 2017, arXiv:1708.04552",
    systems=[
        System(
            label=f"length {n}", settings={"cut": n}, trainer=residual_net.ImageTrainer, x=n, line="cutout"
        )
        for n in LENGTHS
    ],
    baseline="length 0",
    axis=Axis(name="length of the square"),
    headline=headline,
    curves=False,
).experiment()
