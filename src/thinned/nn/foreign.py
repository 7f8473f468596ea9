"""Recognises the DropPath, StochasticDepth and DropBlock of other libraries by what they do."""

from __future__ import annotations

import contextlib
import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from thinned.nn import modules
from thinned.nn.modules import Drop

RATES = ("drop_prob", "p", "prob", "drop_rate")  # the names of a rate


def compiled_dropout(module: nn.Module) -> bool:
    """Whether a module, compiled by torch.jit, itself calls a dropout."""
    compiled: Any = module
    text = str(getattr(compiled, "graph", "")) if isinstance(module, torch.jit.ScriptModule) else ""
    return re.search(r'(name="|aten::)\w*dropout', text) is not None


RUNS = 40  # of a drop that keeps or drops a whole batch: it looks like one of samples with probability 2⁻³⁹


def rate_of(module: nn.Module) -> str | None:
    """The name of a foreign module's rate; None if it has no rate, or has parts, parameters or buffers."""
    home = type(module).__module__
    if home.startswith(("torch.", "thinned.")) or [*module.children()] or module.state_dict():
        return None
    values = vars(module)
    return next((name for name in RATES if isinstance(values.get(name), (int, float))), None)


def twin(module: nn.Module) -> tuple[type[Drop], dict[str, Any]] | None:
    """Our class for a module of another library that does the same, and its arguments; or None."""
    rate = rate_of(module)
    if rate is None or isinstance(module, torch.jit.ScriptModule):
        return None
    block = getattr(module, "block_size", None)
    trial = copy.copy(module)
    for hooks in [name for name, value in vars(trial).items() if name.endswith("_hooks") and value]:
        vars(trial)[hooks] = {}
    vars(trial)[rate] = 0.5
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        how = _dropped(trial) if block is None else _blocks(trial, block)
        return how and (how[0], {"p": vars(module)[rate], **how[1]})
    return None


def _dropped(trial: nn.Module) -> tuple[type[Drop], dict[str, Any]] | None:
    """`DropPath`, if half of the samples, or of the batches, are zeroed, and the others are x or 2·x."""
    x = torch.ones(RUNS, 2, 3, 3, device="cpu")
    if not torch.equal(trial.eval()(x), x):
        return None
    trial.training = True
    seen = [trial(x) for _ in range(RUNS)]
    each = torch.stack(seen).flatten(2)
    survivor = float(each.max())
    known = bool(((each == 0) | (each == survivor)).all()) and survivor in (1.0, 2.0)
    if not known or not bool((each == each[..., :1]).all()) or not bool((each == 0).any()):
        return None
    whole = bool((each == each[:, :1]).all())
    return modules.DropPath, {"mode": "batch" if whole else "sample", "scale_by_keep": survivor == 2.0}


def _blocks(trial: Any, block: Any) -> tuple[type[Drop], dict[str, Any]] | None:
    """`DropBlock2d` or `DropBlock3d`, by the paper's formula, as in timm and torchvision."""
    unusual = getattr(trial, "with_noise", False) or getattr(trial, "gamma_scale", 1.0) != 1.0
    if unusual or not getattr(trial, "scale_by_keep", True):
        return None
    for kind, spatial in ((modules.DropBlock2d, (24, 24)), (modules.DropBlock3d, (12, 12, 12))):
        x = torch.ones(4, 3, *spatial, device="cpu")
        with contextlib.suppress(Exception):
            if not torch.equal(trial.eval()(x), x):
                return None
            trial.training = True
            y: Tensor = trial(x.clone())
            zeros = y == 0
            alike = bool((zeros == zeros[:, :1]).all())  # in all channels
            if y.shape == x.shape and 0 < zeros.float().mean() < 1:
                how = {"block_size": block, "per_channel": not alike, "exact_rate": False}
                return kind, {**how, "inplace": bool(getattr(trial, "inplace", False))}
    return None
