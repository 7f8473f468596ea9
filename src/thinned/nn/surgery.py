"""Changes to existing models: `swap_dropout`, `set_rate` and `max_norm_`."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from thinned import _checks
from thinned.nn import modules
from thinned.nn.foreign import rate_of, twin
from thinned.nn.keyed import M, check_model, named_drops, unwrap
from thinned.nn.modules import Drop
from thinned.nn.unreached import unreached

TWINS: dict[type[nn.Module], type[Drop]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
}
_BACK = {ours: theirs for theirs, ours in TWINS.items()}


@dataclass(frozen=True)
class Swap:
    """What `swap_dropout` did; ``print`` shows it.

    ``replaced``: qualified name -> the module that is there now. ``unreached``: qualified name -> what still
    drops there by the rules of torch or another library, and why. The name of the model itself is ``""``.
    """

    model: nn.Module
    replaced: Mapping[str, str] = field(default_factory=dict)
    unreached: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"replaced: {len(self.replaced)}"]
        lines += [f"  {name or '(the model)'}: {what}" for name, what in self.replaced.items()]
        lines += [f"not reached: {len(self.unreached)}"]
        lines += [f"  {name or '(the model)'}: {what}" for name, what in self.unreached.items()]
        return "\n".join(lines)


def swap_dropout(model: nn.Module, back: bool = False) -> Swap:
    """Turn every dropout module into its twin in `thinned.nn`, in place; ``back`` turns it back.

    Those of torch have twins, and DropPath, StochasticDepth and DropBlock of timm, torchvision, transformers
    and others, which are recognised by what they do, whatever they are called.

    Each module stays the same object, even if it is shared or is the model itself. It keeps its rate,
    ``inplace``, training mode and hooks. No parameter, buffer or ``state_dict`` key changes.

    Some dropout stays as it is, and the report names it: subclasses of torch's classes, dropout called as a
    function (found in the source of the modules), dropout inside torch's attention and recurrent layers, and
    what no twin does. Inside `keyed` and in `predict`, all that calls torch's dropout functions takes its
    masks from the key none the less.

    Raises TypeError if ``model`` is no torch module, ValueError if a rate is not in [0, 1]. Then nothing
    is changed.
    """
    check_model(model)
    kinds: Container[type] = _BACK if back else TWINS
    named = model.named_modules(remove_duplicate=False)
    found = {name: module for name, module in named if type(module) in kinds}
    adopted = {} if back else _adopted(model)
    for name, module in found.items():
        _checks.probability(f"p of {name or 'model'}", module.p)
    for name, module in model.named_modules(remove_duplicate=False):
        if module in adopted:
            _checks.probability(f"p of {name or 'model'}", adopted[module][1]["p"])
            found[name] = module
        elif back and "theirs" in vars(module):
            found[name] = module
    ours = {name: module for name, module in found.items() if isinstance(module, modules.Dropout)}
    only_here = [name for name, module in ours.items() if module.rescale != "train"]
    left = dict.fromkeys(
        only_here, "rescales in evaluation (the original rule), which torch's Dropout cannot"
    )
    found = {name: module for name, module in found.items() if name not in left}
    for module in set(found.values()):
        if module in adopted:
            _adopt(module, *adopted[module])
        elif isinstance(module, Drop):
            _return(module) if "theirs" in vars(module) else _to_torch(module)
        else:
            _to_ours(module)
    replaced = {
        name: f"{_home(type(module))}.{' '.join(repr(module).split())}" for name, module in found.items()
    }
    return Swap(model, replaced, left if back else unreached(model))


def _home(kind: type) -> str:
    """The place of a class, for users."""
    library = kind.__module__.split(".")[0]
    return f"{library}.nn" if library in ("torch", "thinned") else library


def _adopted(model: nn.Module) -> dict[nn.Module, tuple[type[Drop], dict[str, Any]]]:
    """The modules of other libraries that have a twin, with its class and arguments."""
    found = {module: twin(module) for module in model.modules()}
    return {module: how for module, how in found.items() if how is not None}


def _adopt(module: nn.Module, kind: type[Drop], arguments: dict[str, Any]) -> None:
    """Make a module of another library ours; it keeps what the way back needs."""
    rate, inplace = rate_of(module), arguments.pop("inplace", False)
    usual = vars(nn.Module())
    own = {name: vars(module).pop(name) for name in set(vars(module)) - set(usual)}
    vars(module)["theirs"] = type(module), rate, own
    module.__class__ = kind
    twin_: Any = module
    settings = twin_.method.settings(**arguments)
    twin_.start(settings.pop("p"))
    vars(module).update(settings)
    module.inplace = inplace


def _return(module: Drop) -> None:
    """Undo `_adopt`; the rate is that of now."""
    (kind, rate, own), p = vars(module).pop("theirs"), module.p
    for name in set(vars(module)) - set(vars(nn.Module())):
        vars(module).pop(name)
    module.__class__ = kind
    vars(module).update({**own, rate: p})


def _to_ours(module: nn.Module) -> None:
    p = module.__dict__.pop("p")
    module.__class__ = TWINS[type(module)]
    assert isinstance(module, Drop)
    module.start(p)


def _to_torch(module: Drop) -> None:
    p = module.p
    for name in ("_p", "rate", "stream", "unchanged"):
        module.__dict__.pop(name, None)
    module.__class__ = _BACK[type(module)]  # type: ignore[assignment]
    module.p = p


def set_rate(
    model: nn.Module,
    p: float | Mapping[str, float] | Callable[[str], float],
    only: type[Drop] | tuple[type[Drop], ...] = Drop,
) -> dict[str, float]:
    """Set the rates of a model's `thinned.nn` modules; returns the new rates by qualified name.

    ``p`` is one rate for all modules, or a mapping (qualified name -> rate) that leaves the others alone, or
    a function of the qualified name. ``only`` limits the change to some classes, such as ``DropPath``.
    `thinned.schedules` has rates over training and over depth. Compiled models are not compiled again.

    Raises ValueError if a rate is not in [0, 1], or if no module has that name or class. Then no rate is set.
    """
    drops = {name: drop for name, drop in named_drops(model) if isinstance(drop, only)}
    if not drops:
        raise ValueError("model must hold modules of thinned.nn, got none (see swap_dropout)")
    if isinstance(p, Mapping):
        if unknown := sorted(set(p) - set(drops)):
            raise ValueError(f"p must name modules among {', '.join(drops)}, got {', '.join(unknown)}")
        rates = dict(p)
    else:
        rates = {name: p(name) if callable(p) else p for name in drops}
    rates = {
        name: _checks.probability("p" if rate is p else f"p of {name}", rate) for name, rate in rates.items()
    }
    for name, rate in rates.items():
        drops[name].p = rate
    return rates


@torch.no_grad()
def max_norm_(model: M, c: float) -> M:
    """Scale each unit's incoming weights down to the norm ``c`` if theirs is larger; call it after a step.

    w ← w·min(1, c/‖w‖₂), in place, for each row of a linear layer and each output channel of a convolution.
    Biases, norms and embeddings do not change. Returns the model.

    Raises ValueError if c is not positive and finite.

    Srivastava et al. 2014, JMLR 15:1929-1958, section 5.1.
    """
    c = _checks.positive("c", c)
    for module in unwrap(model).modules():
        if isinstance(module, _TRANSPOSED):  # (in, out/groups, *kernel)
            weight = module.weight.unflatten(0, (module.groups, -1))
            _shorten(weight, c, [1, *range(3, weight.dim())])
        elif isinstance(module, _WEIGHTED):  # (out, in, *kernel)
            _shorten(module.weight, c, list(range(1, module.weight.dim())))
    return model


def _shorten(weight: torch.Tensor, c: float, axes: list[int]) -> None:
    wide = torch.promote_types(weight.dtype, torch.float32)
    norm = torch.linalg.vector_norm(weight, dim=axes, keepdim=True, dtype=wide)
    weight.mul_((c / norm).clamp(max=1.0))


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, modules.DropConnectLinear)
