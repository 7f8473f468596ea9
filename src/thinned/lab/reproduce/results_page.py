"""Results as files: rows in `docs/results`, the page made from them, and an index of reports."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from thinned import _files
from thinned.lab import choices, experiments
from thinned.lab.errors import LabError
from thinned.lab.grids.experiment import BUDGETS, Experiment, Target
from thinned.lab.reporting import html
from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import finding, number, plural, stat_text, time_text
from thinned.lab.reproduce import at_a_glance
from thinned.lab.storage.record import RECORD, Record
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored

NOTES = "results-notes.md"  # beside the page: a text written by hand, added at its end
GLANCE = "at-a-glance.svg"  # among the results: the picture of all printed figures and ours
Rows = list[dict[str, Any]]


def rows(
    experiment: Experiment, record: Record, stored: Sequence[Stored], before: Sequence[dict[str, Any]] = ()
) -> Rows:
    """A row for each system: errors in %, figures, seconds of training, and where and how they were made.

    Args:
        before: published rows; a row keeps their seeds that are not among the runs.
    """
    theirs = {target.label: target.theirs for target in experiment.targets}
    older = {row["system"]: row for row in before if row["budget"] == record.budget}
    groups: dict[str, list[Stored]] = {}
    for run in stored:
        groups.setdefault(experiment.label(run.config), []).append(run)
    return [
        {"system": name, "budget": record.budget, "source": theirs.get(name), "command": record.command}
        | _joined(older.get(name, {}), members)
        for name, members in groups.items()
    ]


def seeds(row: Mapping[str, Any]) -> set[int]:
    """The seeds of a published row, those that were lost too; none if further seeds cannot join them."""
    return {*map(int, _each(row)), *map(int, row["lost"])}


def _joined(older: Mapping[str, Any], members: Sequence[Stored]) -> dict[str, Any]:
    """What a row says of its runs, with the other seeds of an older row."""
    done = [run for run in members if run.status == "done"]
    again = {str(run.config["seed"]) for run in members}
    each = {seed: one for seed, one in _each(older).items() if seed not in again}
    kept = older if each else {}
    lost = {seed: status for seed, status in older.get("lost", {}).items() if seed not in again}
    each |= {str(run.config["seed"]): _one(run) for run in done}
    each = dict(sorted(each.items(), key=lambda item: int(item[0])))
    about = [run.result["about"] for run in done]
    return {
        "seeds": [int(seed) for seed in each],
        "test_error": _stat([one["test_error"] for one in each.values()]),
        "figures": _figures([one["figures"] for one in each.values()]),
        "lost": lost | {str(run.config["seed"]): run.status for run in members if run.status != "done"},
        "seconds": _stat([one["seconds"] for one in each.values()]),
        "device": _same([kept.get("device"), *map(_machine, about)]),
        "engine": _same([kept.get("engine"), *(choices.text(run.config) for run in done)]),
        "commit": _same([kept.get("commit"), *(one["commit"] for one in about)]),
        "each": each,
    }


def _one(run: Stored) -> dict[str, Any]:
    """The figures of one run: its error in %, seconds of training, and single numbers that were measured."""
    error = run.result["test_error"]
    figures = {name: value for name, value in run.measured.items() if isinstance(value, (int, float))}
    return {
        "test_error": None if error is None else 100 * error,
        "seconds": run.seconds if math.isfinite(run.seconds) else None,
        "figures": {name: value if math.isfinite(value) else None for name, value in figures.items()},
    }


def _each(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of each seed of a published row; none if it has only those of several together."""
    if "each" in row:
        return dict(row["each"])
    if len(row.get("seeds", ())) != 1:
        return {}
    figures = {name: stat and stat["mean"] for name, stat in row["figures"].items()}
    error, seconds = (row[name] and row[name]["mean"] for name in ("test_error", "seconds"))
    return {str(row["seeds"][0]): {"test_error": error, "seconds": seconds, "figures": figures}}


def save(
    folder: Folder, experiment: Experiment, new: Rows, page: Page | None = None, paper: float | None = None
) -> Folder:
    """Write rows into `folder/NAME.json`, in place of older ones of the same systems, and pictures beside it.

    If older rows of the budget stay, the page shows only a part of the systems. Then its notes are taken;
    finding, tables and pictures are drawn again from all rows that are still trained, if rows are enough for
    them. Else those of the earlier, whole page stay, and a finding on test errors compares all rows.

    Args:
        paper: approximate seconds of the whole budget `paper` on the machine that made the rows.
    """
    path = folder / f"{experiment.name}.json"
    labels = [*(target.label for target in experiment.targets), *experiment.former]
    again = {(row["budget"], row["system"]) for row in new}
    kept = [row for row in read(path) if (row["budget"], row["system"]) not in again]
    kept, new = ([row for row in part if row["system"] in labels] for part in (kept, new))
    every = sorted((*kept, *new), key=lambda row: (BUDGETS.index(row["budget"]), labels.index(row["system"])))
    contents: dict[str, Any] = {"experiment": experiment.name, "rows": every, "paper_seconds": paper}
    if path.exists():
        contents["texts"] = _by_budget(_load(path))
    if page is not None and new:
        budget, texts = new[0]["budget"], contents.setdefault("texts", {})
        if budget in texts and any(row["budget"] == budget for row in kept):
            texts[budget]["notes"] = list(page.notes)
            own = [row for row in every if row["budget"] == budget and row["system"] not in experiment.former]
            if experiment.compares and all(map(_each, own)):
                texts[budget]["finding"] = finding([_errors(row) for row in own], page.baseline)
        else:
            texts[budget] = _texts(folder, f"{experiment.name}-{budget}", page)
    _files.write_json(path, contents)
    _redraw(folder, experiment, {row["budget"] for row in new})
    return path


def _redraw(folder: Folder, experiment: Experiment, budgets: Collection[str] = BUDGETS) -> None:
    """Draw finding, tables and pictures of budgets again, where their published rows are enough."""
    path = folder / f"{experiment.name}.json"
    contents = _load(path)
    texts, every = contents.get("texts", {}), contents.get("rows", [])
    for budget in filter(texts.__contains__, budgets):
        own = [row for row in every if row["budget"] == budget and row["system"] not in experiment.former]
        if experiment.redraw and own and all(map(_known, own)):
            page = experiment.redraw([run for row in own for run in _runs(row)])
            page = replace(page, rows=[_errors(row) for row in own], notes=texts[budget]["notes"])
            texts[budget] = _texts(folder, f"{experiment.name}-{budget}", page)
    if contents != _load(path):
        _files.write_json(path, contents)


def _known(row: Mapping[str, Any]) -> bool:
    """Whether a row has the figures of each of its seeds."""
    return len(_each(row)) == len(row["seeds"])


def _runs(row: Mapping[str, Any]) -> list[Stored]:
    """The runs of a published row, with what the row has of them."""
    results: dict[str, dict[str, Any]] = {seed: {"status": status} for seed, status in row["lost"].items()}
    for seed, one in _each(row).items():
        error, seconds = one["test_error"], one["seconds"]
        results[seed] = {
            "status": "done",
            "test_error": None if error is None else error / 100,
            "seconds_per_epoch": math.nan if seconds is None else seconds,
            "measured": {name: value for name, value in one["figures"].items() if value is not None},
        }
    config = {"system": row["system"], "epochs": 1}
    return [
        Stored(Path(), config | {"seed": int(seed)}, {"epoch": []}, result)
        for seed, result in results.items()
    ]


def _errors(row: Mapping[str, Any]) -> Row:
    """The test errors of a published row, as a finding takes them."""
    each = [math.nan if one["test_error"] is None else one["test_error"] / 100 for one in _each(row).values()]
    unknown = [math.nan] * len(each)
    return Row(row["system"], each, unknown, unknown, 0)


def _texts(folder: Folder, name: str, page: Page) -> dict[str, Any]:
    """The finding, notes, tables and pictures of a page; the pictures become files of that name."""
    pictures = []
    for i, figure in enumerate(page.extras, 1):
        file_name = f"{name}-{i}.{'svg' if figure.svg else 'png'}"
        with _files.atomic_write(folder / file_name) as file:
            file.write(figure.svg.encode() if figure.svg else figure.png)
        pictures.append({"file": file_name, "title": figure.title, "caption": figure.caption})
    return {
        "finding": " ".join(page.sentences()[:1]),
        "notes": list(page.notes),
        "pictures": pictures,
        "tables": [asdict(table) for table in page.references if table.columns[0] != "system"],
    }


def read(path: Folder) -> Rows:
    """The rows of a results file; none if there is no such file.

    Raises:
        LabError: the file is damaged.
    """
    return list(_load(path).get("rows", []))


def write_page(folder: Path) -> Path:
    """Write `results.md` beside `folder`: every row of every experiment, whether it was run or not.

    Tables and pictures are drawn again where published rows are enough for them.
    """
    for name in experiments.names():
        if (folder / f"{name}.json").exists():
            _redraw(folder, experiments.load(name))
    path = folder.parent / "results.md"
    _files.write_text(folder / GLANCE, at_a_glance.picture(_pairs(folder)).svg)
    _files.write_text(path, page(folder))
    return path


def _pairs(folder: Path) -> list[at_a_glance.Pair]:
    return at_a_glance.pairs(lambda name: read(folder / f"{name}.json"))


def page(folder: Path) -> str:
    """The page as Markdown."""
    parts = [
        "# Results",
        "The results of `thinned reproduce` beside the figures that the sources print. "
        f"`thinned reproduce --page` makes this page from `{folder.name}/*.json`. Errors are test errors in "
        "% after the last epoch of a fixed schedule, as mean ± standard deviation over seeds. No setting is "
        "chosen on test data. The notes at the end list the comparisons on held-out training data, and "
        "every look at test errors that came before a setting was final.",
        *_glance(folder),
        "## All experiments",
        _contents(folder),
        *(_section(experiments.load(name), folder) for name in experiments.names()),
    ]
    notes = folder.parent / NOTES
    if notes.exists():
        parts.append(notes.read_text("utf-8").strip())
    return "\n\n".join(filter(None, parts)) + "\n"


def _glance(folder: Path) -> list[str]:
    """The picture and the table at the top of the page."""
    found = _pairs(folder)
    return [
        "## Theirs and ours at full size",
        at_a_glance.sentence(found),
        f"![{at_a_glance.TITLE}; the table has the figures]({folder.name}/{GLANCE})",
        at_a_glance.table(found),
        "`thinned reproduce --queue --publish docs/results` runs what is missing, the shortest first.",
    ]


def write_index(root: Folder) -> Folder | None:
    """Write `index.html` in a folder of experiments' folders: a link to each report, and its finding."""
    found = []
    for folder in sorted(path.parent for path in root.glob(f"*/{RECORD}")):
        record = Record.load(folder)
        if record.kind not in experiments.names() or not (folder / html.NAME).exists():
            continue
        experiment, stored = experiments.load(record.kind), record.stored(folder)
        found.append(
            {
                "link": f"{folder.name}/{html.NAME}",
                "name": record.kind,
                "budget": record.budget,
                "done": sum(run.status == "done" for run in stored),
                "runs": len(record.runs),
                "finding": " ".join(experiment.report(record, stored).sentences()),
                "summary": experiment.summary,
            }
        )
    if not found:
        return None
    path = root / "index.html"
    _files.write_text(path, html.templates().get_template("index.html.j2").render(experiments=found))
    return path


def _contents(folder: Path) -> str:
    lines = ["| experiment | shows | run at |", "| --- | --- | --- |"]
    for name in experiments.names():
        budgets = [b for b in BUDGETS if any(row["budget"] == b for row in read(folder / f"{name}.json"))]
        summary = experiments.load(name).summary
        lines.append(f"| [{name}](#{name}) | {_cell(summary)} | {', '.join(budgets) or 'not run yet'} |")
    return "\n".join(lines)


def _section(experiment: Experiment, folder: Path) -> str:
    """One experiment: the source's figures and ours, further figures, pictures, and how it was made."""
    found = _load(folder / f"{experiment.name}.json")
    every: Rows = found.get("rows", [])
    parts = [f"## {experiment.name}", f"{experiment.summary} Source: {experiment.source}."]
    by_budget = _by_budget(found)
    for budget, texts in by_budget.items():
        parts.append(f"At `{budget}`: {texts['finding']}")
    paper = found.get("paper_seconds")
    current = {target.label for target in experiment.targets}
    systems, run = len(current), sum(row["budget"] == "paper" and row["system"] in current for row in every)
    if paper and run < systems:
        how = f"been run for {run} of {plural(systems, 'row')}; all of it" if run else "not been run; it"
        text, time = experiment.budgets["paper"], time_text(paper)
        parts.append(f"`paper` ({text}) has {how} takes about {time} on the machine named below.")
    former = [name for name in experiment.former if any(row["system"] == name for row in every)]
    parts.append(_table([*experiment.targets, *map(Target, former)], every))
    parts += [f"`{name}` is no longer trained: {experiment.former[name]}." for name in former]
    parts += [_measured(budget, every) for budget in BUDGETS]
    for budget, texts in by_budget.items():
        for table in texts["tables"]:
            lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
            text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
            parts.append(f"At `{budget}`:\n\n{text}\n\n{table['caption']}")
        for picture in texts["pictures"]:
            parts.append(f"![{picture['title']}, {budget}]({folder.name}/{picture['file']})")
    parts += _differences({budget: texts["notes"] for budget, texts in by_budget.items()})
    parts += [_made(budget, every) for budget in BUDGETS]
    return "\n\n".join(filter(None, parts))


def _differences(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """How the budgets differ from the source: first what they have in common, then what each has alone."""
    common = [note for note in next(iter(notes.values()), []) if all(note in own for own in notes.values())]
    groups = [(list(notes), common)]
    groups += [([budget], [note for note in own if note not in common]) for budget, own in notes.items()]
    return [
        f"Where {' and '.join(f'`{budget}`' for budget in budgets)} differ{'s' if len(budgets) == 1 else ''} "
        "from the source:\n\n" + "\n".join(f"- {note}" for note in own)
        for budgets, own in groups
        if own
    ]


def _table(targets: Sequence[Target], every: Rows) -> str:
    """The source's errors, and ours at paper and quick; rows that were not run say so."""
    errors = any(row["test_error"] for row in every) or any(target.theirs for target in targets)
    if not errors:
        return "" if every else "Not run yet."
    lines = [
        "| system | source | paper | quick | seeds | time to train |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target in targets:
        cells = {row["budget"]: row for row in every if row["system"] == target.label}
        ours = [_ours(cells.get(budget)) for budget in ("paper", "quick")]
        row = cells.get("paper") or cells.get("quick")
        theirs = "" if target.theirs is None else number(target.theirs)
        rest = (
            [str(len(row["seeds"])), time_text(row["seconds"]["mean"])]
            if row and row["seconds"]
            else ["", ""]
        )
        lines.append("| " + " | ".join([_cell(target.label), theirs, *ours, *rest]) + " |")
    return "\n".join(lines)


def _ours(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    lost = [f"seed {seed} {status}" for seed, status in row["lost"].items()]
    stat = [_text(row["test_error"])] if row["test_error"] else []
    return ", ".join([*stat, *lost]) or "–"


def _measured(budget: str, every: Rows) -> str:
    """The figures measured besides errors."""
    own = [row for row in every if row["budget"] == budget and row["figures"]]
    names = list(dict.fromkeys(name for row in own for name in row["figures"]))
    if not names:
        return ""
    lines = [f"| {budget} | {' | '.join(map(_cell, names))} |", "| --- " * (1 + len(names)) + "|"]
    for row in own:
        cells = [_short(row["figures"][name]) if name in row["figures"] else "" for name in names]
        lines.append(f"| {_cell(row['system'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _made(budget: str, every: Rows) -> str:
    own = [row for row in every if row["budget"] == budget]
    if not own:
        return ""
    devices, commits = _same(row["device"] for row in own), _same(row["commit"] for row in own)
    known = f"; commit {commits}" if commits else ""  # a run of an installed package has none
    return f"`{own[0]['command']}`: {devices}{known}."


def _figures(each: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Mean and standard deviation of every figure."""
    names = dict.fromkeys(name for figures in each for name in figures)
    return {name: _stat([figures.get(name) for figures in each]) for name in names}


def _stat(values: Sequence[float | None]) -> dict[str, float] | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return None
    stat = Stat.of(finite)
    return {"mean": stat.mean, "sd": stat.sd}


def _text(stat: Mapping[str, float | None]) -> str:
    mean, sd = stat["mean"], stat["sd"]
    return stat_text(Stat(mean or 0.0, math.nan if sd is None else sd, 1))


def _short(stat: Mapping[str, float | None] | None) -> str:
    if stat is None or stat["mean"] is None:
        return "–"
    mean = f"{stat['mean']:.0f}" if stat["mean"].is_integer() else f"{stat['mean']:.4g}"
    return mean + (f" ± {stat['sd']:.2g}" if stat["sd"] is not None else "")


def _machine(about: Mapping[str, Any]) -> str:
    """The accelerator, if there was one, the machine and its threads."""
    host = f"{about['machine']}, {plural(about['threads'], 'thread')}"
    return f"{about['accelerator']}; {host}" if "accelerator" in about else host


def _same(values: Any) -> str:
    return "; ".join(dict.fromkeys(filter(None, values)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _by_budget(found: Mapping[str, Any]) -> dict[str, Any]:
    """Budget -> finding, notes, tables and pictures; older files name them "told"."""
    texts: dict[str, Any] = found.get("texts", found.get("told", {}))
    return texts


def _load(path: Folder) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    except ValueError as error:
        raise LabError(f"{path}: damaged ({error}); run the command that made it again") from error
