"""Data for tests: what every data set promises, and small files in the canonical formats."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from thinned.lab.errors import LabError

# Looked up here because no test sees the user's folder by itself.
REAL = [Path(os.environ["THINNED_DATA"])] if os.environ.get("THINNED_DATA") else []
REAL += [Path(__file__).resolve().parents[3] / "shared" / "data"]


def check(dataset):
    """What every data set promises."""
    features = int(np.prod(dataset.shape))
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert x.dtype == np.float32
        assert x.shape == (len(y), features)
        assert np.isfinite(x).all()
        assert y.dtype == np.int64
        assert y.shape == (len(x),)
        assert 0 <= y.min() <= y.max() < len(dataset.classes)
        assert x.flags.c_contiguous
    assert len(dataset.fingerprint) == 32
    assert dataset.note.endswith(".")
    return dataset


def line(call, *args, **options):
    """The one line of a LabError."""
    with pytest.raises(LabError) as caught:
        call(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def records(seed, n):
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
    out[:, 0] = np.arange(n) % 10
    return out


def archive(folder, path, *extra, skip=()):
    """A .tar.gz of the files in a folder, and of some (member, content) more, first."""
    with tarfile.open(path, "w:gz") as tar:
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for file in sorted(folder.iterdir(), reverse=True):
            if file.name not in skip:
                tar.add(file, f"cifar-10-batches-bin/{file.name}")
    return path


def real(name):
    """A folder with real data, or a skip."""
    found = [place for place in REAL if (place / name).is_dir()]
    if not found:
        pytest.skip(f"no {name}/ in $THINNED_DATA or ../shared/data")
    return found[0]


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path / "mine.npz"
