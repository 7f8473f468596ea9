"""Progress of training: silent, as a line per run, or as bars in a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from thinned.lab.reporting.measure import ERROR, RMSE, judged_on, rmse
from thinned.lab.reporting.wording import time_text

if TYPE_CHECKING:
    from rich.console import Console

    from thinned.lab.storage.run import Stored

Line = Callable[[dict[str, float]], str]  # a line of history as text


class Progress:
    """Reports nothing; subclasses print or draw."""

    def plan(self, runs: int, epochs: int, costs: Mapping[str, float] | None = None) -> None:
        """Called first: the runs and epochs that are left; `costs[name]` is the cost of the run `name`."""

    def begin(self, name: str, epochs: int, done: int) -> None:
        """A run starts; `done` of its `epochs` were trained before."""

    def step(self, done: float, loss: float) -> None:
        """`done` epochs of the run that started last are trained; called a few times per second."""

    def step_of(self, name: str, done: float, loss: float) -> None:
        """The same for the run `name`, when several runs are trained at once."""

    def row(self, name: str, row: dict[str, float]) -> None:
        """The run `name` has a new line of history."""

    def end(self, run: Stored) -> None:
        """A run has finished."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def tick(self) -> None:
        """Called now and then while other processes train."""

    def spend(self, title: str, left: float) -> None:
        """`left` seconds are left of a time that is given for something; called often."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal."""


def summary(run: Stored) -> str:
    """A finished run in one line."""
    result = run.result
    name = ", ".join(filter(None, (run.folder.name, run.config.get("system"))))
    if run.status == "failed":
        return f"{name}: failed: {run.failure}"
    if run.status != "done":
        return f"{name}: {run.status} in epoch {result.get('epoch')}"
    errors = ""
    for word, value in ((judged_on(run.config), result["test_error"]), ("training", result["train_error"])):
        if value is not None:
            measure = rmse([value]) if result.get("judged_by") == RMSE else ERROR
            errors += f"{word} {measure.name} {measure.with_unit(measure.factor * value)}, "
    return f"{name}: {errors}{run.seconds:.1f} s"


EVERY = 30.0  # seconds between two lines on a run that goes on


class Lines(Progress):
    """A plain line for each finished run, and now and then for a run that goes on; not for a terminal."""

    def __init__(self, console: Console, line: Line | None = None) -> None:
        self.console, self.line = console, line
        self.runs = self.ended = 0
        self.costs: Mapping[str, float] = {}
        self.total = 0.0  # cost of all runs that are left, without the epochs that were trained before
        self.done: dict[str, float] = {}  # cost of what was trained now, by run
        self.start: dict[str, int] = {}  # epochs that were trained before, by run
        self.epochs: dict[str, int] = {}  # all epochs, by run
        self.last = ""  # the run that started last
        self.since = self.said = time.monotonic()

    def plan(self, runs: int, epochs: int, costs: Mapping[str, float] | None = None) -> None:
        """Remember how much is left."""
        self.runs, self.total, self.costs, self.since = runs, epochs, costs or {}, time.monotonic()
        if costs:
            self.total = math.fsum(costs.values())

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Remember where the run starts, or starts again: the time left follows from epochs trained now."""
        self.total -= (done - self.start.get(name, 0)) * self._cost(name, epochs)
        self.start[name], self.done[name], self.epochs[name] = done, 0.0, epochs
        self.last = name

    def step(self, done: float, loss: float) -> None:
        """Count the progress of the run that started last."""
        self.step_of(self.last, done, loss)

    def step_of(self, name: str, done: float, loss: float) -> None:
        """Count the progress of the run, if it has started."""
        if name in self.start:
            self.done[name] = (done - self.start[name]) * self._cost(name, self.epochs[name])
            self._go_on(name, done, loss)

    def _go_on(self, name: str, done: float, loss: float) -> None:
        """Print how far the run is, if nothing was printed for a while."""
        if time.monotonic() - self.said < EVERY:
            return
        left = f"; about {time_text(self.left())} left" if self.costs else ""
        epochs = f"epoch {math.floor(done)} of {self.epochs[name]}"
        self._print(f"[{self.ended}/{self.runs}] {name}: {epochs}, loss {loss:.4g}{left}")

    def row(self, name: str, row: dict[str, float]) -> None:
        """Print the line of history, if the experiment has a format for it."""
        if self.line:
            self._print(f"{name}: {self.line(row)}")

    def end(self, run: Stored) -> None:
        """Print the errors and the time left."""
        self.ended += 1
        name, epochs = run.folder.name, int(run.config.get("epochs", 1))
        self.done[name] = (epochs - self.start.get(name, 0)) * self._cost(name, epochs)
        left = f"; about {time_text(self.left())} left" if self.costs and self.ended < self.runs else ""
        self._print(f"[{self.ended}/{self.runs}] {summary(run)}{left}")

    def left(self) -> float:
        """Seconds until all runs are finished, at the speed so far."""
        done = math.fsum(self.done.values())
        return (self.total - done) * (time.monotonic() - self.since) / done if done else math.inf

    def note(self, text: str) -> None:
        """Print the message."""
        self._print(f"thinned: {text}")

    def spend(self, title: str, left: float) -> None:
        """Print the time left, if nothing was printed for a while."""
        if time.monotonic() - self.said >= EVERY:
            self.note(f"{title}; {time_text(left)} left")

    def _cost(self, name: str, epochs: int) -> float:
        return self.costs[name] / epochs if name in self.costs else 1.0

    def _print(self, text: str) -> None:
        self.said = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Bars in a terminal: one for all runs with the time left and the loss, and one for each current run."""

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
        self.time: Any = None  # the bar of a time that is given
        self.open: dict[str, tuple[Any, int]] = {}  # task and epochs of each current run

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def plan(self, runs: int, epochs: int, costs: Mapping[str, float] | None = None) -> None:
        """Draw the bar of all runs."""
        super().plan(runs, epochs, costs)
        if runs:
            self.all = self.bars.add_task("all runs", total=self.total, count=f"0/{runs} runs", loss="")

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Draw the bar of the run."""
        super().begin(name, epochs, done)
        if self.all is not None:
            self.bars.update(self.all, total=self.total)
        self._remove(name)
        title = name.rsplit("-", 1)[0]
        self.open[name] = self.bars.add_task(title, total=epochs, completed=done, count="", loss=""), epochs

    def step_of(self, name: str, done: float, loss: float) -> None:
        """Move both bars."""
        super().step_of(name, done, loss)
        if name not in self.open:
            return
        task, epochs = self.open[name]
        if self.all is not None:
            self.bars.update(self.all, completed=math.fsum(self.done.values()), loss=f"loss {loss:.4f}")
        self.bars.update(task, completed=done, count=f"{math.floor(done)}/{epochs} epochs")

    def _go_on(self, name: str, done: float, loss: float) -> None:
        """Nothing: the bars show it."""

    def end(self, run: Stored) -> None:
        """Remove the bar of the run."""
        super().end(run)
        self._remove(run.folder.name)
        if self.all is not None:
            done = math.fsum(self.done.values())
            self.bars.update(self.all, completed=done, count=f"{self.ended}/{self.runs} runs")

    def spend(self, title: str, left: float) -> None:
        """Draw the bar of that time."""
        if self.time is None:
            self.time = self.bars.add_task(title, total=left, count="", loss="")
        total = self.bars.tasks[self.bars.task_ids.index(self.time)].total or left
        self.bars.update(self.time, description=title, completed=total - left)

    def _remove(self, name: str) -> None:
        """Remove the bar of the run `name`, if there is one."""
        if name in self.open:
            self.bars.remove_task(self.open.pop(name)[0])
