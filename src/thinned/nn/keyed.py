"""`keyed`: masks that depend only on a key, the step, the module's name and the sample's index."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from thinned import _checks
from thinned.key import Key, is_key
from thinned.nn.modules import Drop
from thinned.nn.stream import Named, recomputing

# Parts of qualified names that torch and Lightning Fabric add.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_entering = threading.Lock()
M = TypeVar("M", bound=nn.Module)


@contextmanager
def keyed(model: M, key: Key, step: int, sample_offset: int = 0) -> Iterator[M]:
    """Within the block, masks depend only on the key, the step, the module's name and the sample's index.

    ::

        with keyed(model, Key(0), step, sample_offset=rank * len(x)):
            loss_of(model(x), y).backward()

    The key of a module is ``key.fold_in(step).fold_in(name)``; ``name`` is its qualified name in ``model``
    (the first, if it has several), without the parts that `torch.compile`, DistributedDataParallel,
    checkpoint wrappers or Lightning Fabric add. So a new layer does not change the masks of the others.
    ``sample_offset`` is the index, in the whole batch, of the first sample that this process or micro-batch
    has. So a batch gets the same masks, however it is split.

    A module may be called several times in one pass. Its first call takes the key of the module, call
    n = 1, 2, … takes ``.fold_in(n)`` of that key. A pass begins with each call of ``model``. If only parts of
    the model, or a wrapper around it, are called, the whole block is one pass.

    Modules outside ``model`` do not change. In nested blocks the inner one counts. The block ends cleanly on
    an exception. Its state belongs to the model: one thread at a time may enter, and all threads that run
    the model use it, autograd's too. Activation checkpointing gets the mask of each call again. For that, a
    call still takes one number of torch's default generator.

    Raises TypeError or ValueError if an argument has a wrong kind or range, RuntimeError if another thread
    is inside a block of the model.
    """
    is_key("key", key)
    base = key.fold_in(_checks.integer("step", step, 0, 1 << 64))
    sample_offset = _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
    drops = [(drop, Named(base.fold_in(name), sample_offset)) for name, drop in named_drops(model)]
    with _entering:
        before = [drop.stream.named for drop, _ in drops]
        if any(outer is not None and outer.thread != threading.get_ident() for outer in before):
            raise RuntimeError(
                "model must be inside keyed(...) in one thread at a time, got a second thread: wait for the "
                "first, or give each thread its own copy"
            )
        for drop, named in drops:
            drop.stream.named = named

    def begin_pass(*_: Any) -> None:
        if torch.compiler.is_compiling() or recomputing():
            return
        for _drop, named in drops:
            named.calls = 0

    hook = model.register_forward_pre_hook(begin_pass)
    try:
        yield model
    finally:
        hook.remove()
        for (drop, _), outer in zip(drops, before, strict=True):
            drop.stream.named = outer


def named_drops(model: nn.Module) -> Iterator[tuple[str, Drop]]:
    """The drop modules of a model by qualified name, without the parts that torch's wrappers add."""
    for path, module in unwrap(model).named_modules():
        if isinstance(module, Drop):
            yield ".".join(part for part in path.split(".") if part not in _WRAPPERS), module


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module, without torch's wrappers around it. Raises TypeError if it is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else None
        for name in _WRAPPERS:
            inner = inner or model._modules.get(name)
        if inner is None:
            return model
        model = inner
