"""Samples of a torch model. Its graph is cut at the first random layer, and the rest runs for each sample.

These steps prepare a model; each returns what the next needs. `shadow` copies the modules. `_live_drops`
finds what drops. `cut` cuts the graph. `_probe` compares the cut with the model. `thinned` finds the chains
to thin. `_operations` recognises a perceptron, for which there is a kernel.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from thinned import _array
from thinned.activations import RELU, Activation
from thinned.key import Key
from thinned.nn import activations
from thinned.nn.batches import Batch, UnclearError
from thinned.nn.keyed import entered, named_drops, names_of
from thinned.nn.modules import Drop, Dropout
from thinned.nn.stream import Block
from thinned.nn.surgery import swap_dropout
from thinned.nn.thin.run_chains import ThinLinear
from thinned.nn.thin.tracing import hooked
from thinned.uncertainty.prediction import Array, Wanted
from thinned.uncertainty.sample_perceptron import (
    Affine,
    Clip,
    InputMask,
    Operation,
    Perceptron,
    Survivors,
    recognise,
)
from thinned.uncertainty.torch_callers import Callers, find_callers
from thinned.uncertainty.torch_chains import SampledChain, thinned
from thinned.uncertainty.torch_graph import Cut, Values, Whole, cut, shadow
from thinned.uncertainty.torch_inputs import Arrays, Inputs, one_output, rows_of

TOGETHER = 1 << 26  # bytes of activations in a batch of samples, at most
LAYERS = 4  # about the number of layers whose outputs are in memory at once
PROBE = 2  # rows on which a cut is compared with its model
Progress = Callable[[float], object]  # is called with the share that is done
# In evaluation these take a fast path, which calls no dropout module.
_FAST = (nn.TransformerEncoder, nn.TransformerEncoderLayer)


def torch_sampler(
    model: nn.Module,
    arrays: Arrays,
    thin: bool,
    output: Wanted,
    layers: str | Sequence[str] | None = None,
    functions: bool = True,
) -> TorchSampler:
    """The sampler of ``model`` for its arguments. With ``thin``, chains compute only survivors.

    ``output``: the one that is wanted, if there are several. ``layers``: what may drop.
    ``functions``: whether modules that call dropout as a function drop.
    """
    model = shadow(model)
    fixed = dict(swap_dropout(model).unreached)
    rows = rows_of(model, arrays, 0, PROBE)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a call of a drop module draws a seed
        live, idle = _live_drops(model, rows, output)
        callers = Callers(fixed=fixed)
        if functions and rows.rows:
            _switch(list(live.values()), False)
            run = partial(_output_of, model, rows, output)
            callers = find_callers(model, run, _close, fixed, rows.rows)
            _warn_of(callers.drawn, model)
        wanted = _wanted(layers, [*live, *callers.random], model)
        idle |= dict.fromkeys({*live, *callers.random} - wanted, "not in layers")
        callers, live = callers.only(wanted), {name: drop for name, drop in live.items() if name in wanted}
        drops = list(live.values())
        part = Whole(model, output) if callers.modules else cut(model, drops, rows, output)
        probed = _probe(model, part, [*drops, *callers.modules], rows, output)
        random = {name: _one_line(drop) for name, drop in live.items()} | callers.random
        chains: list[SampledChain] = []
        network = None
        if thin and isinstance(probed.cut, Cut):
            chains, several = thinned(probed.cut, live, rows)
            random |= {name: f"{random[name]}, a mask for each row of a sample" for name in several}
            random |= {chain.name: str(chain) for chain in chains}
            network = recognise(_operations(probed.cut, chains, live)) if chains else None
    return TorchSampler(
        model,
        arrays,
        output,
        probed,
        drops=drops,
        callers=callers.modules,
        chains=chains,
        perceptron=network,
        random=random,
        fixed=callers.fixed | idle,
    )


@dataclass(frozen=True)
class Probed:
    """A cut that agrees with its model, and what a pass over some rows showed."""

    cut: Cut | Whole
    repeats: bool = False  # whether all samples may run as rows of one batch
    model_bytes: int = 1  # bytes of the largest output of a module, for one row
    tail_bytes: int = 1  # the same, in the tail


@dataclass(frozen=True)
class TorchSampler:
    """Samples a torch model, by a copy of its modules that shares the parameters.

    Keys and rows are those of `thinned.uncertainty.sample_scratch.ScratchSampler`. Sample s runs inside
    `thinned.nn.keyed` with step s, or with step 0 if all samples are one batch.
    """

    model: nn.Module
    arrays: Arrays  # its arguments
    output: Wanted
    probed: Probed
    drops: list[Drop]
    callers: list[nn.Module]  # which drop by functions in training mode
    chains: list[SampledChain]
    perceptron: Perceptron | None
    random: dict[str, str]
    fixed: dict[str, str]
    outputs: str | None = None

    @property
    def cut(self) -> Cut | Whole:
        """The model's graph in two parts; the whole model if it cannot be cut."""
        return self.probed.cut

    def take(self, x: Any, start: int, stop: int) -> Inputs:
        """Rows of x and of the other arguments, as tensors on the model's device."""
        return rows_of(self.model, self.arrays, start, stop)

    @torch.no_grad()
    def evaluate(self, x: Inputs) -> Tensor:
        """The outputs in evaluation."""
        self._switch(False)
        return _output_of(self.model, x, self.output)

    @torch.no_grad()
    def draw(self, x: Inputs, first: int, samples: int, key: Key, progress: Progress) -> Array:
        """The outputs of the samples, (S, rows, *out); ``first`` is the index of the first row in x."""
        self._switch(True)
        given = self.cut.before(x)
        if self.perceptron is not None and isinstance(self.cut, Cut):
            units = given[self.cut.frontier[0]]
            if _in_memory(units) and self.perceptron.takes(_array.view(units)):
                threads = -torch.get_num_threads()
                return self.perceptron.draw(_array.view(units), first, samples, key, progress, threads)
        shared = any(drop.shares_mask for drop in self.drops)
        one_by_one = bool(self.chains) or not self.probed.repeats or shared
        with torch.random.fork_rng(devices=[]):
            if not one_by_one:
                with contextlib.suppress(UnclearError):
                    return self._together(given, x.rows, first, samples, key, progress)
            try:
                return self._one_by_one(given, x.rows, first, samples, key, progress)
            except UnclearError:
                raise ValueError(
                    "batch_size must be that of all of x for this model: it is not known where a dropout "
                    f"gets the samples, got {x.rows}"
                ) from None

    def _switch(self, on: bool) -> None:
        """Turn dropping on or off."""
        _switch([*self.drops, *self.callers], on)

    def _one_by_one(
        self, given: Values, rows: int, first: int, samples: int, key: Key, progress: Progress
    ) -> Array:
        """One sample after the other: pick the survivors of each chain, then run the tail on them."""
        out = []
        for s in range(samples):
            of_sample = key.fold_in(s)
            for chain in self.chains:
                chain.pick(of_sample)
            if len(self.chains) == len(self.drops) and not self.callers:
                out.append(_output(self.cut.after(given)))
            else:
                with entered(self.model, of_sample, Block(first, Batch(rows, sure=True)), silent=True):
                    out.append(_output(self.cut.after(given)))
            progress((s + 1) / samples)
        for chain in self.chains:
            chain.close()
        return _array.to_numpy(torch.stack(out))

    def _together(
        self, given: Values, rows: int, first: int, samples: int, key: Key, progress: Progress
    ) -> Array:
        """All samples, as rows i·S + s of one batch, as many at once as memory allows."""
        n, out = rows * samples, []
        step = max(1, TOGETHER // (LAYERS * self.probed.tail_bytes))
        for start in range(0, max(1, n), step):
            index = torch.arange(start, min(n, start + step)) // samples
            block = Block(first * samples + start, Batch(len(index), sure=True))
            with entered(self.model, key.fold_in(0), block, silent=True):
                out.append(_output(self.cut.after(self.cut.repeated(given, index))))
            progress(min(1.0, (start + step) / max(1, n)))
        y = torch.cat(out)
        return _array.to_numpy(y.view(rows, samples, *y.shape[1:]).transpose(0, 1))

    def row_bytes(self, x: Inputs, samples: int) -> int:
        """About the bytes of a row: some layers, and its samples while they are sorted."""
        outputs = self.evaluate(x)
        return LAYERS * self.probed.model_bytes + 32 * samples * max(1, outputs[:1].numel())


def _warn_of(drawn: Mapping[str, str], model: nn.Module) -> None:
    """Warn of random functions that a model calls in evaluation."""
    kinds = {name: type(module).__name__ for module, name in names_of(model).items()}
    for name, function in drawn.items():
        warnings.warn(
            f"{name or 'the model'} ({kinds[name]}) calls {function}: in predict it draws from torch's "
            "generator, so one key may give several predictions",
            stacklevel=5,
        )


def _wanted(layers: str | Sequence[str] | None, found: list[str], model: nn.Module) -> set[str]:
    """The names of what may drop: all, the last in the order of the model, or those in some of its parts."""
    if layers is None:
        return set(found)
    if layers == "last":
        order = list(names_of(model).values())
        return set(sorted(found, key=order.index)[-1:])
    parts = [layers] if isinstance(layers, str) else list(layers)
    known = {each: {n for n in found if n == each or n.startswith(f"{each}.") or not each} for each in parts}
    for each, inside in known.items():
        if not inside:
            raise ValueError(f"layers must name what drops, or parts with it, among {found}, got {each!r}")
    return set[str]().union(*known.values())


def _output_of(model: nn.Module, rows: Inputs, output: Wanted) -> Tensor:
    """The wanted output of a model for some rows."""
    return _output(one_output(rows.into(model), output))


def _close(y: Tensor, expected: Tensor) -> bool:
    """Whether two outputs are equal, up to rounding."""
    return _agrees(lambda: y, expected)


def _switch(drops: Sequence[nn.Module], on: bool) -> None:
    """Turn dropping on or off."""
    for drop in drops:
        drop.training = on


def _live_drops(model: nn.Module, rows: Inputs, output: Wanted) -> tuple[dict[str, Drop], dict[str, str]]:
    """The modules that drop in a pass, by name, and the reason for each other drop module with p > 0.

    Afterwards all drop modules with p > 0 are in training mode, and so are modules whose evaluation bypasses
    them. All others are in evaluation.
    """
    drops = {name: drop for name, drop in named_drops(model) if drop.p > 0}
    for module in model.modules():
        module.training = module in drops.values() or isinstance(module, _FAST)
    with entered(model, Key(0), Block(0, Batch(rows.rows)), silent=True):
        _output_of(model, rows, output)
        called = {name for name, drop in drops.items() if drop.stream.named and drop.stream.named.calls}
    live = {name: drop for name, drop in drops.items() if name in called}
    return live, {name: "not called in evaluation" for name in drops if name not in called}


def _probe(
    model: nn.Module, part: Cut | Whole, drops: Sequence[nn.Module], rows: Inputs, output: Wanted
) -> Probed:
    """Compare a cut with its model on a few rows. If they differ, the model is not cut."""
    if not rows.rows:
        return Probed(part)

    def after(given: Values) -> Tensor:
        return _output(part.after(given))

    def before() -> Values:
        return part.before(Inputs({name: x.clone() for name, x in rows.items()}))

    _switch(drops, False)
    expected, model_bytes = _widest(model, lambda: _output_of(model, rows, output))
    if not _agrees(lambda: after(before()), expected):
        part = Whole(model, output)
    given = before()
    versions = _versions(given)
    _switch(drops, True)
    _, tail_bytes = _widest(model, lambda: after(given))
    _switch(drops, False)
    part = replace(part, copies=versions is None or versions != _versions(given))
    given = before()
    index = torch.arange(2 * rows.rows) // 2
    twice = expected.index_select(0, index.to(expected.device))
    repeats = part.repeatable(given) and _agrees(lambda: after(part.repeated(given, index)), twice)
    return Probed(part, repeats, model_bytes // rows.rows, tail_bytes // rows.rows)


def _operations(
    part: Cut, chains: list[SampledChain], live: Mapping[str, Drop]
) -> Iterator[Operation | None]:
    """The layers of the tail as operations of a perceptron, in order; None for anything else."""
    picks = {chain.drop: Survivors(chain.name, chain.drop.p) for chain in chains}
    names = {drop: name for name, drop in live.items()}
    given, alone = part.frontier[0], True
    for node in part.tail:
        module: Any = part.modules.get(node)
        if not alone or node.all_input_nodes != [given]:
            yield None
        elif _activation(node, plain := _plain(module, names)) is RELU:
            yield Clip()
        elif module in picks:
            yield picks[module]
        elif module in names and plain is Dropout and module.rescale == "train" and module.p < 1.0:
            yield InputMask(names[module], module.p)
        elif plain in (nn.Linear, ThinLinear) and all(map(_in_memory, module.parameters())):
            bias = None if module.bias is None else _array.view(module.bias)
            yield Affine(_array.view(module.weight), bias)
        elif plain is not nn.Identity:
            yield None
        given, alone = node, len(node.users) == 1
    if given is not part.output:
        yield None


def _activation(node: fx.Node, plain: type[nn.Module] | None) -> Activation | None:
    """The row of the activation that a node computes, or None."""
    if node.op == "call_module":
        return activations.MODULES.get(plain) if plain else None
    return activations.CALLS.get(node.target)


def _plain(module: nn.Module | None, live: Mapping[Drop, str]) -> type[nn.Module] | None:
    """The class of a module; None if it has hooks or a forward other than that of its class.

    It is nn.Identity for a drop module that does not drop.
    """
    if module is None or hooked(module) or vars(module).get("forward"):
        return None
    return nn.Identity if isinstance(module, Drop) and module not in live else type(module)


def _in_memory(x: Any) -> bool:
    """Whether NumPy can read a tensor where it lies, and autocast would not convert it."""
    plain = type(x) in (Tensor, nn.Parameter) and x.dtype in (torch.float32, torch.float64)
    return plain and not torch.is_autocast_enabled("cpu") and bool(_array.address(x))


def _widest(model: nn.Module, call: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call, and the bytes of the largest tensor that a module of ``model`` returns in it."""
    sizes = [1]

    def see(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            sizes.append(out.numel() * out.element_size())

    python = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_hook(see) for module in python]
    try:
        return call(), max(sizes)
    finally:
        for handle in handles:
            handle.remove()


def _agrees(call: Callable[[], Any], expected: Tensor) -> bool:
    """Whether a call returns ``expected``, up to the rounding of products of other sizes."""
    try:
        y = call()
    except Exception:  # a graph that differs from its model may raise anything
        return False
    if not isinstance(y, Tensor) or y.shape != expected.shape:
        return False
    scale = float(expected.detach().abs().nan_to_num().max()) if expected.numel() else 0.0
    half = torch.finfo(expected.dtype).eps ** 0.5
    return torch.allclose(y, expected, rtol=half, atol=half * scale, equal_nan=True)


def _versions(given: Values) -> list[int] | None:
    """How often each tensor was changed in place; None if torch does not count it."""
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    return None if any(each.is_inference() for each in tensors) else [each._version for each in tensors]


def _output(y: Any) -> Tensor:
    """A model's output. Raises TypeError if it is no tensor of floating-point numbers."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise TypeError(f"model must return a tensor of floating-point numbers, got {type(y).__name__}")
    return y


def _one_line(module: nn.Module) -> str:
    """A module's class and options in one line."""
    return f"{type(module).__name__}({module.extra_repr()})"
