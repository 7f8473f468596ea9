"""CIFAR-10: found in folders and archives, checked, downloaded."""

import hashlib
import shutil
import tarfile

import numpy as np
import pytest
from helpers.data import archive, check, line, real, records

from thinned.lab.data import cifar10
from thinned.lab.data.registry import load


@pytest.mark.parametrize("place", ["cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "cifar10", "."])
def test_cifar10_is_found(cifar, tmp_path, place):
    folder = tmp_path / "other" / place
    shutil.copytree(cifar, folder)
    dataset = check(load("cifar10", data_dir=tmp_path / "other"))
    assert (dataset.x_train.shape, dataset.x_test.shape, dataset.shape) == (
        (100, 3072),
        (20, 3072),
        (3, 32, 32),
    )
    assert dataset.classes[:2] == ("airplane", "automobile")
    third = records(2, 20)
    np.testing.assert_array_equal(dataset.x_train[40:60], (third[:, 1:] / 255).astype(np.float32))
    np.testing.assert_array_equal(dataset.y_train[40:60], third[:, 0])
    np.testing.assert_array_equal(dataset.y_test, records(5, 20)[:, 0])


def test_cifar10_in_its_archive(cifar, tmp_path):
    expected = load("cifar10", data_dir=cifar).fingerprint
    (tmp_path / "other").mkdir()
    outside = tarfile.TarInfo("../../outside.bin"), b"x"
    link = tarfile.TarInfo("cifar-10-batches-bin/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = archive(cifar, tmp_path / "other" / "cifar-10-binary.tar.gz", outside, (link, b""))
    assert load("cifar10", data_dir=tmp_path / "other").fingerprint == expected
    assert [p.name for p in (tmp_path / "other").iterdir()] == [path.name]

    archive(cifar, path, skip=["data_batch_3.bin"])
    assert "lacks cifar-10-batches-bin/data_batch_3.bin" in line(load, "cifar10", data_dir=path.parent)
    archive(cifar, path, (tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin"), b"short"))
    assert "must have 61,460 bytes, got 5" in line(load, "cifar10", data_dir=path.parent)
    archive(cifar, path, (tarfile.TarInfo("huge"), bytes(61_461)))
    assert "'huge' must have at most 61,460 bytes, got 61,461" in line(load, "cifar10", data_dir=path.parent)
    whole = archive(cifar, path).read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:length])
        assert "cifar-10-binary.tar.gz: " in line(load, "cifar10", data_dir=path.parent)


def test_bad_files_of_cifar10(cifar):
    path = cifar / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{path} must have 61,460 bytes, got 61,459" in line(load, "cifar10", data_dir=cifar)
    path.write_bytes(whole[: 3073 * 7] + b"\x0a" + whole[3073 * 7 + 1 :])
    assert "the label of image 7 must be in 0 to 9, got 10" in line(load, "cifar10", data_dir=cifar)
    path.unlink()
    assert "lacks data_batch_2.bin" in line(load, "cifar10", data_dir=cifar)


def test_cifar10_in_forms_that_are_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    text = line(load, "cifar10", data_dir=tmp_path)
    assert "pickle, which is never loaded" in text
    assert "cifar-10-binary.tar.gz" in text
    compact = tmp_path / "compact"
    (compact / "cifar10").mkdir(parents=True)
    (compact / "cifar10" / "cifar10-train-jpeg.npz").touch()
    assert "could not download" in line(load, "cifar10", data_dir=compact)
    (compact / "expand.py").touch()
    assert f"python {compact / 'expand.py'} DEST" in line(load, "cifar10", data_dir=compact)


def test_a_complete_cache_comes_before_a_hint(cifar, tmp_path):
    shutil.copytree(cifar, tmp_path / "cache" / "cifar10" / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert load("cifar10", data_dir=tmp_path).fingerprint == load("cifar10", data_dir=cifar).fingerprint


def test_the_real_cifar10():
    dataset = check(load("cifar10", data_dir=real("cifar-10-batches-bin"), limit=5000))
    assert (len(dataset.x_train), len(dataset.x_test), dataset.shape) == (5000, 1000, (3, 32, 32))
    channels = dataset.x_train.reshape(-1, 3, 1024).mean((0, 2), dtype=float)
    # Published means. Means of single images deviate by 0.2 at most: standard error 0.2 / √5000 < 0.003.
    np.testing.assert_allclose(channels, [0.4914, 0.4822, 0.4465], atol=5 * 0.003)


def test_cifar10_is_downloaded_once(cifar, server, tmp_path, monkeypatch):
    content = archive(cifar, tmp_path / "x.tar.gz").read_bytes()
    server.files["/c"] = content
    monkeypatch.setattr(cifar10, "URLS", (f"{server.url}/c",))
    assert "sent a file with another SHA-256" in line(load, "cifar10")
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(content).hexdigest())
    assert "allow the download" in line(load, "cifar10", download=False)
    expected = load("cifar10", data_dir=cifar).fingerprint
    assert load("cifar10").fingerprint == load("cifar10", download=False).fingerprint == expected
    assert [p.name for p in (tmp_path / "cache" / "cifar10").iterdir()] == ["cifar-10-batches-bin"]
