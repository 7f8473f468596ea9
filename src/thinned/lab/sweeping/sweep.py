"""Sweeps: many runs, one after the other, in processes of this machine, or on a Ray cluster.

A run is a folder that is finished or not. So a sweep has no state of its own, and the same command continues
it.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from thinned.kernels import cores
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder, private
from thinned.lab.storage.run import Run, Stored, run_name
from thinned.lab.sweeping import ray_cluster
from thinned.lab.sweeping.costs import Workers, seconds
from thinned.lab.sweeping.job import Job, Recipe
from thinned.lab.sweeping.processes import Processes
from thinned.lab.sweeping.worker import Pool, train_one

RETRIES = 2  # of a run whose worker died
VISIBLE = 90.0  # seconds until one machine sees what another wrote: network file systems lag
SILENCE = 300.0  # seconds after which a sweep reports what it found so far, whichever runs have ended

Learned = Callable[[Sequence[Stored]], str]


def run(
    todo: Sequence[Job],
    out: Folder,
    progress: Progress | None = None,
    *,
    recipe: Recipe | None = None,
    save_every: float = 2.0,
    workers: int | None = None,
    ray: str | None = None,
    learned: Learned | None = None,
) -> list[Stored]:
    """Train the jobs, each in its folder inside `out`: skip what is done, continue what was cut off.

    A run that fails is marked as failed, and the others go on.

    Args:
        recipe: makes the same jobs in another process of this machine; by default the jobs are pickled.
        save_every: seconds between the checkpoints of a run.
        workers: the number of runs at once: by default 1, and on a cluster its number of CPUs.
        ray: the address of a cluster (`thinned.lab.sweeping.ray_cluster.connected`); None for this machine.
        learned: the finished runs so far -> a line, shown whenever every system has one more seed, and at
            least every few minutes.

    Raises:
        LabError: the folder cannot be written, another process trains one of these runs, or the cluster
            does not answer.
    """
    progress = progress or Progress()
    open_ = unfinished(todo, out)
    if ray or (workers or 1) > 1:
        shared(out)
    with contextlib.ExitStack() as stack:
        have, connection = stack.enter_context(workers_for(len(open_), workers, ray))
        costs = {run_name(todo[i].config): seconds(todo[i], have.threads) for i in open_}
        progress.plan(len(open_), sum(todo[i].config.epochs for i in open_), costs)
        pool: Pool | None = None
        if connection:
            pool = ray_cluster.Cluster(connection, todo, out, save_every, have.count, have.threads)
        elif have.count > 1:
            recipe = recipe or functools.partial(list, todo)
            pool = Processes(recipe, out, save_every, have.count, have.threads)
        ended = (
            side_by_side([Run(out, job.config) for job in todo], open_, progress, stack.enter_context(pool))
            if pool
            else (train_one(todo[i], out, progress, save_every) for i in open_)
        )
        finished = [i for i in range(len(todo)) if i not in open_] if learned and open_ else []
        before = [Run(out, todo[i].config).read() for i in finished]
        seeds = len({job.config.seed for job in todo})
        _take(before, ended, len(open_), len(todo) // max(1, seeds), progress, learned)
    return [Run(out, job.config).read() for job in todo]


def _take(
    done: list[Stored],
    ended: Iterator[Stored],
    left: int,
    systems: int,
    progress: Progress,
    learned: Learned | None,
) -> None:
    """Take runs as they end, and show what was learned so far; what was done before counts too."""
    shown = time.monotonic()
    for stored in ended:
        done.append(stored)
        left -= 1
        due = len(done) % systems == 0 or time.monotonic() - shown > SILENCE
        if learned and left and due:
            progress.note(f"so far: {learned(done)}")
            shown = time.monotonic()


def shared(out: Folder) -> None:
    """LabError if other processes do not see this folder."""
    if private(out):
        raise LabError(f"out must be a folder, or a URL, that other processes see, got {out}")


def unfinished(todo: Sequence[Job], out: Folder) -> list[int]:
    """The numbers of the jobs that have no result yet."""
    return [i for i, job in enumerate(todo) if not Run(out, job.config).finished()]


@contextlib.contextmanager
def workers_for(runs: int, workers: int | None, ray: str | None) -> Iterator[tuple[Workers, Any]]:
    """The workers for that number of runs, and the connection to the cluster, if there is one."""
    if ray is None or not runs:
        yield Workers.share([cores()], workers or 1, runs), None
        return
    with ray_cluster.connected(ray, cores()) as connection:
        cpus = ray_cluster.cpus(connection)
        yield Workers.share(cpus, workers or sum(cpus), runs), connection


def side_by_side(
    runs: Sequence[Run], which: Sequence[int], progress: Progress, pool: Pool
) -> Iterator[Stored]:
    """Each run as it ends. A run whose worker died is given to another worker."""
    waiting, tries = list(which), dict.fromkeys(which, 0)
    busy, shown = set[int](), set[int]()

    def end(i: int, stored: Stored) -> None:
        """Show the end of a run once: a message of its worker may be lost, or come late."""
        if i not in shown:
            shown.add(i)
            progress.end(stored)

    while waiting or busy:
        while waiting and pool.start(waiting[0]):
            busy.add(waiting.pop(0))
        progress.tick()
        for i, call, arguments in pool.messages():
            run = runs[i]
            if call == "error":
                raise LabError(*arguments)
            if call == "dead" and tries[i] < RETRIES:
                progress.note(f"{arguments[0]}; {run.folder.name} goes on in another")
                busy.remove(i)
                waiting.insert(0, i)
                tries[i] += 1
            elif call in ("free", "dead"):
                busy.remove(i)
                if call == "dead":
                    run.fail(f"{arguments[0]}, {RETRIES + 1} times")
                _await(run.over, run.folder)
                end(i, run.read())
                yield run.read()
            elif call == "end":
                end(i, *arguments)
            elif call == "step":
                progress.step_of(run.folder.name, *arguments)
            elif call == "begin":
                _await((run.folder / "config.json").exists, run.folder)
                progress.begin(*arguments)
            elif call == "row":
                progress.row(*arguments)
            else:
                assert call == "note", call
                progress.note(*arguments)


def _await(there: Callable[[], bool], folder: Folder) -> None:
    """Wait until this machine sees what a worker wrote.

    Raises:
        LabError: it does not, so the workers write to another place.
    """
    until = time.monotonic() + VISIBLE
    while not there():
        if time.monotonic() > until:
            raise LabError(
                f"{folder}: a worker wrote it, and this machine does not see it; give --out a folder that "
                "all machines share, or a URL such as s3://bucket/runs"
            )
        time.sleep(0.2)
