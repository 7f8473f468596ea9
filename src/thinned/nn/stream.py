"""Where a module's keys come from: torch's generator, or, inside `keyed`, a key and a name."""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from thinned.key import Key

RECENT = 256  # calls that a stream remembers for recomputation
SMALL = 1 << 15  # elements: a call costs as much as putting so many in their places
Call = Callable[[torch.Tensor, int], torch.Tensor]
Places = NDArray[np.int64]
_places: ContextVar[Places | None] = ContextVar("places", default=None)


class Draw(NamedTuple):
    """What decides the mask of one call."""

    seed: int
    sample_offset: int = 0  # the index of the batch's first sample
    places: Places | None = None  # which samples of that batch these are, ascending; None: all, in order

    def spread(self, call: Call, x: torch.Tensor, work: int | None = None) -> torch.Tensor:
        """``call(x, index of its first sample)``, where each of these samples keeps its number.

        Small samples are put in their places, among zeros; for large ones each run of neighbours has its own
        call. ``work`` is what a sample costs, by default its elements. Where x has k rows for each sample,
        they are numbered as samples are.
        """
        if self.places is None or not len(x) or len(x) % len(self.places):
            return call(x, self.sample_offset)
        rows = len(x) // len(self.places)
        first = int(self.places[0])
        offset, places = self.sample_offset + first * rows, self.places - first
        if (rows * x[0].numel() if work is None else work) < SMALL:
            index = (places[:, None] * rows + np.arange(rows)).reshape(-1)
            where = torch.from_numpy(index).to(x.device)
            among_zeros = x.new_zeros(int(index[-1]) + 1, *x.shape[1:]).index_copy(0, where, x)
            return call(among_zeros, offset).index_select(0, where)
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        parts = x.split((np.diff(starts, append=len(places)) * rows).tolist())
        firsts = (places[starts] * rows).tolist()
        return torch.cat([call(part, offset + i) for part, i in zip(parts, firsts, strict=True)])


@contextlib.contextmanager
def among(places: Places) -> Iterator[None]:
    """Within the block, a batch is only these samples of the one around it."""
    outer = _places.get()
    token = _places.set(places if outer is None else outer[places])
    try:
        yield
    finally:
        _places.reset(token)


@dataclass
class Named:
    """The key of one module inside `keyed`: that of its first call in a pass; call n > 0 folds in n."""

    key: Key
    sample_offset: int
    calls: int = 0
    places: Places | None = None  # of the last call
    thread: int = field(default_factory=threading.get_ident)

    def next(self) -> Draw:
        """The next call in this pass."""
        n, self.calls = self.calls, self.calls + 1
        self.places = _places.get()
        return self.at(n)

    def at(self, n: int) -> Draw:
        """Call ``n`` of a pass."""
        return Draw((self.key if n == 0 else self.key.fold_in(n)).seed, self.sample_offset, self.places)


class Stream:
    """One module's draws, one for each training forward pass.

    Every draw takes one 64-bit number from torch's default CPU generator. Outside `keyed` it is the seed.
    Inside it marks the call: when activation checkpointing runs a call again in the backward pass,
    with the generator put back, the same number comes, and gives that call's key again, in
    whatever order segments are run and even when the ``with`` block has been left.
    """

    def __init__(self) -> None:
        self.named: Named | None = None
        self.recent: dict[int, Draw] = {}
        number = next(_numbers)
        self.handle = scalar(number, torch.int64)  # how a compiled graph refers to this stream
        _streams[number] = self

    def __reduce__(self) -> tuple:
        return Stream, ()  # a copy draws on its own, and is not keyed

    def draw(self) -> Draw:
        """What decides the mask of this call."""
        mark = random_seed()
        if self.named is None and not self.recent:
            return Draw(mark)
        again = recomputing()
        if again and mark in self.recent:
            return self.recent[mark]
        if self.named is None:
            self.recent.pop(mark, None)  # the generator was set back: this call is another
            return Draw(mark)
        if again and self.named.calls == 1:
            return self.named.at(0)
        if again and self.named.calls > 1:
            raise RuntimeError(
                "a module used several times in a pass was run again in the backward pass with another state "
                "of torch's generator, so it is not known which of its calls this was: use "
                "torch.utils.checkpoint.checkpoint(..., preserve_rng_state=True), its default"
            )
        drawn = self.recent[mark] = self.named.next()
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        return drawn


def find(handle: int) -> Stream:
    """The stream of that number; a fresh one where its module is gone (a graph loaded in another process)."""
    return _streams.get(handle) or Stream()


def recomputing() -> bool:
    """Whether a backward pass is running, as it is when activation checkpointing runs a module again."""
    return torch._C._current_graph_task_id() != -1


def random_seed() -> int:
    """64 bits from torch's default CPU generator."""
    _cell.tensor.random_(-(1 << 63), None)
    return _cell.number[0]


def scalar(value: float, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of one number on the CPU, whatever default device or inference mode is on."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device="cpu")


class _Cell(threading.local):
    """A tensor of one number, and its memory as an unsigned one: read in a tenth of the time of ``item``."""

    def __init__(self) -> None:
        self.tensor = scalar(0, torch.int64)
        self.number = self.tensor.numpy().reshape(1).view("u8").data


_cell = _Cell()
_numbers = itertools.count(1)
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
