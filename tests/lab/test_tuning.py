"""Settings chosen on held-out data: from where, by what, and that test data is not looked at."""

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest
from helpers.commands import call
from helpers.comparison import BASE, DATA

pytest.importorskip("optuna")
from thinned.lab import compare, tuning
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.sweeping import processes, timed
from thinned.lab.tuning import Trial, Tuned, tune

NO_TIME = 1e-6  # minutes: one trial a method


@pytest.fixture
def clock(monkeypatch):
    """A second passes between trials, and none within a trial."""
    seconds = itertools.count()
    monkeypatch.setattr(tuning, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(timed, "time", types.SimpleNamespace(monotonic=lambda: 0.0))


class Notes(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_one_trial_has_the_settings_that_were_given(tmp_path, clock):
    notes = Notes()
    found = tune(BASE, ["none", "dropout"], DATA, tmp_path, NO_TIME, notes)
    assert [one.method for one in found] == ["none", "dropout"]
    assert [len(one.trials) for one in found] == [1, 1]
    given = {"max_norm": None, "lr": BASE.lr, "hidden": BASE.hidden}
    assert found[0].settings() == given
    assert found[1].settings() == {**given, "p": BASE.p, "input_p": BASE.input_p}
    assert [note.split(":")[0] for note in notes.notes] == ["none, trial 1", "dropout, trial 1"]
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("tuning/*/config.json")]
    assert len(configs) == 2 * tuning.SPLITS  # few examples: several splits
    assert {config["validation"] for config in configs} == {tuning.HELD_OUT}
    assert not list(tmp_path.glob("tuning/*/*.npz"))


def test_test_data_is_not_looked_at(tmp_path, clock):
    other = dataclasses.replace(DATA, x_test=np.full_like(DATA.x_test, np.nan), y_test=0 * DATA.y_test)
    one, same = (
        tune(BASE, ["dropout"], data, tmp_path / name, NO_TIME, Progress())
        for data, name in ((DATA, "a"), (other, "b"))
    )
    assert one == same
    assert len(one[0].trials) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_the_time_is_kept(tmp_path, workers):
    endless, notes = dataclasses.replace(BASE, epochs=10**9), Notes()
    found = tune(endless, ["none", "dropout"], DATA, tmp_path, 0.01, notes, workers)
    assert found == [Tuned("none"), Tuned("dropout")]
    assert found[0].settings() == {}
    assert [note.partition(" in ")[0] for note in notes.notes] == [
        "none: no trial ended", "dropout: no trial ended",
    ]  # fmt: skip
    assert tuning.words(found)["chosen"] == "none: as given (0 trials); dropout: as given (0 trials)"
    assert tune(endless, ["none", "dropout"], DATA, tmp_path, 0.01, notes, workers) == found


def test_processes_stay_for_all_trials_of_a_method(tmp_path, clock, monkeypatch):
    made = []

    class Worker(processes._Worker):
        def __init__(self, *task):
            made.append(task)
            super().__init__(*task)

    monkeypatch.setattr(processes, "_Worker", Worker)
    monkeypatch.setattr("thinned.lab.sweeping.timed.cores", lambda: 2)
    (found,) = tune(BASE, ["dropout"], DATA, tmp_path / "a", 0.1, Progress(), workers=2)
    (alone,) = tune(BASE, ["dropout"], DATA, tmp_path / "b", 0.1, Progress())
    assert len(made) == 2
    assert len(found.trials) > 3
    assert found.trials[:2] == alone.trials[:2]


def test_the_same_call_returns_what_was_chosen(tmp_path, monkeypatch, clock):
    found = tune(BASE, ["dropout"], DATA, tmp_path, 0.2, Progress())
    assert len(found[0].trials) > 1
    monkeypatch.setattr(tuning, "_search", None)
    assert tune(BASE, ["dropout"], DATA, tmp_path, 0.2, Progress()) == found
    (path,) = tmp_path.glob("tuned-*.json")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(LabError, match=r"damaged .* remove it, and run the command again"):
        tune(BASE, ["dropout"], DATA, tmp_path, 0.2, Progress())


def test_trials_lie_in_the_space(tmp_path, clock):
    (found,) = tune(BASE, ["dropout"], DATA, tmp_path, 0.2, Progress(), workers=1)
    for trial in found.trials[1:]:
        s = trial.settings
        assert 0.05 <= s["p"] <= 0.8
        assert 0 <= s["input_p"] <= 0.4
        assert BASE.lr / 10 * 0.9 <= s["lr"] <= BASE.lr * 4 * 1.1
        assert len(s["hidden"]) == len(BASE.hidden)


def test_the_best_trial_and_the_rates():
    trials = [
        Trial({"p": 0.3, "lr": 0.1, "hidden": (8,)}, 0.2, 1.0),
        Trial({"p": 0.3, "lr": 0.2, "hidden": (8, 9)}, 0.1, 0.9),
        Trial({"p": 0.1, "max_norm": 2.0, "lr": 0.01, "hidden": (8,)}, 0.1, 0.8),
        Trial({"p": 0.5, "lr": 0.1, "hidden": (8,)}, np.nan, np.nan),
    ]
    tuned = Tuned("dropout", trials)
    assert tuned.best is trials[2]
    assert tuned.over("p") == [(0.1, 0.1), (0.3, 0.1)]
    assert tuning.words([tuned])["chosen"] == "dropout: p 0.1, max-norm 2, lr 0.01, hidden 8 (4 trials)"
    assert tuning.words([]) == {}
    with pytest.raises(LabError, match="no trial of thin ended well; give a smaller --lr or more --minutes"):
        Tuned("thin", trials[3:]).settings()


def test_the_command(in_tmp):
    options = [
        "--methods",
        "none,dropout",
        "--hidden",
        "8",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--batch",
        "200",
    ]
    result = call("compare", *options, "--tune", "--minutes", NO_TIME, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "dropout: no trial ended in its 1 s, so its settings stay as given" in result.stderr
    page = (in_tmp / "out").rglob("report.html")
    assert "held out" in next(page).read_text()
    several = call("compare", *options, "--tune", "--p", "0.1,0.2")
    assert several.exit_code == 2
    assert "p must be one rate with --tune" in several.stderr


def test_rates_as_variants():
    variants = compare.rates("0.1, 0.3,0.1", ["none", "dropout"])
    assert variants == {"dropout": [{"p": 0.1}, {"p": 0.3}]}
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2), variants)
    assert [(job.config.method, job.config.p, job.config.seed) for job in todo] == [
        ("none", 0.0, 0), ("dropout", 0.1, 0), ("dropout", 0.3, 0),
        ("none", 0.0, 1), ("dropout", 0.1, 1), ("dropout", 0.3, 1),
    ]  # fmt: skip
    for text in ("half", "", ","):
        with pytest.raises(LabError, match=r"^p must be a number, or several as 0\.1,0\.3,0\.5, got "):
            compare.rates(text, ["dropout"])
