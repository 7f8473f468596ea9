"""Comparisons: the same network, trained once with each method and seed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinned import methods
from thinned.lab import choices
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.errors import CallError, LabError
from thinned.lab.reporting.comparison import comparison
from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import labeller, machine, rows, series
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.rates import best_rates, over_p
from thinned.lab.reporting.sections import sections
from thinned.lab.reporting.summary import BASELINE, styles
from thinned.lab.reporting.wording import plural
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored, canonical, digest
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import Config, shown
from thinned.lab.training.keeping import trainer

MANY_COLUMNS = 40
MANY_METHODS = 4
Variants = Mapping[str, Sequence[Mapping[str, Any]]]  # method -> settings that differ from the others'


def known_methods(names: Iterable[str]) -> list[str]:
    """The names without repeats; ``"all"`` gives every method that a dense network can use.

    Raises:
        CallError: a method is unknown, and the message names the nearest one; or it does not fit; or the
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
            raise CallError(f"methods must be among {', '.join(known)}, or all, got {name}: {reason}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise CallError(f"methods must be among {', '.join(known)}, or all, got {name!r}{hint}")
    if not names:
        raise CallError(f"methods must be at least one of {', '.join(known)}, or all, got an empty list")
    return names


def jobs(
    base: Config,
    dataset: Dataset,
    names: Sequence[str],
    seeds: Iterable[int],
    variants: Variants | None = None,
) -> list[Job]:
    """A job for every method, each of its variants and each seed, seed after seed.

    A comparison that is cut off early has all methods. A method without variants has the settings of `base`.
    """
    names, make = known_methods(names), trainer(dataset)
    return [
        Job(dataclasses.replace(base, method=name, seed=seed, **settings), dataset, make)
        for seed in seeds
        for name in names
        for settings in (variants or {}).get(name, ({},))
    ]


def rates(text: str, names: Sequence[str]) -> Variants:
    """`0.1,0.3,0.5` as variants of each method that drops; CallError unless it is a list of numbers."""
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise CallError(f"p must be a number, or several as 0.1,0.3,0.5, got {text!r}")
    return {name: [{"p": p} for p in dict.fromkeys(found)] for name in names if name != "none"}


def one_rate(variants: Variants) -> None:
    """CallError if there are several rates, which `--tune` would not keep."""
    if any(len(own) > 1 for own in variants.values()):
        raise CallError("p must be one rate with --tune, which tries others; leave out --p, or --tune")


def jobs_again(configs: Sequence[Config], data: str, **how: Any) -> list[Job]:
    """The jobs of these configurations in another process, which loads the data itself, with options `how`.

    Raises:
        LabError: the data has changed since this comparison began.
    """
    dataset = load(data, **how)
    if dataset.fingerprint != configs[0].fingerprint:
        raise LabError(f"{data}: the data has changed since this comparison began; run it again")
    return [Job(config, dataset, trainer(dataset)) for config in configs]


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
        own = "; each seed holds out its own" if len(seeds) > 1 and not dataset.ordered else ""
        found["judged on"] = (
            f"{base.validation:g} of the training data, held out, in place of the test data{own}"
        )
    found |= shown(base, dataset.x_train.shape[1], base.outputs or dataset.outputs)
    return found | {"seeds": ", ".join(map(str, seeds))}


def question(todo: Sequence[Job]) -> str:
    """The folder of a comparison's report: its methods, and a hash of all settings but the seeds."""
    names = list(dict.fromkeys(job.config.method for job in todo))
    asked = sorted({canonical(dataclasses.replace(job.config, seed=0)) for job in todo})
    title = "-".join(names) if len(names) <= MANY_METHODS else f"{len(names)}-methods"
    return f"{title}-{digest(' '.join(asked))[:6]}"


def page(record: Record, stored: Sequence[Stored], evidence: Evidence | None = None) -> Page:
    """The report of a comparison. What compares predictions is there if they were kept."""
    data = stored[0].config["data"]
    held = " (on held-out training data in place of the test data)" if stored[0].config["validation"] else ""
    names = list(dict.fromkeys(run.config["method"] for run in stored))
    seeds = len({run.config["seed"] for run in stored})
    found, label = rows(stored), labeller([run.config for run in stored])
    labels = [label(run.config) for run in stored]
    made = comparison(
        found, stored, evidence, {name: [p for p, _ in points] for name, points in record.tried.items()}
    )
    baseline = made.verdict.other if made and made.verdict else BASELINE
    parts: dict[str, Any] = dict(made.parts()) if made else {}
    pictures = over_p(stored, found, labels, record.tried)
    parts["sections"] = (
        sections(made, styles([row.label for row in found], baseline), pictures) if made else ()
    )
    if not made:
        parts["extras"] = pictures
    best = best_rates(stored, found, labels)
    if best and parts.get("found"):
        parts["found"] = [*parts["found"], f"Of the rates that were compared: {best}."]
    return Page(
        title=f"{' against '.join(names[:2]) if len(names) <= 2 else 'Dropout methods'} on {data}",
        lead=f"The same network, trained with each of {len(names)} methods and "
        f"{plural(seeds, 'seed')}{held}; errors are measured after the last epoch.",
        rows=found,
        series=series(stored),
        settings=dict(record.settings),
        command=record.command,
        machine=machine(stored),
        baseline=baseline,
        **parts,
    )
