"""Where a module's keys come from: torch's generator, or, inside `keyed`, a key and a name."""

from __future__ import annotations

import itertools
import threading
import weakref
from dataclasses import dataclass, field

import torch

from thinned.key import Key

RECENT = 256  # calls that a stream remembers for recomputation


@dataclass
class Named:
    """The key of one module inside `keyed`: that of its first call in a pass; call n > 0 folds in n."""

    key: Key
    sample_offset: int
    calls: int = 0
    thread: int = field(default_factory=threading.get_ident)

    def next(self) -> tuple[int, int]:
        """The seed of the next call in this pass, and the index of its first sample."""
        n, self.calls = self.calls, self.calls + 1
        return self.at(n)

    def at(self, n: int) -> tuple[int, int]:
        """The seed of call ``n`` of a pass, and the index of its first sample."""
        return (self.key if n == 0 else self.key.fold_in(n)).seed, self.sample_offset


class Stream:
    """One module's draws: a seed and the index of the first sample, for each training forward pass.

    Every draw takes one 64-bit number from torch's default CPU generator. Outside `keyed` it is the seed.
    Inside it marks the call: when activation checkpointing runs a call again in the backward pass,
    with the generator put back, the same number comes, and gives that call's key again, in
    whatever order segments are run and even when the ``with`` block has been left.
    """

    def __init__(self) -> None:
        self.named: Named | None = None
        self.recent: dict[int, tuple[int, int]] = {}
        number = next(_numbers)
        self.handle = scalar(number, torch.int64)  # how a compiled graph refers to this stream
        _streams[number] = self

    def __reduce__(self) -> tuple:
        return Stream, ()  # a copy draws on its own, and is not keyed

    def draw(self) -> tuple[int, int]:
        """The seed of this call, and the index of its first sample."""
        mark = random_seed()
        if self.named is None and not self.recent:
            return mark, 0
        again = recomputing()
        if again and mark in self.recent:
            return self.recent[mark]
        if self.named is None:
            self.recent.pop(mark, None)  # the generator was set back: this call is another
            return mark, 0
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
