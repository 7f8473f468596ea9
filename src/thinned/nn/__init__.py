"""The dropout family as torch modules, keyed masks, and surgery on existing models."""

from thinned.nn.attention_map import attention_map, last_features
from thinned.nn.keyed import keyed
from thinned.nn.modules import (
    MODULES,
    AlphaDropout,
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
    DropConnectLinear,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    FeatureAlphaDropout,
    GaussianDropout,
)
from thinned.nn.optimizers import SGD, Adam, AdamW
from thinned.nn.residual import Residual
from thinned.nn.surgery import Swap, max_norm_, set_rate, swap_dropout
from thinned.nn.thin import Thinning, thin, thinning

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AlphaDropout",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropConnectLinear",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "Residual",
    "Swap",
    "Thinning",
    "attention_map",
    "keyed",
    "last_features",
    "max_norm_",
    "set_rate",
    "swap_dropout",
    "thin",
    "thinning",
]

# The classes that are made from their methods.
_made = {kind.__name__: kind for kind in MODULES.values() if kind.__name__ not in globals()}
globals().update(_made)
__all__ += [*_made]
