"""Networks of other libraries, small and without weights: each goes through all that the library does."""

import copy
import math

import pytest
import torch
from helpers import zoo
from torch import nn

import thinned
import thinned.nn as tnn
from thinned import Key
from thinned.uncertainty import predict

# What keyed names as not reached: DropBlock of timm with a rate that ours does not have; layers of wav2vec2
# that are skipped by a number of torch.rand. The other two are torch's own.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        ".*DropBlock2d. calls Tensor.bernoulli_",
        ".*Wav2Vec2Encoder. calls torch.rand",
        "FSDP2-wrapped module",
        "The tensor attributes self.lstm",
    )
]

EACH = pytest.mark.parametrize("name", zoo.ZOO)


def each_but(**reasons):
    """All networks; those with a reason fail today."""
    marks = {name: [pytest.mark.xfail(strict=True, reason=why)] for name, why in reasons.items()}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=marks.get(n, [])) for n in zoo.ZOO])


COMPILED = ("vit", "convnext", "gpt2", "attention")


@pytest.fixture
def animal(name):
    torch.manual_seed(0)
    found = zoo.ZOO[name]()
    found.name = name
    return found


def kinds(model):
    return {path: type(module) for path, module in model.named_modules()}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def evaluated(animal, model=None):
    model = animal.model if model is None else model
    training = model.training
    model.eval()
    with torch.no_grad():
        y = animal.run(model)
    model.train(training)
    return y


def keyed(animal, step=0, model=None, seed=1):
    model = animal.model if model is None else model
    torch.manual_seed(seed)  # of what keyed does not reach
    with tnn.keyed(model, Key(3), step):
        return animal.run(model)


@EACH
def test_swapped_and_back_and_evaluation_is_unchanged(animal):
    before, weights, plain = kinds(animal.model), state(animal.model), evaluated(animal)
    tnn.swap_dropout(animal.model)
    assert same(state(animal.model), weights)
    assert torch.equal(evaluated(animal), plain)
    tnn.swap_dropout(animal.model, back=True)
    assert kinds(animal.model) == before
    assert torch.equal(evaluated(animal), plain)


@each_but(
    resnet="DropBlock2d of timm with gamma_scale 0.25 is named, not reached",
    wav2vec2="layerdrop skips whole layers by torch.rand: named, not reached",
)
def test_one_key_gives_one_output(animal):
    tnn.swap_dropout(animal.model)
    statistics = state(animal.model)
    first = keyed(animal)
    animal.model.load_state_dict(statistics)  # those of batch norm
    assert torch.equal(keyed(animal, seed=2), first)
    assert not torch.equal(keyed(animal, step=1), first)


@EACH
def test_a_training_step(animal):
    tnn.swap_dropout(animal.model)
    optimizer = torch.optim.SGD(animal.model.parameters(), lr=0.01)
    before = state(animal.model)
    loss = (keyed(animal) - 1).square().mean()
    loss.backward()
    optimizer.step()
    assert math.isfinite(loss.item())
    assert not same(state(animal.model), before)


@EACH
def test_thinned(animal):
    tnn.swap_dropout(animal.model)
    plain = evaluated(animal)
    report = tnn.thin(animal.model)
    assert str(report)
    torch.testing.assert_close(evaluated(animal), plain)
    keyed(animal).square().mean().backward()
    assert any(w.grad is not None for w in animal.model.parameters())


@pytest.mark.parametrize("name", COMPILED)
def test_compiled(animal):
    tnn.swap_dropout(animal.model)
    compiled = torch.compile(animal.model, backend="aot_eager")
    eager, graph = evaluated(animal), evaluated(animal, compiled)
    torch.testing.assert_close(graph, eager, rtol=1e-4, atol=1e-5)
    compiled.train()
    animal.run(compiled).square().mean().backward()
    assert any(w.grad is not None for w in animal.model.parameters())


@EACH
def test_exported(animal):
    tnn.swap_dropout(animal.model)
    model = animal.model.eval()
    program = torch.export.export(model, animal.args, animal.kwargs, strict=False)
    run = program.module()
    y = zoo.first_tensor(run(*animal.args, **animal.kwargs))
    torch.testing.assert_close(y, evaluated(animal), rtol=1e-4, atol=1e-5)
    assert not [node for node in program.graph.nodes if "thinned" in str(node.target)]


@EACH
def test_predicted(animal):
    tnn.swap_dropout(animal.model)
    found = [predict(animal.model, animal.batch, samples=3, key=Key(1), outputs="numbers") for _ in range(2)]
    assert (found[0].mean == found[1].mean).all()
    assert (found[0].std >= 0).all()
    assert (found[0].std > 0).any()


@EACH
def test_copied_and_saved(animal):
    tnn.swap_dropout(animal.model)
    twin = copy.deepcopy(animal.model)
    assert torch.equal(keyed(animal, model=twin), keyed(animal))
    fresh = zoo.ZOO[animal.name]().model
    tnn.swap_dropout(fresh)
    fresh.load_state_dict(animal.model.state_dict())
    assert torch.equal(evaluated(animal, fresh), evaluated(animal))


@each_but(wav2vec2="with sharded weights transformers runs the layers that layerdrop would skip")
def test_fully_sharded(animal, mesh):
    from torch.distributed.fsdp import fully_shard

    tnn.swap_dropout(animal.model)
    twin = copy.deepcopy(animal.model)
    for part in twin.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh)
            break
    fully_shard(twin, mesh=mesh)
    y, expected = keyed(animal, model=twin), keyed(animal)
    torch.testing.assert_close(y, expected)
    y.square().mean().backward()
    expected.square().mean().backward()
    for ours, theirs in zip(twin.parameters(), animal.model.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
def test_norms_with_activations_of_timm_are_thinned(act):
    norm = zoo.library("timm.layers").BatchNormAct2d(32, act_layer=act)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), norm, tnn.Dropout2d(0.5), nn.Conv2d(32, 4, 3))
    plain, x = copy.deepcopy(model), torch.randn(8, 3, 8, 8)
    report = tnn.thinning(tnn.thin(model, groups=1))
    assert list(report.chains) == ["2"]
    kept = thinned.masks.picks(32, 0.5, Key(3).fold_in(0).fold_in("2"), 1).units[0]
    with tnn.keyed(model, Key(3), 0):
        y = model(x)
    hidden = plain[1](plain[0](x)) * torch.from_numpy(kept).float().view(1, -1, 1, 1) * 2
    torch.testing.assert_close(y, plain[3](hidden), rtol=1e-4, atol=1e-5)
    assert kinds(tnn.thin(model, back=True)) == kinds(plain)
