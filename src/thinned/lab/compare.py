"""Comparisons: the same network once per method and seed, and what a report shows of it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinned import _files, methods
from thinned.lab.data.dataset import Dataset
from thinned.lab.errors import LabError
from thinned.lab.reporting import summary as findings
from thinned.lab.reporting.page import Page, Row, Series
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage import run as runs
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Run, Stored
from thinned.lab.training import torch_nets as engines
from thinned.lab.training import train
from thinned.lab.training.config import Config
from thinned.lab.training.train import Trainer

RECORD = "page.json"  # beside the run folders: which of them the report shows, and how

# Defaults that suit the data, chosen on held-out training data of digits and MNIST.
SMALL = 5_000  # training examples; with fewer, batches of 32 and sgd by default
EPOCHS, STEPS = 20, 2_000  # epochs by default, and at least so many steps
RATE = 0.1  # of sgd with batches of 128; in proportion for others


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be trained: its configuration, its data, and who trains it."""

    config: Config
    dataset: Dataset
    trainer: type[Trainer] = Trainer


@dataclass(frozen=True)
class Record:
    """What a report needs beside the runs.

    Args:
        kind: `"compare"`, or the name of an experiment.
        command: the command that made it.
        settings: what the report prints, by name.
        runs: names of the run folders, in order; empty for every one there is.
        budget: of an experiment.
    """

    kind: str
    command: str
    settings: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[str] = ()
    budget: str = ""

    def save(self, out: Folder) -> None:
        """Write it beside the runs."""
        try:
            _files.write_json(out / RECORD, dataclasses.asdict(self))
        except OSError as error:
            raise LabError(
                f"cannot write {out / RECORD}: {error.strerror or error}; make room there"
            ) from error

    @classmethod
    def load(cls, out: Folder) -> Record:
        """The record in `out`; without one, a comparison of every run there is."""
        path = out / RECORD
        if not path.exists():
            return cls("compare", "")
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{path}: damaged ({error}); run the command that made it again") from error

    def stored(self, out: Folder) -> list[Stored]:
        """Those of the runs that lie in `out`; LabError where none does."""
        there = runs.folders(out)
        if self.runs:
            there = [out / name for name in self.runs if out / name in there]
            if not there:
                raise LabError(f"{out}: none of its runs has begun; run the command that made it again")
        return [runs.read(path) for path in there]


def defaults(
    examples: int, optimizer: str | None, epochs: int | None, batch: int | None, lr: float | None
) -> dict[str, Any]:
    """Optimizer, epochs, batch and rate: what was asked for, else what suits so many training examples."""
    if optimizer is None:
        optimizer = "sgd" if examples < SMALL else "adam"
    if batch is None:
        batch = 32 if examples < SMALL else 128
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(examples / max(1, batch))))
    if lr is None:
        lr = 0.001 if optimizer == "adam" else RATE * min(max(1, batch), 128) / 128
    return {"optimizer": optimizer, "epochs": epochs, "batch": batch, "lr": lr}


def known_methods(names: Iterable[str], engine: str = "numpy") -> list[str]:
    """The names without repeats, ``"all"`` for every method that applies.

    LabError names the nearest known method for one that is unknown, and says so of one that does not fit.
    """
    known = engines.applicable(engine)
    names = list(dict.fromkeys(names))
    if "all" in names:
        return known
    for name in names:
        if name in known:
            continue
        if name in methods.METHODS:
            row = methods.METHODS[name]
            reason = f"it works on {row.dims}, and a dense network has none"
            if row.needs:
                reason = f"it needs {row.needs}"
            elif engines.fits_dense(row):
                reason = f"the {engine} engine has no layer for it"
            raise LabError(f"methods: {name} cannot be compared here: {reason}; there are {', '.join(known)}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LabError(f"methods: expected some of {', '.join(known)}, or all, got {name!r}{hint}")
    if not names:
        raise LabError(f"methods: expected at least one of {', '.join(known)}, or all")
    return names


def jobs(base: Config, dataset: Dataset, names: Sequence[str], seeds: Iterable[int]) -> list[Job]:
    """Every method with every seed, seed after seed, so that a comparison cut off early has all methods."""
    names = known_methods(names, base.engine)
    return [
        Job(dataclasses.replace(base, method=name, seed=seed), dataset) for seed in seeds for name in names
    ]


def run_all(
    todo: Sequence[Job], out: Folder, progress: Progress | None = None, save_every: float = 2.0
) -> list[Stored]:
    """Train the jobs one after the other, each in its folder inside `out`; what is finished is only read."""
    progress = progress or Progress()
    open_ = [job for job in todo if not Run(out, job.config).finished()]
    progress.plan(len(open_), sum(job.config.epochs for job in open_))
    return [
        train.train(job.config, job.dataset, out, progress, trainer=job.trainer, save_every=save_every)
        for job in todo
    ]


def rows(stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None = None) -> list[Row]:
    """A row for each label, in order of appearance; the runs of a row are its seeds."""
    found = []
    for name, members in _groups(stored, label).items():
        results = [run.result for run in members]
        found.append(
            Row(
                label=name,
                test_error=[_number(result.get("test_error")) for result in results],
                train_error=[_number(result.get("train_error")) for result in results],
                seconds_per_epoch=[_number(result.get("seconds_per_epoch")) for result in results],
                parameters=max(int(result.get("parameters", 0)) for result in results),
                status=[run.status for run in members],
            )
        )
    return found


def series(stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None = None) -> list[Series]:
    """The history of every run that has one, under the label of its row."""
    return [
        Series(
            name,
            run.config["seed"],
            [int(epoch) for epoch in run.history["epoch"]],
            {column: values for column, values in run.history.items() if column != "epoch"},
        )
        for name, members in _groups(stored, label).items()
        for run in members
        if run.history["epoch"]
    ]


def _groups(
    stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None
) -> dict[str, list[Stored]]:
    label = label or labeller([run.config for run in stored])
    groups: dict[str, list[Stored]] = {}
    for run in stored:
        groups.setdefault(label(run.config), []).append(run)
    return groups


def labeller(configs: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], str]:
    """How to name rows: by method, and by every other setting in which these runs of one method differ."""
    varying: dict[str, list[str]] = {}
    for config in configs:
        same = [other for other in configs if other["method"] == config["method"]]
        varying[config["method"]] = [
            name
            for name in config
            if name not in ("method", "seed") and any(other.get(name) != config[name] for other in same)
        ]

    def label(config: Mapping[str, Any]) -> str:
        rest = [f"{name} {_short(config[name])}" for name in varying[config["method"]]]
        return ", ".join([config["method"], *rest])

    return label


def settings(base: Config, dataset: Dataset, seeds: Sequence[int]) -> dict[str, str]:
    """The settings of a comparison, as a report prints them."""
    n_train, n_test = len(dataset.x_train), len(dataset.x_test)
    n_in = dataset.x_train.shape[1]
    outputs = base.outputs or len(dataset.classes)
    judged = (
        {"judged on": f"{base.validation:g} of the training data, held out, in the place of the test data"}
        if base.validation
        else {}
    )
    limit = f"max-norm {base.max_norm:g}" if base.max_norm else "no max-norm"
    momentum = (
        f", momentum {base.momentum:g}{' (Nesterov)' if base.nesterov else ''}" if base.momentum else ""
    )
    return {
        "data": f"{dataset.name}: {n_train:,} training and {n_test:,} test examples. {dataset.note}",
        **judged,
        "network": f"{n_in}-{'-'.join(map(str, base.hidden))}-{outputs}, {base.activation}",
        "engine": engines.text(dataclasses.asdict(base)),
        "dropping": f"p = {base.p:g} for hidden units, {base.input_p:g} for inputs",
        "regularisation": f"L2 {base.l2:g}, {limit}",
        "training": f"{base.epochs} epochs, batches of {base.batch}, {base.optimizer}{momentum}",
        "learning rate": f"{base.lr:g}, {base.schedule}" + (f", decay {base.decay:g}" if base.decay else ""),
        "seeds": ", ".join(map(str, seeds)),
    }


def machine(stored: Sequence[Stored]) -> dict[str, str]:
    """Where the runs were made; more than one answer where they differ."""
    found: dict[str, list[str]] = {}
    for run in stored:
        for name, value in run.result.get("about", {}).items():
            if name != "command" and value is not None and str(value) not in found.setdefault(name, []):
                found[name].append(str(value))
    return {name: ", ".join(values) for name, values in found.items() if values}


def page(record: Record, stored: Sequence[Stored]) -> Page:
    """The report of a comparison."""
    data = stored[0].config["data"]
    held = " (held-out training data in the place of the test data)" if stored[0].config["validation"] else ""
    names = list(dict.fromkeys(run.config["method"] for run in stored))
    seeds = len({run.config["seed"] for run in stored})
    return Page(
        title=f"{' against '.join(names[:2]) if len(names) <= 2 else 'Dropout methods'} on {data}",
        lead=f"The same network, trained with each of {len(names)} methods and "
        f"{findings.plural(seeds, 'seed')}{held}; errors are those after the last epoch.",
        rows=rows(stored),
        series=series(stored),
        settings=dict(record.settings),
        command=record.command,
        machine=machine(stored),
    )


def as_json(page: Page, stored: Sequence[Stored], report: Folder) -> dict[str, Any]:
    """A page for programs: shares 0…1, a row a method, and the runs behind it."""
    found = []
    for row in page.rows:
        s = findings.summarise(row)
        stats = {"test_error": s.test, "train_error": s.train, "gap": s.gap}
        found.append(
            {
                "label": row.label,
                **{
                    name: {"mean": stat.mean / 100, "sd": stat.sd / 100, "n": stat.n}
                    for name, stat in stats.items()
                },
                "seconds_per_epoch": s.seconds.mean,
                "parameters": row.parameters,
                "status": list(row.status),
            }
        )
    return {
        "title": page.title,
        "finding": " ".join(sentences(page)),
        "rows": found,
        "runs": [{"folder": str(run.folder), "config": run.config, "result": run.result} for run in stored],
        "references": [dataclasses.asdict(reference) for reference in page.references],
        "notes": list(page.notes),
        "settings": dict(page.settings),
        "command": page.command,
        "report": str(report),
    }


def sentences(page: Page) -> list[str]:
    """What was learned: on the test error, on the gap."""
    if page.headline:
        return [page.headline]
    found = [findings.finding(page.rows, page.baseline), findings.gap_finding(page.rows, page.baseline)]
    return [text for text in found if text]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
