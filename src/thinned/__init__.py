"""Dropout and its whole family, for NumPy and PyTorch.

>>> import numpy as np, thinned
>>> thinned.dropout(np.ones(4), p=0.5, key=thinned.Key(0))
array([0., 2., 0., 2.])
"""

from thinned.augment import attentive_cutmix, cutmix, cutout
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
    "spatial_dropout",
    "thin_dropout",
]
