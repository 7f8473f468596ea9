"""The object that a drop method is. Its function, its torch module, its layer and its row all hold it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any, TypeVar

from thinned import _array, _checks, theory
from thinned.kernels import maps
from thinned.kernels.work import Map
from thinned.key import Key, is_key
from thinned.masks import Unit

Check = Callable[[str, Any], Any]  # of an argument's name and value: returns the value, or raises
USUAL: Any = object()  # in place of p: the default of the method's function
Kind = TypeVar("Kind", bound=type)
_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def one_of(*choices: str) -> Check:
    """The check of an option that is one of these."""
    return lambda name, value: _checks.one_of(name, value, choices)


def flag(name: str, value: Any) -> bool:
    """The check of an option that is true or false."""
    return bool(value)


@dataclass(frozen=True, eq=False)
class Method:
    """A drop method: all that is known of it.

    The call ``method(x, p, key, training, sample_offset, *options)`` checks its arguments and is what the
    public function does. ``plan(shape, p, sample_offset, *options)`` is the map of a training pass with
    0 < p ≤ 1; plans are remembered.
    """

    function: Callable[..., Any]  # the public function
    unit: Unit  # what one random decision is about
    build: Callable[..., Map]  # (unit, shape, p, sample_offset, *options) -> the plan
    moments: Callable[..., tuple[float, float]]  # p -> mean and variance of what training makes of 1
    options: Mapping[str, Check] = field(default_factory=dict)  # arguments of the function beside p
    given: Mapping[str, Any] = field(default_factory=dict)  # the arguments of the function that choose it
    evaluation: Callable[[Any], Any] | None = None  # p -> the factor of evaluation; None: 1
    factors: bool = True  # y = x·r, element by element, and `moments` are those of r for every shape
    shared: Callable[..., bool] | None = None  # options -> whether samples of a batch share a mask; None: no
    unscaled: Callable[..., bool] | None = None  # options -> whether survivors stay as they are; None: no
    name: str = field(init=False)  # of the function
    names: tuple[str, ...] = field(init=False)  # of the options
    plan: Callable[..., Map] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.function.__name__)
        object.__setattr__(self, "names", tuple(self.options))
        object.__setattr__(self, "plan", lru_cache(1024)(partial(self.build, self.unit)))

    def __call__(
        self, x: Any, p: Any, key: Any, training: bool = True, sample_offset: int = 0, *options: Any
    ) -> Any:
        """The result of the method: that of `plan` in training, of ``evaluation`` else."""
        p = self.checked(x, p, key, sample_offset)
        if options:
            checks = self.options.items()
            options = tuple(check(name, value) for (name, check), value in zip(checks, options, strict=True))
        if p == 0.0 or not (training or self.evaluation):
            return x
        if not training and self.evaluation:
            return _array.times(x, self.evaluation(p))
        return _apply(x, self.plan(x.shape, p, sample_offset, *options), key)

    def gradient(self, grad: Any, p: Any, key: Any, sample_offset: int = 0, *options: Any) -> Any:
        """The gradient by x in training, from that by the output; the mask is made again from the key."""
        p = self.checked(grad, p, key, sample_offset)
        if p == 0.0:
            return grad
        return _apply(grad, self.plan(grad.shape, p, sample_offset, *options).gradient(), key)

    def settings(self, p: Any = USUAL, **options: Any) -> dict[str, Any]:
        """``p`` and all options, checked. What is not given has the default of the function."""
        if unknown := set(options) - set(self.options):
            raise TypeError(f"{self.name} has no option {', '.join(sorted(unknown))}")
        given = {**options} if p is USUAL else {"p": p, **options}
        arguments = inspect.signature(self.function).parameters
        checks = {"p": _checks.probability, **self.options}
        return {name: check(name, given.get(name, arguments[name].default)) for name, check in checks.items()}

    def shares_mask(self, *options: Any) -> bool:
        """Whether samples of a batch share a mask, with these values of the options."""
        return self.shared is not None and self.shared(*options)

    def named_class(self, base: Kind, home: str) -> Kind:
        """A subclass of ``base`` for this method in the module ``home``.

        Its name is that of the function, in CamelCase. ``base`` takes p and the options as `settings` does.
        """
        arguments = inspect.signature(self.function).parameters
        takes = [arguments["p"], *(arguments[name].replace(kind=_BY_NAME) for name in self.names)]
        summary = (inspect.getdoc(self.function) or self.name).split("\n\n")[0]
        known: dict[str, Any] = {
            "method": self,
            "__module__": home,
            "__doc__": f"{summary}\n\nIt does what `thinned.{self.name}` does, which names the source.",
            "__signature__": inspect.Signature(takes),
        }
        return type(base)(self.name.title().replace("_", ""), (base,), known)

    def factor_moments(self, p: float, *options: Any) -> tuple[float, float] | None:
        """Mean and variance of each element's factor in training; None where there is no such factor."""
        if self.unscaled is not None and self.unscaled(*options):
            return theory.mask_moments(p)
        return self.moments(p) if self.factors else None

    def checked(self, x: Any, p: Any, key: Any, sample_offset: Any) -> float:
        """``p``, after the checks that all methods share; what is plainly right passes at once."""
        _array.floating("x", x)
        if not (type(p) is float and 0.0 <= p <= 1.0):
            p = _checks.probability("p", p)
        if type(key) is not Key:
            is_key("key", key)
        if type(sample_offset) is not int or sample_offset != 0:
            _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
        if x.ndim not in self.unit.ranks:
            raise ValueError(f"x must have shape {self.unit.layout}, got {tuple(x.shape)}")
        return float(p)


def _apply(x: Any, how: Map, key: Key) -> Any:
    """The map of x; a torch tensor's is recorded for the backward pass."""
    return (_of_tensors() if _array.is_torch(x) else maps.apply)(x, how, key.words)


@cache
def _of_tensors() -> Callable[[Any, Map, tuple[int, int]], Any]:
    from thinned.kernels import autograd

    return autograd.apply
