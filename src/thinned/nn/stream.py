"""The keys of drop modules. They come from torch's generator or, inside `keyed`, from a key and a name."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch._C import _functorch as functorch
from torch._C import _len_torch_dispatch_stack as _modes
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import _disable_current_modes

from thinned.kernels import autograd
from thinned.key import Key
from thinned.nn.batches import SECOND, UNKNOWN, Batch

RECENT = 256  # calls that a stream remembers, in case checkpointing runs them again
COMPILED = 1 << 16  # numbers of compiled calls that are remembered for that, of all streams together
SMALL = 1 << 15  # elements: to put so many in their places costs as much as a call
Call = Callable[[torch.Tensor, int], torch.Tensor]
Places = NDArray[np.int64]
_places: ContextVar[Places | None] = ContextVar("places", default=None)


class Draw(NamedTuple):
    """What decides the mask of one call."""

    seed: int
    sample_offset: int = 0  # index of the batch's first sample
    places: Places | None = None  # indices of these samples in that batch, ascending; None: all of it
    batch: Batch = UNKNOWN

    def spread(
        self, call: Call, x: torch.Tensor, work: int | None = None, movable: bool = False
    ) -> torch.Tensor:
        """``call(x, index of the first row)``, so that each sample keeps its index in the whole batch.

        Small samples are put in their places among zeros, and one call does them all. Large samples take one
        call for each run of neighbours. ``work`` is the cost of a sample, by default its number of elements.
        If x has k rows for each sample, rows are numbered instead of samples. If ``movable``, the call takes
        the axes in any order, and samples may be the second.
        """
        if self.places is None or not len(x) or len(x) % len(self.places):
            return self.batch.find(x.shape, self.sample_offset, movable).call(call, x, self.sample_offset)
        rows = len(x) // len(self.places)
        first = int(self.places[0])
        before = self.sample_offset * (rows if self.batch.samples else 1)
        offset, places = before + first * rows, self.places - first
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
    """Within the block, a batch holds only these samples of the batch outside."""
    outer = _places.get()
    token = _places.set(places if outer is None else outer[places])
    try:
        yield
    finally:
        _places.reset(token)


@dataclass
class Block:
    """What the modules inside one `keyed` share."""

    sample_offset: int = 0
    batch: Batch = UNKNOWN  # of the pass under way
    thread: int = field(default_factory=threading.get_ident)


@dataclass
class Named:
    """The key of one module inside `keyed`: its first call in a pass takes the key, call n > 0 folds in n."""

    key: Key
    block: Block
    second: bool = False  # whether it is in a layer of torch whose samples are the second axis
    calls: int = 0
    places: Places | None = None  # of the last call

    def next(self) -> Draw:
        """The draw of the next call in this pass."""
        n, self.calls = self.calls, self.calls + 1
        self.places = _places.get()
        return self.at(n)

    def at(self, n: int) -> Draw:
        """The draw of call ``n`` in a pass."""
        seed = (self.key if n == 0 else self.key.fold_in(n)).seed
        batch = SECOND if self.second else self.block.batch
        return Draw(seed, self.block.sample_offset, self.places, batch)


class Stream:
    """The draws of one module: one for each training forward pass.

    Every draw takes one 64-bit number from torch's default CPU generator. Outside `keyed` this number is the
    seed. Inside `keyed` it marks the call. Activation checkpointing resets the generator and runs a call
    again in the backward pass; then the same number comes, and the call gets the same key. This works for any
    order of the segments, and after the ``with`` block has ended.
    """

    def __init__(self) -> None:
        self.named: Named | None = None
        self.recent: dict[int, Draw] = {}
        number = next(_numbers)
        self.handle = scalar(number, torch.int64)  # a compiled graph finds this stream by it
        _streams[number] = self

    def __reduce__(self) -> tuple:
        return Stream, ()  # a copy has its own draws, and is not keyed

    def draw(self) -> Draw:
        """The draw that decides the mask of this call."""
        mark = random_seed(self.named is not None)
        if self.named is None and not self.recent:
            return _draw((mark, 0, None, UNKNOWN))
        return self._of(mark)

    def draw_compiled(self) -> Draw:
        """`draw` in a compiled graph, whose backward pass can ask only for what its forward pass drew."""
        mark = random_seed(self.named is not None)
        if not recomputing():
            _marks[mark] = None
            if len(_marks) > COMPILED:
                _marks.pop(next(iter(_marks)), None)
        elif mark not in _marks and (self.named is None or self.named.calls != 1):
            raise RuntimeError(
                "a compiled dropout must draw in its forward pass, got a backward pass with another state of "
                "torch's generator: the mask would be another one"
            )
        return self._of(mark)

    def _of(self, mark: int) -> Draw:
        """The draw with that number of the generator, where some calls have been keyed."""
        again = recomputing()
        if again and mark in self.recent:
            return self.recent[mark]
        if self.named is None:
            self.recent.pop(mark, None)  # the generator was reset: this is another call
            return Draw(mark)
        if again and self.named.calls == 1:
            return self.named.at(0)
        if again and self.named.calls > 1:
            raise RuntimeError(
                "a module that is called several times in a pass must be run again with the same state of "
                "torch's generator, got another state (so this call cannot be identified): use "
                "torch.utils.checkpoint.checkpoint(..., preserve_rng_state=True), its default"
            )
        drawn = self.recent[mark] = self.named.next()
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        return drawn


class EachExampleError(RuntimeError):
    """A vmap asks for a mask of each example, and there is one seed for all."""


def transformed(stream: Stream, shape: Sequence[int]) -> torch.Tensor:
    """The ticket of a call inside torch.func: what `autograd.read` reads, with a lane for each example.

    Where no vmap has randomness="different", it is that of `Stream.draw`. Else each example is a lane; inside
    `keyed` the examples, each of that shape, have the masks of one batch of all of them.
    """
    with torch._C._DisableFuncTorch():
        draw, keyed = stream.draw(), stream.named is not None
        rows = draw.batch.find(shape, draw.sample_offset, movable=False).rows
        samples = shape[0] if shape else 1
        ticket = autograd.ticket(Key(draw.seed), draw.sample_offset * rows)
        zero = torch.zeros_like(ticket[0])
        lane, examples = zero, [(torch.arange(n, device="cpu"), n, level) for n, level in _different()]
    if draw.places is not None:
        raise RuntimeError(
            "inside torch.func a branch that drops must see its whole batch: give its Residual skip=False"
        )
    for each, n, level in examples:
        lane = lane * n + functorch._add_batch_dim(each, 0, level)
    if not examples:
        return ticket
    return ticket + torch.stack([zero, lane * samples, zero] if keyed else [zero, zero, lane + 1])


def compiling_transforms() -> bool:
    """Whether code inside torch.func becomes a graph. Raises RuntimeError for a mask of each example."""
    if _different():
        raise RuntimeError(
            "randomness of a compiled vmap must be 'same' for a dropout, got 'different': compile without it"
        )
    return bool(functorch.get_interpreter_stack()) or torch.autograd.forward_ad._current_level >= 0


# `torch.compiler.assume_constant_result`, which would import the compiler.
compiling_transforms._dynamo_marked_constant = True  # type: ignore[attr-defined]


def recording() -> bool:
    """Whether `make_fx` records what is done."""
    return _modes() > 0 and get_proxy_mode() is not None


def linearizing() -> bool:
    """Whether `torch.func.linearize` records the tangent of a function."""
    return (
        recording()
        and torch.autograd.forward_ad._current_level >= 0
        and not functorch.get_interpreter_stack()
    )


def each_example() -> bool:
    """Whether a vmap asks for a mask of each example."""
    return autograd.transforming() and bool(_different())


def _different(keyed: bool = True) -> list[tuple[int, int]]:
    """Number of examples and level of each vmap with randomness="different"; "error" is for random calls."""
    found = []
    for level in functorch.get_interpreter_stack() or ():
        if level.key() == functorch.TransformType.Vmap:
            vmap = functorch.CVmapInterpreterPtr(level)
            if vmap.randomness() == functorch.RandomnessType.Different:
                found.append((vmap.batchSize(), level.level()))
            elif vmap.randomness() == functorch.RandomnessType.Error and not keyed:
                raise RuntimeError(
                    "randomness of a vmap must be 'same' or 'different' for a dropout, got 'error'"
                )
    return found


def find(handle: int) -> Stream:
    """The stream with that number; a new one if its module is gone (a graph loaded in another process)."""
    return _streams.get(handle) or Stream()


def recomputing() -> bool:
    """Whether a backward pass is running: then activation checkpointing runs a module again."""
    return torch._C._current_graph_task_id() != -1


def random_seed(keyed: bool = False) -> int:
    """64 bits from torch's default CPU generator. Inside torch.func they are the same for all examples."""
    number, memory = cell.own
    try:
        if _modes():  # which do not run the operation, or record it
            with _disable_current_modes():
                number.random_(-(1 << 63), None)
        else:
            number.random_(-(1 << 63), None)
    except RuntimeError:  # torch.func forbids to write into the cell
        if not autograd.transforming():
            raise
        if _different(keyed):
            raise EachExampleError(
                "vmap with randomness='different' cannot thin, nor skip samples: give it 'same'"
            ) from None
        with torch._C._DisableFuncTorch():
            number.random_(-(1 << 63), None)
    seed: int = memory[0]
    return seed


def next_mark() -> int:
    """The next number of torch's generator, whose state does not change."""
    state = torch.get_rng_state()
    mark = random_seed(keyed=True)
    torch.set_rng_state(state)
    return mark


def scalar(value: float, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of one number on the CPU, for any default device and in inference mode too."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device="cpu")


class _Cell(threading.local):
    """A tensor of one number, and its memory as unsigned: reading that is ten times faster than ``item``."""

    def __init__(self) -> None:
        tensor = scalar(0, torch.int64)
        self.own = tensor, tensor.numpy().reshape(1).view("u8").data


cell = _Cell()
_draw = functools.partial(tuple.__new__, Draw)  # in half the time of `Draw`
_numbers = itertools.count(1)
_marks: dict[int, None] = {}  # the numbers that compiled calls took, the oldest first
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
