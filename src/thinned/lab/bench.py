"""`thinned bench`: our kernels beside their floor (a copy) and their peers, in one process run.

The contestants of a case take turns, round after round, so that a machine whose speed drifts treats
them alike; what is reported is the median, the spread, and the median of the ratios within a round.
"""

from __future__ import annotations

import json as json_module
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

import thinned
from thinned import Key, kernels
from thinned.lab.errors import LabError
from thinned.lab.runs import processor

SIZES = {"1K": 1 << 10, "32K": 1 << 15, "512K": 1 << 19, "16M": 1 << 24}
RATES = (0.1, 0.3, 0.5)
COPY, TORCH = "copy", "torch"
SECONDS = 0.6  # spent on one contestant of one case, at least ROUNDS rounds
ROUNDS = 15


@dataclass(frozen=True)
class Result:
    """One line: a work, its size, and what ours took beside the floor and the peer."""

    work: str
    size: str
    p: float
    threads: int
    microseconds: float  # median of ours
    low: float  # quartiles
    high: float
    copy: float  # medians of the others, in microseconds
    torch: float
    times_copy: float  # median of ours / copy within a round
    times_faster: float  # median of torch / ours within a round


def rounds(contestants: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; short ones are repeated within it, to run warm."""
    repeats = {}
    for name, work in contestants.items():
        work()
        begin = time.perf_counter()
        work()
        repeats[name] = max(1, round(1e-3 / (time.perf_counter() - begin + 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    deadline = time.perf_counter() + SECONDS * len(contestants)
    while len(taken[COPY]) < ROUNDS or time.perf_counter() < deadline:
        for name, work in contestants.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                work()
            taken[name].append((time.perf_counter() - begin) / repeats[name])
    return taken


def element(size: int, p: float, backward: bool) -> dict[str, Callable[[], Any]]:
    """Dropout of ``size`` float32 elements: ours, torch's, and a plain copy (two for both passes)."""
    x = torch.randn(size, requires_grad=backward)
    plain, grad, key = x.detach(), torch.ones(size), Key(1)
    if not backward:
        return {
            "ours": lambda: thinned.dropout(x, p, key=key),
            TORCH: lambda: torch.nn.functional.dropout(x, p),
            COPY: lambda: plain.clone(),
        }
    return {
        "ours": lambda: torch.autograd.grad(thinned.dropout(x, p, key=key), x, grad),
        TORCH: lambda: torch.autograd.grad(torch.nn.functional.dropout(x, p), x, grad),
        COPY: lambda: (plain.clone(), grad.clone()),
    }


def measure(threads: int) -> Iterator[Result]:
    """Every case, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for backward in (False, True):
            work = "dropout forward + backward" if backward else "dropout forward"
            for name, size in SIZES.items():
                for p in RATES:
                    taken = rounds(element(size, p, backward))
                    yield summary(work, name, p, threads, taken)
    finally:
        torch.set_num_threads(before)


def summary(work: str, size: str, p: float, threads: int, taken: dict[str, list[float]]) -> Result:
    """The line of one case from the seconds of all rounds."""
    ours, copy, peer = taken["ours"], taken[COPY], taken[TORCH]
    low, middle, high = statistics.quantiles(ours, n=4)
    return Result(
        work=work,
        size=size,
        p=p,
        threads=threads,
        microseconds=middle * 1e6,
        low=low * 1e6,
        high=high * 1e6,
        copy=statistics.median(copy) * 1e6,
        torch=statistics.median(peer) * 1e6,
        times_copy=statistics.median(a / b for a, b in zip(ours, copy, strict=True)),
        times_faster=statistics.median(b / a for a, b in zip(ours, peer, strict=True)),
    )


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = kernels.extension()
    return {
        "processor": processor(),
        "cores": kernels.cores(),
        "kernels": cpu.levels()[-1] if cpu else "numpy",
        "torch": torch.__version__,
        "thinned": thinned.__version__,
    }


def run(name: str | None = None, json: bool = False) -> None:
    """Measure and print; ``name`` picks the works whose name holds it.

    Raises LabError for a name that fits none.
    """
    if name not in (None, "dropout"):
        raise LabError(f"no benchmark named {name!r}; there is: dropout")
    console = Console(stderr=json, width=None if sys.stdout.isatty() else 100)
    counts = sorted({1, kernels.cores()})
    results = []
    total = len(counts) * 2 * len(SIZES) * len(RATES)
    with console.status("measuring") as status:
        for threads in counts:
            for result in measure(threads):
                results.append(result)
                status.update(
                    f"measured {len(results)} of {total}: {result.work}, {result.size}, p = {result.p}"
                )
    if json:
        json_module.dump(
            {"machine": machine(), "results": [asdict(r) for r in results]}, sys.stdout, indent=1
        )
        sys.stdout.write("\n")
        return
    console.print("  ".join(f"{key}: {value}" for key, value in machine().items()), highlight=False)
    console.print(
        "Medians of interleaved rounds; spread: distance of the quartiles; copy: x.clone(), once a pass."
    )
    for _, group in groupby(results, key=lambda r: (r.work, r.threads)):
        console.print(table(list(group)))


def table(results: list[Result]) -> Table:
    """The results of one work for a reader: microseconds, spread, and the two ratios."""
    first = results[0]
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    out = Table(title=f"{first.work}, float32, {threads}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in (
        "elements",
        "p",
        "ours µs",
        "spread",
        "copy µs",
        "torch µs",
        "ours / copy",
        "torch / ours",
    ):
        out.add_column(heading, justify="right")
    for r in results:
        out.add_row(
            r.size,
            f"{r.p:g}",
            f"{r.microseconds:,.1f}",
            f"{(r.high - r.low) / r.microseconds:.0%}",
            f"{r.copy:,.1f}",
            f"{r.torch:,.1f}",
            f"{r.times_copy:.2f}",
            f"{r.times_faster:.1f}",
        )
    return out
