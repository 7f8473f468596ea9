"""A gradient that stores the survivors' part alone until something asks for the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from thinned.nn.thin.selection import Selection

WANTED = "compact_gradient"  # the attribute that an optimizer sets on parameters of which it takes one

OF_MEMORY = {
    *(Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr),
    *(Tensor.untyped_storage, Tensor.storage, Tensor._typed_storage, Tensor.share_memory_, Tensor.is_shared),
    *(Tensor.apply_, Tensor.map_),
}
SET_DATA: Any = vars(torch._C.TensorBase)["data"].__set__  # what ``gradient.data = …`` calls


def is_wanted(weight: Tensor) -> bool:
    """Whether the gradient of a parameter may be compact."""
    return weight.is_leaf and bool(getattr(weight, WANTED, False))


class CompactGradient(torch.Tensor):
    """A gradient that is zero outside the survivors, and stores only theirs until the whole is asked for.

    `thinned.nn.SGD` reads ``compact``. To all other code this is the dense tensor: the first operation on it
    makes that, and from then on it is only that.
    """

    _held: _Held

    @staticmethod
    def __new__(cls, compact: Tensor, selection: Selection, held: _Held | None = None) -> CompactGradient:
        """A tensor of the parameter's shape without memory of its own."""
        self = torch.Tensor._make_wrapper_subclass(
            cls, selection.shape, dtype=compact.dtype, device=compact.device
        )
        self._held = held or _Held(compact, selection)
        torch._C._set_throw_on_mutable_data_ptr(self)  # else C++ that asks for its memory gets a null pointer
        return self

    def __init__(self, *_: Any) -> None:
        super().__init__()

    @property
    def compact(self) -> tuple[Tensor, Selection] | None:
        """The survivors' gradient and their rows and columns; None once the gradient is dense."""
        held = self._held
        return None if held.whole is not None else (held.compact, held.selection)

    def dense(self) -> Tensor:
        """The gradient as a plain tensor."""
        return self._held.dense()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.dense().clone()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.dense())

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What reads memory past torch's dispatcher gets the dense tensor's."""
        kwargs = kwargs or {}
        if func == SET_DATA and isinstance(args[0], CompactGradient):
            return args[0]._held.replace(args[1])
        if func in OF_MEMORY:
            args, kwargs = tree_map_only(CompactGradient, CompactGradient.dense, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation on the dense tensor; an operation in place returns the gradient it was called on."""
        if func is torch.ops.aten.detach.default:
            held = args[0]._held
            return CompactGradient(held.compact, held.selection, held)
        wrappers: dict[int, CompactGradient] = {}

        def dense(gradient: CompactGradient) -> Tensor:
            whole = gradient.dense()
            wrappers[id(whole)] = gradient
            return whole

        args, kwargs = tree_map_only(CompactGradient, dense, (args, kwargs or {}))
        out = func(*args, **kwargs)
        return tree_map_only(Tensor, lambda t: wrappers.get(id(t), t), out)


class _Held:
    """What a gradient shares with those detached from it: the survivors' part, then the whole."""

    def __init__(self, compact: Tensor, selection: Selection) -> None:
        self.compact, self.selection = compact, selection
        self.whole: Tensor | None = None

    def dense(self) -> Tensor:
        """The whole, made at the first call."""
        if self.whole is None:
            self.whole = self.selection.place(self.compact)
            self.compact = self.compact.new_empty(0)
        return self.whole

    def replace(self, whole: Tensor) -> None:
        """Another gradient of the same kind."""
        before = self.dense()
        if (whole.shape, whole.dtype, whole.device) != (before.shape, before.dtype, before.device):
            kind = f"a {before.dtype} tensor of shape {tuple(before.shape)} on {before.device}"
            came = f"{whole.dtype}, {tuple(whole.shape)}, {whole.device}"
            raise ValueError(f"the data of this gradient must be {kind}, got {came}")
        self.whole = whole.detach()
