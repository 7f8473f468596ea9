"""Pools of processes of this machine, each of which trains one run at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, cast

from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder
from thinned.lab.sweeping.job import Recipe
from thinned.lab.sweeping.worker import Message, Sender, environment, threads_of, train_one

PAUSE = 0.5  # seconds that wait for a message
LOW = 19  # the priority of a process that gives way to all others


class Processes:
    """`count` processes of this machine, with `threads` threads each; each makes the jobs from `recipe`."""

    def __init__(self, recipe: Recipe, out: Folder, save_every: float, count: int, threads: int) -> None:
        self.task, self.count, self.threads = (recipe, out, save_every, 0), count, threads
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, int]] = {}

    def __enter__(self) -> Processes:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(environment(threads_of(self.threads)))
        self.idle = [self._worker() for _ in range(self.count)]
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    def start(self, run: int) -> bool:
        """Give run number `run` to a process; False where all of them are busy."""
        if not self.idle:
            return False
        self._give(self.idle.pop(), run, run)
        return True

    def messages(self) -> Iterator[Message]:
        """The next message of each process that has one; waits a moment where none has."""
        for pipe in cast("list[Connection]", wait(list(self.busy), PAUSE)):
            worker, run = self.busy[pipe]
            try:
                call, arguments = pipe.recv()
            except (EOFError, OSError):
                call, arguments = "dead", ("a worker died",)
            if call in ("free", "dead"):
                del self.busy[pipe]
                self._leave(worker, call == "dead")
            yield Message(run, call, arguments)

    def _worker(self) -> _Worker:
        return self.stack.enter_context(_Worker(*self.task))

    def _give(self, worker: _Worker, run: int, number: Any) -> None:
        """Give run number `run` of the sweep, `number` (or key) of the worker's recipe, to a process."""
        with contextlib.suppress(OSError):  # the process is dead; `messages` will say so
            worker.pipe.send(number)
        self.busy[worker.pipe] = worker, run

    def _leave(self, worker: _Worker, dead: bool) -> None:
        """What becomes of a process whose run is over."""
        self.idle.append(self._worker() if dead else worker)


class Task(NamedTuple):
    """A run: the recipe of its jobs, its number among them, and its folder's folder."""

    recipe: Recipe
    number: int
    out: Folder


class OneEach(Processes):
    """At most `count` processes at once, of one thread and low priority; each trains one run and ends."""

    def __init__(self, tasks: Sequence[Task], save_every: float, count: int) -> None:
        self.tasks, self.save_every, self.count, self.threads = tasks, save_every, count, 1
        self.busy = {}

    def __enter__(self) -> OneEach:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(environment(threads_of(self.threads)))
        return self

    def start(self, run: int) -> bool:
        """Give run number `run` to a new process; False where `count` are busy."""
        if len(self.busy) >= self.count:
            return False
        recipe, number, out = self.tasks[run]
        worker = _Worker(recipe, out, self.save_every, LOW)
        self._give(self.stack.enter_context(worker), run, number)
        return True

    def _leave(self, worker: _Worker, dead: bool) -> None:
        worker.__exit__()


class _Worker:
    """A process, the pipe to it, and its leash: it ends when this process closes the leash, or dies."""

    def __init__(self, *task: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        leash, self._leash = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(*task, theirs, leash), daemon=True)
        self.process.start()
        theirs.close()
        leash.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leash.close()
        self.process.terminate()  # it may be starting, and not yet look at the leash
        self.process.join(10)
        self.pipe.close()


def _work(
    recipe: Recipe, out: Folder, save_every: float, nice: int, pipe: Connection, leash: Connection
) -> None:
    """The work of a process: train the runs whose numbers arrive, until the pipe is closed."""
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that runs the sweep
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()
    sender = Sender(lambda call, arguments: pipe.send((call, arguments)))
    try:
        todo = recipe()
        while True:
            train_one(todo[pipe.recv()], out, sender, save_every)
            pipe.send(("free", ()))
    except LabError as error:
        pipe.send(("error", (str(error),)))
    except (EOFError, OSError):
        return


def _end_with(leash: Connection) -> None:
    """End this process at once when the other end of the leash is closed."""
    with contextlib.suppress(EOFError, OSError):
        leash.recv()
    os._exit(1)
