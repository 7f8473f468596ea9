"""`mnist-features`: the features that the hidden units of an autoencoder learn."""

from __future__ import annotations

from thinned.lab.grids import autoencoder
from thinned.lab.grids.grid import Group, figure
from thinned.lab.reporting.figures import tiles
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.wording import stat_text

FIGURES = (
    "mean absolute correlation",
    "smoothness of features",
    "units that never fire",
    autoencoder.UNEXPLAINED,
)


def headline(groups: Group) -> str:
    """Co-adaptation as a number: the correlation between hidden units."""
    without, with_ = (figure(groups[name], FIGURES[0]) for name in autoencoder.LABELS)
    return (
        f"Mean absolute correlation between hidden units: {stat_text(without)} without dropout, "
        f"{stat_text(with_)} with it."
    )


def tables(groups: Group) -> list[Reference]:
    """The figures of both networks."""
    caption = (
        "Correlation: between hidden units, over the test data. Smoothness: the correlation of the weights "
        "of neighbouring pixels, 0 for noise."
    )
    return [autoencoder.numbers(groups, FIGURES, caption)]


def figures(groups: Group) -> list[Figure]:
    """The first-layer weights of the first seed as pictures."""
    found = []
    for name, runs in groups.items():
        if runs and runs[0].status == "done":
            weights = autoencoder.features(runs[0])
            side = round(weights.shape[1] ** 0.5)
            caption = "One square per unit; white: positive weights, black: negative weights."
            found.append(tiles(name, weights, (side, side), caption))
    return found


EXPERIMENT = autoencoder.AutoencoderGrid(
    name="mnist-features",
    place=60,
    title="What hidden units look for",
    summary="First-layer features of an autoencoder with 256 ReLU units, without and with dropout. In the "
    "source, single features look like noise without dropout, and like spots and strokes with it.",
    source="Srivastava et al. 2014, figure 7",
    headline=headline,
    tables=tables,
    figures=figures,
).experiment()
