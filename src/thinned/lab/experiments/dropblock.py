"""`dropblock`: dropping squares of a feature map against dropping single elements."""

from __future__ import annotations

from thinned.lab.grids import residual_net

EXPERIMENT = residual_net.ImageGrid(
    name="dropblock",
    place=160,
    title="Dropping squares of a feature map",
    summary="A residual network without dropping, with dropped elements, and with DropBlock at a fixed rate "
    "and at a rate that rises from 0. The paper finds squares better than elements, and the rising rate "
    "better still.",
    source="Ghiasi, Lin and Le 2018, arXiv:1810.12890",
    systems=[
        residual_net.NONE,
        residual_net.ELEMENTS,
        residual_net.system("squares, p = 0.1", drop="block", rate=0.1),
        residual_net.system("squares, p from 0 to 0.1", drop="block", rate=0.1, ramp=True),
    ],
).experiment()
