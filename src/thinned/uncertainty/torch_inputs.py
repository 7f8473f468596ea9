"""What goes into a torch model, and the one tensor that comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thinned import _array
from thinned.uncertainty.prediction import OUTPUTS, Wanted

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


def one_output(y: Any, wanted: Wanted) -> Any:
    """The tensor that is wanted among several outputs.

    Without a path: of a dict or a named tuple the entry with the name of the kind, or "logits", or the only
    one; of another tuple or list the first. Raises ValueError if there is none.
    """
    for part in wanted.path:
        y = entry(y, part)
    named = _named(y)
    if named is not None:
        for name in (wanted.kind, "logits", *(named if len(named) == 1 else ())):
            if name in named:
                return named[name]
        raise ValueError(f"outputs must name what the model returns, {_choices(y)}, got {wanted.kind!r}")
    if isinstance(y, tuple | list) and y:
        if wanted.path:
            raise ValueError(f"outputs must name one of the tensors of {wanted.path[-1]!r}, {_choices(y)}")
        return y[0]
    return y


def entry(y: Any, part: str | int) -> Any:
    """One of several outputs, by its name or, of a tuple or list, by its index."""
    named = _named(y)
    if named is not None and part in named:
        return named[part]
    if isinstance(y, tuple | list) and isinstance(part, int) and -len(y) <= part < len(y):
        return y[part]
    raise ValueError(f"outputs must name what the model returns, {_choices(y)}, got {part!r}")


def _named(y: Any) -> Mapping[Any, Any] | None:
    """The outputs by name, if they have names."""
    y = y._asdict() if hasattr(y, "_asdict") else y
    return y if isinstance(y, Mapping) else None


def _choices(y: Any) -> str:
    """What `entry` takes, in words."""
    named = _named(y)
    if named is not None:
        return f"one of {list(named)}"
    if isinstance(y, tuple | list):
        return f"an index of a {type(y).__name__} of {len(y)}"
    return f"which is one {type(y).__name__}, by one of {list(OUTPUTS)}"
