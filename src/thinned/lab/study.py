"""After training: what each run predicts, simple baselines, which columns matter, which examples are hard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from thinned.key import Key, choose, permutation
from thinned.lab.data.dataset import Dataset, holdout
from thinned.lab.errors import LabError
from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import labeller
from thinned.lab.storage.run import MODEL, Run, Stored, predictions
from thinned.lab.sweeping.job import Job
from thinned.lab.training.keeping import OUTPUTS, Keeping

IMAGES, ROWS = 12, 8  # examples that are kept
SHUFFLED = 1_000  # test examples on which columns are shuffled
MOST_COLUMNS = 60
MOST_RUNS = 5  # of a method, for which columns are shuffled


def study(todo: Sequence[Job], stored: Sequence[Stored], note: Callable[[str], None]) -> Evidence:
    """What a report of these runs needs besides them. Runs of older versions get their predictions now."""
    dataset = todo[0].dataset
    complete(todo, stored, note)
    what = "images" if len(dataset.shape) > 1 else "rows"
    if todo[0].config.validation:
        return _held_out(todo, what)
    best = _best(stored)
    if not best:
        return Evidence(what, dataset.classes, dataset.y_test, baselines(dataset))
    folders = {run.folder for run in best}
    mine = [pair for pair in zip(todo, stored, strict=True) if pair[1].folder in folders][:MOST_RUNS]
    label = labeller([run.config for run in stored])(best[0].config)
    index = hardest(dataset, best)
    images, rows, columns = _shown(dataset, index)
    return Evidence(
        what, dataset.classes, dataset.y_test, baselines(dataset),
        importance([_restored(job, run) for job, run in mine]),
        label, index, images, rows, columns,
    )  # fmt: skip


def _held_out(todo: Sequence[Job], what: str) -> Evidence:
    """What is known of examples that are held out: no more than the classes where each seed has its own."""
    dataset, seeds = todo[0].dataset, {job.config.seed for job in todo}
    if len(seeds) > 1 and not dataset.ordered:
        return Evidence(what, dataset.classes, dataset.y_test[:0])
    part = holdout(dataset, todo[0].config.validation, Key(min(seeds)).fold_in("holdout"))
    return Evidence(what, dataset.classes, part.y_test, baselines(part))


def complete(todo: Sequence[Job], stored: Sequence[Stored], note: Callable[[str], None]) -> None:
    """Write predictions and networks of finished runs that have none, from their parameters.

    It says what is lacking.
    """
    made, lost = 0, []
    for job, run in zip(todo, stored, strict=True):
        lacks = predictions(run.folder) is None
        networked = job.dataset.fitted is None or (run.folder / MODEL).exists()
        if run.status != "done" or (networked and not lacks):
            continue
        try:
            trainer = _restored(job, run)
            if lacks:
                Run(run.folder.parent, job.config).save_predictions(trainer.predictions())
                made += 1
            trainer.save_model(run.folder)
        except (ValueError, TypeError, LabError) as error:
            lost += [f"{run.folder.name} ({error})"] if lacks else []
    if made:
        note(
            f"{made} runs of an older version have no predictions; these were computed from their parameters"
        )
    if lost:
        note(
            f"no paired comparison of {', '.join(lost)}: an older version kept no predictions, and the "
            "parameters cannot be used; remove such a folder, and the same command trains it again"
        )


def _restored(job: Job, run: Stored) -> Keeping:
    """The trainer of a finished run, with its parameters."""
    config, dataset = job.config, job.dataset
    if config.validation:
        dataset = holdout(dataset, config.validation, Key(config.seed).fold_in("holdout"))
    trainer = job.trainer(config, dataset)
    assert isinstance(trainer, Keeping)
    store = Run(run.folder.parent, config)
    if store.load() is None:
        raise ValueError("last.npz is missing")
    trainer.resume(store)
    return trainer


def _best(stored: Sequence[Stored]) -> list[Stored]:
    """The finished runs of the row with the lowest mean error."""
    label = labeller([run.config for run in stored])
    rows: dict[str, list[Stored]] = {}
    for run in stored:
        if run.status == "done" and predictions(run.folder) is not None:
            rows.setdefault(label(run.config), []).append(run)
    if not rows:
        return []
    return min(rows.values(), key=lambda runs: np.mean([run.result["test_error"] for run in runs]))


def baselines(dataset: Dataset) -> Mapping[str, np.ndarray]:
    """Predictions for the test data that need no network: the shares of the classes; mean and ridge."""
    n = len(dataset.x_test)
    if dataset.classes:
        shares = np.bincount(dataset.y_train, minlength=len(dataset.classes)) / len(dataset.y_train)
        return {"always the largest class": np.tile(shares.astype(np.float32), (n, 1))}
    from sklearn.linear_model import Ridge

    linear = Ridge().fit(dataset.x_train, dataset.y_train)
    return {
        "always the mean": np.full(n, dataset.y_train.mean()),
        "linear (ridge)": np.asarray(linear.predict(dataset.x_test), np.float64),
    }


def hardest(dataset: Dataset, runs: Sequence[Stored]) -> np.ndarray:
    """Indices of the test examples that these runs predict worst, on average."""
    kept = [predictions(run.folder) for run in runs]
    outputs = np.mean([one[OUTPUTS] for one in kept if one is not None], axis=0)
    labels = dataset.y_test
    loss = 1 - outputs[np.arange(len(labels)), labels] if dataset.classes else np.abs(outputs - labels)
    most = IMAGES if len(dataset.shape) > 1 else ROWS
    return np.argsort(-loss, kind="stable")[:most]


def _shown(dataset: Dataset, index: np.ndarray) -> tuple[np.ndarray, Sequence[Sequence[str]], Sequence[str]]:
    """(images, rows, names of columns) of these examples; empty for what there is not."""
    if len(dataset.shape) > 1:
        return dataset.x_test[index].reshape(-1, *dataset.shape), (), ()
    if dataset.source is None:
        return np.zeros(0), (), ()
    cells = dataset.source.rows.iloc[index].drop(columns=dataset.columns[0].name)
    text = [["" if cell != cell or cell is None else str(cell) for cell in row] for row in cells.to_numpy()]
    return np.zeros(0), text, list(map(str, cells.columns))


def importance(trainers: Sequence[Keeping]) -> Mapping[str, list[float]]:
    """Column -> by how much log loss, or RMSE, of each network grows where its test cells are shuffled.

    At most `SHUFFLED` test examples. Columns with the same content stand in for each other: each alone then
    seems unimportant. Source: Breiman 2001, "Random forests".
    """
    dataset = trainers[0].data
    part = choose(Key(0).fold_in("importance"), len(dataset.x_test), min(SHUFFLED, len(dataset.x_test)))
    labels = dataset.y_test[part]
    found: dict[str, list[float]] = {}
    base = [_error(one, dataset.x_test[part], labels) for one in trainers]
    for name, x in _shuffled(dataset, part):
        found[name] = [_error(one, x, labels) - b for one, b in zip(trainers, base, strict=True)]
    return found


def _error(trainer: Keeping, x: np.ndarray, labels: np.ndarray) -> float:
    error, loss = trainer.evaluate(x, labels)
    return loss if trainer.data.classes else error


def _shuffled(dataset: Dataset, part: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The inputs of these test examples with one column shuffled, for each column of a table."""
    found = []
    if dataset.source is not None:
        frame = dataset.source.columns.iloc[part]
        for name in list(frame.columns)[:MOST_COLUMNS]:
            order = permutation(Key(0).fold_in(str(name)), len(part))
            changed = frame.assign(**{name: frame[name].to_numpy()[order]})
            found.append(
                (str(name), np.ascontiguousarray(dataset.source.encode.transform(changed), np.float32))
            )
    elif len(dataset.shape) == 1 and dataset.shape[0] <= MOST_COLUMNS:
        for i in range(dataset.shape[0]):
            x = dataset.x_test[part].copy()
            x[:, i] = x[permutation(Key(0).fold_in(str(i)), len(part)), i]
            found.append((str(i), x))
    return found
