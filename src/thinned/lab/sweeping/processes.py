"""A pool of processes of this machine, each of which trains one run at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder
from thinned.lab.sweeping.job import Recipe
from thinned.lab.sweeping.worker import Message, Sender, environment, threads_of, train_one


class Processes:
    """`count` processes of this machine, with `threads` threads each; each makes the jobs from `recipe`."""

    def __init__(self, recipe: Recipe, out: Folder, save_every: float, count: int, threads: int) -> None:
        self.task, self.count, self.threads = (recipe, out, save_every), count, threads
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
        worker = self.idle.pop()
        with contextlib.suppress(OSError):  # the process is dead; `messages` will say so
            worker.pipe.send(run)
        self.busy[worker.pipe] = worker, run
        return True

    def messages(self) -> Iterator[Message]:
        """The next message of each process that has one."""
        for pipe in cast("list[Connection]", wait(list(self.busy))):
            worker, run = self.busy[pipe]
            try:
                call, arguments = pipe.recv()
            except (EOFError, OSError):
                call, arguments = "dead", ("a worker died",)
                worker = self._worker()
            if call in ("free", "dead"):
                del self.busy[pipe]
                self.idle.append(worker)
            yield Message(run, call, arguments)

    def _worker(self) -> _Worker:
        return self.stack.enter_context(_Worker(*self.task))


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
        self.process.join(10)
        self.pipe.close()


def _work(recipe: Recipe, out: Folder, save_every: float, pipe: Connection, leash: Connection) -> None:
    """The work of a process: train the runs whose numbers arrive, until the pipe is closed."""
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
