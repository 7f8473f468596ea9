"""`thinned reproduce`: train an experiment of the sources again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinned.cli.errors import fail
from thinned.cli.finish import complain, finish
from thinned.cli.options import DataDir, Json, Loggers, Ray, SaveEvery, Workers, with_settings

if TYPE_CHECKING:
    from thinned.lab.reproduce.queue import Queue
    from thinned.lab.storage.remote import Folder


@with_settings(
    "validation", "engine", "device", "precision",
    after="ray", by_default={"engine": "each network's own; only dense networks can change it"},
)  # fmt: skip
def reproduce(
    name: Annotated[str | None, typer.Argument(help="an experiment; --list shows them")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="smoke (seconds), quick (minutes) or paper (the whole protocol); by default quick, with "
            "--queue paper"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="the number of seeds, instead of the budget's")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="only systems with this in their names; may be given several times"),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    data_dir: DataDir = None,
    out: Annotated[
        str | None,
        typer.Option(help="folder, or URL such as s3://bucket/runs; by default thinned-runs/NAME-BUDGET"),
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="save the results in this folder, and the page beside it")
    ] = None,
    save_every: SaveEvery = 30.0,
    logger: Loggers = None,
    json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be trained, and how long it would take")
    ] = False,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="train all runs of NAME, or of every experiment, that are not in the folder of --publish: "
            "the shortest first, at low priority; each row is published when it ends",
        ),
    ] = False,
    free_cores: Annotated[
        int, typer.Option(min=0, help="cores that --queue leaves free; all others get a worker")
    ] = 0,
    order_by: Annotated[
        str,
        typer.Option("--order", help="of --queue: time, the shortest first, or worth, the most wanted first"),
    ] = "time",
    take: Annotated[
        str | None,
        typer.Option(
            help="publish what --queue or `make gpu` finished in this folder on another machine, and stop"
        ),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="write the page of all published results again, and stop")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="list the experiments")] = False,
    **settings: Any,
) -> None:
    """Rebuild an experiment of the sources, and print its figures beside theirs.

    The same command continues runs that were cut off and skips finished ones.

    Examples:
        thinned reproduce --list
        thinned reproduce spiral --budget quick
        thinned reproduce mnist-table2 --only max-norm --dry-run
    """
    from thinned import _checks
    from thinned.lab import experiments
    from thinned.lab.reporting import loggers, terminal
    from thinned.lab.reproduce import order, overview, results_page
    from thinned.lab.reproduce import queue as queue_room
    from thinned.lab.storage.remote import folder

    if page:
        print(f"page: {results_page.write_page(publish or Path('docs/results'))}")
        return
    if take is not None:
        for text in queue_room.take(folder(take), publish or Path("docs/results")):
            print(text)
        return
    more = {"data_dir": data_dir, "only": tuple(only or ()), **settings}
    for given, option in ((order_by != "time", "order"), (free_cores != 0, "free-cores")):
        if given and not queue:
            raise ValueError(f"{option} must be left out without --queue")
    if queue:
        if logger:
            raise ValueError("logger must be left out with --queue, which publishes rows")
        if ray:
            raise ValueError("ray must be left out with --queue, which trains on this machine")
        names = experiments.names() if name is None else [name]
        asked_all = [order.order(one, budget or "paper", seeds, **more) for one in names]
        root = folder(out) if out else order.ROOT
        _checks.one_of("order", order_by, ("time", "worth"))
        waiting = queue_room.queue(asked_all, root, publish, order=order_by)
        _train_queue(waiting, root, publish, workers, free_cores, save_every, json, dry_run)
        return
    budget = budget or "quick"
    if list_ or name is None:
        found = overview.overview()
        if json:
            terminal.print_json(found)
            return
        terminal.plain(["name", "quick", "paper", "what it shows"], overview.overview_rows(found))
        print("thinned reproduce NAME --budget smoke|quick|paper; --list --json says more")
        return
    experiment = experiments.load(name)
    asked = order.order(name, budget, seeds, **more)
    place = folder(out) if out else order.default_out(asked)
    todo = asked.jobs()
    if dry_run:
        rows, note = overview.dry_run(asked, todo, place, workers, ray)
        terminal.table(["system", "runs", "done", "epochs", "about"], rows)
        print(note)
        return
    record = order.record(asked, todo)
    record.save(place)  # first, so that a report can be made of a part
    progress = loggers.logged(terminal.progress(experiment.line, json), logger, place, len(todo))
    try:
        order.train(asked, todo, place, progress, save_every=save_every, workers=workers, ray=ray)
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {place})", 130)
    stored = record.stored(place)
    finish(record, stored, place, json)
    results_page.save(place, experiment, results_page.rows(experiment, record, stored))
    if place.parent == order.ROOT:
        results_page.write_index(place.parent)
    if publish:
        order.publish(publish, record, stored)
    complain(stored)


def _train_queue(
    found: Queue,
    root: Folder,
    results: Path | None,
    wanted: int | None,
    free: int,
    save_every: float,
    json: bool,
    dry_run: bool,
) -> None:
    """Train what is not published, or show it."""
    from thinned.lab.reporting import terminal
    from thinned.lab.reproduce import queue

    count = queue.workers(free, wanted)
    rows, note = queue.table(found, count)
    terminal.table(["experiment", "system", "seeds left", "about"], rows)
    for text in found.left_out:
        print(f"left out: {text}")
    if dry_run:
        print(f"{note}; nothing was trained")
        return
    print(note)
    try:
        with terminal.progress(None, json) as progress:
            stored = queue.run(found, progress, count=count, save_every=save_every, results=results)
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {root})", 130)
    complain(stored)
