"""Activations."""

from __future__ import annotations

import numpy as np
import pytest

from thinned.scratch import Layer, Sigmoid, Softmax


@pytest.mark.parametrize("layer", [Sigmoid(), Softmax()], ids=repr)
def test_bounded_layers_do_not_overflow(layer: Layer) -> None:
    y = layer.forward(np.array([[-1e5, 0.0, 1e5]], np.float32))
    assert ((y >= 0) & (y <= 1)).all()
    assert np.isfinite(layer.backward(np.ones_like(y))).all()
