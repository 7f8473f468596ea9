"""`moments` for the layers of `thinned.scratch`."""

from __future__ import annotations

import numpy as np

from thinned import scratch
from thinned.scratch.activations import ROWS
from thinned.scratch.drops import Drop
from thinned.uncertainty.moment_rules import Moments, activation, connected, factor, linear, no_rule
from thinned.uncertainty.prediction import Array
from thinned.uncertainty.sample_scratch import ScratchSampler


def through(net: ScratchSampler, x: Array) -> Moments:
    """The moments of a network's outputs for inputs x. Raises ValueError if a layer has no rule."""
    mean = net.before(x)
    now = Moments(mean, np.zeros_like(mean))
    for step in net.tail:
        now = _layer(step.name, step.layer, now)
    return now


def _layer(name: str, layer: scratch.Layer, x: Moments) -> Moments:
    """The moments of a layer's outputs for inputs with the moments x."""
    if isinstance(layer, Drop):
        return factor(name, layer, x)
    if isinstance(layer, scratch.DropConnect):
        return connected(x, layer.params["weight"], layer.params["bias"], layer.p)
    if isinstance(layer, scratch.Linear):
        return linear(x, layer.params["weight"], layer.params["bias"])
    if type(layer) in ROWS:
        return activation(ROWS[type(layer)], x, name)
    if isinstance(layer, scratch.BatchNorm):
        at = layer.forward
        slope = at(np.ones_like(x.mean[:1])) - at(np.zeros_like(x.mean[:1]))
        return Moments(at(x.mean), slope**2 * x.variance)
    if layer.moves_only:
        return Moments(layer.forward(x.mean), layer.forward(x.variance))
    raise no_rule(name, type(layer).__name__)
