"""`thinned compare --tune`: settings of each method, chosen on held-out training data within a time."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinned import _files
from thinned.lab.data.dataset import Dataset
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reporting.wording import plural, time_text
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, digest
from thinned.lab.sweeping.costs import seconds
from thinned.lab.sweeping.job import Job, Recipe
from thinned.lab.sweeping.timed import Late, Timed, Trials
from thinned.lab.training.config import Config
from thinned.lab.training.keeping import trainer

HELD_OUT = 0.2  # of the training data
SMALL, SPLITS = 2_000, 3  # below so many training examples a trial is the mean over so many splits
LONGEST = 0.1  # share of a method's time that a trial may take, about; wider networks are not tried
WIDTHS = (32, 64, 128, 256, 512, 1024)
NORMS = (None, 1.0, 2.0, 3.0, 4.0)
STEP = 0.05  # between rates of dropping
MARGIN = 1e-3  # of the held-out loss in the value of a trial: it decides between equal errors

Settings = dict[str, Any]
Again = Callable[[Sequence[Config]], Recipe]  # makes the jobs of these configurations in another process


@dataclass(frozen=True)
class Trial:
    """Settings, and the error and loss on held-out data; NaN where training failed or diverged."""

    settings: Settings
    error: float
    loss: float

    @property
    def value(self) -> float:
        """What is minimised."""
        return self.error + MARGIN * self.loss


@dataclass(frozen=True)
class Tuned:
    """The trials of one method."""

    method: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The trial with the lowest error, then the lowest loss. LabError where none ended well."""
        ended = [trial for trial in self.trials if np.isfinite(trial.value)]
        if not ended:
            raise LabError(f"no trial of {self.method} ended well; give a smaller --lr or more --minutes")
        return min(ended, key=lambda trial: (trial.error, trial.loss))

    def settings(self) -> Settings:
        """Those of the best trial; none where no trial ended in time."""
        return self.best.settings if self.trials else {}

    def over(self, name: str) -> list[tuple[float, float]]:
        """The lowest error for each value of a setting: (value, error), ascending."""
        lowest: dict[float, float] = {}
        for trial in self.trials:
            if name in trial.settings and np.isfinite(trial.error):
                value = float(trial.settings[name])
                lowest[value] = min(trial.error, lowest.get(value, np.inf))
        return sorted(lowest.items())


def tune(
    base: Config,
    names: Sequence[str],
    dataset: Dataset,
    out: Folder,
    minutes: float,
    progress: Progress,
    workers: int = 1,
    again: Again | None = None,
) -> list[Tuned]:
    """Choose rates, max-norm, learning rate and width of each method, on held-out training data.

    The first trial of a method has the settings of `base`. Its runs lie in `out / "tuning"`; what was chosen
    is kept in `out`, so that the same call returns it.

    Args:
        base: the settings that are not chosen, and the first trial.
        names: the methods, which share the time.
        dataset: its test data is not looked at.
        out: the folder of the comparison.
        minutes: for all methods. A trial that has not ended then is stopped; a method without any keeps the
            settings of `base`.
        progress: gets each trial that is the best so far, and the time left.
        workers: runs side by side.
        again: makes the jobs in another process, without pickling the data.

    Raises:
        LabError: optuna is missing, or no trial of a method ended well.
    """
    path = out / f"tuned-{_digest(base, names, minutes)}.json"
    if path.exists():
        return _read(path)
    until, found = time.monotonic() + 60 * minutes, []
    for i, name in enumerate(names):
        now = time.monotonic()
        share = max(0.0, until - now) / (len(names) - i)
        mine = dataclasses.replace(base, method=name)
        found.append(_search(mine, dataset, out, share, Timed(progress, now + share, until), workers, again))
        found[-1].settings()  # an error if no trial ended well
    _files.write_json(
        path, [{"method": one.method, "trials": [vars(t) for t in one.trials]} for one in found]
    )
    return found


def _search(
    base: Config,
    dataset: Dataset,
    out: Folder,
    share: float,
    progress: Timed,
    workers: int,
    again: Again | None,
) -> Tuned:
    """The trials of one method, for `share` seconds: first the settings of `base`, then some at once."""
    start, found, count = time.monotonic(), Tuned(base.method), 1
    first = Job(base, dataset, trainer(dataset))
    study, space = _study(base), _space(base, dataset, share)
    try:
        with Trials(first, out / "tuning", workers, again and again([base])) as trials:
            while True:
                progress.title = f"tuning {base.method}, {plural(len(found.trials), 'trial')}"
                asked = [study.ask(space) for _ in range(count)]
                some = [_settings(trial.params, base) for trial in asked]
                for trial, ended in zip(asked, _tried(some, base, dataset, trials, progress), strict=True):
                    value = ended.value if np.isfinite(ended.value) else None
                    study.tell(trial, value, state=_state(ended))
                    _add(found, ended, dataset, progress)
                passed, count = time.monotonic() - start, workers
                if passed * (1 + count / len(found.trials)) > share:
                    return found
    except Late:
        if not found.trials:
            progress.note(
                f"{base.method}: no trial ended in its {time_text(share)}, so its settings stay as given; "
                "more --minutes give it more"
            )
        return found


def _add(found: Tuned, trial: Trial, dataset: Dataset, progress: Progress) -> None:
    """Add a trial, and say it if it is the best so far."""
    if all(trial.error < other.error or np.isnan(other.error) for other in found.trials):
        progress.note(f"{found.method}, trial {len(found.trials) + 1}: {_words(trial, dataset)}")
    found.trials.append(trial)


def _tried(
    some: Sequence[Settings], base: Config, dataset: Dataset, trials: Trials, progress: Timed
) -> list[Trial]:
    """Train with each of these settings on the part that is not held out: on one split, or on several."""
    splits = _splits(dataset)
    configs = [
        dataclasses.replace(base, validation=HELD_OUT, seed=seed, **settings)
        for settings in some
        for seed in range(splits)
    ]
    stored = trials.run(configs, progress)
    parts = [stored[i : i + splits] for i in range(0, len(stored), splits)]
    return [
        Trial(settings, _mean(part, "test_error"), _mean(part, "test_loss"))
        for settings, part in zip(some, parts, strict=True)
    ]


def _splits(dataset: Dataset) -> int:
    """The number of runs of a trial."""
    return SPLITS if len(dataset.x_train) < SMALL else 1


def _mean(stored: Sequence[Stored], name: str) -> float:
    return float(np.mean([run.result[name] if run.status == "done" else np.nan for run in stored]))


def _study(base: Config) -> Any:
    try:
        import optuna
    except ImportError:
        raise LabError(
            'optuna, which chooses settings, is missing; run pip install "thinned[tune]"'
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    first = {name: getattr(base, name) for name in ("p", "input_p", "lr")}
    study.enqueue_trial({**first, "max_norm": base.max_norm, "width": base.hidden[0]}, skip_if_exists=False)
    return study


def _space(base: Config, dataset: Dataset, share: float) -> dict[str, Any]:
    """What is chosen, and from where: widths whose trials take a small part of the time."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    def cost(width: int) -> float:
        config = dataclasses.replace(base, hidden=(width,) * len(base.hidden))
        return _splits(dataset) * seconds(Job(config, dataset, trainer(dataset)), 1)

    first = base.hidden[0]
    widths = sorted({first, *(width for width in WIDTHS if cost(width) <= max(LONGEST * share, cost(first)))})
    space: dict[str, Any] = {
        "lr": FloatDistribution(base.lr / 10, base.lr * 4, log=True),
        "max_norm": CategoricalDistribution(tuple(dict.fromkeys((base.max_norm, *NORMS)))),
        "width": CategoricalDistribution(widths),
    }
    if base.method != "none":
        space |= {
            "p": FloatDistribution(STEP, 0.8, step=STEP),
            "input_p": FloatDistribution(0, 0.4, step=STEP),
        }
    return space


def _settings(params: Settings, base: Config) -> Settings:
    """The fields of `Config` for the parameters of a trial, rounded."""
    found = {name: params[name] for name in ("max_norm", "p", "input_p") if name in params}
    found |= {name: round(found[name], 2) for name in ("p", "input_p") if name in found}
    width = params["width"]
    hidden = base.hidden if width == base.hidden[0] else (width,) * len(base.hidden)
    return found | {"lr": float(f"{params['lr']:.2g}"), "hidden": hidden}


def _state(trial: Trial) -> Any:
    from optuna.trial import TrialState

    return TrialState.COMPLETE if np.isfinite(trial.value) else TrialState.FAIL


def _words(trial: Trial, dataset: Dataset) -> str:
    error = (
        f"{100 * trial.error:.2f} % held-out error" if dataset.classes else f"held-out RMSE {trial.error:.4g}"
    )
    return f"{error} with {shown(trial.settings)}"


def shown(settings: Settings) -> str:
    """`p 0.3, lr 0.01, hidden 256-256`."""
    words = []
    for name in ("p", "input_p", "max_norm", "lr", "hidden"):
        if settings.get(name) is not None:
            value = settings[name]
            text = "-".join(map(str, value)) if name == "hidden" else f"{value:g}"
            words.append(f"{name.replace('_', '-')} {text}")
    return ", ".join(words)


def words(tuned: Sequence[Tuned]) -> dict[str, str]:
    """What a report says of the settings that were chosen; nothing where none were."""
    if not tuned:
        return {}
    chosen = "; ".join(
        f"{one.method}: {shown(one.settings()) or 'as given'} ({plural(len(one.trials), 'trial')})"
        for one in tuned
    )
    how = f"{HELD_OUT:g} of the training data, held out; below {SMALL:,} examples on {SPLITS} splits"
    return {"chosen": chosen, "chosen on": how}


def _digest(base: Config, names: Sequence[str], minutes: float) -> str:
    asked = json.dumps([dataclasses.asdict(base), list(names), minutes], sort_keys=True)
    return digest(asked)[:6]


def _read(path: Folder) -> list[Tuned]:
    """What `tune` kept. LabError where the file is damaged."""
    try:
        found = []
        for one in json.loads(path.read_text("utf-8")):
            trials = [
                Trial(
                    {**t["settings"], "hidden": tuple(t["settings"]["hidden"])},
                    *map(_number, (t["error"], t["loss"])),
                )
                for t in one["trials"]
            ]
            found.append(Tuned(one["method"], trials))
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path}: damaged ({error}); remove it, and run the command again") from error


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
