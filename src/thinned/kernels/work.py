"""What a kernel is asked to do, as data: maps, blocks and masks for each sample. Nothing here computes.

A map does not hold the key. The words of a key turn it into a pass, and its gradient into the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from thinned.key import Key

Words = tuple[int, int]  # of a key


def key_of(words: Words) -> Key:
    """The key that has these words."""
    return Key(words[0] | words[1] << 32)


class Select(NamedTuple):
    """y = x·scale + shift where its unit is kept, fill where dropped.

    A unit is kept where its number is below ``limit``. The first unit has the index ``start``, and ``inner``
    neighbouring elements make a unit.
    """

    limit: int
    start: int
    inner: int
    scale: float
    shift: float = 0.0
    fill: float = 0.0

    def gradient(self) -> Select:
        """∂L/∂y -> ∂L/∂x."""
        return self if self.shift == self.fill == 0.0 else self._replace(shift=0.0, fill=0.0)


class Noise(NamedTuple):
    """y = x·(1 + deviation·z), z ~ N(0, 1), with the normal numbers of a key from ``start`` on."""

    start: int
    deviation: float

    def gradient(self) -> Noise:
        """∂L/∂y -> ∂L/∂x."""
        return self


class Rule(NamedTuple):
    """y = of(x, key): x times factors that depend on the key alone, for what the other two cannot express."""

    of: Callable[[Any, Key], Any]

    def gradient(self) -> Rule:
        """∂L/∂y -> ∂L/∂x."""
        return self


Map = Select | Noise | Rule


class Blocks(NamedTuple):
    """The blocks of a batch. Nothing else is kept for the backward pass.

    Seeds are the units from ``start`` on that are dropped at the threshold ``limit``; ``sizes`` are those of
    a block along each axis, at most the map's.
    """

    key: Key
    limit: int
    start: int
    sizes: tuple[int, ...]
    per_channel: bool


@dataclass(frozen=True)
class Draw:
    """The masks of all samples, by key and threshold. Nothing else is kept for the backward pass."""

    key: Key
    limit: int
    scale: float
    start: int  # the first unit of the first sample
