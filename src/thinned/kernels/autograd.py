"""The kernels as differentiable torch functions. Imported only when a caller brings a tensor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from thinned import _array, kernels
from thinned.kernels import connect, maps, shards
from thinned.kernels.work import Draw, Map, Noise, Select, Words
from thinned.key import Key

CODES = {(dtype := getattr(torch, name)): (code, dtype.itemsize) for name, code in kernels.DTYPES.items()}
_transforming = torch._C._are_functorch_transforms_active
_torch = _array.Torch()
_place, _memory, _modes = _torch.place, _torch.memory, _torch.modes
_COMMON = {Tensor, Parameter}  # types without a dispatch of their own
At = tuple[Any, int, int, int]  # the kernel, the code of a dtype, an address and the number of elements


# What is done in torch.func. They are given the key and the first sample of a ticket, where there is one.
Plan = Callable[[tuple[int, ...], Key, int], tuple[Map, Words]]  # of a shape
Masks = Callable[[Key, int], Draw]
Call = TypeVar("Call", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=type[torch.autograd.Function])


def uncompiled(function: Call, reason: str) -> Call:
    """`torch.compiler.disable`, which imports the compiler, done only where the compiler is imported."""
    disabled: list[Any] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function, reason=reason))
        return disabled[0](*args, **kwargs)

    call._torchdynamo_disable, call._torchdynamo_disable_msg = True, reason  # type: ignore[attr-defined]
    return cast(Call, call)


def opaque(kind: Kind) -> Kind:
    """The class of a function whose ``backward`` compiled autograd runs between two graphs.

    In a graph its sizes would be symbols, and its key a constant. torch's engine calls the plain function.
    """
    backward = inspect.unwrap(kind.backward)
    reason = "a backward pass of thinned's eager code cannot be compiled: compile the forward pass"
    kind.backward = staticmethod(uncompiled(backward, reason))  # type: ignore[method-assign]
    kind._backward_cls.apply = backward  # type: ignore[attr-defined]
    return kind


def transforming() -> bool:
    """Whether code runs inside torch.func, or forward-mode AD."""
    if torch.compiler.is_compiling():
        return False
    return _transforming() or forward_ad._current_level >= 0


def apply(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map of a tensor, recorded for the backward pass where the tensor needs one."""
    if _transforming() or forward_ad._current_level >= 0:
        return transformed(x, None, lambda *_: (how, words))
    if not (x.requires_grad and torch.is_grad_enabled()):
        return select(x, how, words)
    out: Tensor = _mapped(x, how, words)
    return out


def flat(x: Any) -> At | None:
    """Where x lies, if it is a flat tensor that C++ may read, and torch need not see what is done.

    Within a transform, a mode or a trace, and for all other tensors, None.
    """
    if type(x) not in _COMMON or _modes() or _transforming() or forward_ad._current_level >= 0:
        return None
    code, size = CODES.get(x.dtype, (None, 1))
    if code is None or (cpu := kernels.extension()) is None:
        return None
    pointer, n, contiguous = _memory(x, size)
    return (cpu.drop, code, pointer, n) if pointer and contiguous else None


def apply_flat(x: Tensor, at: At, how: Select, words: Words) -> Tensor:
    """`apply` of a map without shift and fill to a tensor that is `flat`, and lies there.

    Each step less counts here: of a small tensor, they cost more than the kernel.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _drop(x, at, how, words)
    out: Tensor = _flat(x, at, how, words)
    return out


def _drop(x: Tensor, at: At, how: Select, words: Words) -> Tensor:
    """`select` of a tensor that is `flat`."""
    drop, code, pointer, n = at
    out = _like(x, n * x.itemsize)
    drop(code, pointer, out.data_ptr(), n, _threads(n), *words, *how)
    return out


def apply_(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map written into x: directly, or by a copy where torch restricts writing in place."""
    recorded = x.requires_grad and torch.is_grad_enabled()
    if x._is_view() or x.is_inference() or (recorded and x.is_leaf) or transforming():
        return x.copy_(apply(x, how, words))
    if recorded:
        out: Tensor = Written.apply(x, how, words)
        return out
    torch.autograd.graph.increment_version(x)
    return select(x, how, words, x)


def select(x: Tensor, how: Map, words: Words, out: Tensor | None = None) -> Tensor:
    """The map of a tensor by the kernel of its device: a new tensor, or ``out``, which then is x."""
    code, size = CODES.get(x.dtype, (None, 1))
    pointer, n, contiguous = _place(x, size)
    cpu, kind = kernels.extension(), type(how)
    if not pointer or code is None or cpu is None or not (kind is Select or kind is Noise):
        y = _plainly(x, how, words)
        return y if out is None else out.copy_(y)
    if out is None:
        out = _like(x, n * size)
    where: Any = n if contiguous else (x.shape, x.stride(), out.stride())
    kernel = cpu.drop if kind is Select else cpu.noise
    kernel(code, pointer, out.data_ptr(), where, _threads(n), *words, *how)
    return out


def _plainly(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map of a tensor by a kernel of its GPU, or by torch's operations."""
    if shards.is_sharded(x):
        return cast(Tensor, shards.apply(x, how, words, select))
    if x.is_nested:
        raise TypeError("x must not be a nested tensor: give its values, or one of its tensors")
    if x.layout != torch.strided:
        raise TypeError(f"x must be a dense tensor, got layout {x.layout}")
    gpu = kernels.on_gpu(x)
    y: Tensor = (gpu.apply if gpu and gpu.takes(how) else maps.plainly)(x, how, words)
    return y


def _threads(n: int) -> int:
    """Threads for n elements: torch's own, or one."""
    return 1 if n < kernels.ALONE else -torch.get_num_threads()


def _like(x: Tensor, size: int) -> Tensor:
    """`torch.empty_like` of a tensor of `size` bytes; a large one, in memory that was used before."""
    if size < kernels.POOLED_RESULT:
        return torch.empty_like(x)
    strides = x.stride() if x.is_contiguous() else torch.empty_like(x, device="meta").stride()
    return torch.frombuffer(kernels.buffer(size), dtype=x.dtype).as_strided_(x.shape, strides)


@opaque
class Mapped(torch.autograd.Function):
    """A map and its gradient, by the same factors. It keeps only the key, and makes the factors again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Map, words: Words) -> Tensor:
        """The map of x."""
        ctx.how, ctx.words = how, words
        return select(x, how, words)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        return apply(grad, ctx.how.gradient(), ctx.words), None, None


@opaque
class Flat(torch.autograd.Function):
    """`Mapped` of a tensor that is `flat`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: At, how: Select, words: Words) -> Tensor:
        """The map of x."""
        ctx.how, ctx.words = how, words
        return _drop(x, at, how, words)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        if grad.requires_grad or (at := flat(grad)) is None:
            return apply(grad, ctx.how, ctx.words), None, None, None
        return _drop(grad, at, ctx.how, ctx.words), None, None, None


# `Mapped.apply` without the support for torch.func, which costs more than the kernel of a small array.
_mapped = super(torch.autograd.Function, Mapped).apply
_flat = super(torch.autograd.Function, Flat).apply


@opaque
class Written(Mapped):
    """`Mapped`, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Map, words: Words) -> Tensor:
        """The map of x, in x."""
        ctx.how, ctx.words = how, words
        ctx.mark_dirty(x)
        return select(x, how, words, x)


# In torch.func the key and the first sample are a tensor, the *ticket*, so that each example of a vmap may
# have its own.


def ticket(key: Key, first: int) -> Tensor:
    """The seed of a key, the index of the first sample, and the lane; lane n ≥ 0 of a key has its own key."""
    words = (key.seed, first, (1 << 64) - 1)
    return torch.tensor([word - (word >> 63 << 64) for word in words], device="cpu")


def read(ticket: Tensor | None) -> tuple[Key, int]:
    """Key and first sample of a ticket; of none, what its plan or masks do not look at."""
    if ticket is None:
        return Key(0), 0
    seed, first, lane = ticket.tolist()
    key = Key(seed % (1 << 64))
    return (key if lane < 0 else key.fold_in(lane)), first % (1 << 64)


def transformed(x: Tensor, ticket: Tensor | None, plan: Plan) -> Tensor:
    """The map that ``plan`` makes for the shape of x, with all derivatives, forward, backward and by vmap."""
    y: Tensor = Transformed.apply(x, ticket, plan)
    return y


@opaque
class Transformed(torch.autograd.Function):
    """`Mapped` in the form that torch.func needs, with which a small dropout takes 1.5 times as long."""

    @staticmethod
    def forward(x: Tensor, ticket: Tensor | None, plan: Plan) -> Tensor:
        """The map of x."""
        return select(x, *plan(x.shape, *read(ticket)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the map and the key."""
        _, ticket, plan = inputs
        ctx.save_for_backward(ticket)
        ctx.save_for_forward(ticket)
        ctx.gradient = partial(_gradient, plan)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        return Transformed.apply(grad, *ctx.saved_tensors, ctx.gradient), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """ẏ = f∘ẋ."""
        y: Tensor = Transformed.apply(tangent, *ctx.saved_tensors, ctx.gradient)
        return y

    @staticmethod
    def vmap(info: Any, axes: Sequence[Any], x: Tensor, ticket: Tensor, plan: Plan) -> tuple[Tensor, int]:
        """Each example by itself: the mask is that of its shape."""
        return _each(Transformed, info.batch_size, axes, x, ticket, plan), 0


def _gradient(plan: Plan, *args: Any) -> tuple[Map, Words]:
    how, words = plan(*args)
    return how.gradient(), words


def connected(x: Tensor, weight: Tensor, ticket: Tensor | None, masks: Masks) -> Tensor:
    """y_n = scale·(R_n * W) x_n, with all derivatives."""
    y: Tensor = Connect.apply(x, weight, ticket, connect.FORWARD, masks)
    return y


@opaque
class Connect(torch.autograd.Function):
    """One of `connect.product`, the gradients of scale·Σ_n g_nᵀ (R_n * W) x_n. The other two are its own."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, ticket: Tensor | None, which: int, masks: Masks) -> Tensor:
        """The product of a and b."""
        with torch.autocast(a.device.type, enabled=False):
            out: Tensor = connect.product(which, a, b, masks(*read(ticket)))
            return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep a, b and the key."""
        a, b, ticket, ctx.which, ctx.masks = inputs
        ctx.save_for_backward(a, b, ticket)
        ctx.save_for_forward(a, b, ticket)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """∂L/∂a and ∂L/∂b, by the same masks."""
        a, b, ticket = ctx.saved_tensors
        of_a = of_b = None
        if ctx.needs_input_grad[0]:
            which, first, second = _by_first(ctx.which, b, grad)
            of_a = Connect.apply(first, second, ticket, which, ctx.masks)
        if ctx.needs_input_grad[1]:
            which, first, second = _by_second(ctx.which, a, grad)
            of_b = Connect.apply(first, second, ticket, which, ctx.masks)
        return of_a, of_b, None, None, None

    @staticmethod
    def jvp(ctx: Any, of_a: Tensor | None, of_b: Tensor | None, *_: None) -> Any:
        """The product is linear in a and in b."""
        a, b, ticket = ctx.saved_tensors
        pairs = [(of_a, b)] if of_a is not None else []
        pairs += [(a, of_b)] if of_b is not None else []
        return sum(Connect.apply(*pair, ticket, ctx.which, ctx.masks) for pair in pairs)

    @staticmethod
    def vmap(info: Any, axes: Sequence[Any], *inputs: Any) -> tuple[Tensor, int]:
        """Each example by itself."""
        return _each(Connect, info.batch_size, axes, *inputs), 0


def _by_first(which: int, b: Tensor, grad: Tensor) -> tuple[int, Tensor, Tensor]:
    """The product that is the gradient of another with respect to its first input, and its two inputs."""
    if which == connect.FORWARD:  # of x and W: by x, of g and W
        return connect.BY_X, grad, b
    if which == connect.BY_X:  # of g and W: by g, of x and W
        return connect.FORWARD, grad, b
    return connect.FORWARD, b, grad  # of g and x: by g, of x and W


def _by_second(which: int, a: Tensor, grad: Tensor) -> tuple[int, Tensor, Tensor]:
    """The product that is the gradient of another with respect to its second input, and its two inputs."""
    if which == connect.FORWARD:  # of x and W: by W, of g and x
        return connect.BY_WEIGHT, grad, a
    if which == connect.BY_X:  # of g and W: by W, of g and x
        return connect.BY_WEIGHT, a, grad
    return connect.BY_X, a, grad  # of g and x: by x, of g and W


def _each(function: Any, n: int, axes: Sequence[Any], *inputs: Any) -> Tensor:
    """A function of n examples, one by one; an input whose axis is None is the same for all."""
    columns = [[x] * n if axis is None else x.unbind(axis) for x, axis in zip(inputs, axes, strict=True)]
    return torch.stack([function.apply(*example) for example in zip(*columns, strict=True)])
