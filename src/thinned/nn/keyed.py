"""`keyed`: masks that depend only on a key, the step, the module's name and the sample's index."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode
from torch.utils._pytree import tree_leaves

from thinned import _checks
from thinned.key import Key, is_key
from thinned.nn.batches import Batch
from thinned.nn.foreign import compiled_dropout
from thinned.nn.modules import Drop
from thinned.nn.reach import Reach, warn_once
from thinned.nn.stream import Block, Named, recomputing

# Parts of qualified names that torch and Lightning Fabric add.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_entering = threading.Lock()
M = TypeVar("M", bound=nn.Module)


@contextmanager
def keyed(
    model: M, key: Key, step: int, sample_offset: int = 0, *, sample_axis: int | None = None
) -> Iterator[M]:
    """Within the block, masks depend only on the key, the step, the module's name and the sample's index.

    ::

        with keyed(model, Key(0), step, sample_offset=rank * len(x)):
            loss_of(model(x), y).backward()

    The key of a module is ``key.fold_in(step).fold_in(name)``; ``name`` is its qualified name in ``model``
    (the first, if it has several), without the parts that `torch.compile`, DistributedDataParallel,
    checkpoint wrappers or Lightning Fabric add. So a new layer does not change the masks of the others.
    A dropout that is called as a function, also inside torch's attention and recurrent layers, belongs to the
    innermost module that runs. Other random functions of the model are named in a warning.

    ``sample_offset`` is the index, in the whole batch, of the first sample that this process or micro-batch
    has. So a batch gets the same masks, however it is split. The number of samples is the size of the first
    axis of the model's first tensor, or of its second axis with ``sample_axis=1``. Inside the model, samples
    may be the second axis too, or have several rows each. With ``sample_offset``, ValueError is raised where
    that is not clear; ``sample_axis`` decides it. A model whose layers have ``batch_first=False`` needs it.

    A module may be called several times in one pass. Its first call takes the key of the module, call
    n = 1, 2, … takes ``.fold_in(n)`` of that key. A pass begins with each call of ``model``. If only parts of
    the model, or a wrapper around it, are called, the whole block is one pass.

    Modules outside ``model`` do not change. In nested blocks the inner one counts. The block ends cleanly on
    an exception. Its state belongs to the model: one thread at a time may enter, and all threads that run
    the model use it, autograd's too. Activation checkpointing gets the mask of each call again. For that, a
    call still takes one number of torch's default generator. If it runs dropout functions again, that must
    be inside the block.

    Raises TypeError or ValueError if an argument has a wrong kind or range, RuntimeError if another thread
    is inside a block of the model.
    """
    is_key("key", key)
    base = key.fold_in(_checks.integer("step", step, 0, 1 << 64))
    sample_offset = _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
    if sample_axis is not None:
        _checks.one_of("sample_axis", sample_axis, (0, 1))
    doubt = _doubt(names_of(model)) if sample_axis is None else ""
    batch = Batch(axis=sample_axis or 0, sure=sample_axis is not None, doubt=doubt)
    with entered(model, base, Block(sample_offset, batch)):
        yield model


@contextmanager
def entered(model: nn.Module, base: Key, block: Block, *, silent: bool = False) -> Iterator[Reach]:
    """`keyed` with the key of a step and what is known of the batch. ``silent`` is that of `Reach`."""
    names = names_of(model)
    reach = Reach(names, base, block, silent=silent)
    drops = [(m, Named(base.fold_in(n), block)) for m, n in names.items() if isinstance(m, Drop)]
    for layer in names:
        if is_second(layer):
            reach.second.update(names[part] for part in layer.modules())
    reach.second -= reach.attentions
    for drop, named in drops:
        named.second = names[drop] in reach.second
    with _entering:
        before = [drop.stream.named for drop, _ in drops]
        if any(outer is not None and outer.block.thread != block.thread for outer in before):
            raise RuntimeError(
                "model must be inside keyed(...) in one thread at a time, got a second thread: wait for the "
                "first, or give each thread its own copy"
            )
        for drop, named in drops:
            drop.stream.named = named
    for layer in names:
        if layer.training and not silent and compiled_dropout(layer):
            warn_once(
                model,
                f"{names[layer]} is compiled by torch.jit: inside keyed its dropout still draws from torch's "
                "generator, so one key gives several results",
            )
    hooks = _PassHooks(model, reach, [named for _, named in drops])
    try:
        with reach:
            yield reach
    finally:
        hooks.remove()
        for (drop, _), outer in zip(drops, before, strict=True):
            drop.stream.named = outer


class _PassHooks:
    """The hooks of a model inside `keyed`: each of its calls is a pass.

    While a ``closed`` model runs, no function is looked at: that saves time, and a second compilation.
    """

    def __init__(self, model: nn.Module, reach: Reach, named: list[Named]) -> None:
        self.reach, self.named, self.active = reach, named, True
        self.closed = all(map(is_closed, reach.names))
        self.paused: list[bool] = []
        self.hooks = (
            model.register_forward_pre_hook(self.begin, with_kwargs=True),
            model.register_forward_hook(self.end, always_call=True),
        )

    def begin(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """A pass begins."""
        if torch.compiler.is_compiling() or recomputing():
            return
        block = self.reach.block
        block.batch = block.batch._replace(samples=_samples((args, kwargs), block.batch.axis))
        self.reach.begin_pass()
        for named in self.named:
            named.calls = 0
        self.paused.append(self.closed and _get_current_function_mode() is self.reach)
        if self.paused[-1]:
            self.reach.__exit__(None, None, None)
        elif not self.closed and threading.get_ident() != block.thread:
            self.reach.__enter__()

    def end(self, model: nn.Module, args: Any, output: Any) -> None:
        """A pass has ended."""
        if torch.compiler.is_compiling() or recomputing():
            return
        if self.paused and self.paused.pop():
            self.reach.__enter__()
        elif not self.closed and threading.get_ident() != self.reach.block.thread:
            self.reach.__exit__(None, None, None)
        last = next((y.grad_fn for y in tree_leaves(output) if isinstance(y, Tensor) and y.grad_fn), None)
        if self.reach.checkpointed and last is not None:
            last.register_prehook(self.check)

    def check(self, *_: Any) -> None:
        """Raises RuntimeError if a checkpoint would run dropout functions again, outside the block."""
        if not self.active:
            raise RuntimeError(
                "the backward pass of a checkpointed model that calls dropout as a function must be inside "
                "keyed(...), got one after it: the masks would be others"
            )

    def remove(self) -> None:
        """The block has ended."""
        self.active = False
        for hook in self.hooks:
            hook.remove()


# Layers of torch that call random functions.
_OPEN = (
    *(nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase, nn.RReLU),
    *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)


def is_closed(module: nn.Module) -> bool:
    """Whether a module itself, without its parts, is known to call no random functions but its own."""
    home = type(module).__module__
    hooks = module._forward_hooks or module._forward_pre_hooks or vars(module).get("forward")
    of_torch = home.startswith("torch.nn.modules.") and not isinstance(module, _OPEN) and not hooks
    return home.startswith("thinned.nn.") or of_torch


def _samples(given: Any, axis: int) -> int:
    """The number of samples of the first tensor among a model's arguments; 0 if there is none."""
    tensors = (x for x in tree_leaves(given) if isinstance(x, Tensor) and x.dim() > axis and not x.is_nested)
    first = next(tensors, None)
    return 0 if first is None else int(first.shape[axis])


_SECOND = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def is_second(layer: nn.Module) -> bool:
    """Whether all tensors in a layer of torch have the samples in their second axis."""
    attention: Any = getattr(layer, "self_attn", layer)
    return isinstance(layer, _SECOND) and getattr(attention, "batch_first", True) is False


def _doubt(names: Mapping[nn.Module, str]) -> str:
    """Why the axis of the samples in a model's input is not known; "" if nothing speaks against the first."""
    for layer, name in names.items():
        if is_second(layer) or (isinstance(layer, nn.RNNBase) and not layer.batch_first):
            return (
                f"sample_axis of keyed must be given with sample_offset, since {name or 'the model'} "
                f"({type(layer).__name__}) has batch_first=False: 1 if the samples are the second axis of "
                "the model's input, 0 if they are the first"
            )
    return ""


def names_of(model: nn.Module) -> dict[nn.Module, str]:
    """The modules of a model and their qualified names, without the parts that torch's wrappers add."""
    return {
        module: ".".join(part for part in path.split(".") if part not in _WRAPPERS)
        for path, module in unwrap(model).named_modules()
    }


def named_drops(model: nn.Module) -> Iterator[tuple[str, Drop]]:
    """The drop modules of a model by qualified name, without the parts that torch's wrappers add."""
    for module, name in names_of(model).items():
        if isinstance(module, Drop):
            yield name, module


def check_model(model: Any) -> None:
    """Raises TypeError if a model is no torch module, or none in Python."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model must be a module in Python, got one that torch.jit compiled: use it before it is compiled"
        )


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module, without torch's wrappers around it. Raises TypeError as `check_model` does."""
    check_model(model)
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else None
        for name in _WRAPPERS:
            inner = inner or model._modules.get(name)
        if inner is None:
            return model
        model = inner
