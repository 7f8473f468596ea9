"""DropBlock by the extension: spread a sample's bits as one string, then pass once over its numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from thinned import _array, kernels
from thinned.key import Key


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


def drop(x: Any, blocks: Blocks) -> Any:
    """0 under a block, else x·(places/kept places of the sample). ``x``: (N, C, *spatial), not empty."""
    n, channels, *spatial = x.shape
    flat = (1,) * (3 - len(spatial))  # for the axes that are missing
    array = _array.memory(x)
    out = kernels.empty(array.shape, array.dtype)
    cpu = kernels.extension()
    assert cpu is not None
    cpu.drop_block(
        kernels.DTYPES[str(x.dtype).removeprefix("torch.")],
        kernels.address(array),
        kernels.address(out),
        n,
        channels,
        channels if blocks.per_channel else 1,
        (*flat, *spatial),
        (*flat, *blocks.sizes),
        blocks.start,
        *blocks.key.words,
        blocks.limit,
        _array.threads(x) or kernels.threads(),
    )
    return _array.from_memory(out, x)
