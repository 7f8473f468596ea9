"""Samples of a torch model: cut at its first random layer, of which the rest is run again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from thinned import _array, masks
from thinned.activations import RELU, Activation
from thinned.kernels import survivors
from thinned.key import Key
from thinned.nn import activations
from thinned.nn.keyed import keyed, named_drops
from thinned.nn.modules import Drop, DropConnectLinear, Dropout, DropPath
from thinned.nn.surgery import swap_dropout
from thinned.nn.thin.convert import install
from thinned.nn.thin.run_chains import Chain, Pass, ThinLinear
from thinned.nn.thin.tracing import Found, Reader, hooked
from thinned.nn.thin.weights import Pool, Units
from thinned.uncertainty import sample_perceptron as perceptron
from thinned.uncertainty.prediction import Array
from thinned.uncertainty.sample_perceptron import Part
from thinned.uncertainty.torch_graph import Cut, Values, shadow

TOGETHER = 1 << 26  # bytes of activations of samples that run as one batch
LAYERS = 4  # outputs of layers that are there at once, about
PROBE = 2  # rows on which a graph is held against its model
# In evaluation these take a way that calls no dropout module.
_FAST = (nn.TransformerEncoder, nn.TransformerEncoderLayer)


class Graph:
    """A copy of a model's modules, in evaluation but for what drops; it shares the parameters.

    Keys and rows are as in `thinned.uncertainty.sample_scratch.Hand`: inside `thinned.nn.keyed` with
    step s, or with step 0 where the samples of all rows are one batch.
    """

    outputs: str | None = None

    def __init__(self, model: nn.Module, x: Any, thin: bool) -> None:
        self.model = shadow(model)
        self.fixed = dict(swap_dropout(self.model).unreached)
        rows = self.take(x, 0, PROBE)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a call of a drop module takes a number
            live = self._live(rows)
            self.random = {name: _line(drop) for name, drop in live.items()}
            self.drops = list(live.values())
            self.cut = Cut(self.model, self.drops)
            self.repeats = len(rows) > 0 and self._probe(rows)
        self.chains = list(self._chains(live)) if thin else []
        self.random |= {chain.name: str(chain) for chain in self.chains}
        self.perceptron = perceptron.perceptron(self._parts()) if self.chains else None
        self.one_by_one = bool(self.chains) or not self.repeats or any(map(_for_all_rows, self.drops))

    def take(self, x: Any, start: int, stop: int) -> Tensor:
        """Rows of x, as a tensor of its own where the model is."""
        rows = x[start:stop]
        if isinstance(rows, Tensor):
            return rows.detach().clone()
        home = next(self.model.parameters(), torch.empty(0)).device
        return torch.tensor(rows, device=home)

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """The outputs, nothing dropped."""
        self._switch(False)
        return _tensor(self.model(x))

    @torch.no_grad()
    def draw(self, x: Tensor, first: int, samples: int, key: Key, told: Callable[[float], object]) -> Array:
        """The samples' outputs, (S, rows, *out)."""
        self._switch(True)
        given = self.cut.before(x)
        if self.perceptron is not None:
            units = given[self.cut.frontier[0]]
            if _in_memory(units) and self.perceptron.takes(units.numpy()):
                return self.perceptron.draw(
                    units.numpy(), first, samples, key, told, -torch.get_num_threads()
                )
        with torch.random.fork_rng(devices=[]):
            if self.one_by_one:
                return self._one_by_one(given, first, samples, key, told)
            return self._together(given, len(x), first, samples, key, told)

    def _one_by_one(
        self, given: Values, first: int, samples: int, key: Key, told: Callable[[float], object]
    ) -> Array:
        """A sample: each chain's survivors are picked, then the rest of the graph runs on them."""
        out = []
        for s in range(samples):
            of_sample = key.fold_in(s)
            for chain in self.chains:
                chain.pick(of_sample)
            if len(self.chains) == len(self.drops):
                out.append(_tensor(self.cut.after(given)))
            else:
                with keyed(self.model, key, s, first):
                    out.append(_tensor(self.cut.after(given)))
            told((s + 1) / samples)
        for chain in self.chains:
            chain.close()
        return _array.to_numpy(torch.stack(out))

    def _together(
        self, given: Values, rows: int, first: int, samples: int, key: Key, told: Callable[[float], object]
    ) -> Array:
        """Rows i·S + s of the larger batch, as many at once as memory allows."""
        n, out = rows * samples, []
        step = max(1, TOGETHER // (LAYERS * self.tail_bytes))
        for start in range(0, max(1, n), step):
            index = torch.arange(start, min(n, start + step)) // samples
            with keyed(self.model, key, 0, first * samples + start):
                out.append(_tensor(self.cut.after(self.cut.repeated(given, index))))
            told(min(1.0, (start + step) / max(1, n)))
        y = torch.cat(out)
        return _array.to_numpy(y.view(rows, samples, *y.shape[1:]).transpose(0, 1))

    def row_bytes(self, x: Tensor, samples: int) -> int:
        """A few layers of a row, and its samples with what they are sorted in."""
        outputs = self.evaluate(x)
        return LAYERS * self.model_bytes + 32 * samples * max(1, outputs[:1].numel())

    def _switch(self, on: bool) -> None:
        for drop in self.drops:
            drop.training = on

    def _live(self, rows: Tensor) -> dict[str, Drop]:
        """The modules that drop in a pass, by name; ``fixed`` gets those that the pass does not call."""
        drops = {name: drop for name, drop in named_drops(self.model) if drop.p > 0}
        for module in self.model.modules():
            module.training = module in drops.values() or isinstance(module, _FAST)
        with keyed(self.model, Key(0), 0):
            self.model(rows.clone())
            called = {name for name, drop in drops.items() if drop.stream.named and drop.stream.named.calls}
        self.fixed |= {name: "not called in evaluation" for name in drops if name not in called}
        return {name: drop for name, drop in drops.items() if name in called}

    def _probe(self, rows: Tensor) -> bool:
        """Whether samples may be rows of a batch. Where the graph is not the model, it is taken whole.

        Notes what a row takes, and whether the rest of the graph changes in place what it is given.
        """
        self._switch(False)
        index = torch.arange(2 * len(rows)) // 2
        self.model_bytes = self.tail_bytes = 1
        with Widest(self.model) as seen:
            expected = _tensor(self.model(rows.clone()))
        self.model_bytes = max(1, *seen) // len(rows)
        if not _agrees(lambda: self.cut.after(self.cut.before(rows.clone())), expected):
            self.cut = Cut(self.model, self.drops, whole=True)
        given = self.cut.before(rows.clone())
        versions = _versions(given)
        self._switch(True)
        with Widest(self.model) as seen:
            self.cut.after(given)
        self._switch(False)
        self.tail_bytes = max(1, *seen) // len(rows)
        self.cut.copies = versions is None or versions != _versions(given)
        given = self.cut.before(rows.clone())
        there = index.to(expected.device)
        return self.cut.tensors_alone and _agrees(
            lambda: self.cut.after(self.cut.repeated(given, index)), expected.index_select(0, there)
        )

    def _chains(self, live: dict[str, Drop]) -> Iterator[Picks]:
        """Those of the graph whose dropout is random."""
        if self.cut.graph is None:
            return
        found = dict(Reader(self.model, self.cut.graph, "").chains())
        for name, what in found.items():
            if name in live and isinstance(what, Found):
                chain = Picks(self.model, what, cached=what.producer in self.cut.computed)
                install(self.model, what, chain)
                yield chain

    def _parts(self) -> Iterator[Part | None]:
        """What of a perceptron the layers behind the cut are, one after the other; None: something else."""
        picks = {chain.drop: perceptron.Drop(chain.name, chain.drop.p) for chain in self.chains}
        names = {drop: name for name, drop in named_drops(self.model)}
        given, alone = self.cut.frontier[0], True
        for node in self.cut.tail:
            module: Any = self.cut.modules.get(node)
            if not alone or node.all_input_nodes != [given]:
                yield None
            elif self._row(node, plain := self._plain(module)) is RELU:
                yield perceptron.ReLU()
            elif module in picks:
                yield picks[module]
            elif module in self.drops and plain is Dropout and module.rescale == "train" and module.p < 1.0:
                yield perceptron.Mask(names[module], module.p)
            elif plain in (nn.Linear, ThinLinear) and all(map(_in_memory, module.parameters())):
                weight, bias = module.weight.detach(), module.bias
                yield perceptron.Linear(weight.numpy(), None if bias is None else bias.detach().numpy())
            elif plain is not nn.Identity:
                yield None
            given, alone = node, len(node.users) == 1
        if given is not self.cut.output:
            yield None

    def _row(self, node: fx.Node, plain: type[nn.Module] | None) -> Activation | None:
        """The activation that a node computes."""
        if node in self.cut.modules:
            return activations.MODULES.get(plain) if plain else None
        return activations.CALLS.get(node.target)

    def _plain(self, module: nn.Module | None) -> type[nn.Module] | None:
        """The class of a module that nobody sees but its readers; a dropout that rests is nn.Identity."""
        if module is None or hooked(module) or vars(module).get("forward"):
            return None
        return nn.Identity if isinstance(module, Drop) and module not in self.drops else type(module)


class Picks(Chain):
    """A chain whose survivors a sample picks. Where its units are ``cached``, its dropout takes them out."""

    def __init__(self, owner: nn.Module, found: Found, cached: bool) -> None:
        super().__init__(owner, "", found, 1, region=None)
        self.name, self.cached, self.pool = found.drop, cached, Pool()
        self.turned: tuple[Tensor, Tensor] | None = None  # all units, and the same with a row for each

    def __str__(self) -> str:
        return f"{super().__str__()}, picked once a sample"

    def pick(self, key: Key) -> None:
        """The survivors of a sample with that key."""
        row = torch.from_numpy(masks.survivors(self.n, self.drop.p, key.fold_in(self.name))[0])
        scale = self.n / len(row)
        units = [Units(row, self.n, scale if self.folded else 1.0, self.pool)]
        self.passes[threading.get_ident()] = Pass(units, scale, narrow=scale > 1.0)

    def begin(self, x: Tensor) -> list[Units] | None:
        """The rows that survive."""
        if self.now is not None and self.matrix_only and x.dim() != 2:
            self.now.narrow = False
        return self.units

    def dropped(self, x: Tensor) -> Tensor | None:
        """The survivors, which are taken out of all units where these were computed before."""
        now, units = self.now, self.units
        if now is not None and units is not None and self.cached:
            x = self._taken(x, units[0], x.dim() + self.axis)
        return super().dropped(x)

    def _taken(self, x: Tensor, units: Units, axis: int) -> Tensor:
        """The surviving units of x.

        Rows are taken faster than columns: of a matrix, which all samples share, the units become rows once.
        """
        if axis != 1 or not x.is_contiguous() or x.device.type != "cpu":
            return x.index_select(axis, units.on(x.device))
        picked, like = units.index.numpy(), (x.dtype, x.device)
        taken: Tensor
        if x.dim() > 2:
            room = self.pool.empty((len(x), len(picked), *x.shape[2:]), *like)
            taken = survivors.take(x, None, picked, out=room)
            return taken
        if self.turned is None or self.turned[0] is not x:
            self.turned = x, x.T.contiguous()
        taken = survivors.take(self.turned[1], picked, out=self.pool.empty((len(picked), len(x)), *like))
        return taken.T


def _in_memory(x: Any) -> bool:
    """Whether x is a tensor that is an array, too; not where autocast would have others made of it."""
    plain = type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided and x.device.type == "cpu"
    return plain and x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


def _for_all_rows(drop: Drop) -> bool:
    """Whether one mask is for a whole batch."""
    if isinstance(drop, DropPath):
        return drop.mode == "batch"
    return isinstance(drop, DropConnectLinear) and not drop.per_sample


class Widest:
    """Within the block, a list that gets the bytes of what each module returns."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.seen = model, [0]

    def __enter__(self) -> list[int]:
        self.handles = [module.register_forward_hook(self.see) for module in self.model.modules()]
        return self.seen

    def see(self, module: nn.Module, args: Any, out: Any) -> None:
        """Note it."""
        """Note it."""
        if isinstance(out, Tensor):
            self.seen.append(out.numel() * out.element_size())

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


def _agrees(call: Callable[[], Any], expected: Tensor) -> bool:
    """Whether a call gives that, to the rounding of products of other sizes."""
    try:
        came = call()
    except Exception:  # a graph that is run in another way than the model may raise anything
        return False
    if not isinstance(came, Tensor) or came.shape != expected.shape:
        return False
    scale = float(expected.detach().abs().nan_to_num().max()) if expected.numel() else 0.0
    half = torch.finfo(expected.dtype).eps ** 0.5
    return torch.allclose(came, expected, rtol=half, atol=half * scale, equal_nan=True)


def _versions(given: Values) -> list[int] | None:
    """How often each tensor was changed in place; None where torch does not count it."""
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    return None if any(each.is_inference() for each in tensors) else [each._version for each in tensors]


def _tensor(y: Any) -> Tensor:
    """What the model returns."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise TypeError(f"model must return a tensor of floating-point numbers, got {type(y).__name__}")
    return y


def _line(module: nn.Module) -> str:
    """A module in a line: its children are told by themselves."""
    return f"{type(module).__name__}({module.extra_repr()})"
