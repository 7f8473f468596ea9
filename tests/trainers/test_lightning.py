"""The callback for Lightning: rates, keys and thinning in a real training run."""

import warnings

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from thinned import Key  # noqa: E402
from thinned.nn import keyed  # noqa: E402
from thinned.trainers.lightning import DropoutCallback, samples  # noqa: E402


class Net(lightning.LightningModule):
    """A small network; it keeps the outputs of each training step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 2)]
        self.model = torch.nn.Sequential(*layers)
        self.seen, self.rates = [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        out = self.model(x)
        self.seen.append((x, out.detach().clone(), {k: v.clone() for k, v in self.state_dict().items()}))
        self.rates.append(self.model[2].p)
        return torch.nn.functional.cross_entropy(out, y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, callback, **options):
    x, y = torch.randn(32, 4, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 2
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about workers of data loaders
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **options,
        )  # fmt: skip
        trainer.fit(net, data)
    return net, trainer


def test_rates_rise_and_are_logged(tmp_path):
    net, trainer = fit(tmp_path, DropoutCallback("linear"))
    assert net.rates == pytest.approx([0.5 * step / 8 for step in range(8)])
    assert trainer.logged_metrics["dropout_p"] == pytest.approx(0.5 * 7 / 8)
    assert net.model[2].p == 0.5


@pytest.mark.parametrize("accumulated", [1, 2])
def test_masks_follow_step_and_sample(tmp_path, accumulated):
    net, _ = fit(tmp_path, DropoutCallback(key=Key(5)), accumulate_grad_batches=accumulated)
    for i, (x, out, weights) in enumerate(net.seen):
        net.load_state_dict(weights)
        net.train()
        with keyed(net, Key(5), i // accumulated, sample_offset=8 * (i % accumulated)):
            assert torch.allclose(net.model(x), out, atol=1e-6), f"batch {i}"


def test_thin_takes_the_part_that_is_called(tmp_path, caplog):
    callback = DropoutCallback(thin="model")
    fit(tmp_path, callback)
    assert set(callback.dropping.thinned.chains) == {"2"}
    assert "no effect" not in caplog.text
    fit(tmp_path, DropoutCallback(thin=True))
    assert "name the part that it calls" in caplog.text


def test_the_size_of_a_batch():
    x = torch.ones(3, 2)
    assert samples(x) == samples((x, 1)) == samples({"x": x}) == 3
    with pytest.raises(TypeError, match="batch must hold a tensor"):
        samples("text")
