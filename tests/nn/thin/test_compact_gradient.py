"""A gradient without memory of its own: whoever asks for memory gets that of the dense gradient."""

import copy
import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import thinned.nn as tnn  # noqa: E402
from thinned.nn.thin.compact_gradient import CompactGradient  # noqa: E402


def made():
    """A thinned model with a compact gradient, and that gradient."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 8), tnn.Dropout(0.5), torch.nn.Linear(8, 3)
    model = tnn.thin(torch.nn.Sequential(*layers), groups=1)
    tnn.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 6)).sum().backward()
    gradient = model[0].weight.grad
    assert isinstance(gradient, CompactGradient)
    assert gradient.compact is not None
    return model, gradient


def loaded(gradient):
    file = io.BytesIO()
    torch.save(gradient, file)
    file.seek(0)
    return torch.load(file)


def of_storage(storage):
    return np.frombuffer(bytes(storage), np.float32)


READERS = {
    "numpy": lambda g: g.numpy(),
    "numpy of a detached one": lambda g: g.data.cpu().numpy(),
    "asarray": np.asarray,
    "tolist": lambda g: g.tolist(),
    "DLPack, NumPy": np.from_dlpack,
    "DLPack, torch": torch.from_dlpack,
    "storage": lambda g: of_storage(g.untyped_storage()),
    "shared": lambda g: g.share_memory_(),
    "pickle": lambda g: pickle.loads(pickle.dumps(g)),
    "file": loaded,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "every element": lambda g: g.apply_(lambda value: value),
    "sum": lambda g: g + 0,
    "view": lambda g: g.view(-1),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_gets_the_whole(read):
    _, gradient = made()
    whole = gradient._held.selection.place(gradient.compact[0])
    came = np.asarray(read(gradient))
    np.testing.assert_array_equal(came.reshape(whole.shape), whole.numpy())


def test_a_written_view_is_the_gradient():
    _, gradient = made()
    gradient.numpy()[...] = 3.0
    assert torch.equal(gradient + 0, torch.full((8, 6), 3.0))
    assert gradient.data_ptr() == gradient.dense().data_ptr() != 0


def test_code_below_python_is_refused():
    """It asks for the pointer of the wrapper itself, which has none."""
    _, gradient = made()
    with pytest.raises(RuntimeError, match="Cannot access data pointer"):
        torch._C._to_dlpack(gradient)


def test_new_data():
    _, gradient = made()
    gradient.data = torch.ones(8, 6)
    assert torch.equal(gradient + 0, torch.ones(8, 6))
    with pytest.raises(
        ValueError, match=r"the data of this gradient must be a torch.float32 tensor of shape"
    ):
        gradient.data = torch.ones(3)


def test_a_model_in_shared_memory():
    model, gradient = made()
    whole = gradient.clone()
    model.share_memory()
    assert model[0].weight.grad.is_shared()
    assert torch.equal(model[0].weight.grad, whole)
