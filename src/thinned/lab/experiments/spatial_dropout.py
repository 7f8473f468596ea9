"""`spatial-dropout`: dropping whole channels against dropping single elements."""

from __future__ import annotations

from thinned.lab.grids import residual_net

EXPERIMENT = residual_net.ImageGrid(
    name="spatial-dropout",
    place=150,
    title="Dropping whole channels",
    summary="A residual network without dropping, with dropped elements, and with dropped channels. "
    "Neighbouring elements of a feature map are correlated, so dropping single elements removes little "
    "information; dropping channels removes more.",
    source="Tompson et al. 2015, arXiv:1411.4280",
    systems=[
        residual_net.NONE,
        residual_net.ELEMENTS,
        residual_net.system("channels, p = 0.1", drop="spatial", rate=0.1),
    ],
).experiment()
