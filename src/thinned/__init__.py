"""Dropout and its whole family, for NumPy and PyTorch.

>>> import numpy as np, thinned
>>> thinned.dropout(np.ones(4), p=0.5, key=thinned.Key(0))
array([0., 2., 0., 2.])
"""

from importlib import import_module
from os import PathLike
from typing import Any

from thinned.augment import attentive_cutmix, cutmix, cutout, mixup
from thinned.functional import (
    alpha_dropout,
    drop_block,
    drop_connect,
    drop_path,
    dropout,
    feature_alpha_dropout,
    gaussian_dropout,
    spatial_dropout,
    thin_dropout,
)
from thinned.key import Key, choose
from thinned.masks import keep_mask


def load(run: str | PathLike[str]) -> Any:
    """The trained network of a run of ``thinned compare`` on a table, as a fitted scikit-learn pipeline.

    ``run``: the run's folder or URL. The pipeline takes a pandas frame with the columns of training, by name:
    ``predict``, ``predict_proba(frame, return_std=True)``. Nothing is unpickled. Raises
    ``thinned.lab.errors.LabError`` where there is no model, or a damaged one.
    """
    return import_module("thinned.lab.training.model").load(run)  # by name: the lab stands on this file


__version__ = "0.2.0.dev0"
__all__ = [
    "Key",
    "alpha_dropout",
    "attentive_cutmix",
    "choose",
    "cutmix",
    "cutout",
    "drop_block",
    "drop_connect",
    "drop_path",
    "dropout",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "keep_mask",
    "load",
    "mixup",
    "spatial_dropout",
    "thin_dropout",
]
