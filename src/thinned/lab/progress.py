"""What training tells while it runs: nothing, a line a run, or bars in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from thinned.lab.runs import Stored

Line = Callable[[dict[str, float]], str]  # a line of history as text


class Progress:
    """Keeps quiet. Subclasses print or draw."""

    def plan(self, runs: int, epochs: int) -> None:
        """So many runs and epochs are still to be trained."""

    def begin(self, name: str, epochs: int, done: int) -> None:
        """A run starts, with `done` of its `epochs` behind it."""

    def step(self, done: float, loss: float) -> None:
        """So many epochs of the run are done, the last a fraction; called a few times a second."""

    def row(self, name: str, row: dict[str, float]) -> None:
        """A line of history was made."""

    def end(self, run: Stored) -> None:
        """A run is finished."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the terminal back in order."""


def summary(run: Stored) -> str:
    """A finished run in one line."""
    result = run.result
    if run.status != "done":
        return f"{run.folder.name}: {run.status} in epoch {result.get('epoch')}"
    seconds = math.fsum(run.history["seconds"]) * (run.config.get("log") or 1)
    return (
        f"{run.folder.name}: test error {100 * result['test_error']:.2f} %, "
        f"training error {100 * result['train_error']:.2f} %, {seconds:.1f} s"
    )


class Lines(Progress):
    """A plain line for each finished run; for output that is no terminal."""

    def __init__(self, console: Console, line: Line | None = None) -> None:
        self.console, self.line = console, line
        self.runs = self.ended = 0

    def plan(self, runs: int, epochs: int) -> None:
        """Remember how many."""
        self.runs = runs

    def row(self, name: str, row: dict[str, float]) -> None:
        """Print it, where the experiment has a form for it."""
        if self.line:
            self._print(f"{name}: {self.line(row)}")

    def end(self, run: Stored) -> None:
        """Print the errors."""
        self.ended += 1
        self._print(f"[{self.ended}/{self.runs}] {summary(run)}")

    def note(self, text: str) -> None:
        """Print it."""
        self._print(f"thinned: {text}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Two bars in a terminal: all runs, with the time left and the loss; and the current run."""

    def __init__(self, console: Console, line: Line | None = None) -> None:
        from rich import progress

        super().__init__(console, line)
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[count]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
        )
        self.all: Any = None
        self.run: Any = None
        self.total = 0.0  # epochs of all runs
        self.behind = 0.0  # of them, done before this run
        self.epochs = self.start = 0  # of this run

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def plan(self, runs: int, epochs: int) -> None:
        """Draw the bar of all runs."""
        super().plan(runs, epochs)
        self.total = epochs
        if runs:
            self.all = self.bars.add_task("all runs", total=epochs, count=f"0/{runs} runs", loss="")

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Draw the bar of the run."""
        self.epochs, self.start = epochs, done
        self.total -= done  # the time left is judged by the epochs that are trained now
        if self.all is not None:
            self.bars.update(self.all, total=self.total)
        self.run = self.bars.add_task(name.rsplit("-", 1)[0], total=epochs, completed=done, count="", loss="")

    def step(self, done: float, loss: float) -> None:
        """Move both bars."""
        if self.all is not None:
            self.bars.update(self.all, completed=self.behind + done - self.start, loss=f"loss {loss:.4f}")
        self.bars.update(self.run, completed=done, count=f"{math.floor(done)}/{self.epochs} epochs")

    def end(self, run: Stored) -> None:
        """Remove the bar of the run."""
        super().end(run)
        self.behind += self.epochs - self.start
        self.bars.remove_task(self.run)
        if self.all is not None:
            self.bars.update(self.all, completed=self.behind, count=f"{self.ended}/{self.runs} runs")
