"""Chains that torch.fx does not see: the feed-forward parts of torch's transformer layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from thinned.nn import activations, modules
from thinned.nn.thin.find_chains import FoundChain
from thinned.nn.thin.tracing import hooked, join

DROPOUTS = (nn.Dropout, modules.Dropout)
TRANSFORMERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def known_chains(layer: nn.Module, name: str) -> Iterator[tuple[str, FoundChain | str]]:
    """The chain linear1 → activation → dropout → linear2 of a transformer layer, or why there is none.

    The other dropouts of the layer (dropout1, …) drop elements of its residual sums.
    """
    if type(layer) not in TRANSFORMERS:
        return
    owner: Any = layer
    yield join(name, "dropout"), _feed_forward(owner, name)
    for other, module in layer.named_children():
        if other != "dropout" and isinstance(module, DROPOUTS):
            yield join(name, other), "a sum reads its units"


def _feed_forward(layer: Any, name: str) -> FoundChain | str:
    parts: list[Any] = [layer.linear1, layer.dropout, layer.linear2]
    for part, kinds in zip(parts, ((nn.Linear,), DROPOUTS, (nn.Linear,)), strict=True):
        if type(part) not in kinds:
            return f"{type(part).__name__} stands where {kinds[0].__name__} should"
        if hooked(part):
            return f"a part of {name or 'the model'} has hooks"
    if layer.activation not in activations.CALLS and type(layer.activation) not in activations.MODULES:
        return f"the activation of {name or 'the model'} is not known"
    return FoundChain("dropout", "linear1", rank=0, readers=["linear2"])
