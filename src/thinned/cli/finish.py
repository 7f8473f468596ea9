"""The end of a command that trained: the report, the findings, and errors for failed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thinned.cli.errors import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinned.lab.storage.record import Record
    from thinned.lab.storage.remote import Folder
    from thinned.lab.storage.run import Stored


NUMBERS = "numbers.json"  # what --json prints, beside the report


def finish(record: Record, stored: Sequence[Stored], out: Folder, json: bool) -> None:
    """Write the report; print the table, the findings and the path of the report."""
    from thinned import _files
    from thinned.lab import compare, experiments
    from thinned.lab.reporting import terminal
    from thinned.lab.reporting.evidence import Evidence
    from thinned.lab.reporting.html import NAME, render

    if record.kind == "compare":
        page = compare.page(record, stored, Evidence.load(out))
    else:
        page = experiments.load(record.kind).report(record, stored)
    numbers = terminal.as_json(page, stored, out / NAME)
    try:
        _files.write_json(out / NUMBERS, numbers)
        path = render(out, page)
    except OSError as error:
        fail(
            f"cannot write the report: {error.filename or out}: {error.strerror or error}; "
            f"the runs are kept; make room, then run thinned report {out}",
            1,
        )
    if json:
        terminal.print_json(numbers)
    else:
        terminal.show(page, page.notes if record.kind == "compare" else [page.lead, *page.notes])
        print(f"report: {path.resolve()}")


def complain(stored: Sequence[Stored]) -> None:
    """Exit with 1 where runs failed or diverged, and say which."""
    failed = [run for run in stored if run.status == "failed"]
    if failed:
        fail(
            f"{len(failed)} of {len(stored)} runs failed; the first: {failed[0].failure}; the same command "
            "tries them again",
            1,
        )
    diverged = [run for run in stored if run.status == "diverged"]
    if diverged:
        which = ", ".join(f"{run.config['method']} seed {run.config['seed']}" for run in diverged[:5])
        epoch, lr = diverged[0].result["epoch"], diverged[0].config["lr"]
        fail(
            f"{len(diverged)} of {len(stored)} runs diverged ({which}; the first in epoch {epoch}); "
            f"try a smaller --lr (it was {lr:g})",
            1,
        )
