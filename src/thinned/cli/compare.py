"""`thinned compare`: the same network, once per method and seed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from thinned.activations import COMPARED
from thinned.cli.errors import fail
from thinned.cli.finish import complain, finish
from thinned.cli.options import DataDir, Device, Json, Precision, Ray, SaveEvery, Validation, Workers


def compare(
    data: Annotated[
        str, typer.Option(help="digits, spiral, mnist, cifar10, or a file: .npz, .csv")
    ] = "digits",
    hidden: Annotated[str, typer.Option(help="sizes of the hidden layers")] = "512,512",
    methods: Annotated[
        str, typer.Option(help="see thinned methods; all for every one that fits a dense network")
    ] = "none,dropout,gaussian",
    p: Annotated[float, typer.Option(help="probability of dropping a hidden unit")] = 0.5,
    input_p: Annotated[
        float | None,
        typer.Option(
            help="probability of dropping an input; by default 0.2 for images, as in the paper, else 0"
        ),
    ] = None,
    max_norm: Annotated[
        float | None, typer.Option(help="bound on the norm of a hidden unit's incoming weights")
    ] = None,
    l2: Annotated[float, typer.Option(help="weight of ‖W‖²/2 in the loss")] = 0.0,
    activation: Annotated[str, typer.Option(help=f"{', '.join(COMPARED[:-1])} or {COMPARED[-1]}")] = "relu",
    epochs: Annotated[int | None, typer.Option(help="by default 20, or as many as 2,000 steps take")] = None,
    batch: Annotated[
        int | None, typer.Option(help="examples in a step; by default 128, below 5,000 examples 32")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam or sgd; by default adam, below 5,000 examples sgd")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="by default 0.001; for sgd 0.1 * batch / 128, at most 0.1")
    ] = None,
    momentum: Annotated[float, typer.Option(help="of sgd")] = 0.9,
    nesterov: Annotated[bool, typer.Option(help="Nesterov's momentum")] = True,
    schedule: Annotated[str, typer.Option(help="of the rate: linear, cycle, constant, halve")] = "linear",
    seeds: Annotated[int, typer.Option(min=1, help="so many: 3 means seeds 0, 1, 2")] = 3,
    validation: Validation = 0.0,
    engine: Annotated[str, typer.Option(help="numpy or torch: the same masks")] = "numpy",
    device: Device = "cpu",
    precision: Precision = "32",
    label: Annotated[str | None, typer.Option(help="column of the labels in a .csv file")] = None,
    data_dir: DataDir = None,
    out: Annotated[
        str | None,
        typer.Option(help="folder, or URL, of the runs and the report; by default thinned-runs/compare-DATA"),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    save_every: SaveEvery = 2.0,
    json: Json = False,
) -> None:
    """Train the same network once per method and seed; print a table and write a report.

    The same command continues what was cut off and skips what is done.

    A run whose loss is no number, or above 10,000 times that of guessing, is stopped and marked "diverged";
    the others go on, and the exit code is then 1.
    """
    from thinned import _checks
    from thinned.lab import compare as lab
    from thinned.lab.choices import ENGINES
    from thinned.lab.data.registry import load
    from thinned.lab.reporting import terminal as console
    from thinned.lab.storage.provenance import command
    from thinned.lab.storage.record import Record
    from thinned.lab.storage.remote import folder
    from thinned.lab.storage.run import run_name
    from thinned.lab.sweeping import sweep
    from thinned.lab.training import fabric
    from thinned.lab.training.config import Config

    names = lab.known_methods(split(methods), _checks.one_of("engine", engine, ENGINES))
    dataset = load(data, data_dir=data_dir, label=label)
    settings: dict[str, Any] = {
        "hidden": _sizes(hidden),
        "p": p,
        "input_p": (0.2 if len(dataset.shape) > 1 else 0.0) if input_p is None else input_p,
        "max_norm": max_norm,
        "l2": l2,
        "activation": activation,
        **lab.defaults(len(dataset.x_train), optimizer, epochs, batch, lr),
        "engine": engine,
        "device": device,
        "precision": precision,
        "momentum": momentum,
        "nesterov": nesterov,
        "schedule": schedule,
        "validation": validation,
    }
    base = Config(data=dataset.name, fingerprint=dataset.fingerprint, method="dropout", **settings)
    fabric.check(base.device)
    every = range(seeds)
    todo = lab.jobs(base, dataset, names, every)
    place = folder(out or Path("thinned-runs") / f"compare-{Path(data).stem}")
    record = Record(
        "compare",
        command(),
        lab.settings(base, dataset, every),
        [run_name(job.config) for job in todo],
    )
    recipe = functools.partial(lab.jobs_again, base, names, every, data, data_dir, label)
    record.save(place)  # first, so that a report can be made of a part
    try:
        with console.progress(None, json) as progress:
            stored = sweep.run(
                todo, place, progress, recipe=recipe, save_every=save_every, workers=workers, ray=ray
            )
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {place})", 130)
    finish(record, stored, place, json)
    complain(stored)


def split(text: str) -> list[str]:
    """`a, b` as its parts."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _sizes(text: str) -> tuple[int, ...]:
    """`256,128` as numbers."""
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError:
        raise ValueError(f"hidden must be layer sizes such as 256,128, got {text!r}") from None
