"""MNIST: found in folders, checked, downloaded."""

import gzip
import hashlib

import numpy as np
import pytest
from helpers.data import check, idx, line, real

from thinned.lab.data import mnist as mnist_module
from thinned.lab.data.registry import load

TRAIN = "train-images-idx3-ubyte"


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_found(mnist, tmp_path, monkeypatch, place, packed):
    folder = tmp_path / "other" / place
    folder.mkdir(parents=True)
    for path in mnist.iterdir():
        (folder / (path.name if packed else path.stem)).write_bytes(
            path.read_bytes() if packed else gzip.decompress(path.read_bytes())
        )
    dataset = check(load("mnist", data_dir=tmp_path / "other"))
    assert (dataset.x_train.shape, dataset.x_test.shape, dataset.shape) == ((20, 12), (6, 12), (4, 3))
    raw = np.frombuffer(gzip.decompress((mnist / f"{TRAIN}.gz").read_bytes()), np.uint8, offset=16)
    np.testing.assert_array_equal(dataset.x_train, (raw / 255).astype(np.float32).reshape(20, 12))
    assert dataset.y_train.tolist() == [*range(10), *range(10)]
    monkeypatch.setenv("THINNED_DATA", str(tmp_path / "other"))
    assert load("mnist").fingerprint == dataset.fingerprint
    (tmp_path / "empty").mkdir()
    assert load("mnist", data_dir=tmp_path / "empty").fingerprint == dataset.fingerprint


def test_a_folder_that_is_not_there(mnist, tmp_path, monkeypatch):
    assert line(load, "mnist", data_dir=tmp_path / "no").startswith(
        f"--data-dir must be a folder, got {tmp_path / 'no'}"
    )
    monkeypatch.setenv("THINNED_DATA", str(tmp_path / "no"))
    assert line(load, "mnist").startswith("$THINNED_DATA must be a folder")


def test_a_missing_file_of_mnist(mnist):
    (mnist / f"{TRAIN}.gz").unlink()
    assert f"lacks {TRAIN}" in line(load, "mnist", data_dir=mnist)


def test_another_checksum(mnist):
    path = mnist / f"{TRAIN}.gz"
    whole = bytearray(gzip.decompress(path.read_bytes()))
    whole[20] ^= 1
    path.write_bytes(gzip.compress(bytes(whole)))
    text = line(load, "mnist", data_dir=mnist)
    for part in (
        str(path),
        "of SHA-256",
        mnist_module.FILES[TRAIN][1],
        hashlib.sha256(whole).hexdigest(),
        ".npz",
    ):
        assert part in text


def test_every_truncation_of_an_idx_file(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3))
    path = tmp_path / "x"
    for whole in (idx(array), gzip.compress(idx(array))):
        path.write_bytes(whole)
        np.testing.assert_array_equal(mnist_module.read_idx(path, 3), array)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert str(path) in line(mnist_module.read_idx, path, 3)


def bomb():
    """A gzip file of a few kB that unpacks to 64 MiB."""
    return gzip.compress(idx(np.zeros((1, 2, 2))) + bytes(1 << 26), 9)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "an empty file"),
        (b"not an idx file", "got 6e 6f 74 20"),
        (idx(np.zeros((2, 2))), "got 00 00 08 02"),
        (idx(np.zeros((2, 2, 2))).replace(b"\x08", b"\x0d", 1), "got 00 00 0d 03"),
        (idx(np.zeros((2, 2, 2))) + b"x", "must have 8 bytes after the header, got more"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, "as no file of MNIST does"),
        (gzip.compress(bytes((0, 0, 8, 3)) + b"\x0f" * 12), "as no file of MNIST does"),
        (gzip.compress(b"")[:10] + b"\xff\xff", "truncated or damaged"),
        (gzip.compress(idx(np.zeros((2, 2, 2))))[:-8] + bytes(8), "truncated or damaged (CRC"),
    ],
)
def test_what_is_no_idx_file(tmp_path, content, fault):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert fault in line(mnist_module.read_idx, path, 3)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    import tracemalloc

    path = tmp_path / "x"
    path.write_bytes(bomb())
    tracemalloc.start()
    text = line(mnist_module.read_idx, path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "must have 4 bytes after the header, got more" in text
    assert peak < 1 << 24


def test_labels_that_do_not_fit(mnist, monkeypatch):
    name = "t10k-labels-idx1-ubyte"
    for labels in (np.arange(5), np.arange(5, 11)):
        whole = idx(labels)
        (mnist / f"{name}.gz").write_bytes(gzip.compress(whole))
        monkeypatch.setitem(mnist_module.FILES, name, (1, hashlib.sha256(whole).hexdigest(), ""))
        assert "must have 6 labels from 0 to 9" in line(load, "mnist", data_dir=mnist)


def test_the_real_mnist():
    dataset = check(load("mnist", data_dir=real("mnist")))
    assert (len(dataset.x_train), len(dataset.x_test), dataset.shape) == (60000, 10000, (28, 28))
    assert np.bincount(dataset.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.x_train.mean(dtype=float) == pytest.approx(0.1307, abs=1e-4)
    assert dataset.fingerprint == "9c61eadb2ae17c11c29c7588a9c4053f"


def test_mnist_is_downloaded_once(mnist, server, tmp_path, monkeypatch):
    server.files |= {f"/m/{path.name}": path.read_bytes() for path in mnist.iterdir()}
    monkeypatch.setattr(mnist_module, "URLS", (f"{server.url}/m/",))
    expected = load("mnist", data_dir=mnist).fingerprint
    assert "allow the download" in line(load, "mnist", download=False)
    assert load("mnist").fingerprint == expected
    assert len(server.asked) == 4
    assert load("mnist", download=False).fingerprint == expected
    assert len(server.asked) == 4
