"""`mnist-features`: what the hidden units of an autoencoder look for."""

from __future__ import annotations

from thinned.lab.grids import autoencoder as ae
from thinned.lab.grids.grid import Group, figure
from thinned.lab.reporting import figures as plots
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.wording import stat_text

FIGURES = ("mean absolute correlation", "smoothness of features", "units that never fire", ae.UNEXPLAINED)


def headline(groups: Group) -> str:
    """Co-adaptation as a number."""
    without, with_ = (figure(groups[name], FIGURES[0]) for name in ae.LABELS)
    return (
        f"Mean absolute correlation between hidden units: {stat_text(without)} without dropout, "
        f"{stat_text(with_)} with it."
    )


def tables(groups: Group) -> list[Reference]:
    """Both nets in numbers."""
    caption = (
        "Correlation: over the test data. Smoothness: that of weights of pixels side by side, 0 for noise."
    )
    return [ae.numbers(groups, FIGURES, caption)]


def figures(groups: Group) -> list[Figure]:
    """First-layer weights of the first seed."""
    found = []
    for name, runs in groups.items():
        if runs and runs[0].status == "done":
            weights = ae.features(runs[0])
            side = round(weights.shape[1] ** 0.5)
            caption = "One square a unit; white: positive weights, black: negative."
            found.append(plots.tiles(name, weights, (side, side), caption))
    return found


EXPERIMENT = ae.AutoencoderGrid(
    name="mnist-features",
    place=60,
    title="What hidden units look for",
    summary="First-layer features of an autoencoder of 256 ReLU units, without and with dropout. The "
    "source shows noise that means something together only, against blobs and strokes that mean "
    "something alone.",
    source="Srivastava et al. 2014, figure 7",
    headline=headline,
    tables=tables,
    figures=figures,
).experiment()
