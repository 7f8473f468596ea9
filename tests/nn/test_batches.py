"""Where the samples are in a tensor; and that a batch gets the masks of the whole, however it is split."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned import Key  # noqa: E402
from thinned.nn.batches import FIRST, SECOND, Batch, Where  # noqa: E402


@pytest.mark.parametrize(
    ("batch", "shape", "where"),
    [
        (Batch(), (3, 4), FIRST),
        (Batch(4), (4, 5), FIRST),
        (Batch(4), (4, 4, 4), FIRST),
        (Batch(4), (), FIRST),
        (Batch(4), (24, 5), Where(0, 6)),
        (Batch(4), (24, 4), Where(0, 6)),
        (Batch(4), (6, 4, 5), Where(1)),
        (Batch(4), (24, 4, 5, 5), Where(0, 6)),
        (Batch(4), (1, 6, 5), Where(0, 0)),
        (Batch(4, 1), (6, 4, 5), Where(1)),
        (Batch(4, 1), (4, 4, 5), Where(1)),
        (Batch(4, 1), (24, 5), Where(1, folded=4)),
        (Batch(4, 1), (4, 4), FIRST),
        (Batch(4, 1), (24, 5, 5), Where(0, 6)),
        (SECOND, (6, 4, 5), Where(1)),
        (SECOND, (6, 5), FIRST),
    ],
)
def test_where_the_samples_are(batch, shape, where):
    assert batch.find(shape, 0, movable=True) == where


@pytest.mark.parametrize("shape", [(6, 5), (24, 4, 5), (6, 5, 4)])
def test_what_is_not_clear_is_refused(shape):
    """Only where samples are before these: the first part of a batch has the numbers from 0 on."""
    assert Batch(4).find(shape, 0, movable=True).axis == 0
    with pytest.raises(ValueError, match=r"^sample_axis of keyed must be given"):
        Batch(4).find(shape, 2, movable=True)


class Folds(nn.Module):
    """Folds positions into the batch."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), tnn.Dropout(0.5), nn.Linear(32, 8))
        self.noise = tnn.GaussianDropout(0.5)

    def forward(self, x):
        return self.noise(self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


class Turns(nn.Module):
    """Has its sequence first inside."""

    def __init__(self):
        super().__init__()
        self.drop = tnn.Dropout(0.5)

    def forward(self, x):
        return self.drop(x.transpose(0, 1)).transpose(0, 1)


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.5)
    return nn.Sequential(tnn.Dropout(0.5), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


class LSTM(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


CASES = {  # the model, and the axis of its samples
    "folded": (lambda: Folds(True), 0),
    "folded, sequence first": (lambda: Folds(False), 1),
    "turned": (Turns, 0),
    "transformer, sequence first": (transformer, 1),
    "LSTM, sequence first": (lambda: LSTM(8, 8, 2, dropout=0.5), 1),
    "DropConnect": (lambda: tnn.DropConnectLinear(8, 8), 0),
    "channels": (lambda: nn.Sequential(nn.Flatten(0, 1), tnn.Dropout1d(0.5), nn.Unflatten(0, (-1, 6))), 0),
}


@pytest.mark.parametrize(("make", "axis"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("length", [6, 5, 4])
def test_parts_are_the_whole(make, axis, length):
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(4, length, 8, dtype=torch.float64)
    if make is CASES["channels"][0]:
        x = torch.randn(4, 6, 8, 3, dtype=torch.float64)
    x = x if axis == 0 else x.transpose(0, 1).contiguous()

    def run(part, offset):
        with tnn.keyed(model, Key(0), 0, offset, sample_axis=axis):
            return model(part)

    whole = run(x, 0)
    assert not torch.equal(whole, model.eval()(x))
    model.train()
    for sizes in ([2, 2], [1, 3], [1, 1, 2]):
        parts, offset = [], 0
        for part in x.split(sizes, axis):
            parts.append(run(part, offset))
            offset += part.shape[axis]
        if make is Turns and max(sizes) > 1 and length in (4, 6):
            continue
        torch.testing.assert_close(torch.cat(parts, axis), whole)


def test_a_sequence_first_needs_a_word():
    model, x = transformer(), torch.randn(6, 2, 8)
    with pytest.raises(
        ValueError, match=r"^sample_axis of keyed .*1.layers.0 \(TransformerEncoderLayer\) has"
    ):
        run_from(model, x, 2)
    run_from(model, x, 0)
    with pytest.raises(ValueError, match=r"^sample_axis must be one of 0, 1, got 2"):
        run_from(model, x, 0, sample_axis=2)


def run_from(model, x, offset, **options):
    with tnn.keyed(model, Key(0), 0, offset, **options):
        return model(x)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_parts_are_the_whole():
    torch._dynamo.reset()
    model, x = Folds(True).double(), torch.randn(4, 6, 8, dtype=torch.float64)
    compiled = torch.compile(model, backend="aot_eager")
    whole = run_from(model, x, 0)
    torch.testing.assert_close(run_from(compiled, x, 0), whole)
    torch.testing.assert_close(run_from(compiled, x[2:], 2), whole[2:])


@pytest.mark.parametrize("groups", [1, 4])
def test_parts_of_a_thinned_model_are_the_whole(groups):
    model, x = Folds(True).double(), torch.randn(4, 6, 8, dtype=torch.float64)
    tnn.thin(model, groups)
    assert tnn.thinning(model).chains
    whole = run_from(model, x, 0)
    torch.testing.assert_close(run_from(model, x[2:], 2), whole[2:])
