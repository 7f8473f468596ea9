"""`attentive-cutmix`: parts of images pasted into others, chosen by the attention of a network."""

from __future__ import annotations

import dataclasses
from typing import Any

from thinned.lab.grids import image_mixing, residual_net
from thinned.lab.grids.grid import Grid, Group, System, figure
from thinned.lab.reporting.page import Reference
from thinned.lab.reporting.wording import stat_text

ATTENTIVE = "Attentive CutMix"


def mixed(label: str, **settings: Any) -> System:
    """A row: the network on mixed images."""
    return System(label=label, settings=settings, trainer=image_mixing.MixTrainer)


def tables(groups: Group) -> list[Reference]:
    """The training time and the error of the attending network."""
    runs = groups[ATTENTIVE]
    found = [figure(runs, name) for name in (image_mixing.SECONDS, image_mixing.ERROR)]
    if not found[0].n:
        return []
    caption = "The attending network is trained first. Its seconds are in no other table."
    row = [ATTENTIVE, *map(stat_text, found)]
    return [
        Reference(["network that attends, for", image_mixing.SECONDS, image_mixing.ERROR], [row], caption)
    ]


EXPERIMENT = Grid(
    name="attentive-cutmix",
    place=190,
    title="Pasting the patches that matter",
    summary="A residual network on plain images, on images with a square cut out, and on images with a part "
    "of another image pasted in: a random box (CutMix), or the cells that a network trained beforehand "
    "attends to most (Attentive CutMix). The paper finds attention better than a random box.",
    source="Walawalkar et al. 2020, arXiv:2003.13048",
    systems=[
        residual_net.NONE,
        residual_net.system("cutout, length 16", cut=16),
        mixed("CutMix", mix="cutmix"),
        mixed("cells at random", mix="cells"),
        mixed(ATTENTIVE, mix="attentive"),
    ],
    settings={**residual_net.SETTINGS, "grid": 8, "patches": 8},
    budgets=residual_net.BUDGETS
    | {
        "smoke": dataclasses.replace(
            residual_net.BUDGETS["smoke"],
            settings={**residual_net.BUDGETS["smoke"].settings, "grid": 2, "patches": 1},
        )
    },
    differs=[
        *residual_net.DIFFERS,
        "The attending network is the same small network, trained first on the same images, unmixed, with "
        "another seed. The paper's is a ResNet-50 trained on ImageNet, so it has seen more and other images.",
        "Attention is the mean |activation| of its last convolution. On images of 32 × 32 pixels that is a "
        "map of 8 × 8 cells. Eight of them are pasted, an eighth of the image; the paper pastes 6 of 7 × 7 "
        "cells.",
        "Cells at random are our own control: an equally large part of the image, chosen without attention.",
    ],
    config=image_mixing.MixConfig,
    tables=tables,
).experiment()
