"""The operators that torch.compile and torch.export record in training. Their seed and rate are tensors.

A *ticket* is an int64 tensor of five numbers: the seed, the index of the first sample, the bits of p, the
number of samples and what is known of their axis. The backward pass makes the mask again from these alone. A
graph does not hold their values, so another rate, seed or step needs no new compilation. An operator names
its method by the public function and the options.
"""

from __future__ import annotations

import ast
import functools
import struct
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from thinned import functional
from thinned._method import Method
from thinned.key import Key
from thinned.masks import ELEMENT
from thinned.methods import DROPS
from thinned.nn import stream
from thinned.nn.batches import UNKNOWN, Batch

for _schema in (
    "drop(Tensor x, Tensor ticket, str function, str options) -> Tensor",
    "drop_gradient(Tensor grad, Tensor ticket, str function, str options) -> Tensor",
    "connect(Tensor x, Tensor weight, Tensor? bias, Tensor ticket, bool per_sample, SymInt rows) -> Tensor",
    "connect_gradient(Tensor grad, Tensor x, Tensor weight, Tensor ticket, bool per_sample, SymInt rows)"
    " -> (Tensor, Tensor)",
    "connect_gaussian(Tensor x, Tensor weight, Tensor? bias, Tensor ticket, SymInt rows) -> Tensor",
):
    torch.library.define(f"thinned::{_schema.split('(')[0]}", "(" + _schema.split("(", 1)[1])
# The tag says that it is random. Common-subexpression elimination, however, exempts only aten's own random
# operators. It never merges two empty tensors, so each call gets one of its own: ``once``.
torch.library.define(
    "thinned::drawn",
    "(Tensor stream, Tensor rate, Tensor once) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)
operators: Any = torch.ops.thinned


WORDS = 5  # of a ticket


def pack(seed: int, sample_offset: int, p: float, batch: Batch = UNKNOWN) -> Tensor:
    """The ticket of a call."""
    known = batch.axis + 2 * batch.always + 4 * batch.sure
    words = struct.pack("<QQdqq", seed, sample_offset, p, batch.samples, known)
    return torch.frombuffer(bytearray(words), dtype=torch.int64)


def unpack(ticket: Tensor) -> tuple[Key, int, float, Batch]:
    """Key, index of the first sample, p and samples of a ticket."""
    words = struct.pack(f"<{WORDS}q", *ticket.tolist())
    seed, sample_offset, p, samples, known = struct.unpack("<QQdqq", words)
    return Key(seed), sample_offset, p, Batch(samples, known % 2, known & 2 > 0, known & 4 > 0)


@torch.library.impl("thinned::drawn", "CompositeExplicitAutograd")
def _drawn(handle: Tensor, rate: Tensor, once: Tensor) -> Tensor:
    seed, sample_offset, places, batch = stream.find(int(handle.item())).draw_compiled()
    if batch.doubt and sample_offset:
        raise ValueError(batch.doubt)
    if places is not None:
        raise RuntimeError(
            "inside keyed, a compiled branch with drop modules must get the whole batch, got the survivors "
            "alone: set skip=False in its Residual, or compile the Residual itself"
        )
    return pack(seed, sample_offset, rate.item(), batch)


@torch.library.register_fake("thinned::drawn")
def _drawn_fake(handle: Tensor, rate: Tensor, once: Tensor) -> Tensor:
    return torch.empty(WORDS, dtype=torch.int64, device="cpu")


def _kept(mode: Any, draw: Any, types: Any, args: tuple, kwargs: Any) -> Any:
    """Record a draw in a graph, so that the backward pass gets its ticket, and does not draw again.

    A memory budget of 0 saves nothing: there the ticket is drawn again, from the generator's state of then.
    """
    ticket = mode.__torch_dispatch__(draw, types, args, kwargs)
    node = next(node for node in reversed(mode.tracer.graph.nodes) if node.target is draw)
    budget = getattr(traceback, "_get_memory_budget_annotation", lambda node: None)(node)
    nothing = (config.activation_memory_budget if budget is None else budget) == 0
    node.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE if nothing else CheckpointPolicy.MUST_SAVE
    return ticket


torch.library.register_torch_dispatch("thinned::drawn", ProxyTorchDispatchMode, _kept)


@functools.lru_cache(256)
def _found(function: str, options: str) -> tuple[Method, list[Any]]:
    """The method that a graph names by function and options, and the values of the method's own options."""
    given = dict(ast.literal_eval(options))
    fitting = [m for m in DROPS.values() if m.name == function and m.given.items() <= given.items()]
    method = max(fitting, key=lambda m: len(m.given))
    return method, [given[name] for name in method.names]


@torch.library.impl("thinned::drop", "CompositeExplicitAutograd")
@torch.no_grad()
def _drop(x: Tensor, ticket: Tensor, function: str, options: str) -> Tensor:
    key, sample_offset, p, batch = unpack(ticket)
    method, values = _found(function, options)
    where = batch.find(x.shape, sample_offset, method.unit is ELEMENT)
    return _as_promised(where.call(lambda x, i: method(x, p, key, True, i, *values), x, sample_offset), x)


@torch.library.impl("thinned::drop_gradient", "CompositeExplicitAutograd")
@torch.no_grad()
def _drop_gradient(grad: Tensor, ticket: Tensor, function: str, options: str) -> Tensor:
    key, sample_offset, p, batch = unpack(ticket)
    method, values = _found(function, options)
    where = batch.find(grad.shape, sample_offset, method.unit is ELEMENT)
    gradient = where.call(lambda g, i: method.gradient(g, p, key, i, *values), grad, sample_offset)
    return _as_promised(gradient, grad)


def _as_promised(out: Tensor, x: Tensor) -> Tensor:
    """``out`` with the strides that `_drop_fake` promises, and no view of x."""
    strides = torch.empty_like(x, device="meta").stride()
    return out if out is not x and out.stride() == strides else torch.empty_like(x).copy_(out)


@torch.library.register_fake("thinned::drop")
@torch.library.register_fake("thinned::drop_gradient")
def _drop_fake(x: Tensor, ticket: Tensor, function: str, options: str) -> Tensor:
    return torch.empty_like(x)


def _drop_keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ticket, *ctx.call = inputs
    ctx.save_for_backward(ticket)


def _drop_backward(ctx: Any, grad: Tensor) -> tuple:
    return operators.drop_gradient(grad, *ctx.saved_tensors, *ctx.call), None, None, None


# The gradient is linear in its input, with the same factors as the method: it is its own gradient.
for _operator in ("drop", "drop_gradient"):
    torch.library.register_autograd(f"thinned::{_operator}", _drop_backward, setup_context=_drop_keep)


@torch.library.impl("thinned::connect", "CompositeExplicitAutograd")
@torch.no_grad()
def _connect(
    x: Tensor, weight: Tensor, bias: Tensor | None, ticket: Tensor, per_sample: bool, rows: int
) -> Tensor:
    key, offset, p, batch = unpack(ticket)
    rows = batch.rows_of(len(x), rows)
    out: Tensor = functional.drop_connect(
        x, weight, bias, p, key=key, per_sample=per_sample, sample_offset=offset * rows
    )
    return out


@torch.library.impl("thinned::connect_gaussian", "CompositeExplicitAutograd")
@torch.no_grad()
def _gaussian(x: Tensor, weight: Tensor, bias: Tensor | None, ticket: Tensor, rows: int) -> Tensor:
    key, offset, p, batch = unpack(ticket)
    rows = batch.rows_of(len(x), rows)
    out: Tensor = functional.drop_connect(
        x, weight, bias, p, key=key, training=False, inference="gaussian", sample_offset=offset * rows
    )
    return out


@torch.library.register_fake("thinned::connect")
@torch.library.register_fake("thinned::connect_gaussian")
def _connect_fake(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.impl("thinned::connect_gradient", "CompositeExplicitAutograd")
@torch.no_grad()
def _connect_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, ticket: Tensor, per_sample: bool, rows: int
) -> tuple[Tensor, Tensor]:
    key, offset, p, batch = unpack(ticket)
    rows = batch.rows_of(len(x), rows)
    of_x, of_weight = functional.drop_connect_gradient(
        grad, x, weight, p, key=key, per_sample=per_sample, sample_offset=offset * rows
    )
    return of_x.contiguous(), of_weight.contiguous()


@torch.library.register_fake("thinned::connect_gradient")
def _connect_gradient_fake(grad: Tensor, x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _connect_keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, ticket, *ctx.how = inputs
    ctx.save_for_backward(x, weight, ticket)
    ctx.biased = bias is not None


def _connect_backward(ctx: Any, grad: Tensor) -> tuple:
    of_x, of_weight = operators.connect_gradient(grad, *ctx.saved_tensors, *ctx.how)
    return of_x, of_weight, grad.sum(0) if ctx.biased else None, None, None, None


torch.library.register_autograd("thinned::connect", _connect_backward, setup_context=_connect_keep)


def _gradient_keep(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.per_sample, ctx.rows = inputs
    ctx.save_for_backward(*tensors)


def _gradient_backward(ctx: Any, a: Tensor, b: Tensor) -> tuple:
    """The gradients of sum over n of g_nᵀ (R_n * W) a_n + g_nᵀ (R_n * b) x_n by g, x and W."""
    grad, x, weight, ticket = ctx.saved_tensors
    how = ticket, ctx.per_sample, ctx.rows
    of_grad = operators.connect(a, weight, None, *how) + operators.connect(x, b, None, *how)
    of_x = operators.connect_gradient(grad, x, b, *how)[0]
    of_weight = operators.connect_gradient(grad, a, weight, *how)[1]
    return of_grad, of_x, of_weight, None, None, None


torch.library.register_autograd("thinned::connect_gradient", _gradient_backward, setup_context=_gradient_keep)
