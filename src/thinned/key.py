"""Where randomness comes from: the mask contract, in readable NumPy.

Every random number of the library is a word of Philox4x32-10 at a counter ``(c0, c1, c2, domain)``
under a key ``(k0, k1)``. So a value depends on the key and on its own index alone: not on the
backend, the device, the number of threads, or what was drawn before it.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _checks

__all__ = [
    "Key",
    "bernoulli",
    "choose",
    "is_key",
    "normals",
    "permutation",
    "philox4x32",
    "pick",
    "threshold",
    "words",
]

GROUP = 128  # units in a group: the bits of one Philox output
BERNOULLI, FOLD_IN, WORDS = 0, 1, 2  # domains: the last word of the counter

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # Philox's multipliers
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # the key's steps: golden ratio, √3 − 1
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """Where randomness comes from: a seed, and the keys folded from it.

    ``seed`` is an integer in [0, 2**64). Same key, same numbers, everywhere.
    """

    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _checks.integer("seed", self.seed, 0, 1 << 64))

    @property
    def words(self) -> tuple[int, int]:
        """The two key words of Philox, ``(k0, k1)``."""
        return self.seed & _LOW, self.seed >> 32

    def fold_in(self, data: int | str) -> Key:
        """An independent key, named by ``data``: an integer in [0, 2**64), or a string."""
        if isinstance(data, str):
            data = int.from_bytes(blake2b(data.encode(), digest_size=8).digest(), "little")
        else:
            data = _checks.integer("data", data, 0, 1 << 64)
        k0, k1, _, _ = _ten_rounds((data & _LOW, data >> 32, 0, FOLD_IN), self.words)
        return Key(k0 | k1 << 32)


def is_key(name: str, value: Any) -> Key:
    """The value itself, a `thinned.Key`; else TypeError."""
    if not isinstance(value, Key):
        raise TypeError(
            f"{name} must be a thinned.Key, such as Key(0), got {value!r} ({type(value).__name__})"
        )
    return value


def philox4x32(counter: tuple, key: tuple[int, int]) -> tuple[NDArray[np.uint32], ...]:
    """Four random words for each counter.

    ``counter`` is four words, integers or arrays of them that broadcast; ``key`` is two. Returns
    four uint32 arrays of the common shape.
    """
    arrays = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter))
    return tuple(np.asarray(c, np.uint32) for c in _ten_rounds(arrays, key))


def _ten_rounds(counter: Any, key: tuple[int, int]) -> Any:
    """The cipher itself, on four Python integers or on four uint64 arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _M0, c2 * _M1  # 32 × 32 → 64 bits
        c0, c1 = (product1 >> 32) ^ c1 ^ k0, product1 & _LOW
        c2, c3 = (product0 >> 32) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def threshold(p: float) -> int:
    """T = round((1 − p)·2³²): a unit is kept where its 32-bit number is below T."""
    return round((1.0 - p) * 2.0**32)


def bernoulli(key: Key, n: int, limit: int, start: int = 0) -> NDArray[np.bool_]:
    """Units ``start … start + n − 1``: True where kept, ``U_i < limit``, as an ``(n,)`` bool array.

    Bit planes of U arrive most significant first, one Philox call for 128 units. A comparison is
    decided at the first bit in which U and the limit differ: limit 1, U 0 is "below". So planes are
    drawn only until all units are decided, or the rest of the limit is zero.
    """
    if n == 0 or limit >= 1 << 32:
        return np.ones(n, bool)
    first = start // GROUP
    group = np.arange((start + n - 1) // GROUP - first + 1, dtype=np.uint64) + np.uint64(first)
    below = np.zeros((len(group), 4), np.uint32)  # 128 lanes a group, as bits
    open_ = np.full_like(below, _LOW)  # lanes not decided yet
    for plane in range(32):
        rest = limit << plane & _LOW
        if rest == 0 or not open_.any():
            break
        bits = np.stack(philox4x32((group & _LOW, group >> 32, plane, BERNOULLI), key.words), axis=-1)
        if rest >> 31:
            below |= open_ & ~bits
            open_ &= bits
        else:
            open_ &= ~bits
    lanes = np.unpackbits(below.astype("<u4").view(np.uint8).reshape(-1), bitorder="little")
    offset = start - first * GROUP
    return lanes[offset : offset + n].view(np.bool_)


def words(key: Key, n: int, start: int = 0) -> NDArray[np.uint32]:
    """Random 32-bit words ``start … start + n − 1``, as an ``(n,)`` uint32 array."""
    if n == 0:
        return np.zeros(0, np.uint32)
    first = start // 4
    block = np.arange((start + n - 1) // 4 - first + 1, dtype=np.uint64) + np.uint64(first)
    four = np.stack(philox4x32((block & _LOW, block >> 32, 0, WORDS), key.words), axis=-1)
    return four.reshape(-1)[start - first * 4 :][:n]


def normals(key: Key, n: int, start: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers ``start … start + n − 1``, as an ``(n,)`` float64 array.

    Box and Muller 1958, doi:10.1214/aoms/1177706645: words 2j and 2j+1 give the radius and the
    angle of the pair ``z_{2j}, z_{2j+1}``.
    """
    first, last = start - start % 2, start + n + (start + n) % 2
    pairs = words(key, last - first, first).astype(np.float64).reshape(-1, 2)
    radius = np.sqrt(-2.0 * np.log((pairs[:, 0] + 1.0) / 2.0**32))
    angle = 2.0 * np.pi * pairs[:, 1] / 2.0**32
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return z.reshape(-1)[start - first :][:n]


def choose(key: Key, n: int, k: int) -> NDArray[np.int64]:
    """The ``k`` of ``n`` indices with the smallest (word, index), ascending, as a ``(k,)`` int64 array.

    Raises ValueError where ``k`` is not in [0, n].
    """
    is_key("key", key)
    n = _checks.integer("n", n, 0)
    k = _checks.integer("k", k, 0)
    if k > n:
        raise ValueError(f"k must be at most n = {n}, got {k}")
    return np.sort(permutation(key, n)[:k])


def permutation(key: Key, n: int) -> NDArray[np.int64]:
    """The indices 0 … n − 1 in random order, by (word, index), as an ``(n,)`` int64 array."""
    return np.argsort(words(key, n), kind="stable")


def pick(
    key: Key, n: int, panel: int, limit: int, groups: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The order of n < 2**30 units, (n,), and which of its P panels each group keeps, (groups, P) bool.

    Panel r is ``order[r·panel : (r + 1)·panel]``; the last may be smaller. Groups 2j and 2j + 1 are a pair:
    they read ``key.fold_in(j)``. Its words 0 … P − 1 give the panels ranks 0 … P − 1; its word P is U. On a
    circle of length P·2³² rank r lies at r·2³², and the windows [U, U + limit·P) and [U + P·2³¹, …) hold what
    the two groups keep: limit/2³² of all panels, rounded down or up.
    """
    panels = -(-n // panel)
    kept = np.zeros((groups, panels), bool)
    around, window = panels << 32, limit * panels
    for g in range(0, groups if n else 0, 2):
        drawn = words(key.fold_in(g // 2), panels + 1)
        ranked, u = np.argsort(drawn[:-1], kind="stable"), int(drawn[-1])
        at = np.arange(panels, dtype=np.uint64) << np.uint64(32)
        for h in range(g, min(g + 2, groups)):
            past = at + np.uint64(around - u + (h - g) * around // 2)  # at most 2.5·P·2³² < 2⁶⁴
            kept[h, ranked] = past % np.uint64(around) < window
    return permutation(key, n), kept
