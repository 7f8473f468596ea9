"""Networks in NumPy: each layer's backward pass stands beside its forward pass.

>>> import numpy as np, thinned
>>> from thinned.scratch import SGD, SoftmaxCrossEntropy, ThreeLayerNet
>>> net, loss = ThreeLayerNet(64, 256, 256, 10, key=thinned.Key(0), p=0.5), SoftmaxCrossEntropy()
>>> x, labels = np.zeros((8, 64), np.float32), np.arange(8)
>>> value = loss.forward(net.forward(x, thinned.Key(1)), labels)  # a key: a training pass
>>> grad = net.backward(loss.backward())
>>> SGD(lr=0.1, momentum=0.9).step(net)
>>> net.predict(x).shape
(8, 10)
"""

from thinned.scratch.activations import ReLU, Sigmoid, Softmax, Tanh
from thinned.scratch.boltzmann import DBM, DBN, RBM
from thinned.scratch.drops import LAYERS, DropConnect, Dropout, GaussianDropout, SpatialDropout, ThinDropout
from thinned.scratch.files import load_params, save_params
from thinned.scratch.layer import Layer
from thinned.scratch.linear import Linear, Maxout
from thinned.scratch.losses import (
    LogisticCrossEntropy,
    Loss,
    PoissonDeviance,
    SoftmaxCrossEntropy,
    SquaredError,
)
from thinned.scratch.networks import Network, Sequential, ThreeLayerNet, mlp
from thinned.scratch.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Normalize
from thinned.scratch.optimizers import SGD, Adam, Optimizer
from thinned.scratch.thin import Thin

__all__ = [
    "DBM",
    "DBN",
    "RBM",
    "SGD",
    "Adam",
    "BatchNorm",
    "DropConnect",
    "Dropout",
    "GaussianDropout",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Linear",
    "LogisticCrossEntropy",
    "Loss",
    "Maxout",
    "Network",
    "Normalize",
    "Optimizer",
    "PoissonDeviance",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SpatialDropout",
    "SquaredError",
    "Tanh",
    "Thin",
    "ThinDropout",
    "ThreeLayerNet",
    "load_params",
    "mlp",
    "save_params",
]

# The classes that are made from their methods.
_made = {kind.__name__: kind for kind in LAYERS.values() if kind.__name__ not in globals()}
globals().update(_made)
__all__ += [*_made]
