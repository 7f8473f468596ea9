"""The command's work: picks benchmarks, runs their cases on one and all threads, prints what was measured."""

from __future__ import annotations

import importlib
import json as json_module
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

import thinned
from thinned import kernels
from thinned.lab import bench
from thinned.lab.bench.harness import peers, show
from thinned.lab.bench.harness.measure import FULL, QUICK, Effort, Result, contest
from thinned.lab.errors import CallError
from thinned.lab.storage.provenance import processor


def run(
    names: Sequence[str] = (),
    json: bool = False,
    quick: bool = False,
    markdown: bool = False,
    write: Path | None = None,
) -> None:
    """Measure and print the benchmarks in ``names``; all of them where it is empty.

    ``quick`` runs few rounds. ``json`` and ``markdown`` choose the form of stdout. ``write`` also puts the
    tables between their marks in a page, each benchmark's when it has ended. A benchmark without cases on
    this machine leaves its tables as they are.

    Raises LabError for a name that is no benchmark, or a page without the marks.
    """
    modules = {name: benchmark(name) for name in names or bench.NAMES}
    wanted = sorted({peer for module in modules.values() for peer in getattr(module, "PEERS", ())})
    missing = [peer for peer in wanted if peers.load(peer) is None]
    if missing:
        note = f"{', '.join(missing)}: not installed; `make peers` makes an environment that has them"
        print(f"thinned: {note}", file=sys.stderr)
    if write:
        show.sections_of(write, modules)
    results: list[Result] = []
    sections: dict[str, str] = {}
    for name, found, seconds in run_all(modules, QUICK if quick else FULL):
        if not found:
            print(f"thinned: {name}: this machine has nothing to measure by it", file=sys.stderr)
            continue
        results += found
        sections[name] = show.to_markdown(found, machine(), command(name, quick), seconds)
        if write:
            show.write(write, {name: sections[name]})
    if json:
        print(json_module.dumps(show.to_json(results, machine()), indent=1, ensure_ascii=False))
    elif markdown:
        print("\n\n".join(sections.values()))
    else:
        show.to_terminal(Console(width=None if sys.stdout.isatty() else 160), results, machine())


def benchmark(name: str) -> ModuleType:
    """The module of a benchmark. Raises CallError for a name that is none."""
    if name not in bench.NAMES:
        raise CallError(f"benchmark must be one of {', '.join(bench.NAMES)}, got {name!r}")
    return importlib.import_module(f"{bench.__name__}.{name}")


def command(name: str, quick: bool) -> str:
    """The command that makes a section again."""
    return f"thinned bench {name}" + (" --quick" if quick else "")


def run_all(modules: dict[str, ModuleType], effort: Effort) -> Iterator[tuple[str, list[Result], float]]:
    """Name, results of every case, and seconds of each benchmark.

    Cases run on one thread and, with full effort, on all threads. A terminal shows a progress bar with the
    time left.
    """
    counts = sorted({1, kernels.cores()}) if effort is FULL else [1]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("counting", total=None)
        total = sum(1 for module in modules.values() for threads in counts for _ in module.cases(threads))
        bars.update(bar, total=total)
        for name, module in modules.items():
            found: list[Result] = []
            begin = time.perf_counter()
            for threads in counts:
                for result in results_of(module, threads, effort):
                    found.append(result)
                    bars.update(bar, advance=1, description=f"{result.group}: {result.name}")
            yield name, found, time.perf_counter() - begin


def results_of(module: ModuleType, threads: int, effort: Effort) -> Iterator[Result]:
    """A benchmark's results, one at a time: a case's memory is freed before the next case is made."""
    cases = module.cases(threads)
    while (case := next(cases, None)) is not None:
        result = contest(case, effort)
        del case
        yield result


def machine() -> dict[str, Any]:
    """The processor, the kernels and the versions that were measured."""
    cpu = kernels.extension()
    return {
        "processor": processor(),
        "cores": kernels.cores(),
        "kernels": cpu.levels()[-1] if cpu else "numpy",
        "torch": torch.__version__,
        "thinned": thinned.__version__,
    }
