"""`moments` for torch's modules and functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from thinned.nn import activations, modules
from thinned.nn.residual import Residual
from thinned.nn.thin.layer_kinds import NORMS
from thinned.uncertainty.moment_rules import Moments, activation, connected, factor, linear, no_rule
from thinned.uncertainty.sample_torch import TorchSampler
from thinned.uncertainty.torch_graph import Whole
from thinned.uncertainty.torch_inputs import Inputs

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOVES = {torch.flatten, "flatten", "view", "reshape", "contiguous", "unsqueeze", "squeeze", "permute"}


@torch.no_grad()
def through(net: TorchSampler, x: Inputs) -> Moments:
    """The moments of a model's outputs for inputs x. Raises ValueError if a node of the graph has no rule."""
    cut = net.cut
    if isinstance(cut, Whole):
        raise ValueError(
            "model must be one that torch.fx can trace, got one that it cannot: use predict, which samples"
        )
    values: dict[fx.Node, Any] = dict(cut.before(x))
    for node in cut.tail:
        values[node] = _node(net, node, values)
    out = values[cut.output]
    return out if isinstance(out, Moments) else Moments(out, torch.zeros_like(out))


def _node(net: TorchSampler, node: fx.Node, values: dict[fx.Node, Any]) -> Moments:
    """The moments of the value of a node that depends on a random layer."""
    given = values.get(node.args[0]) if node.args else None  # type: ignore[arg-type]
    others = [each for each in node.all_input_nodes if each is not node.args[0]]
    if isinstance(given, Tensor):
        given = Moments(given, torch.zeros_like(given))
    if not isinstance(given, Moments) or any(isinstance(values[each], Moments | Tensor) for each in others):
        raise no_rule(str(node.target), node.op)
    if node.op == "call_module":
        return _module(str(node.target), net.model.get_submodule(str(node.target)), given)
    rest, kwargs = fx.node.map_arg((node.args[1:], node.kwargs), values.__getitem__)
    if node.target in activations.CALLS:
        return activation(activations.CALLS[node.target], given, str(node.target))
    if node.target not in _MOVES:
        raise no_rule(str(node.target), node.op)
    call: Any = getattr(Tensor, node.target) if isinstance(node.target, str) else node.target
    return Moments(*(call(each, *rest, **kwargs) for each in given))


def _module(name: str, module: Any, x: Moments) -> Moments:
    """The moments of a module's outputs for inputs with the moments x."""
    kind = type(module)
    if isinstance(module, modules.DropConnectLinear):
        return connected(x, module.weight, module.bias, module.p)
    if isinstance(module, modules.Drop) and not isinstance(module, Residual):
        return factor(name, module, x)
    if kind is nn.Linear:
        return linear(x, module.weight, module.bias)
    if kind in activations.MODULES:
        return activation(activations.MODULES[kind], x, name)
    if kind in _CONVOLUTIONS:
        variance = module._conv_forward(x.variance, module.weight**2, None)
        return Moments(module(x.mean), variance)
    if kind in NORMS and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt() ** 2 * (
            1.0 if module.weight is None else module.weight**2
        )
        return Moments(module(x.mean), x.variance * scale.view(-1, *[1] * (x.mean.dim() - 2)))
    if kind is nn.Flatten:
        return Moments(module(x.mean), module(x.variance))
    raise no_rule(name, kind.__name__)
