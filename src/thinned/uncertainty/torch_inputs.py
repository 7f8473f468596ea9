"""What goes into a torch model, and the one tensor that comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thinned import _array

Arrays = dict[int | str, Any]  # position or name of an argument -> its array


class Inputs(dict[int | str, Tensor]):
    """The arguments of a model for some rows, by position or name. The rows are the first axis of each."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.values())))

    def into(self, model: nn.Module) -> Any:
        """The model's output. The model gets copies, which it may change."""
        return call(model, {name: value.clone() for name, value in self.items()})

    def repeated(self, index: Tensor) -> Inputs:
        """The rows ``index``."""
        return Inputs({name: x.index_select(0, index.to(x.device)) for name, x in self.items()})


def call(model: nn.Module, given: Mapping[Any, Tensor]) -> Any:
    """The model's output for arguments by position or name."""
    positional = [given[i] for i in sorted(name for name in given if isinstance(name, int))]
    return model(*positional, **{name: x for name, x in given.items() if isinstance(name, str)})


def arrays_of(x: Any) -> Arrays:
    """The arguments that x is: one array, a tuple or list of several, or a dict by name.

    Raises TypeError or ValueError if one is no array, or if they have not the same number of rows.
    """
    if isinstance(x, Mapping):
        named = {name: _array.array(f"x[{name!r}]", value) for name, value in x.items()}
    elif isinstance(x, tuple | list):
        named = {i: _array.array(f"x[{i}]", value) for i, value in enumerate(x)}
    else:
        named = {0: _array.array("x", x)}
    if not named:
        raise ValueError("x must have one array or more, got none")
    shapes = [tuple(value.shape) for value in named.values()]
    if () in shapes:
        raise ValueError("x must have samples in its first dimension, got shape ()")
    if any(shape[:1] != shapes[0][:1] for shape in shapes):
        raise ValueError(f"x must have arrays of as many rows each, got shapes {', '.join(map(str, shapes))}")
    return named


def rows_of(model: nn.Module, arrays: Arrays, start: int, stop: int) -> Inputs:
    """Rows of the arrays as new tensors: on its own device for a tensor, on the model's for an array.

    Floating-point numbers of NumPy get the dtype of the model's parameters.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), None)

    def taken(x: Any) -> Tensor:
        rows = x[start:stop]
        if isinstance(rows, Tensor):
            return rows.detach().clone()
        tensor = torch.tensor(rows, device=None if like is None else like.device)
        return tensor if like is None or not tensor.is_floating_point() else tensor.to(like.dtype)

    return Inputs({name: taken(x) for name, x in arrays.items()})


def one_output(y: Any, outputs: str) -> Any:
    """The tensor among several outputs; ``outputs`` is the kind that is wanted.

    Of a dict or a named tuple it is the entry of that name, or "logits", or the only one; of another tuple or
    list the first. Raises TypeError if there is none.
    """
    if hasattr(y, "_asdict"):
        y = y._asdict()
    if isinstance(y, Mapping):
        for name in (outputs, "logits", *(y if len(y) == 1 else ())):
            if name in y:
                return y[name]
        wanted = " or ".join(dict.fromkeys([repr(outputs), "'logits'"]))
        raise TypeError(f"model must return one tensor, or one with the name {wanted}, got names {list(y)}")
    return y[0] if isinstance(y, tuple | list) and y else y
