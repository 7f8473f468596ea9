"""NumPy or torch? A class a library, a method an operation; the functions below find it by an array's type.

Nothing is imported here but NumPy: a type of torch exists only once the caller has imported torch. A third
library takes one more class in `BACKENDS`. Without the methods about memory no compiled kernel takes its
arrays: masks come from NumPy, and everything else from its own operations.
"""

from __future__ import annotations

import math
import sys
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np


class Array(Protocol):
    """What a type checker asks of an array: those of NumPy and the tensors of torch have it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of elements along each axis."""

    @property
    def dtype(self) -> Any:
        """The type of its elements."""

    def __len__(self) -> int:
        """The length of its first axis."""


X = TypeVar("X", bound=Array)  # a function that takes an X returns an array or tensor of the same type


class Backend:
    """A library's arrays. A subclass has a method for each function of this module that asks `of`."""

    package: ClassVar[str]  # whose import brings its types
    name: ClassVar[str]  # an array, in messages

    def owns(self, kind: type) -> bool:
        raise NotImplementedError

    def home(self, x: Any) -> str:
        return self.name

    def is_floating(self, x: Any) -> bool:
        return "float" in str(x.dtype)

    # Memory that our kernels read and write: none, unless a subclass says otherwise.

    def address(self, x: Any, write: bool = False) -> int:
        return 0

    def flat_address(self, x: Any, write: bool = False) -> int:
        return 0

    def is_flat(self, x: Any) -> bool:
        return False

    def threads(self) -> int | None:
        return None

    def strided(self, y: Any, like: Any) -> Any:
        return y


class NumPy(Backend):
    package, name = "numpy", "a NumPy array"

    def owns(self, kind: type) -> bool:
        return issubclass(kind, np.ndarray)

    def is_floating(self, x: Any) -> bool:
        return bool(x.dtype.kind == "f")

    def from_numpy(self, array: np.ndarray, like: Any) -> Any:
        return array

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def address(self, x: Any, write: bool = False) -> int:
        readable = x.flags.aligned and x.dtype.isnative and (x.flags.writeable or not write)
        return int(x.__array_interface__["data"][0]) if readable else 0

    def flat_address(self, x: Any, write: bool = False) -> int:
        return self.address(x, write) if x.flags.c_contiguous else 0

    def is_flat(self, x: Any) -> bool:
        return bool(x.flags.c_contiguous)

    def view(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def flat(self, x: Any) -> Any:
        return np.require(x, requirements=("C_CONTIGUOUS", "ALIGNED"))

    def empty(self, shape: tuple[int, ...], like: Any) -> Any:
        return np.empty(shape, like.dtype)

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        return np.zeros(shape, like.dtype)

    def joined(self, parts: list[Any]) -> Any:
        return np.concatenate(parts)

    def widen(self, x: Any) -> Any:
        return x.astype(np.promote_types(x.dtype, np.float32), copy=False)

    def cast(self, y: Any, like: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.asarray(y, like.dtype)

    def scalar(self, value: float, like: Any) -> Any:
        return like.dtype.type(value)

    def where(self, kept: np.ndarray, x: Any, other: Any) -> Any:
        return np.where(kept, x, x.dtype.type(other) if np.isscalar(other) else other)

    def exp(self, x: Any) -> Any:
        return np.exp(x)

    def log(self, x: Any) -> Any:
        return np.log(x)

    def sqrt(self, x: Any) -> Any:
        return np.sqrt(x)

    def sigmoid(self, x: Any) -> Any:
        y = np.exp(np.minimum(x, 0))  # e^min(x, 0)/(1 + e^−|x|): exponents are ≤ 0
        below = np.abs(x)
        np.negative(below, out=below)
        np.exp(below, out=below)
        below += 1
        y /= below
        return y

    def softplus(self, x: Any) -> Any:
        return np.logaddexp(x, x.dtype.type(0))

    def normal_cdf(self, x: Any) -> Any:
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)  # Abramowitz and Stegun 1964, 26.2.17
        t = 1.0 / (1.0 + 0.2316419 * np.abs(x))
        terms = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
        above = density * np.polyval((*terms[::-1], 0.0), t)
        return np.where(x < 0, above, 1.0 - above)

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        y = self.widen(x) @ self.widen(weight).T
        return self.cast(y if bias is None else y + self.widen(bias), x)


class Torch(Backend):
    package, name = "torch", "a torch tensor"

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.undispatched = torch.Tensor.__torch_dispatch__
        self.modes = torch._C._len_torch_dispatch_stack

    def owns(self, kind: type) -> bool:
        return issubclass(kind, self.torch.Tensor)

    def home(self, x: Any) -> str:
        return f"{self.name} on {x.device}"

    def is_floating(self, x: Any) -> bool:
        return bool(x.is_floating_point())

    def from_numpy(self, array: np.ndarray, like: Any) -> Any:
        y, mode = self.torch.from_numpy(array), getattr(like, "fake_mode", None)
        return (y if mode is None else mode.from_tensor(y)).to(like.device)

    def to_numpy(self, x: Any) -> np.ndarray:
        return self.view(self.widen(x.detach()).cpu())

    def address(self, x: Any, write: bool = False) -> int:
        return self.place(x, x.itemsize)[0]

    def flat_address(self, x: Any, write: bool = False) -> int:
        size = x.itemsize
        where, _, flat = self.place(x, size)
        return where if flat and where % size == 0 else 0

    def place(self, x: Any, size: int) -> tuple[int, int, bool]:
        """The `address` of a tensor, how many elements it has, of ``size`` bytes, and whether it is flat."""
        if (
            type(x).__torch_dispatch__ is not self.undispatched  # it says itself what its numbers are
            or self.modes()  # they must see what is done
        ):
            return 0, x.numel(), False
        return self.memory(x, size)

    def memory(self, x: Any, size: int) -> tuple[int, int, bool]:
        """`place` of a tensor without a dispatch of its own, where no mode must see what is done."""
        n = x.numel()
        if type(n) is not int or not x.is_cpu or x.is_nested or x.is_neg():  # in a trace it is a tensor
            return 0, n, False
        try:
            pointer, flat, held = x.data_ptr(), x.is_contiguous(), x.untyped_storage().nbytes()
        except RuntimeError:  # a tensor of torch.func; one of another layout, such as sparse
            return 0, n, False
        last = n if flat else _last(x)
        if held < (x.storage_offset() + last) * size and n and (pointer or not held):
            raise ValueError(f"a tensor must have memory for its {n} elements, got {held} bytes")
        return pointer, n, flat

    def is_flat(self, x: Any) -> bool:
        return bool(x.is_contiguous())

    def view(self, x: Any) -> np.ndarray:
        # not `x.numpy()`, after which torch cannot resize the tensor
        where = self.address(x)
        return np.asarray(_Memory(x, where) if where else x.detach().resolve_neg().numpy())

    def flat(self, x: Any) -> Any:
        x = x.contiguous()
        return x.clone() if self.address(x) % x.itemsize else x

    def strided(self, y: Any, like: Any) -> Any:
        if y.is_contiguous() and like.is_contiguous():
            return y
        return self.torch.empty_like(like).copy_(y)

    def threads(self) -> int | None:
        return -self.torch.get_num_threads()

    def empty(self, shape: tuple[int, ...], like: Any) -> Any:
        return like.new_empty(shape)

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        return like.new_zeros(shape)

    def joined(self, parts: list[Any]) -> Any:
        return self.torch.cat(parts)

    def widen(self, x: Any) -> Any:
        return x.to(self.torch.promote_types(x.dtype, self.torch.float32))

    def cast(self, y: Any, like: Any) -> Any:
        return y.to(like.dtype)

    def scalar(self, value: float, like: Any) -> Any:
        return value

    def where(self, kept: np.ndarray, x: Any, other: Any) -> Any:
        if hasattr(x, "fake_mode") and not isinstance(other, self.torch.Tensor):
            other = x.new_full((), other)  # which mixes with no real tensor
        return self.torch.where(to_like(kept, x), x, other)

    def exp(self, x: Any) -> Any:
        return x.exp()

    def log(self, x: Any) -> Any:
        return x.log()

    def sqrt(self, x: Any) -> Any:
        return x.masked_fill(x == 0, 1.0).sqrt().masked_fill(x == 0, 0.0)

    def sigmoid(self, x: Any) -> Any:
        return x.sigmoid()

    def softplus(self, x: Any) -> Any:
        return self.torch.logaddexp(x, x.new_zeros(()))

    def normal_cdf(self, x: Any) -> Any:
        return 0.5 * (1.0 + (x * math.sqrt(0.5)).erf())

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        return self.torch.nn.functional.linear(x, weight, bias)


class _Memory:
    """A tensor's memory, as NumPy takes it; it keeps the tensor."""

    def __init__(self, x: Any, where: int) -> None:
        self.x, dtype = x, np.dtype(str(x.dtype).removeprefix("torch."))
        strides = tuple(step * dtype.itemsize for step in x.stride())
        self.__array_interface__ = {
            "data": (where, False),
            "shape": tuple(x.shape),
            "strides": strides,
            "typestr": dtype.str,
            "version": 3,
        }


def _last(x: Any) -> int:
    """How many elements lie from the first of a tensor to the last, with those between."""
    return 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))


BACKENDS: list[type[Backend]] = [NumPy, Torch]
_NUMPY = NumPy()
_found: dict[type, Backend] = {}  # by the types of arrays met so far


def of(x: Any) -> Any:
    """The back end of an array; NumPy's for anything else, such as a number."""
    return _found.get(type(x)) or _find(type(x)) or _NUMPY


def _find(kind: type) -> Backend | None:
    """The back end that owns a type, if there is one."""
    for backend in BACKENDS:
        if sys.modules.get(backend.package) is not None and (one := backend()).owns(kind):
            return _found.setdefault(kind, one)
    return None


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor."""
    return type(of(x)) is Torch


def array(name: str, x: Any) -> Any:
    """``x`` itself: a NumPy array or torch tensor, of any dtype."""
    if type(x) not in _found and _find(type(x)) is None:
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    return x


def floating(name: str, x: Any) -> Any:
    """``x`` itself: a NumPy array or torch tensor of floating-point numbers."""
    if not is_floating(array(name, x)):
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {x.dtype}")
    return x


def same_kind(name: str, value: Any, other: str, x: Any) -> Any:
    """``value`` itself: NumPy where ``x`` is, or a tensor on the device of ``x``; ``other`` names ``x``."""
    ours, theirs = of(array(name, value)).home(value), of(x).home(x)
    if ours != theirs:
        raise TypeError(f"{name} must be {theirs}, as {other} is, got {ours}")
    return value


def is_floating(x: Any) -> bool:
    """Whether ``x`` holds floating-point numbers."""
    return bool(of(x).is_floating(x))


def is_integer(x: Any) -> bool:
    """Whether ``x`` holds integers; bool is none."""
    return not str(x.dtype).endswith("bool") and "int" in str(x.dtype)


def to_like(array: np.ndarray, like: Any) -> Any:
    """``array`` as an array of the library of ``like``, on its device."""
    return of(like).from_numpy(array, like)


def to_numpy(x: Any) -> np.ndarray:
    """``x`` as a NumPy array, without its gradient; a tensor's half becomes single."""
    found: np.ndarray = of(x).to_numpy(x)
    return found


def address(x: Any, write: bool = False) -> int:
    """Where the first element of ``x`` lies, if C++ may read it there, and ``write`` it if that is asked.

    The strides of ``x`` then say where the others lie, and all of them are there. Else 0: on another device;
    with bytes in another order, or not aligned; where the tensor is empty or has no memory of its own (fake,
    functional, batched, nested, sparse and lazily negated ones, wrappers such as a DTensor); and within a
    mode or a trace of torch, which must see what is done. Raises ValueError where a tensor's memory was cut.
    """
    return int(of(x).address(x, write))


def flat_address(x: Any, write: bool = False) -> int:
    """The `address` of ``x`` where its elements lie there aligned, in C order and without gaps; else 0."""
    return int(of(x).flat_address(x, write))


def is_flat(x: Any) -> bool:
    """Whether ``x``, which has an `address`, lies there in C order without gaps."""
    return bool(of(x).is_flat(x))


def view(x: Any) -> np.ndarray:
    """The memory of ``x``, which is on the CPU, as a NumPy array without gradient. No copy."""
    found: np.ndarray = of(x).view(x)
    return found


def flat(x: Any) -> Any:
    """``x`` in C order without gaps, aligned; a copy only where it is not."""
    return of(x).flat(x)


def strided(y: Any, like: Any) -> Any:
    """``y``, in the strides of ``like`` where that is a tensor: torch's own functions keep them."""
    return of(like).strided(y, like)


def threads(x: Any) -> int | None:
    """Minus torch's number of threads for a tensor, as the kernels take torch's own team; else None."""
    count: int | None = of(x).threads()
    return count


def empty(shape: tuple[int, ...], like: Any) -> Any:
    """An array of that shape without values, in the dtype and on the device of ``like``."""
    return of(like).empty(shape, like)


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Zeros of that shape, in the dtype and on the device of ``like``."""
    return of(like).zeros(shape, like)


def joined(parts: list[Any]) -> Any:
    """Arrays one after the other, along the first axis."""
    return of(parts[0]).joined(parts)


def widen(x: Any) -> Any:
    """``x`` in single precision where it is in half, else itself."""
    return of(x).widen(x)


def cast(y: Any, like: Any) -> Any:
    """``y`` in the dtype of ``like``."""
    return of(y).cast(y, like)


def times(x: Any, factor: np.ndarray | float, shift: float = 0.0) -> Any:
    """``x·factor``, plus ``shift``, in the dtype of ``x``; half is computed in single and rounded once."""
    backend = of(x)
    wide = backend.widen(x)
    if isinstance(factor, np.ndarray):
        factor = backend.cast(backend.from_numpy(factor, x), wide)
    else:
        factor = backend.scalar(factor, wide)
    with np.errstate(over="ignore", invalid="ignore"):  # in units that are dropped, too
        y = wide * factor
        return backend.cast(y if shift == 0.0 else y + shift, x)


def where(kept: np.ndarray, x: Any, other: Any) -> Any:
    """``x`` where kept, else ``other``: a number, or an array like ``x``. It selects: no NaN passes."""
    return of(x).where(kept, x, other)


def move_axis(x: Any, source: int, place: int) -> Any:
    """x with one axis moved, as a view."""
    return x.movedim(source, place) if is_torch(x) else np.moveaxis(x, source, place)


def exp(x: Any) -> Any:
    """eˣ."""
    return of(x).exp(x)


def log(x: Any) -> Any:
    """ln x."""
    return of(x).log(x)


def sqrt(x: Any) -> Any:
    """√x; a tensor's gradient is 0 at 0."""
    return of(x).sqrt(x)


def sigmoid(x: Any) -> Any:
    """1/(1 + e⁻ˣ), the logistic function; never overflows."""
    return of(x).sigmoid(x)


def softplus(x: Any) -> Any:
    """ln(1 + eˣ); never overflows."""
    return of(x).softplus(x)


def normal_cdf(x: Any) -> Any:
    """Φ(x) of the standard normal distribution; of NumPy arrays, which have no erf, good to 8·10⁻⁸."""
    return of(x).normal_cdf(x)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """X Wᵀ + b, in the dtype of ``x``; NumPy's half is summed in single."""
    return of(x).linear(x, weight, bias)
