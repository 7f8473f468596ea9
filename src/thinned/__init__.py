"""Dropout and its whole family, for NumPy and PyTorch.

>>> import numpy as np, thinned
>>> thinned.dropout(np.ones(4), p=0.5, key=thinned.Key(0))
array([0., 2., 0., 2.])
"""

from thinned.functional import dropout, gaussian_dropout
from thinned.key import Key, choose
from thinned.masks import keep_mask

__version__ = "0.1.0"
__all__ = ["Key", "choose", "dropout", "gaussian_dropout", "keep_mask"]
