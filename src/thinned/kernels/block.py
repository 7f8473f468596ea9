"""DropBlock by the extension: spread a sample's bits as one string, then pass once over its numbers."""

from __future__ import annotations

from typing import Any

from thinned import _array, kernels
from thinned.kernels.work import Blocks


def drop(x: Any, blocks: Blocks) -> Any:
    """0 under a block, else x·(places/kept places of the sample). ``x``: (N, C, *spatial), not empty."""
    n, channels, *spatial = x.shape
    flat = (1,) * (3 - len(spatial))  # for the axes that are missing
    array = _array.flat(x)
    out = kernels.room(tuple(x.shape), array)
    cpu = kernels.extension()
    assert cpu is not None
    cpu.drop_block(
        kernels.code(x.dtype),
        _array.address(array),
        _array.address(out),
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
    return out
