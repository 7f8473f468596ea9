"""`thinned bench`: our kernels beside their floor (a copy, a product) and their peers, in one process run.

Each file of this package but TOOLS is a benchmark. It offers ``cases(threads)``, an iterator that makes the
data of a case when it is asked for it; and, where other libraries take part, their names in ``PEERS``.
"""

from __future__ import annotations

import importlib
import json as json_module
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

import thinned
from thinned import kernels
from thinned.lab.bench.harness import peers, show
from thinned.lab.bench.harness.measure import FULL, QUICK, Case, Effort, Result, contest
from thinned.lab.errors import LabError
from thinned.lab.storage.provenance import processor

__all__ = ["NAMES", "Case", "Effort", "Result", "contest", "machine", "run", "run_all"]

TOOLS = {"measure", "peers", "show"}
NAMES = tuple(file.name for file in pkgutil.iter_modules(__path__) if file.name not in TOOLS)


def run(
    names: Sequence[str] = (),
    json: bool = False,
    quick: bool = False,
    markdown: bool = False,
    write: Path | None = None,
) -> None:
    """Measure and print; ``names`` picks benchmarks, none of them all.

    ``quick`` takes few rounds. ``json`` and ``markdown`` say in what form stdout gets it; ``write`` puts the
    tables between their marks in a page, too.

    Raises LabError for a name that is no benchmark, or a page without the marks.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise LabError(f"no benchmark named {unknown[0]!r}; there are: {', '.join(NAMES)}")
    modules = {name: benchmark(name) for name in names or NAMES}
    missing = sorted({peer for module in modules.values() for peer in getattr(module, "PEERS", ())})
    missing = [peer for peer in missing if peers.load(peer) is None]
    if missing:
        note = f"{', '.join(missing)}: not installed; `make peers` makes an environment that has them"
        print(f"thinned: {note}", file=sys.stderr)
    if write:
        show.sections_of(write, modules)
    found = run_all(modules, QUICK if quick else FULL)
    sections = {name: show.to_markdown(found[name], machine(), command(name, quick)) for name in modules}
    results = [result for name in modules for result in found[name]]
    if json:
        print(json_module.dumps(show.to_json(results, machine()), indent=1, ensure_ascii=False))
    elif markdown:
        print("\n\n".join(sections.values()))
    else:
        show.to_terminal(Console(width=None if sys.stdout.isatty() else 160), results, machine())
    if write:
        show.write(write, sections)


def benchmark(name: str) -> ModuleType:
    """The file of that name."""
    return importlib.import_module(f"{__name__}.{name}")


def command(name: str, quick: bool) -> str:
    """How a section is made again."""
    return f"thinned bench {name}" + (" --quick" if quick else "")


def run_all(modules: dict[str, ModuleType], effort: Effort) -> dict[str, list[Result]]:
    """Every case of each benchmark, on one thread and (but for a quick look) on all.

    A terminal gets a bar with the time left.
    """
    counts = sorted({1, kernels.cores()}) if effort is FULL else [1]
    found: dict[str, list[Result]] = {name: [] for name in modules}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("counting", total=None)
        total = sum(1 for module in modules.values() for threads in counts for _ in module.cases(threads))
        bars.update(bar, total=total)
        for name, module in modules.items():
            for threads in counts:
                for result in results_of(module, threads, effort):
                    found[name].append(result)
                    bars.update(bar, advance=1, description=f"{result.group}: {result.name}")
    return found


def results_of(module: ModuleType, threads: int, effort: Effort) -> Iterator[Result]:
    """A benchmark's results, one at a time: a case's memory is free before the next is made."""
    cases = module.cases(threads)
    while (case := next(cases, None)) is not None:
        result = contest(case, effort)
        del case
        yield result


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
