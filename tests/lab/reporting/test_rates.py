"""Errors over the rate of dropping: the picture, and the sentence."""

from pathlib import Path

from thinned.lab.reporting.from_runs import labeller, rows
from thinned.lab.reporting.rates import best_rates, over_p
from thinned.lab.storage.run import Stored


def stored(*found):
    """Runs of (method, p, seed, test error)."""
    return [
        Stored(
            Path(f"{method}{p}{seed}"),
            {"method": method, "p": p, "seed": seed, "epochs": 1},
            {"epoch": []},
            {"status": "done" if error is not None else "diverged", "test_error": error, "train_error": 0.1,
             "seconds_per_epoch": 1.0, "parameters": 3, "about": {}},
        )
        for method, p, seed, error in found
    ]  # fmt: skip


def parts(runs):
    label = labeller([run.config for run in runs])
    return runs, rows(runs), [label(run.config) for run in runs]


RATES = parts(
    stored(
        ("none", 0.0, 0, 0.2), ("dropout", 0.1, 0, 0.15), ("dropout", 0.3, 0, 0.1), ("dropout", 0.8, 0, None),
        ("gaussian", 0.1, 0, 0.12), ("gaussian", 0.3, 0, 0.12),
        ("none", 0.0, 1, 0.2), ("dropout", 0.1, 1, 0.17), ("dropout", 0.3, 1, 0.1), ("dropout", 0.8, 1, None),
        ("gaussian", 0.1, 1, 0.12), ("gaussian", 0.3, 1, 0.12),
    )
)  # fmt: skip


def test_the_sentence():
    assert best_rates(*RATES) == (
        "dropout: lowest test error at p = 0.3, 10.00 %; "
        "gaussian: lowest test error at p = 0.1, 12.00 %, as at p = 0.3"
    )


def test_the_picture():
    (figure,) = over_p(*RATES, {})
    assert "dropout: 16 at 0.1, 10 at 0.3;" in figure.alt
    assert "none: 20 at 0.1, 20 at 0.3" in figure.alt
    assert "error, % over p" in figure.alt


def test_one_rate_is_no_picture():
    one = parts(stored(("none", 0.0, 0, 0.2), ("dropout", 0.1, 0, 0.15)))
    assert over_p(*one, {}) == []
    assert best_rates(*one) == ""
    (figure,) = over_p(*one, {"dropout": [(0.1, 0.2), (0.5, 0.15)], "none": []})
    assert "dropout: 20 at 0.1, 15 at 0.5." in figure.alt
    assert "Held-out training data" in figure.caption
