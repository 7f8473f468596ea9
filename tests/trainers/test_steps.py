"""What the callbacks share."""

import logging

import pytest

torch = pytest.importorskip("torch")

from thinned import Key, schedules  # noqa: E402
from thinned.nn import Dropout, keyed  # noqa: E402
from thinned.trainers.steps import Dropping  # noqa: E402


def net(p=0.5):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Dropout(p), torch.nn.Linear(64, 2)]
    return torch.nn.Sequential(*layers)


def test_rates_follow_the_schedule_and_come_back():
    model = net()
    dropping = Dropping("early", until=0.5, decay="constant")
    dropping.begin(model)
    rates = []
    for step in range(4):
        dropping.step(model, step, 4)
        rates.append(model[2].p)
    assert rates == [0.5, 0.5, 0.0, 0.0]
    assert dropping.logged() == {"dropout_p": 0.0}
    dropping.end(model)
    assert model[2].p == 0.5


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_is_taken_by_name(name):
    model = net()
    dropping = Dropping(name)
    dropping.begin(model)
    dropping.step(model, 3, 10)
    assert dropping.rates == {"2": schedules.SCHEDULES[name](0.5, 3, 10)}


def test_masks_are_those_of_keyed():
    model, x = net(), torch.randn(6, 4)
    dropping = Dropping(key=Key(3))
    dropping.begin(model)
    dropping.step(model, 7, 10, sample_offset=2)
    with_callback = model(x)
    dropping.leave()
    with keyed(model, Key(3), 7, sample_offset=2):
        assert torch.equal(model(x), with_callback)
    assert not torch.equal(model(x), with_callback), "after leave, masks follow torch's generator"


def test_modules_with_different_rates_are_logged_by_name():
    model = torch.nn.Sequential(Dropout(0.2), Dropout(0.4))
    dropping = Dropping()
    dropping.begin(model)
    dropping.step(model, 0, 10)
    assert dropping.logged() == {"dropout_p/0": 0.2, "dropout_p/1": 0.4}


def test_what_is_not_reached_is_said(caplog):
    model = torch.nn.Sequential(net(), torch.nn.LSTM(2, 2, num_layers=2, dropout=0.5))
    with caplog.at_level(logging.WARNING, "thinned"):
        Dropping().begin(model)
    assert [record.args[0] for record in caplog.records] == ["1"]


def test_a_part_that_is_thinned_and_not_called_is_said(caplog):
    model = net(0.5)
    for thin, called, said in ((True, model[0], 1), (True, model, 0)):
        dropping = Dropping(thin=thin)
        dropping.begin(model)
        assert dropping.thinned is not None
        assert set(dropping.thinned.chains) == {"2"}
        caplog.clear()
        with caplog.at_level(logging.WARNING, "thinned"):
            called(torch.randn(6, 4))
            dropping.check()
            dropping.check()
        assert len(caplog.records) == said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"schedule": "typo"}, "schedule must be"),
        ({"schedule": 0.5}, "schedule must be"),
        ({"schedule": "early", "until": 2.0}, "until must be"),
        ({"key": 0}, "key must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Dropping(**arguments)
    with pytest.raises(ValueError, match="model must hold dropout modules"):
        Dropping().begin(torch.nn.Linear(2, 2))
