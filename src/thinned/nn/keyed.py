"""Masks that depend on a key, a step, a name and a sample alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from thinned import _checks
from thinned.key import Key, is_key
from thinned.nn.modules import Drop
from thinned.nn.stream import Named, recomputing

# What torch and Lightning Fabric put into names.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_entering = threading.Lock()


@contextmanager
def keyed(model: nn.Module, key: Key, step: int, sample_offset: int = 0) -> Iterator[nn.Module]:
    """Within the block, a mask of ``model`` depends on (key, step, module's name, sample's index) alone.

    ::

        with keyed(model, Key(0), step, sample_offset=rank * len(x)):
            loss_of(model(x), y).backward()

    The key of a module is ``key.fold_in(step).fold_in(name)``; ``name`` is its qualified name in ``model``
    (the first, where it has several), without what `torch.compile`, DistributedDataParallel, checkpoint
    wrappers or Lightning Fabric add. So a layer more changes no other layer's mask. ``sample_offset`` is the
    index, in the whole batch, of the first sample that this process or micro-batch sees: split in any way, a
    batch gets the masks of the whole.

    A module that is used several times in one pass takes its key itself at its first call (n = 0), and
    that key's ``.fold_in(n)`` at call n = 1, 2, … A pass begins with each call of ``model``; where other
    things are called, parts of it or a wrapper around it, the block is one pass.

    Modules outside ``model`` are untouched. Blocks nest, the inner one counts, and all is as before after an
    exception. The state belongs to the model: one thread at a time may hold it, and all threads that run
    the model, autograd's too, see it. Activation checkpointing gets each call's mask again; a call
    still takes one number of torch's default generator, by which it is known.

    Raises TypeError or ValueError where an argument is of the wrong kind or range, RuntimeError where
    another thread holds the model.
    """
    is_key("key", key)
    base = key.fold_in(_checks.integer("step", step, 0, 1 << 64))
    sample_offset = _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
    drops = [(drop, Named(base.fold_in(name), sample_offset)) for name, drop in named_drops(model)]
    with _entering:
        before = [drop.stream.named for drop, _ in drops]
        if any(outer is not None and outer.thread != threading.get_ident() for outer in before):
            raise RuntimeError(
                "model is inside keyed(...) in another thread: wait for it, or give each thread its own copy"
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
    """The drop modules of a model, by qualified name, without what torch's wrappers add to it."""
    for path, module in unwrap(model).named_modules():
        if isinstance(module, Drop):
            yield ".".join(part for part in path.split(".") if part not in _WRAPPERS), module


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module, without torch's wrappers around it."""
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
