"""Which units a method drops: one short function for each kind of unit.

A function takes the shape of ``x`` and returns a NumPy bool array that broadcasts with it, True = kept. For
units that are runs of neighbouring elements it returns a `Run` instead. ``sample_offset`` is the index of x's
first sample in the whole batch; with it, a shard gets its part of the mask.

A `Unit` has a name for its kind, and says which inputs have such units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _array, _checks, kernels, theory
from thinned.kernels.groups import Picks
from thinned.kernels.work import Blocks
from thinned.key import Key, is_key, threshold, words

Mask = NDArray[np.bool_]
Run = tuple[int, int]  # the index of the first unit, and the number of neighbouring elements in a unit


def keep_mask(shape: int | Sequence[int], p: float, *, key: Key, start: int = 0, like: Any = None) -> Any:
    """Which units of an array survive: True = kept, each with probability 1 − p.

    ``shape`` is that of the units. ``start`` is the index of the first unit in a larger, C-ordered array;
    with it, a shard gets its part. The result is a bool array of that shape: a torch tensor on the device of
    ``like`` if ``like`` is a tensor, else a NumPy array. The masks of one key are nested: what survives a
    larger p survives a smaller one. P(kept) is exact to 2⁻³².

    Raises TypeError or ValueError if an argument is of the wrong kind, or p is not in [0, 1].
    """
    sizes = _checks.shape("shape", shape)
    p = _checks.probability("p", p)
    is_key("key", key)
    n = math.prod(sizes)
    start = _checks.integer("start", start, 0, 1 << 64)
    if start + n > 1 << 64:
        raise ValueError(f"start + number of units must be at most 2**64, got {start} + {n}")
    if (gpu := kernels.on_gpu(like)) is not None:
        return gpu.mask(key, n, threshold(p), start, like.device).reshape(sizes)
    return _array.to_like(kernels.mask(key, n, threshold(p), start).reshape(sizes), like)


def first(shape: Sequence[int], sample_offset: int) -> int:
    """The index of the first unit of ``x``, if each place of a sample is a unit."""
    start = sample_offset * math.prod(shape[1:])
    if start + math.prod(shape) > 1 << 64:
        raise ValueError(f"sample_offset must leave unit numbers below 2**64, got {sample_offset}")
    return start


def elements(shape: Sequence[int], sample_offset: int = 0) -> Run:
    """Any shape: each element is a unit."""
    return first(shape, sample_offset), 1


def channels(shape: Sequence[int], sample_offset: int = 0) -> Run:
    """(N, C, *spatial): each channel of each sample is a unit."""
    return first(shape[:2], sample_offset), math.prod(shape[2:])


def samples(shape: Sequence[int], sample_offset: int = 0) -> Run:
    """(N, …): each sample is a unit."""
    return first(shape[:1], sample_offset), math.prod(shape[1:])


def batch(shape: Sequence[int], sample_offset: int = 0) -> Run:
    """(N, …): the whole batch is one unit, the same on every shard."""
    return 0, math.prod(shape)


@dataclass(frozen=True, eq=False)
class Unit:
    """What one random decision is about, and the inputs that have such units."""

    name: str
    layout: str  # of the inputs; "any": every shape
    ranks: range  # how many dimensions the inputs have
    run: Callable[[Sequence[int], int], Run] | None = None  # for units that are runs of elements


ANY = 65  # above the dimensions that an array can have
ELEMENT = Unit("element", "any", range(ANY), elements)
CHANNEL = Unit("channel", "(N, C, *spatial)", range(2, ANY), channels)
SAMPLE = Unit("sample", "(N, …)", range(1, ANY), samples)
FEATURE = Unit("feature", "(N, features) or (N, C, *spatial)", range(2, ANY))
BLOCK = Unit("block", "(N, C, L), (N, C, H, W) or (N, C, D, H, W)", range(3, 6))
WEIGHT = Unit("weight", "(N, in)", range(2, 3))
REGION = Unit("region", "(N, C, H, W)", range(4, 5))


GROUPS = 16  # of rows, each with a pick of its own: the default
PANEL = 16  # units in a panel, where there are enough of them
PANELS = 16  # there are at least so many panels, or each unit is one


def panel_size(n: int) -> int:
    """How many of n units are kept or dropped together: a power of two, at most `PANEL` and n/`PANELS`."""
    most: int = max(1, min(PANEL, n // PANELS))
    return 1 << most.bit_length() - 1


def picks(n: int, p: float, key: Key, groups: int = 1) -> Picks:
    """Which of n units each group of rows keeps, each with probability 1 − p: `thinned.key.pick`.

    Two groups of a pair keep complementary units at p = ½; pairs are independent, but for the units that
    are together in a panel. The number of panels kept is (1 − p)·P, rounded down or up.
    """
    panel = panel_size(n)
    return Picks(n, panel, *kernels.pick(key, n, panel, threshold(p), groups))


def most_kept(n: int, p: float) -> int:
    """The most units of n that a group keeps, and at least one: the width of a compact array."""
    panel = panel_size(n)
    panels = -(-threshold(p) * -(-n // panel) // (1 << 32))
    return max(min(n, panels * panel), 1)


def features(
    shape: Sequence[int], p: float, key: Key, sample_offset: int = 0, *, groups: int = GROUPS
) -> Mask:
    """(N, C, *spatial) -> (1 or N, C, 1, …): the columns or channels that `picks` keeps in each sample.

    Sample i of the whole batch belongs to group i mod ``groups``.
    """
    n, c, *spatial = shape
    kept = picks(c, p, key, groups).units
    if groups > 1:
        kept = kept[(sample_offset % groups + np.arange(n)) % groups]
    return kept.reshape(-1, c, *(1 for _ in spatial))


def seeds(
    shape: Sequence[int],
    p: float,
    block_size: int | tuple[int, ...],
    key: Key,
    sample_offset: int = 0,
    *,
    per_channel: bool = True,
    exact_rate: bool = True,
) -> Blocks:
    """(N, C, *spatial): the blocks that a batch drops.

    The units are the seeds, (N, C or 1, *valid): the places at which a block can begin. A block that is
    larger than the map is clipped to it.
    """
    n, c, *spatial = shape
    rate = theory.drop_block_rate(p, block_size, tuple(spatial), exact=exact_rate)
    sizes = theory.block_sizes(block_size, spatial)
    valid = (size - block + 1 for size, block in zip(spatial, sizes, strict=True))
    start = first((n, c if per_channel else 1, *valid), sample_offset)
    return Blocks(key, threshold(rate), start, sizes, per_channel)


def blocks(shape: Sequence[int], fall: Blocks) -> Mask:
    """(N, C, *spatial) -> (N, C or 1, *spatial): a place is dropped if it lies in any block."""
    n, c, *spatial = shape
    valid = (size - block + 1 for size, block in zip(spatial, fall.sizes, strict=True))
    units = n, c if fall.per_channel else 1, *valid
    fallen = ~kernels.mask(fall.key, math.prod(units), fall.limit, fall.start).reshape(units)
    for axis, block in enumerate(fall.sizes, start=2):
        fallen = _spread(fallen, block, axis)
    return ~fallen


def _spread(bits: Mask, width: int, axis: int) -> Mask:
    """Each True also in the next ``width`` − 1 places: a logical or whose reach is doubled each time."""
    bits = np.moveaxis(bits, axis, 0)
    out = np.concatenate([bits, np.zeros((width - 1, *bits.shape[1:]), bool)])
    reach = 1
    while reach < width:
        step = min(reach, width - reach)
        out[step:] |= out[:-step].copy()
        reach += step
    return np.moveaxis(out, 0, axis)


def holes(
    shape: Sequence[int], size: int | tuple[int, int], count: int, key: Key, sample_offset: int = 0
) -> Mask:
    """(N, C, H, W) -> (N, 1, H, W): ``count`` squares of each sample are cut, clipped at the edges.

    Hole j of the whole batch has its centre at (⌊u·H⌋, ⌊v·W⌋); u and v are words 2j and 2j + 1 of the key,
    divided by 2³².
    """
    n, _, height, width = shape
    start = first((n, count, 2), sample_offset)
    centres = integers(key, n * count * 2, start, np.tile([height, width], n * count)).reshape(n, count, 2)
    sizes = np.broadcast_to(size, 2)
    corner = centres - sizes // 2
    rows, columns = (
        (corner[..., i, None] <= np.arange(length)) & (np.arange(length) < corner[..., i, None] + sizes[i])
        for i, length in enumerate((height, width))
    )
    cut = np.einsum("nki,nkj->nij", rows.astype(np.float32), columns.astype(np.float32)) > 0
    return ~cut[:, None]


def box(height: int, width: int, share: float, key: Key) -> Mask:
    """(H, W): a box of H√share × W√share is cut. Its centre is anywhere; the edges clip it."""
    sides = np.floor(np.array([height, width]) * np.sqrt(share)).astype(np.int64)
    corner = integers(key, 2, 0, np.array([height, width])) - sides // 2
    rows, columns = (
        (corner[i] <= np.arange(length)) & (np.arange(length) < corner[i] + sides[i])
        for i, length in enumerate((height, width))
    )
    return ~(rows[:, None] & columns)


def cells(attention: NDArray[Any], count: int, height: int, width: int) -> Mask:
    """(N, grid, grid) -> (N, 1, H, W): the ``count`` cells of highest attention are cut.

    Place y of H lies in cell ⌊y·grid/H⌋. Of cells with equal attention the first is cut first.
    """
    n, grid, _ = attention.shape
    order = np.argsort(-attention.reshape(n, -1), axis=1, kind="stable")[:, :count]
    kept = np.ones((n, grid * grid), bool)
    np.put_along_axis(kept, order, False, axis=1)
    row, column = (np.arange(length) * grid // length for length in (height, width))
    return kept.reshape(n, 1, grid, grid)[:, :, row[:, None], column]


def integers(key: Key, n: int, start: int, below: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers in [0, below): ⌊w·below/2³²⌋ for the words ``start … start + n − 1``; uniform to 2⁻³²·below."""
    return (words(key, n, start).astype(np.uint64) * below.astype(np.uint64) >> np.uint64(32)).astype(
        np.int64
    )
