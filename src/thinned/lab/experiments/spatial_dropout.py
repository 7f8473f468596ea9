"""`spatial-dropout`: whole channels against single elements."""

from __future__ import annotations

from thinned.lab.grids import residual_net as res

EXPERIMENT = res.ImageGrid(
    name="spatial-dropout",
    place=150,
    title="Dropping whole channels",
    summary="A residual network without dropping, with dropped elements, and with dropped channels. "
    "Neighbours on a feature map tell the same, so that a dropped element is hardly missed; a dropped "
    "channel is.",
    source="Tompson et al. 2015, arXiv:1411.4280",
    systems=[
        res.NONE,
        res.ELEMENTS,
        res.system("channels, p = 0.1", drop="spatial", rate=0.1),
    ],
).experiment()
