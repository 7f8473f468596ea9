"""Maps of DTensors: each process computes its part of one whole mask. Nothing is sent where parts suffice."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from thinned import _array
from thinned.kernels.maps import unit_axes
from thinned.kernels.work import Map, Noise, Part, Select, Words

Apply = Callable[[Any, Map, Words], Any]  # of one process: local tensor, map, words -> local tensor


def is_sharded(x: Any) -> bool:
    """Whether x is a DTensor."""
    library = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(x, library.DTensor)


def apply(x: Any, how: Map, words: Words, run: Apply) -> Any:
    """The map of a DTensor, in its placements: what the whole tensor would become, bit by bit.

    A sum that is not added up yet (``Partial``) stays one where the map is linear. What is not element by
    element (blocks, groups) is computed on the whole tensor in every process.
    """
    tensors = sys.modules["torch.distributed.tensor"]
    parts = (tensors.Shard, tensors.Replicate, *([tensors.Partial] if _linear(how) else []))
    if not isinstance(how, (Select, Noise)) or not all(type(place) in parts for place in x.placements):
        return _on_the_whole(x, how, words, run)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole = tuple(x.shape)
    shape, first = compute_local_shape_and_global_offset(whole, x.device_mesh, x.placements)
    local = x.to_local()
    y = _array.strided(run(local, part(how, whole, tuple(shape), tuple(first)), words), local)
    like = {"run_check": False, "shape": x.shape, "stride": x.stride()}
    return tensors.DTensor.from_local(y, x.device_mesh, x.placements, **like)


def _linear(how: Map) -> bool:
    return not isinstance(how, Select) or how.shift == how.fill == 0.0


def _on_the_whole(x: Any, how: Map, words: Words, run: Apply) -> Any:
    """The map of the whole tensor, in every process; then each keeps what it had."""
    tensors = sys.modules["torch.distributed.tensor"]
    everywhere = [tensors.Replicate()] * x.device_mesh.ndim
    y = run(x.redistribute(placements=everywhere).to_local(), how, words)
    back = [tensors.Replicate() if place.is_partial() else place for place in x.placements]
    return tensors.DTensor.from_local(y, x.device_mesh, everywhere, run_check=False).redistribute(
        placements=back
    )


def part(how: Select | Noise, whole: Sequence[int], shape: tuple[int, ...], first: tuple[int, ...]) -> Map:
    """The map of the block with that shape, whose first element is at ``first`` in the whole array.

    Where the block's units follow each other, as those of some samples do, it is such a map again.
    """
    if 0 in whole or 0 in shape:
        return how
    axes = unit_axes(how, whole)
    if shape[1:axes] != tuple(whole[1:axes]):
        return Part(how, tuple(whole), first)
    start = how.start + (first[0] * math.prod(whole[1:axes]) if axes else 0)
    inner = {"inner": math.prod(shape[axes:])} if isinstance(how, Select) else {}
    return how._replace(start=start, **inner)
