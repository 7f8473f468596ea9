"""The residual network: resumed runs, its rates, its penalty."""

import dataclasses

import pytest

from thinned import _files
from thinned.lab.data.registry import load
from thinned.lab.grids import residual_net
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.training import train

pytest.importorskip("sklearn")


def image_config(data, **more):
    common = {"data": "digits", "fingerprint": data.fingerprint, "system": "a", "hidden": (4, 8), "blocks": 2}
    return residual_net.ImageConfig(
        **{**common, "engine": "torch", "epochs": 4, "batch": 50, "lr": 0.05, **more}
    )


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("torch")
    data = load("digits")
    return dataclasses.replace(data, x_train=data.x_train[:100], y_train=data.y_train[:100])


class Stop(Progress):
    """Cuts a run off in its third epoch."""

    def row(self, name, row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("drop", ["element", "path"])
def test_a_residual_network_goes_on_where_it_was(tmp_path, images, drop):
    config = image_config(images, drop=drop, rate=0.3, ramp=drop == "element", cut=2)
    more = {"trainer": residual_net.ImageTrainer, "save_every": 0}
    with pytest.raises(KeyboardInterrupt):
        train.train(config, images, tmp_path / "a", Stop(), **more)
    one, two = (train.train(config, images, tmp_path / name, **more) for name in "ab")
    for file in ("last.npz", "best.npz"):
        a, b = (_files.load_npz(run.folder / file) for run in (one, two))
        a.pop("history/seconds", None), b.pop("history/seconds", None)
        assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_rates_of_the_residual_network(images):
    from thinned import nn

    def rates(trainer, kind):
        return [m.p for m in trainer.net.module.modules() if type(m) is kind]

    ramp = residual_net.ImageTrainer(image_config(images, drop="block", rate=0.2, ramp=True), images)
    ramp.next_epoch(lambda done, loss: None)  # two of eight steps: the last had number 1
    assert rates(ramp, nn.DropBlock2d) == pytest.approx([0.2 / 8] * 4)
    assert rates(ramp, nn.Residual) == [0.0] * 4
    path = residual_net.ImageTrainer(image_config(images, drop="path", rate=0.4), images)
    assert rates(path, nn.Residual) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_residual_networks_penalty_is_that_of_its_weights(images):
    net = residual_net.ImageTrainer(image_config(images, l2=0.5), images).net
    weights = [p.detach().numpy() for p in net.module.parameters() if p.dim() > 1]
    assert net.penalty() == pytest.approx(0.25 * sum(float((w**2).sum()) for w in weights), rel=1e-5)
    gradients = {name: part.whole(own) for name, own, part in net.named_params()}
    for name, own, part in net.named_params():
        decay = 0.5 if part.penalty.l2 else 0.0
        assert gradients[name] == pytest.approx(decay * own)
