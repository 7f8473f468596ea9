"""Devices and precision: Fabric changes no bit at 32, bf16 trains, the host keeps what trains elsewhere."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning_fabric")
pytest.importorskip("sklearn")
from typer.testing import CliRunner  # noqa: E402

from thinned import Key, nn  # noqa: E402
from thinned.cli import app  # noqa: E402
from thinned.key import normals  # noqa: E402
from thinned.lab import choices  # noqa: E402
from thinned.lab.data.registry import load  # noqa: E402
from thinned.lab.errors import LabError  # noqa: E402
from thinned.lab.grids import residual_net  # noqa: E402
from thinned.lab.grids.grid import label  # noqa: E402
from thinned.lab.reporting.progress_bars import Progress  # noqa: E402
from thinned.lab.reproduce import order  # noqa: E402
from thinned.lab.storage.run import run_name  # noqa: E402
from thinned.lab.sweeping import sweep  # noqa: E402
from thinned.lab.training import fabric, train  # noqa: E402
from thinned.lab.training.config import Config  # noqa: E402
from thinned.lab.training.fabric import OnDevice  # noqa: E402
from thinned.lab.training.trainer import Trainer  # noqa: E402

ALL = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def images():
    data = load("digits")
    return dataclasses.replace(data, x_train=data.x_train[:100], y_train=data.y_train[:100])


def image_config(data, **more):
    usual = {"data": "digits", "fingerprint": data.fingerprint, "system": "a", "engine": "torch", "blocks": 1}
    usual |= {"hidden": (4, 8), "epochs": 2, "batch": 50, "lr": 0.05, "l2": 1e-3}
    return residual_net.ImageConfig(**usual | {"drop": "spatial", "rate": 0.2, "ramp": True} | more)


def dense_config(data, **more):
    usual = {"data": "digits", "fingerprint": data.fingerprint, "method": "dropout", "engine": "torch"}
    return Config(**usual | {"hidden": (16, 8), "epochs": 2, "batch": 50, "lr": 0.05, "max_norm": 1.0} | more)


def net():
    """A network that drops, of which only parameters are random; the same each time."""
    made = torch.nn.Sequential(
        torch.nn.Linear(6, 32), nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    )
    generator = torch.Generator().manual_seed(0)
    for param in made.parameters():
        torch.nn.init.normal_(param, generator=generator)
    return made


X = normals(Key(1), 60).reshape(10, 6).astype(np.float32)
GRAD = normals(Key(2), 30).reshape(10, 3).astype(np.float32)


def numbers(trainer):
    """Everything that training changes."""
    checkpoint = trainer.checkpoint()
    return {f"{kind}/{name}": array.tobytes() for kind in ("params", "optimizer")
            for name, array in getattr(checkpoint, kind).items()}  # fmt: skip


def trained(trainer):
    """After all its epochs, taken up again in the middle by a new trainer."""
    trainer.next_epoch(lambda done, loss: None)
    half = trainer.checkpoint()
    again = type(trainer)(trainer.config, trainer.data)
    again.net.set_params(half.params)
    again.optimizer.load(half.optimizer)
    again.epoch = half.epoch
    again.next_epoch(lambda done, loss: None)
    return numbers(again) | {"outputs": again.net.predict(again.x).tobytes()}


def test_at_32_fabric_changes_no_bit():
    plain, on = net(), OnDevice(net(), "cpu", "32")
    with nn.keyed(plain.train(), Key(3), 7):
        expected = plain(torch.from_numpy(X))
    expected.backward(torch.from_numpy(GRAD))
    outputs = on.training_pass(X, Key(3), 7)
    on.backward(outputs, GRAD)
    assert torch.equal(outputs, expected)
    for own, other in zip(on.module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)
    assert np.array_equal(on.predict(X), plain.eval()(torch.from_numpy(X)).detach().numpy())


@pytest.mark.parametrize("device", ALL)
def test_masks_are_the_same_through_fabric_on_every_device(device):
    plain, one = nn.Dropout(0.5), np.ones((8, 100), np.float32)
    on = OnDevice(torch.nn.Sequential(nn.Dropout(0.5)), device, "32")
    with nn.keyed(torch.nn.Sequential(plain), Key(3), 7):
        expected = plain(torch.from_numpy(one))
    assert np.array_equal(fabric.array(on.training_pass(one, Key(3), 7)), expected.numpy())


def test_keyed_sees_through_fabrics_wrapper():
    model = lightning.Fabric(accelerator="cpu", devices=1).setup(net())
    x = torch.from_numpy(X)
    with nn.keyed(model, Key(3), 7), nn.keyed(plain := net(), Key(3), 7):
        assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("kind", ["dense", "thin", "images"])
def test_a_twin_elsewhere_trains_as_the_network_itself(images, monkeypatch, kind):
    config, trainer = {
        "dense": (dense_config(images), Trainer),
        "thin": (dense_config(images, method="thin"), Trainer),
        "images": (image_config(images), residual_net.ImageTrainer),
    }[kind]
    whole = trained(trainer(config, images))
    monkeypatch.setattr(fabric, "_apart", lambda device: True)
    twin = trainer(config, images)
    assert twin.net.on.model.module is not twin.net.module
    assert trained(twin) == whole


@pytest.mark.parametrize("device", ALL)
def test_bf16_multiplies_bf16_and_keeps_parameters(images, device):
    trainer = residual_net.ImageTrainer(image_config(images, precision="bf16", device=device), images)
    seen = []
    convolution = next(m for m in trainer.net.on.model.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.next_epoch(lambda done, loss: None)
    assert set(seen) == {torch.bfloat16}
    assert {array.dtype for array in trainer.net.get_params().values()} == {np.dtype("float32")}
    assert trainer.net.predict(trainer.x).dtype == np.float32


def test_thin_trains_in_bf16(images):
    trainer = Trainer(
        dense_config(images, method="thin", precision="bf16", hidden=(512, 512), batch=100), images
    )
    losses = [trainer.next_epoch(lambda done, loss: None)["loss"] for _ in range(2)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ["spatial-dropout", "mnist-gaussian"])
def test_bf16_trains_in_runs_of_its_own(tmp_path, name):
    engine = "torch" if name == "mnist-gaussian" else None
    asked = order.order(name, "smoke", None, engine=engine, precision="bf16", only=("dropout", "none"))
    todo = asked.jobs()
    usual = {job.config.system: job for job in dataclasses.replace(asked, precision="32").jobs()}
    stored = sweep.run(todo, tmp_path, Progress())
    for run, job in zip(stored, todo, strict=True):
        assert run.status == "done"
        losses = run.history["loss"]
        assert losses[-1] < losses[0]
        other = usual[job.config.system]
        assert run_name(other.config) != run_name(job.config)
        at_32 = train.train(other.config, other.dataset, tmp_path, trainer=other.trainer)
        assert at_32.history["loss"] != losses
        assert run.config["precision"] == "bf16"
        assert run.result["about"]["torch"] == torch.__version__
    record = order.record(asked, todo)
    assert "--precision bf16" in record.command
    assert record.settings["engine"] == "torch on cpu, float32 parameters, precision bf16"
    assert order.default_out(asked).name.endswith("bf16")


# --- orders ---


def test_the_engine_of_dense_networks_is_the_commands():
    asked = order.order("mnist-table2", "smoke", None, engine="torch")
    todo, lost = asked.split()
    assert {job.config.engine for job in todo if job.trainer.network} == {"torch"}
    assert {job.config.engine for job in todo if not job.trainer.network} == {"numpy"}  # the SVM
    numpys = dataclasses.replace(asked, engine=None).jobs()
    assert lost == [label(dataclasses.asdict(job.config)) for job in numpys
                    if job.config.activation == "maxout"]  # fmt: skip
    names = {run_name(job.config) for job in todo if job.trainer.network}
    assert not names & {run_name(job.config) for job in numpys}
    record = order.record(asked, todo)
    assert record.settings["left out"].startswith("; ".join(lost))
    assert record.settings["engine"] == "torch on cpu, float32 parameters, precision 32"
    assert record.command == "thinned reproduce mnist-table2 --budget smoke --engine torch"


@pytest.mark.parametrize("name", ["mnist-averaging", "mnist-features"])
def test_what_is_measured_after_training_is_the_same_on_both_engines(tmp_path, name):
    found = []
    for engine in choices.ENGINES:
        asked = order.order(name, "smoke", None, engine=engine, only=("drop", "Drop"))
        found.append(sweep.run(asked.jobs(), tmp_path, Progress()))
    ours, theirs = ({run.config["system"]: run for run in runs} for runs in found)
    assert theirs
    for system, run in theirs.items():
        assert run.config["engine"] == "torch"
        assert set(run.measured) == set(ours[system].measured)
        # float32 sums differ in their order: a share of 1e-3 of the loss is 1e4 roundings
        assert run.history["loss"] == pytest.approx(ours[system].history["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("spiral", {"engine": "torch"}, "engine must be able to compute A, bypassed forward; B, in the path"),
        ("spatial-dropout", {"engine": "numpy"}, "engine must be able to compute none; elements"),
        ("linear-theory", {"precision": "bf16"}, "precision must be left out for linear-theory"),
        (
            "mnist-gaussian",
            {"precision": "bf16"},
            "engine must be 'torch' for the precision bf16, got 'numpy'",
        ),
        ("mnist-gaussian", {"engine": "jax"}, "engine must be one of 'numpy', 'torch', got 'jax'"),
        ("mnist-gaussian", {"device": "gpu"}, "device must be one of 'cpu', 'cuda', got 'gpu'"),
        ("mnist-gaussian", {"precision": "16"}, "precision must be one of '32', 'bf16', got '16'"),
        (
            "ensemble",
            {"engine": "torch", "precision": "bf16"},
            "dtype must be 'float32' for the precision bf16",
        ),
    ],
)
def test_what_cannot_be_is_refused(name, more, message):
    with pytest.raises((LabError, ValueError), match=message):
        order.order(name, "smoke", None, **more).jobs()


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused(images):
    with pytest.raises(LabError, match="device must be cpu where torch finds no GPU"):
        order.order("spatial-dropout", "smoke", None, device="cuda")
    with pytest.raises(LabError, match="device must be cpu where torch finds no GPU"):
        residual_net.ImageTrainer(image_config(images, device="cuda"), images)


def test_numpy_networks_need_neither_torch_nor_fabric(tmp_path):
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('torch', 'lightning_fabric'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "tiny = '--data spiral --hidden 8 --epochs 1 --seeds 1 --methods none'.split()\n"
        "sys.argv = ['thinned', 'compare', *tiny]\n"
        "from thinned.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout


def test_a_missing_package_ends_a_comparison_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    more = ["--data", "spiral", "--hidden", "8", "--engine", "torch", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["compare", *more])
    assert done.exit_code == 1
    assert "lightning_fabric" in done.stderr
    assert done.stderr.strip().endswith('; run pip install "thinned[lab]"')


def test_a_missing_package_ends_a_sweep_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    asked = order.order("spatial-dropout", "smoke", None)
    with pytest.raises(LabError, match=r'lightning_fabric.*; run pip install "thinned\[lab\]"'):
        sweep.run(asked.jobs(), tmp_path, Progress())
