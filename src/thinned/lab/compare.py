"""Comparisons: the same network, trained once with each method and seed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from thinned import methods
from thinned.lab import choices
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.errors import LabError
from thinned.lab.reporting.comparison import comparison
from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import machine, rows, series
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.summary import BASELINE
from thinned.lab.reporting.wording import plural
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored, canonical, digest
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import Config, shown
from thinned.lab.training.keeping import trainer

MANY_COLUMNS = 40
MANY_METHODS = 4


def known_methods(names: Iterable[str]) -> list[str]:
    """The names without repeats; ``"all"`` gives every method that a dense network can use.

    Raises:
        LabError: a method is unknown, and the message names the nearest one; or it does not fit; or the
            list is empty.
    """
    known = choices.applicable()
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
            raise LabError(f"methods must be among {', '.join(known)}, or all, got {name}: {reason}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LabError(f"methods must be among {', '.join(known)}, or all, got {name!r}{hint}")
    if not names:
        raise LabError(f"methods must be at least one of {', '.join(known)}, or all, got an empty list")
    return names


def jobs(base: Config, dataset: Dataset, names: Sequence[str], seeds: Iterable[int]) -> list[Job]:
    """A job for every method and seed, seed after seed: one that is cut off early has all methods."""
    names = known_methods(names)
    return [
        Job(dataclasses.replace(base, method=name, seed=seed), dataset, trainer(dataset))
        for seed in seeds
        for name in names
    ]


def jobs_again(
    base: Config,
    names: Sequence[str],
    seeds: Sequence[int],
    data: str,
    **how: Any,
) -> list[Job]:
    """The same `jobs` in another process, which loads the data itself, with the options `how` of `load`.

    Raises:
        LabError: the data has changed since this comparison began.
    """
    dataset = load(data, **how)
    if dataset.fingerprint != base.fingerprint:
        raise LabError(f"{data}: the data has changed since this comparison began; run it again")
    return jobs(base, dataset, names, seeds)


def columns(dataset: Dataset) -> list[str]:
    """What each column of a table holds, a line a column; of many columns, equal ones share a line."""
    alike: dict[str, list[str]] = {}
    for column in dataset.columns:
        many = len(dataset.columns) > MANY_COLUMNS
        alike.setdefault(str(column) if many else column.name, []).append(column.name)
    kinds = {column.name: str(column) for column in dataset.columns}
    return [f"{_some(names)}: {kinds[names[0]]}" for names in alike.values()]


def _some(names: list[str]) -> str:
    if len(names) <= 8:
        return ", ".join(names)
    return f"{', '.join(names[:6])}, … {names[-1]} ({len(names):,} columns)"


def settings(base: Config, dataset: Dataset, seeds: Sequence[int]) -> dict[str, str]:
    """The settings of a comparison, as a report prints them."""
    n_train, n_test = len(dataset.x_train), len(dataset.x_test)
    found = {"data": f"{dataset.name}: {n_train:,} training and {n_test:,} test examples. {dataset.note}"}
    if dataset.columns:
        found["columns"] = "; ".join(columns(dataset))
    if base.validation:
        found["judged on"] = f"{base.validation:g} of the training data, held out, in place of the test data"
    found |= shown(base, dataset.x_train.shape[1], base.outputs or dataset.outputs)
    return found | {"seeds": ", ".join(map(str, seeds))}


def question(todo: Sequence[Job]) -> str:
    """The folder of a comparison's report: its methods, and a hash of all settings but the seeds."""
    names = list(dict.fromkeys(job.config.method for job in todo))
    asked = sorted({canonical(dataclasses.replace(job.config, seed=0)) for job in todo})
    shown = "-".join(names) if len(names) <= MANY_METHODS else f"{len(names)}-methods"
    return f"{shown}-{digest(' '.join(asked))[:6]}"


def page(record: Record, stored: Sequence[Stored], evidence: Evidence | None = None) -> Page:
    """The report of a comparison. What compares predictions is there if they were kept."""
    data = stored[0].config["data"]
    held = " (on held-out training data in place of the test data)" if stored[0].config["validation"] else ""
    names = list(dict.fromkeys(run.config["method"] for run in stored))
    seeds = len({run.config["seed"] for run in stored})
    found = rows(stored)
    made = comparison(found, stored, evidence)
    return Page(
        title=f"{' against '.join(names[:2]) if len(names) <= 2 else 'Dropout methods'} on {data}",
        lead=f"The same network, trained with each of {len(names)} methods and "
        f"{plural(seeds, 'seed')}{held}; errors are measured after the last epoch.",
        rows=found,
        series=series(stored),
        settings=dict(record.settings),
        command=record.command,
        machine=machine(stored),
        baseline=made.verdict.other if made and made.verdict else BASELINE,
        **(made.parts() if made else {}),
    )
