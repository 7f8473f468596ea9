"""The default network of `thinned compare` beside scikit-learn's models, on the tables of `public_tables.py`.

    python examples/benchmark_tables.py docs/public-tables-benchmark.json --seeds 10

All models get the same rows and the same encoded columns. Runs that are in the file are not made again: more
seeds can be added later, and a command that was cut off goes on. The page, .md, is written beside the file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from public_tables import TABLES

from thinned import _files
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.storage.remote import folder
from thinned.lab.training.config import Config
from thinned.lab.training.defaults import defaults
from thinned.lab.training.keeping import trainer
from thinned.lab.training.train import train

LEAST, MOST = 100, 5_000  # rows: of smaller tables the test data is a few rows
OURS = ("none", "dropout", "DropoutMLP")
THEIRS = ("MLP", "boosted trees", "linear")
Errors = dict[str, dict[str, list[float]]]  # table -> model -> error of each seed


def network(method: str) -> Callable[[Dataset, int], float]:
    """The network of `thinned compare` with its default settings: its test error, or RMSE."""

    def run(data: Dataset, seed: int) -> float:
        given = defaults(len(data.x_train), data.shape)
        config = Config(data="table", fingerprint="", method=method, hidden=(512, 512), seed=seed, **given)
        with tempfile.TemporaryDirectory() as place:
            stored = train(config, data, folder(place), trainer=trainer(data))
        return float(stored.result["test_error"]) if stored.status == "done" else math.inf

    return run


def estimator(name: str) -> Callable[[Dataset, int], float]:
    """An estimator as it is created; networks get standardised numbers to predict."""

    def run(data: Dataset, seed: int) -> float:
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.preprocessing import StandardScaler

        model = MODELS[name][0 if data.classes else 1](seed)
        if not data.classes and "MLP" in name:
            model = TransformedTargetRegressor(model, transformer=StandardScaler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # max_iter, and the like
            found = model.fit(data.x_train, data.y_train).predict(data.x_test)
        wrong = found != data.y_test if data.classes else (found - data.y_test) ** 2
        return float(np.mean(wrong) if data.classes else np.sqrt(np.mean(wrong)))

    return run


def _models() -> dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor

    return {
        "DropoutMLP": (
            lambda seed: DropoutMLPClassifier(random_state=seed),
            lambda seed: DropoutMLPRegressor(random_state=seed),
        ),
        "MLP": (lambda seed: MLPClassifier(random_state=seed), lambda seed: MLPRegressor(random_state=seed)),
        "boosted trees": (
            lambda seed: HistGradientBoostingClassifier(random_state=seed),
            lambda seed: HistGradientBoostingRegressor(random_state=seed),
        ),
        "linear": (lambda seed: LogisticRegression(max_iter=1000), lambda seed: Ridge()),
    }


MODELS = _models()
ALL = {name: (estimator if name in MODELS else network)(name) for name in (*OURS, *THEIRS)}


def tables() -> dict[str, Dataset]:
    """Name -> data, of the tables that are installed, read, and of `LEAST` to `MOST` rows."""
    found = {}
    for table in TABLES:
        path = table.path()
        if path is None or table.refused:
            continue
        data = load(path, label=table.label, **table.options)
        if LEAST <= len(data.x_train) + len(data.x_test) <= MOST:
            found[f"{table.name}, {table.label}"] = data
    return found


def measure(
    data: Mapping[str, Dataset],
    models: Sequence[str],
    seeds: int,
    errors: Errors,
    keep: Callable[[str], None],
) -> None:
    """Fill in the errors that are missing, seed after seed; calls `keep` after each table."""
    for seed in range(seeds):
        for table, own in data.items():
            found = errors.setdefault(table, {name: [] for name in ALL})
            todo = [name for name in models if len(found[name]) == seed]
            for name in todo:
                found[name].append(ALL[name](own, seed))
            if todo:
                keep(f"seed {seed}: {table}")


def ranks(errors: Errors) -> dict[str, np.ndarray]:
    """The rank of each model on each table, by mean errors; equal errors share their ranks."""
    from scipy.stats import rankdata

    means = np.array([[np.mean(models[name]) for name in ALL] for models in errors.values()])
    each = np.array([rankdata(row) for row in means])
    return {name: each[:, i] for i, name in enumerate(ALL)}


def chance(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Whether two models' ranks over the tables differ by more than chance, in a sentence.

    Wilcoxon's signed-rank test (1945) of the ranks, and the exact sign test; ties are left out.
    """
    from scipy.stats import binomtest, wilcoxon

    better, worse = int((mine < theirs).sum()), int((mine > theirs).sum())
    signs, sizes = binomtest(better, better + worse).pvalue, float(wilcoxon(mine, theirs).pvalue)
    decided = max(signs, sizes) < 0.05
    return (
        f"ahead on {better} tables, behind on {worse} and equal on {len(mine) - better - worse}: p = "
        f"{sizes:.2f} by Wilcoxon's signed-rank test of the ranks, {signs:.2f} by the sign test. "
        + ("This is more than chance." if decided else "So these tables cannot decide between the two.")
        + " Some are of the same data (penguins, iris), which the tests take for different data."
    )


def finished(errors: Errors) -> tuple[Errors, dict[str, int]]:
    """The tables that all models have, with the seeds that each model has on all of them; these numbers."""
    whole = {table: models for table, models in errors.items() if all(models.get(name) for name in ALL)}
    seeds = {name: min(len(models[name]) for models in whole.values()) for name in ALL}
    return {
        table: {name: models[name][: seeds[name]] for name in ALL} for table, models in whole.items()
    }, seeds


def in_words(seeds: Mapping[str, int]) -> str:
    """`10 seeds (none, dropout: 1)`."""
    most = max(seeds.values())
    fewer: dict[int, list[str]] = {}
    for name, count in seeds.items():
        if count < most:
            fewer.setdefault(count, []).append(name)
    rest = "; ".join(f"{', '.join(names)}: {count}" for count, names in fewer.items())
    return f"{most} seed{'s' * (most > 1)}" + (f" ({rest})" if rest else "")


def page(errors: Errors) -> str:
    """Mean errors in % (classes) or RMSE (numbers), and mean ranks, in Markdown."""
    whole, seeds = finished(errors)
    each = ranks(whole)
    place = {name: float(own.mean()) for name, own in each.items()}
    ours = min(OURS, key=place.__getitem__)
    won = sum(
        np.mean(models["boosted trees"]) < min(np.mean(models[name]) for name in OURS)
        for models in whole.values()
    )
    lines = [
        "# Networks, trees and linear models on public tables",
        "",
        "Mean test errors in %, or RMSE in the label's units, of models as they are created: the network of "
        "`thinned compare` without and with dropout, `DropoutMLP*`, and scikit-learn's `MLP*`, "
        "`HistGradientBoosting*` and logistic or ridge regression. All have the same rows and encoded "
        f"columns: tables of {LEAST:,} to {MOST:,} rows, {in_words(seeds)}, one split. "
        "`python examples/benchmark_tables.py docs/public-tables-benchmark.json` writes this page.",
        "",
        f"Over {len(whole)} tables the best of ours is {ours}, with the mean rank {place[ours]:.2f}. "
        f"scikit-learn's MLP has {place['MLP']:.2f}, boosted trees have {place['boosted trees']:.2f}, linear "
        f"models {place['linear']:.2f}. On {won} tables boosted trees are ahead of all our networks.",
        "",
        f"{ours} beside scikit-learn's MLP: {chance(each[ours], each['MLP'])}",
        "",
        "| table | " + " | ".join(ALL) + " |",
        "| --- |" + " ---: |" * len(ALL),
    ]
    for table, models in whole.items():
        lines.append(_line(table, models))
    lines.append("| mean rank | " + " | ".join(f"{place[name]:.2f}" for name in ALL) + " |")
    return "\n".join(lines) + "\n"


def _line(table: str, models: Mapping[str, list[float]]) -> str:
    """The row of a table; the lowest errors are bold."""
    classes = _is_classes(table)
    cells = [f"{100 * np.mean(v):.1f}" if classes else f"{np.mean(v):.3g}" for v in models.values()]
    best = min(np.mean(values) for values in models.values())
    lowest = [np.mean(values) == best for values in models.values()]
    cells = [f"**{cell}**" if low else cell for cell, low in zip(cells, lowest, strict=True)]
    return f"| {table}{'' if classes else ' (RMSE)'} | " + " | ".join(cells) + " |"


def _is_classes(name: str) -> bool:
    table = next(one for one in TABLES if f"{one.name}, {one.label}" == name and not one.refused)
    return table.outcome.endswith("classes")


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--models", default=",".join(ALL), help="only these, as a,b; a page needs all")
    given = parser.parse_args()
    errors: Errors = json.loads(given.file.read_text("utf-8")) if given.file.exists() else {}
    for models in errors.values():
        for values in models.values():
            values[:] = [math.inf if value is None else value for value in values]  # a run that diverged

    def keep(done: str) -> None:
        _files.write_json(given.file, errors)
        print(done, flush=True)

    measure(tables(), given.models.split(","), given.seeds, errors, keep)
    given.file.with_suffix(".md").write_text(page(errors), encoding="utf-8")


if __name__ == "__main__":
    main()
