"""The command `thinned`: compare, reproduce, report, methods, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

try:
    import typer
    from typer.core import TyperGroup
except ImportError:  # the library without its command
    raise SystemExit('thinned: the command needs more packages; run pip install "thinned[lab]"') from None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinned.lab.storage.record import Record
    from thinned.lab.storage.remote import Folder
    from thinned.lab.storage.run import Stored
    from thinned.lab.sweeping.job import Job

# Options of several commands.
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]
DataDir = Annotated[
    Path | None, typer.Option(help="where mnist or cifar10 lies; else $THINNED_DATA, else a download")
]
SaveEvery = Annotated[float, typer.Option(min=0, help="seconds between checkpoints")]
Validation = Annotated[
    float,
    typer.Option(
        help="share of the training data to judge by, in place of the test data: to choose settings"
    ),
]
Device = Annotated[str, typer.Option(help="where torch computes: cpu or cuda")]
Precision = Annotated[
    str, typer.Option(help="of torch: 32, or bf16, where products are of bfloat16 numbers, by autocast")
]


def fail(text: str, code: int) -> NoReturn:
    """One line on stderr, and out."""
    print("thinned: " + " ".join(text.split()), file=sys.stderr)
    raise SystemExit(code)


class OneLine(TyperGroup):
    """Every error is one line on stderr, and an exit code: 2 for a wrong call, 130 for Ctrl-C, else 1."""

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run the command line."""
        try:
            code = super().main(*args, **{**more, "standalone_mode": False})
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except BrokenPipeError:
            sys.stderr.close()  # nobody listens any more
            raise SystemExit(1) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}", 1)
        except Exception as error:
            fail(*_told(error))
        if code == 130:
            fail("stopped", 130)
        raise SystemExit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> tuple[str, int]:
    """The line and the exit code for an error; one that is no user's is raised again."""
    from thinned.lab.errors import LabError, missing

    if hasattr(error, "format_message"):  # of the command-line library
        return f"{error.format_message()} (thinned --help tells more)", int(getattr(error, "exit_code", 2))
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --hidden, --batch or data set", 1
    if isinstance(error, (LabError, ValueError, TypeError)):
        return str(error), 1
    if isinstance(error, ImportError):
        return missing(error), 1
    raise error


app = typer.Typer(
    cls=OneLine, help="Dropout and its whole family: what it does for a network.", add_completion=False
)


def _version(asked: bool) -> None:
    if asked:
        from thinned import __version__

        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Dropout and its whole family: what it does for a network."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
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
    activation: Annotated[str, typer.Option(help="relu, sigmoid or maxout")] = "relu",
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
    from thinned.lab.data import dataset as sets
    from thinned.lab.storage.provenance import command
    from thinned.lab.storage.record import Record
    from thinned.lab.storage.remote import folder
    from thinned.lab.storage.run import run_name
    from thinned.lab.training import fabric as devices
    from thinned.lab.training.config import Config
    from thinned.lab.training.torch_nets import ENGINES

    names = lab.known_methods(_list(methods), _checks.one_of("engine", engine, ENGINES))
    dataset = sets.load(data, data_dir=data_dir, label=label)
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
    devices.check(base.device)
    every = range(seeds)
    todo = lab.jobs(base, dataset, names, every)
    place = folder(out or Path("thinned-runs") / f"compare-{Path(data).stem}")
    record = Record(
        "compare",
        command(),
        lab.settings(base, dataset, every),
        [run_name(job.config) for job in todo],
    )
    _train(todo, place, record, save_every, json)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="an experiment; --list shows them")] = None,
    budget: Annotated[
        str, typer.Option(help="smoke (seconds), quick (minutes) or paper (the whole protocol)")
    ] = "quick",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="so many, instead of the budget's own number")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="systems whose names hold this; may be given several times")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="runs side by side, each with its share of cores; by default 1, with --ray as many as CPUs",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="train on a Ray cluster: host:port, ray://host:port, auto, or local"
        ),
    ] = None,
    validation: Validation = 0.0,
    engine: Annotated[
        str | None, typer.Option(help="numpy or torch, for dense networks; by default each network's own")
    ] = None,
    device: Device = "cpu",
    precision: Precision = "32",
    data_dir: DataDir = None,
    out: Annotated[
        str | None,
        typer.Option(help="folder, or URL such as s3://bucket/runs; by default thinned-runs/NAME-BUDGET"),
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="put the results into this folder, and the page beside it")
    ] = None,
    save_every: SaveEvery = 30.0,
    json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be trained, and for how long")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="make the page of all published results anew, and stop")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="list the experiments")] = False,
) -> None:
    """Rebuild an experiment of the sources, and print its figures beside theirs.

    The same command continues what was cut off and skips what is done.
    """
    from thinned import _checks
    from thinned.lab import experiments
    from thinned.lab.reporting import terminal as console
    from thinned.lab.reproduce import order as lab
    from thinned.lab.reproduce import results_page as results
    from thinned.lab.storage.remote import folder

    if page:
        print(f"page: {results.write_page(publish or Path('docs/results'))}")
        return
    if list_ or name is None:
        found = lab.overview()
        if json:
            console.print_json(found)
            return
        console.table(["name", "what it shows", "budgets"], lab.overview_rows(found))
        print("thinned reproduce NAME --budget smoke|quick|paper")
        return
    experiment = experiments.load(name)
    _checks.one_of("budget", budget, experiments.BUDGETS)
    computed = {"engine": engine, "device": device, "precision": precision}
    more = {"data_dir": data_dir, "only": tuple(only or ()), "validation": validation, **computed}
    asked = lab.order(name, budget, seeds, **more)
    place = folder(out) if out else lab.default_out(asked)
    todo = asked.jobs()
    if dry_run:
        rows, told = lab.dry_run(asked, todo, place, workers, ray)
        console.table(["system", "runs", "done", "epochs", "about"], rows)
        print(told)
        return
    record = lab.record(asked, todo)
    record.save(place)  # first, so that a report can be made of a part
    progress = console.progress(experiment.line, json)
    try:
        lab.train(asked, todo, place, progress, save_every=save_every, workers=workers, ray=ray)
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {place})", 130)
    stored = record.stored(place)
    _finish(record, stored, place, json)
    results.save(place, experiment, results.rows(experiment, record, stored))
    if place.parent == lab.ROOT:
        results.write_index(place.parent)
    if publish:
        lab.publish(publish, record, stored)
    _complain(stored)


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="a folder, or URL, that compare or reproduce wrote")],
    json: Json = False,
) -> None:
    """Make the report again from the runs in a folder."""
    from thinned.lab.storage import remote as store
    from thinned.lab.storage.record import Record

    place = store.folder(folder)
    record = Record.load(place)
    _finish(record, record.stored(place), place, json)


@app.command()
def methods(
    json: Json = False,
) -> None:
    """List the methods."""
    from thinned.lab.reporting import terminal as console
    from thinned.methods import METHODS

    fields = ("name", "unit", "summary", "source")
    found = [{field: str(getattr(row, field)) for field in fields} for row in METHODS.values()]
    if json:
        console.print_json(found)
        return
    console.table([*fields], [list(row.values()) for row in found])
    print('"none" trains without dropping anything: the baseline of thinned compare.')


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="benchmarks; all by default")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="few rounds: a look, no measurement")] = False,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    write: Annotated[Path | None, typer.Option(help="put the tables into this page, too")] = None,
) -> None:
    """Measure the kernels beside their floor, a plain copy or product, and their peers."""
    from thinned.lab import bench as benchmarks

    benchmarks.run(names or (), json, quick, markdown, write)


def main() -> None:
    """Run the command."""
    app()


def _train(todo: Sequence[Job], out: Folder, record: Record, save_every: float, json: bool) -> None:
    """Train, report, and say what was learned."""
    from thinned.lab import compare as lab
    from thinned.lab.reporting import terminal as console

    record.save(out)  # first, so that a report can be made of a part
    try:
        with console.progress(None, json) as progress:
            stored = lab.run_all(todo, out, progress, save_every)
    except KeyboardInterrupt:
        fail(f"stopped; the same command continues where it left off (in {out})", 130)
    _finish(record, stored, out, json)
    _complain(stored)


def _complain(stored: Sequence[Stored]) -> None:
    """Exit code 1 where runs failed or diverged, and which."""
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


def _finish(record: Record, stored: Sequence[Stored], out: Folder, json: bool) -> None:
    """Write the report; print the table, what was learned, and where the report lies."""
    from thinned.lab import compare as lab
    from thinned.lab import experiments
    from thinned.lab.reporting import from_runs
    from thinned.lab.reporting import terminal as console
    from thinned.lab.reporting.page import render

    page = (lab.page if record.kind == "compare" else experiments.load(record.kind).page)(record, stored)
    try:
        path = render(out, page)
    except OSError as error:
        fail(
            f"cannot write the report: {error.filename or out}: {error.strerror or error}; "
            f"the runs are kept; make room, then run thinned report {out}",
            1,
        )
    if json:
        console.print_json(from_runs.as_json(page, stored, path))
    else:
        console.show(page, [] if record.kind == "compare" else [page.lead, *page.notes])
        print(f"report: {path.resolve()}")


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _sizes(text: str) -> tuple[int, ...]:
    """`256,128` as numbers."""
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError:
        raise ValueError(f"hidden must be layer sizes such as 256,128, got {text!r}") from None
