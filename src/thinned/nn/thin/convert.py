"""`thin`: makes a model train only on the surviving units. `thinning`: reports what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from thinned import _checks, masks
from thinned.nn import modules
from thinned.nn.keyed import M, unwrap
from thinned.nn.modules import Drop, DropPath
from thinned.nn.residual import Residual
from thinned.nn.surgery import TWINS, swap_dropout
from thinned.nn.thin.find_branches import FoundBranch, find_branches
from thinned.nn.thin.find_chains import FoundChain, find_chains
from thinned.nn.thin.known_layers import TRANSFORMERS, known_chains
from thinned.nn.thin.layer_kinds import DROPS
from thinned.nn.thin.passes import ModelHooks
from thinned.nn.thin.run_branches import Gate, RunningBranch, ThinDropPath
from thinned.nn.thin.run_chains import KINDS, PAYS_ABOVE, RunningChain, make_plain, make_thin
from thinned.nn.thin.tracing import Explorer, TracedModule, join
from thinned.nn.unreached import reason


@dataclass(frozen=True)
class Thinning:
    """What `thin` found; ``print`` shows it.

    ``chains``: name of a thinned dropout module -> its chain of layers, or name of a DropPath -> its branch.
    ``dense``: name of a dropout module that stays dense -> the reason.
    """

    chains: Mapping[str, str] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"thinned: {len(self.chains)}"]
        lines += [f"  {name or '(the model)'}: {what}" for name, what in self.chains.items()]
        lines += [f"left dense: {len(self.dense)}"]
        lines += [f"  {name or '(the model)'}: {why}" for name, why in self.dense.items()]
        return "\n".join(lines)


def thin(model: M, groups: Groups = "auto", *, back: bool = False) -> M:
    """Make a model train only on the surviving units, in place; returns the model.

    A chain is a layer (`torch.nn.Linear`, `Conv1d` … `Conv3d`), activations, BatchNorm, pooling, a dropout of
    whole units (`Dropout` of vectors, `Dropout1d` … `Dropout3d` of channels), and the layers that read them.
    Each pass picks units for groups of rows, by `thinned.masks.picks`. A unit is kept with probability 1 − p,
    and divided by 1 − p. Forward and backward compute only the kept units of the first layer, and the next
    layers read only them. Row i of the whole batch belongs to group i mod ``groups``. The rows are all
    leading axes of the input of a linear layer, and the samples of a convolution.

    ``groups``: "auto" is 16, and 4 where channels are dropped; then chains whose rate is at most 0.2, which
    would not gain, stay dense. A number overrules both. A batch shares one pick if it is 1, which is not
    dropout any more: it costs accuracy, and training may diverge at rates of learning where dropout trains.

    A branch, as in x + drop_path(branch(x)), is computed only for the surviving samples, as in `Residual`,
    if every layer in it is known to treat each sample by itself.

    Modules keep their names, parameters and ``state_dict`` keys. Evaluation is the plain dense network. The
    dropout modules make the picks, so `torch.manual_seed`, checkpointing, `keyed` and `set_rate` work as for
    all modules of `thinned.nn`. What cannot be thinned stays dense, and `thinning` names it with the reason.

    Thinning works while this model runs, or a part of it that was traced, and only if all arguments
    that have a default keep it. Other calls run dense.

    ``back`` undoes it; the dropout modules stay those of `thinned.nn`.

    Raises TypeError if ``model`` is no torch module, ValueError if ``groups`` is not a positive integer
    or a rate is not in [0, 1]. Then nothing is changed.

    Dropout trains a thinned network: Srivastava et al. 2014, JMLR 15:1929-1958.
    """
    if groups != "auto":
        groups = _checks.positive_int("groups", groups)
    root = unwrap(model)
    for name, module in root.named_modules():
        if type(module) in DROPS:
            _checks.probability(f"p of {name or 'model'}", module.p)
    _restore(root)
    if not back:
        found, dense = _find(root, groups)
        for name, parts in found.items():
            _install(root, name, parts, groups)
        vars(root)[_REPORT] = dense
    return model


def thinning(model: nn.Module) -> Thinning:
    """The report of `thin`: the dropout modules that are thinned, and those that are not, with the reason.

    Raises ValueError if `thin` was not called on the model.
    """
    root = unwrap(model)
    if _REPORT not in vars(root):
        raise ValueError("model must have been given to thinned.nn.thin, got one that was not")
    running: dict[str, RunningChain | RunningBranch | None] = {
        name: vars(module).get("branch" if type(module) is ThinDropPath else "chain")
        for name, module in root.named_modules()
        if type(module) in (*KINDS, ThinDropPath)
    }
    dropouts = dict(root.named_modules())
    found = {name: each for name, each in running.items() if each and each.drop is dropouts[name]}
    idle = "p = 0, so nothing is dropped: it is thinned when its rate is set"
    dense = {name: idle for name, each in found.items() if each.drop.p == 0.0}
    chains = {name: str(each) for name, each in found.items() if name not in dense}
    return Thinning(chains, {**vars(root)[_REPORT], **dense})


_REPORT = "_left_dense"
_ROLES = ("reads_chain", "begins_chain", "chain", "branch")  # the attributes of thin layers
Found = FoundChain | FoundBranch
Groups = int | Literal["auto"]
SAMPLE_GROUPS = 4  # of samples in a chain of convolutions, which run once a group


def _find(root: nn.Module, groups: Groups) -> tuple[dict[str, list[Found]], dict[str, str]]:
    """The chains and branches by the name of the traced module; the reason for each dropout without one."""
    explorer = Explorer(root)
    found: dict[str, list[Found]] = {}
    dense: dict[str, str] = {}
    parts: list[tuple[str, Iterable[tuple[str, Found | str]]]] = []
    for name, graph in explorer.graphs.items():
        traced = TracedModule(root.get_submodule(name), graph, name)
        parts.append((name, (*find_chains(traced), *find_branches(traced))))
    parts += [(name, known_chains(module, name)) for name, module in root.named_modules()]
    for name, what in ((name, each) for name, some in parts for each in some):
        drop, chain = what
        if isinstance(chain, str):
            dense[drop] = _true_reason(chain, name, explorer)
        elif groups == "auto" and isinstance(chain, FoundChain) and (p := _rate(root, drop)) <= PAYS_ABOVE:
            dense[drop] = _small(p)
        else:
            found.setdefault(name, []).append(chain)
            dense.pop(drop, None)
    read: dict[type, str] = {}
    seen = {join(name, each.drop) for name in found for each in found[name]} | set(dense)
    for name, module in root.named_modules():
        if type(module) in (*DROPS, DropPath) and name not in seen:
            dense[name] = _hidden(root, name, explorer)
        elif name not in seen and (why := _unfit(module, read)):
            dense[name] = why
    return found, dense


def _small(p: float) -> str:
    """Why a chain with this rate is not thinned by ``groups="auto"``."""
    if p == 0.0:
        return f"p = 0, so nothing is dropped: set a rate above {PAYS_ABOVE:g}, then call thin again"
    return f"p = {p:g} is at most {PAYS_ABOVE:g}, where thinning does not pay"


def _true_reason(why: str, name: str, explorer: Explorer) -> str:
    """``why`` of a dropout in the traced part ``name``, or that what is around could not be traced."""
    at_the_end = why.startswith(("no layer before it", f"the output of {name}")) and name
    hidden = [outer for outer in _around(name) if outer in explorer.untraced] if at_the_end else []
    if not hidden:
        return why
    return f"{hidden[0] or 'the model'} could not be traced: {explorer.untraced[hidden[0]]}"


def _around(name: str) -> list[str]:
    """The names of the modules around one, the outermost last."""
    return [*(name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)), ""]


UNFIT: dict[type[Drop], str] = {
    modules.AlphaDropout: "sets dropped elements to a number that is not 0, so the next layer reads them all",
    modules.FeatureAlphaDropout: "sets dropped units to a number that is not 0, so the next layer reads them",
    modules.GaussianDropout: "multiplies by noise, and drops no unit",
    modules.DropConnectLinear: "drops weights, not units",
    **dict.fromkeys(
        (modules.DropBlock1d, modules.DropBlock2d, modules.DropBlock3d), "drops blocks, not units"
    ),
}
_TWINS = {theirs: UNFIT[ours] for theirs, ours in TWINS.items() if ours in UNFIT}


def _unfit(module: nn.Module, read: dict[type, str]) -> str:
    """Why what a module drops has no chain or branch; "" if it is not known to drop."""
    kind: Any = type(module)
    if kind in UNFIT or kind in _TWINS:
        return UNFIT.get(kind) or _TWINS[kind]
    if isinstance(module, Residual):
        return "" if module.skip else "skip=False, so its branch runs on the whole batch"
    if isinstance(module, Drop):
        return f"{kind.__name__} is none of the dropouts that thin knows"
    why = reason(module, read)
    return f"{why}: a function has no place in a chain, a module has" if why.startswith("calls") else why


def _rate(root: nn.Module, name: str) -> float:
    """The rate of a dropout module."""
    drop: Any = root.get_submodule(name)
    return float(drop.p)


def _groups(found: FoundChain, wanted: Groups) -> int:
    """The groups of a chain: of rows, or of samples where its units have maps."""
    if wanted != "auto":
        return wanted
    return SAMPLE_GROUPS if found.rank else masks.GROUPS


def _hidden(root: nn.Module, name: str, explorer: Explorer) -> str:
    """Why a dropout module is in no graph."""
    for outer in _around(name):
        if outer in explorer.untraced:
            return f"{outer or 'the model'} could not be traced: {explorer.untraced[outer]}"
        if outer in explorer.closed:
            return f"inside {outer} ({type(root.get_submodule(outer)).__name__}), which is not looked into"
    return "not called" if name else "is the model itself"


def _install(root: nn.Module, name: str, found: list[Found], groups: Groups) -> None:
    """Thin the chains and branches that were found in a traced module, and add the hooks they need."""
    owner = root.get_submodule(name)
    hooks = ModelHooks(owner, any_call=type(owner) in TRANSFORMERS)
    for each in found:
        if isinstance(each, FoundBranch):
            hooks.running.append(RunningBranch(owner, name, each, hooks))
            continue
        drop = owner.get_submodule(each.drop)
        if type(drop) in TWINS:
            swap_dropout(drop)
        hooks.running.append(
            install(owner, each, RunningChain(owner, name, each, _groups(each, groups), hooks))
        )


def install(owner: nn.Module, found: FoundChain, chain: RunningChain) -> RunningChain:
    """Turn the layers of a chain into thin layers with their roles in it; returns the chain."""
    roles = {found.producer: "begins_chain", found.drop: "chain"}
    roles |= dict.fromkeys(found.readers, "reads_chain") | dict.fromkeys(found.between, "chain")
    for name, role in roles.items():
        module = owner.get_submodule(name)
        make_thin(module)
        setattr(module, role, chain)
    return chain


def _restore(root: nn.Module) -> None:
    """Undo `_install`: every layer has its former class, without our hooks."""
    for module in root.modules():
        if type(module) in (*KINDS, ThinDropPath):
            make_plain(module)
            for name in _ROLES:
                vars(module).pop(name, None)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for handle, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), (ModelHooks, Gate)):
                    _forget(module, handle)
    vars(root).pop(_REPORT, None)


def _forget(module: nn.Module, handle: int) -> None:
    """Remove a hook, and torch's notes about it."""
    for name, notes in vars(module).items():
        if name.startswith("_forward_"):
            notes.pop(handle, None)
