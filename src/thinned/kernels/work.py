"""Descriptions of what a kernel computes: maps, blocks and masks for each sample. Nothing is computed here.

A map does not hold the key. A map and the words of a key give a forward pass; the map's gradient and the
same words give the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from thinned.key import Key

Words = tuple[int, int]  # k0 and k1 of a key


def key_of(words: Words) -> Key:
    """The key with these words."""
    return Key(words[0] | words[1] << 32)


class Select(NamedTuple):
    """y = x·scale + shift if the unit is kept, fill if it is dropped.

    A unit is kept if its random number is below ``limit``. ``start`` is the index of the first unit. A unit
    has ``inner`` neighbouring elements.
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
    """y = x·(1 + deviation·z), z ~ N(0, 1): the normal numbers of a key from index ``start`` on."""

    start: int
    deviation: float

    def gradient(self) -> Noise:
        """∂L/∂y -> ∂L/∂x."""
        return self


class Rule(NamedTuple):
    """y = of(x, key): x times factors that only the key decides. It is for what the others cannot express."""

    of: Callable[[Any, Key], Any]

    def gradient(self) -> Rule:
        """∂L/∂y -> ∂L/∂x."""
        return self


class Part(NamedTuple):
    """The map ``of`` an array of shape ``whole``, on the block of it that begins at the place ``first``."""

    of: Select | Noise
    whole: tuple[int, ...]
    first: tuple[int, ...]

    def gradient(self) -> Part:
        """∂L/∂y -> ∂L/∂x."""
        return self._replace(of=self.of.gradient())


Map = Select | Noise | Rule | Part


class Blocks(NamedTuple):
    """The blocks that a batch drops. The backward pass needs nothing else.

    A block begins at each seed: at the units, from index ``start`` on, that the threshold ``limit`` drops.
    ``sizes`` are the sizes of a block along each axis, at most those of the map.
    """

    key: Key
    limit: int
    start: int
    sizes: tuple[int, ...]
    per_channel: bool


@dataclass(frozen=True)
class Draw:
    """The masks of all samples, given by key and threshold. The backward pass needs nothing else."""

    key: Key
    limit: int
    scale: float
    start: int  # index of the first sample's first unit
