"""`mnist-sparsity`: how many hidden units of an autoencoder are active."""

from __future__ import annotations

from thinned.lab.grids import autoencoder
from thinned.lab.grids.grid import Group, figure
from thinned.lab.reporting.figures import steps
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.wording import stat_text

FIGURES = ("share of active units", "mean activation", autoencoder.UNEXPLAINED)


def headline(groups: Group) -> str:
    """Sparsity as a number: the share of active units."""
    without, with_ = (figure(groups[name], FIGURES[0]) for name in autoencoder.LABELS)
    return f"Share of active hidden units: {stat_text(without)} without dropout, {stat_text(with_)} with it."


def tables(groups: Group) -> list[Reference]:
    """The figures of both networks."""
    return [autoencoder.numbers(groups, FIGURES, f"On the test data; active: above {autoencoder.ACTIVE:g}.")]


def figures(groups: Group) -> list[Figure]:
    """Histograms of the activations of the first seed."""
    done = {name: runs[0].measured for name, runs in groups.items() if runs and runs[0].status == "done"}
    return [
        steps(
            f"Activations, {name}", "activation of a hidden unit", "share (logarithmic)", m["edges"],
            {name: m["shares"]}, "Test data; the last bin holds all that is above.",
        )
        for name, m in done.items()
    ]  # fmt: skip


EXPERIMENT = autoencoder.AutoencoderGrid(
    name="mnist-sparsity",
    place=70,
    title="Dropout makes activations sparse",
    summary="Hidden activations of an autoencoder with 256 ReLU units, without and with dropout. The source "
    "finds that dropout leaves few units with high activations, and a lower mean.",
    source="Srivastava et al. 2014, figure 8",
    headline=headline,
    tables=tables,
    figures=figures,
).experiment()
