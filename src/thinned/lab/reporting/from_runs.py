"""What a report shows of stored runs: rows, curves, the machine, and the same for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinned.lab.reporting import summary
from thinned.lab.reporting.page import Page, Row, Series
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored


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


def machine(stored: Sequence[Stored]) -> dict[str, str]:
    """Where the runs were made; more than one answer where they differ."""
    found: dict[str, list[str]] = {}
    for run in stored:
        for name, value in run.result.get("about", {}).items():
            if name != "command" and value is not None and str(value) not in found.setdefault(name, []):
                found[name].append(str(value))
    return {name: ", ".join(values) for name, values in found.items() if values}


def as_json(page: Page, stored: Sequence[Stored], report: Folder) -> dict[str, Any]:
    """A page for programs: shares 0…1, a row a method, and the runs behind it."""
    found = []
    for row in page.rows:
        s = summary.summarise(row)
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
    found = [summary.finding(page.rows, page.baseline), summary.gap_finding(page.rows, page.baseline)]
    return [text for text in found if text]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
