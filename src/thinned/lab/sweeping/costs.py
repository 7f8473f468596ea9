"""How long runs take on this machine, about, and how many workers share its CPUs."""

from __future__ import annotations

import functools
import heapq
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from thinned.lab.sweeping.job import Job
from thinned.lab.training import train

OVERHEAD = 2.5  # times the matrix products: masks, activations, the optimizer, evaluation


@dataclass(frozen=True)
class Workers:
    """The workers of a sweep.

    Args:
        count: their number.
        threads: threads of each.
        fit: the number of workers that run at once without sharing a CPU.
        machines: the number of machines.
    """

    count: int
    threads: int
    fit: int
    machines: int = 1

    @classmethod
    def share(cls, cpus: Sequence[int], workers: int, runs: int) -> Workers:
        """Share out the CPUs of each machine among `workers`, but no more of them than there are runs."""
        count = max(1, min(workers, runs))
        threads = max(1, min([sum(cpus) // count, *cpus]))
        return cls(count, threads, sum(n // threads for n in cpus), len(cpus))

    def time(self, costs: Sequence[float]) -> float:
        """Seconds until all runs are done, in their order, where the next begins whenever one ends."""
        ends = [0.0] * min(self.count, self.fit)
        for cost in costs:
            heapq.heapreplace(ends, ends[0] + cost)
        return max(ends)


def seconds(job: Job, threads: int) -> float:
    """The time of a run with that number of threads on this machine, about."""
    n, inputs = job.dataset.x_train.shape
    used = 1 if train.small(job.config, job.dataset) else threads
    return time_of(job.trainer.work(asdict(job.config), n, inputs, job.dataset.outputs), used)


def time_of(work: float, threads: int) -> float:
    """Seconds for `work` multiplications, about: judged by a matrix product on this machine, now."""
    return OVERHEAD * work / (threads * _speed())


@functools.cache
def _speed() -> float:
    """Multiplications a second in a product of (128, 1024) and (1024, 1024) on one undisturbed thread."""
    a, b = np.ones((128, 1024), np.float32), np.ones((1024, 1024), np.float32)
    times = []
    with train.limited(1):
        for _ in range(5):
            start = time.thread_time()
            a @ b
            times.append(time.thread_time() - start)
    return a.size * 1024 / min(times)
