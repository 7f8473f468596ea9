"""Where the samples of a batch are in a tensor, by the number of samples that the model was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

Call = Callable[[Tensor, int], Tensor]  # of a tensor and the index of its first row


class UnclearError(ValueError):
    """It is not known where the samples are."""


class Where(NamedTuple):
    """The place of the samples in a tensor.

    ``axis`` 0: each sample has ``rows`` neighbours in the first axis. ``axis`` 1: the samples are the second
    axis. If then ``folded``, the first axis holds the first two: there are that many samples in it.
    """

    axis: int = 0
    rows: int = 1
    folded: int = 0

    def call(self, call: Call, x: Tensor, sample_offset: int) -> Tensor:
        """``call`` of x with the samples first; the result has the axes of x."""
        if self.axis == 0:
            return call(x, sample_offset * self.rows)
        if self.folded:
            unfolded = x.unflatten(0, (-1, self.folded)).transpose(0, 1)
            return call(unfolded, sample_offset).transpose(0, 1).flatten(0, 1)
        return call(x.transpose(0, 1), sample_offset).transpose(0, 1)


FIRST = Where()


class Batch(NamedTuple):
    """The samples that a model was given.

    ``samples``: how many; 0: not known. ``axis``: which axis of the model's input holds them; ``sure``: the
    user has said so. ``always``: all tensors have them in the second axis. ``doubt``: why the axis is not
    known, if it is not.
    """

    samples: int = 0
    axis: int = 0
    always: bool = False
    sure: bool = False
    doubt: str = ""

    def find(self, shape: Sequence[int], sample_offset: int, movable: bool) -> Where:
        """The place of the samples in a tensor of this shape.

        An axis of r·samples rows has the samples as the model's input has them: r rows of each in turn, or r
        times all of them. A first axis of 1 is shared by all samples. ``movable``: the second axis may have
        them.

        Raises ValueError if that is not known, and some samples are before these.
        """
        n = self.samples
        if self.always:
            return Where(1) if movable and len(shape) > 2 else FIRST
        if self.doubt and sample_offset:
            raise UnclearError(self.doubt)
        if not n or not shape or (shape[0] == n and self.axis == 0):
            return FIRST
        second = movable and len(shape) > 1 and shape[1] == n
        if second and self.axis == 1 and (len(shape) > 2 or shape[0] != n):
            return Where(1)
        rows, rest = divmod(shape[0], n)
        if rest == 0 and not (second and len(shape) == 3 and sample_offset and not self.sure):
            folded = n if movable and self.axis == 1 and rows > 1 and len(shape) == 2 else 0
            return Where(1, folded=folded) if folded else Where(0, rows)
        if second and rest:
            return Where(1)
        if shape[0] == 1:
            return Where(rows=0)
        if sample_offset:
            raise UnclearError(
                f"sample_axis of keyed must be given: the model got {n} samples, and a dropout a tensor of "
                f"shape {tuple(shape)}, where they may be in several axes or in none"
            )
        return FIRST

    def rows_of(self, rows: int, usual: int) -> int:
        """The rows of each sample, of so many; ``usual`` if that is not known."""
        return rows // self.samples if self.samples and rows % self.samples == 0 else usual


UNKNOWN = Batch()
SECOND = Batch(axis=1, always=True)
