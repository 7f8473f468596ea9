"""`thinned compare`: the same network, once per method and seed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from thinned._checks import one_of
from thinned.cli.errors import fail
from thinned.cli.finish import complain, finish
from thinned.cli.options import DataDir, Json, Loggers, Ray, SaveEvery, Workers, with_settings
from thinned.lab.choices import ENGINES
from thinned.lab.data.files import READERS
from thinned.lab.data.registry import BUILT_IN, load
from thinned.lab.training.config import Config
from thinned.lab.training.defaults import IN_WORDS, defaults, input_rate

GIVEN = ("optimizer", "epochs", "batch", "lr")  # what `defaults` completes


@with_settings(
    "hidden", "input_p", "max_norm", "l2", "activation", "epochs", "batch", "optimizer", "lr",
    "momentum", "nesterov", "schedule", "validation", "engine", "device", "precision",
    after="methods", default={"hidden": "512,512"}, by_default=IN_WORDS,
)  # fmt: skip
def compare(
    data: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(BUILT_IN)}, a folder of images a class, or a file: {', '.join(READERS)}"
        ),
    ] = "digits",
    methods: Annotated[
        str, typer.Option(help="see thinned methods; all for every one that fits a dense network")
    ] = "none,dropout,gaussian",
    p: Annotated[
        str, typer.Option(help="probability of dropping a hidden unit; several are compared: 0.1,0.3,0.5")
    ] = f"{Config.p:g}",
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="first choose p, input-p, max-norm, learning rate and width of each method, on held-out "
            "training data; needs thinned[tune]",
        ),
    ] = False,
    minutes: Annotated[float, typer.Option(min=0, help="for --tune, all methods together")] = 10.0,
    seeds: Annotated[int, typer.Option(min=1, help="the number of seeds: 3 means seeds 0, 1, 2")] = 3,
    label: Annotated[str | None, typer.Option(help="column of the labels in a table")] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="the table's first line has no names: columns are 0, 1, …")
    ] = False,
    task: Annotated[
        str, typer.Option(help="what is predicted: classes, numbers, or auto: found from the labels")
    ] = "auto",
    group: Annotated[
        str | None, typer.Option(help="column whose groups are never in both training and test data")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="column of dates or numbers: the latest rows are test data")
    ] = None,
    drop: Annotated[str, typer.Option(help="columns to leave out: a,b")] = "",
    categorical: Annotated[str, typer.Option(help="columns that hold categories, though numbers")] = "",
    numeric: Annotated[str, typer.Option(help="columns that hold numbers, though left out")] = "",
    id: Annotated[str, typer.Option(help="columns that only name a row; they are left out")] = "",
    data_dir: DataDir = None,
    out: Annotated[
        str | None,
        typer.Option(help="folder, or URL, of the runs and the report; by default thinned-runs/compare-DATA"),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    save_every: SaveEvery = 2.0,
    logger: Loggers = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train the same network once per method and seed; print a table and write a report.

    The same command continues runs that were cut off and skips finished ones.

    A run is stopped and marked "diverged" where its loss is not a number, or above 10,000 times that of
    guessing. The others go on, and the exit code is then 1.

    Examples:
        thinned compare
        thinned compare --data birds.csv --label species
        thinned compare --data houses.csv --label price --time sold --p 0.1,0.3,0.5
        thinned compare --data mnist --hidden 1024,1024 --methods none,dropout,thin --epochs 20
    """
    from thinned.lab import compare as lab
    from thinned.lab import tuning
    from thinned.lab.reporting import loggers, terminal
    from thinned.lab.storage.provenance import command
    from thinned.lab.storage.record import Record
    from thinned.lab.storage.remote import folder
    from thinned.lab.storage.run import run_name
    from thinned.lab.study import study
    from thinned.lab.sweeping import sweep
    from thinned.lab.training import fabric

    one_of("engine", settings["engine"], ENGINES)
    names = lab.known_methods(split(methods))
    how: dict[str, Any] = {"data_dir": data_dir, "label": label, "header": not no_header, "task": task}
    how |= {"group": group, "time": time}
    kinds = {"drop": drop, "categorical": categorical, "numeric": numeric, "id": id}
    how |= {option: tuple(split(names)) for option, names in kinds.items()}
    dataset = load(data, **how)
    if dataset.columns and not json:
        print("\n".join(lab.columns(dataset)))
    settings["input_p"] = input_rate(dataset.shape, settings["input_p"])
    given = {name: settings[name] for name in GIVEN}
    settings |= defaults(len(dataset.x_train), dataset.shape, **given)
    variants, tuned = lab.rates(p, names), []
    first = next((own[0]["p"] for own in variants.values()), Config.p)
    base = Config(data=dataset.name, fingerprint=dataset.fingerprint, method="dropout", p=first, **settings)
    fabric.check(base.device)
    place = folder(out or Path("thinned-runs") / f"compare-{Path(data).stem}")
    # Of configurations: their jobs, made again in another process.
    again = functools.partial(functools.partial, lab.jobs_again, data=data, **how)
    try:
        if tune:
            lab.one_rate(variants)
            with terminal.progress(None, json) as progress:
                tuned = tuning.tune(base, names, dataset, place, minutes, progress, workers or 1, again)
            variants = {one.method: [one.settings()] for one in tuned}
        todo = lab.jobs(base, dataset, names, range(seeds), variants)
        record = Record(
            "compare",
            command(),
            lab.settings(base, dataset, range(seeds)) | tuning.words(tuned),
            [run_name(job.config) for job in todo],
            shared=True,
            tried={one.method: one.over("p") for one in tuned},
        )
        answer = place / lab.question(todo)
        record.save(answer)  # first, so that a report can be made of a part
        recipe = again([job.config for job in todo])
        with loggers.logged(terminal.progress(None, json), logger, place, len(todo)) as progress:
            stored = sweep.run(
                todo, place, progress, recipe=recipe, save_every=save_every, workers=workers, ray=ray
            )
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {place})", 130)
    study(todo, stored, progress.note).save(answer)
    finish(record, stored, answer, json)
    complain(stored)


def split(text: str) -> list[str]:
    """The parts of `a, b`."""
    return [item.strip() for item in text.split(",") if item.strip()]
