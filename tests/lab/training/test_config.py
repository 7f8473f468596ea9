"""Configurations: what they refuse, and what they forget."""

import math

import pytest
from helpers.clouds import config

from thinned.lab.training.config import REPORT_LINES, SETTINGS, shown


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("method", "dropuot", ValueError),
        ("hidden", (8, 0), ValueError),
        ("hidden", (), ValueError),
        ("hidden", 8, TypeError),
        ("p", 1.5, ValueError),
        ("p", 1.0, ValueError),
        ("p", math.nan, ValueError),
        ("p", "half", TypeError),
        ("input_p", -0.1, ValueError),
        ("max_norm", 0.0, ValueError),
        ("l2", -1.0, ValueError),
        ("epochs", 0, ValueError),
        ("batch", 0, ValueError),
        ("batch", 2.5, TypeError),
        ("lr", 0.0, ValueError),
        ("lr", math.inf, ValueError),
        ("momentum", 1.0, ValueError),
        ("validation", 1.0, ValueError),
        ("seed", -1, ValueError),
        ("activation", "tanh", ValueError),
        ("optimizer", "lbfgs", ValueError),
        ("schedule", "cosine", ValueError),
        ("dtype", "float16", ValueError),
        ("outputs", 0, ValueError),
    ],
)
def test_a_senseless_setting_is_named(name, value, error):
    with pytest.raises(error, match=name):
        config(**{name: value})


def test_settings_without_effect_are_forgotten():
    assert config(method="none", p=0.3, input_p=0.2) == config(method="none", p=0.7)
    assert config(optimizer="adam", momentum=0.9) == config(optimizer="adam", momentum=0.5, nesterov=False)
    assert config(momentum=0.0, nesterov=True) == config(momentum=0.0, nesterov=False)


def test_every_setting_of_a_report_is_declared():
    assert {name for names in REPORT_LINES.values() for name in names} - {"method"} <= set(SETTINGS)
    lines = shown(config(l2=0.1, max_norm=2.0, decay=1e-3), inputs=6, outputs=3)
    assert lines == {
        "network": "6-8-3, relu",
        "engine": "numpy, float32",
        "dropping": "p = 0.5 for hidden units, 0 for inputs",
        "regularisation": "L2 0.1, max-norm 2",
        "training": "4 epochs, batches of 20, sgd, momentum 0.9 (Nesterov)",
        "learning rate": "0.1, linear, decay 0.001",
    }


def test_sizes_may_be_text():
    assert config(hidden="16, 8").hidden == (16, 8)
    with pytest.raises(ValueError, match="hidden must be layer sizes such as 256,128, got 'big'"):
        config(hidden="big")
