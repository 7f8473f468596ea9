"""Streams of bits made from masks: endless generators of uint8 chunks, the first bit lowest.

If masks are random, every bit is exactly fair and independent of the others: von Neumann's rule makes fair
bits from units of any rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

import numpy as np

from thinned import Key, kernels
from thinned.key import BERNOULLI, FOLD_IN, philox4x32, threshold

CHUNK = 1 << 23  # units made at once
SEEDS = 1024  # neighbours whose units alternate
LOW = 0xFFFFFFFF
HALF = threshold(0.5)
MODULES = [f"encoder.layers.{i}.{name}" for i in range(12) for name in ("attention.dropout", "mlp.dropout")]

Bits = np.ndarray
Pair = tuple[np.ndarray, np.ndarray]


def pack(bits: Bits) -> Bits:
    """Bits as bytes, the first one lowest."""
    return np.packbits(bits.reshape(-1).view(np.uint8), bitorder="little")


def half(start: int = 0) -> Iterator[Bits]:
    """One mask, p = 0.5: a bit a unit."""
    while True:
        yield pack(kernels.mask(Key(0), CHUNK, HALF, start))
        start += CHUNK


def far() -> Iterator[Bits]:
    """The same mask from unit 2³⁹ − 2²⁹ on: the number of the group passes 2³² half-way through 2³⁰ bits."""
    return half((1 << 39) - (1 << 29))


def fair(p: float) -> Iterator[Bits]:
    """One mask of rate p: of each pair of units that differ, the first (von Neumann 1951)."""
    start, rest = 0, np.zeros(0, bool)
    while True:
        pairs = kernels.mask(Key(0), CHUNK, threshold(p), start).view(
            "<u2"
        )  # 1: kept, dropped; 256: dropped, kept
        start += CHUNK
        found = np.concatenate([rest, pairs[np.flatnonzero((pairs == 1) | (pairs == 256))] == 1])
        whole = len(found) // 8 * 8
        rest = found[whole:]
        yield pack(found[:whole])


def seeds(step: int) -> Iterator[Bits]:
    """The masks of SEEDS neighbouring seeds, 0, step, 2·step, …: unit 0 of each, then unit 1 of each, …"""
    keys = [Key(i * step) for i in range(SEEDS)]
    n = CHUNK // SEEDS
    start = 0
    while True:
        masks = np.stack([kernels.mask(key, n, HALF, start) for key in keys])
        start += n
        yield pack(np.ascontiguousarray(masks.T))


def folded() -> Iterator[Bits]:
    """The first 128 units of the masks of Key(0).fold_in(0), .fold_in(1), …"""
    first, n = 0, CHUNK // 128
    while True:
        data = np.arange(first, first + n, dtype=np.uint64)
        first += n
        yield pack(units(fold_in(np.uint64(0), np.uint64(0), data)))


def training() -> Iterator[Bits]:
    """Masks as in training: in each step, the first 128 units of the mask of every module (`nn.keyed`)."""
    names = [int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in MODULES]
    digests = np.array(names, np.uint64)
    first, n = 0, CHUNK // 128 // len(MODULES)
    while True:
        steps = fold_in(np.uint64(0), np.uint64(0), np.arange(first, first + n, dtype=np.uint64))
        first += n
        k0, k1 = (np.repeat(word.astype(np.uint64), len(digests)) for word in steps)
        yield pack(units(fold_in(k0, k1, np.tile(digests, n))))


def planes() -> Iterator[Bits]:
    """All 32 planes of one mask: the numbers U that are compared with the threshold, as 32-bit words."""
    first, n = 0, CHUNK // 4096
    while True:
        group = np.arange(first, first + n, dtype=np.uint64)
        first += n
        counter = (group[:, None] & LOW, group[:, None] >> np.uint64(32), np.arange(31, -1, -1), BERNOULLI)
        words = np.stack(philox4x32(counter, Key(0).words), axis=-1)  # (group, plane, 4), lowest plane first
        lanes = np.unpackbits(words.astype("<u4").view(np.uint8), axis=-1, bitorder="little")
        yield pack(np.ascontiguousarray(lanes.transpose(0, 2, 1)))


def fold_in(k0: np.ndarray, k1: np.ndarray, data: np.ndarray) -> Pair:
    """`Key.fold_in` of many keys, or of many numbers: the words of the new keys."""
    high = data >> np.uint64(32)
    new0, new1, _, _ = philox4x32((data & np.uint64(LOW), high, 0, FOLD_IN), (k0, k1))  # type: ignore[arg-type]
    return new0, new1


def units(keys: Pair) -> Bits:
    """The first 128 units of the mask of each key, p = 0.5: dropped where the bit of plane 0 is 1."""
    k0, k1 = (word.astype(np.uint64) for word in keys)
    zero = np.zeros_like(k0)
    words = np.stack(philox4x32((zero, zero, zero, BERNOULLI), (k0, k1)), axis=-1)  # type: ignore[arg-type]
    return 1 - np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little").reshape(-1, 128)


STREAMS: dict[str, Callable[[], Iterator[Bits]]] = {
    "half": half,
    "far": far,
    "third": lambda: fair(0.3),
    "tenth": lambda: fair(0.1),
    "seeds": lambda: seeds(1),
    "seeds-high": lambda: seeds(1 << 32),
    "folded": folded,
    "training": training,
    "planes": planes,
}
DESCRIPTIONS = {
    "half": "one mask, p = 0.5, a bit a unit",
    "far": "the same mask from unit 2³⁹ − 2²⁹ on",
    "third": "one mask, p = 0.3; of each pair of units that differ, the first",
    "tenth": "one mask, p = 0.1; the first of each pair, as in `third`",
    "seeds": f"p = 0.5, seeds 0 … {SEEDS - 1}, unit by unit",
    "seeds-high": f"p = 0.5, seeds 0, 2³², … {SEEDS - 1}·2³², unit by unit",
    "folded": "p = 0.5, the first 128 units of Key(0).fold_in(0), .fold_in(1), …",
    "training": f"the same for Key(0).fold_in(step).fold_in(name), {len(MODULES)} names a step",
    "planes": "the 32-bit numbers of one mask's units, all 32 planes",
}


def take(stream: Iterator[Bits], count: int) -> Bits:
    """The next ``count`` bytes; what is left of the last chunk is thrown away."""
    out, filled = np.empty(count, np.uint8), 0
    while filled < count:
        chunk = next(stream)[: count - filled]
        out[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return out
