"""Data: what is built in, what is found in folders, what is downloaded, and what users bring."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from thinned import Key
from thinned.lab.data import dataset as data
from thinned.lab.data import download, images
from thinned.lab.data import files as tables
from thinned.lab.data.dataset import holdout, load, spiral
from thinned.lab.errors import LabError

# Looked up here because no test sees the user's folder by itself.
REAL = [Path(os.environ["THINNED_DATA"])] if os.environ.get("THINNED_DATA") else []
REAL += [Path(__file__).resolve().parents[4] / "shared" / "data"]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No folder of the user, an empty cache, no way to a network."""
    monkeypatch.delenv("THINNED_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(images, "MNIST_URLS", ("http://127.0.0.1:9/",))
    monkeypatch.setattr(images, "CIFAR_URLS", ("http://127.0.0.1:9/cifar-10-binary.tar.gz",))


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


# Built in


def test_digits_are_split_the_same_way_everywhere():
    pytest.importorskip("sklearn")
    digits = check(load("digits"))
    assert (digits.x_train.shape, digits.x_test.shape, digits.shape) == ((1438, 64), (359, 64), (8, 8))
    assert digits.x_train.min() == 0.0
    assert digits.x_train.max() == 1.0
    assert np.bincount(digits.y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits.fingerprint == load("digits").fingerprint == "c0b953bb1c335a544c1ea72626603b19"
    assert len(load("digits", test_share=0.5).x_test) == pytest.approx(1797 / 2, abs=10)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert 'pip install "thinned[lab]"' in line(load, "digits")


def test_spiral_is_the_sources():
    dataset = check(load("spiral"))
    assert dataset.x_train.shape == dataset.x_test.shape == (3000, 2)
    assert dataset.classes == ("0", "1", "2")
    x, y = spiral(key=Key(0).fold_in("spiral").fold_in("points"))
    assert np.bincount(y).tolist() == [2000, 2000, 2000]
    r = np.hypot(x[:, 0], x[:, 1]).reshape(3, 2000)
    np.testing.assert_allclose(r, np.tile(np.linspace(0, 1, 2000), (3, 1)), atol=1e-6)
    angle = np.unwrap(
        np.arctan2(x[:, 0], x[:, 1]).reshape(3, 2000)[:, 400:] - 2.5 * np.linspace(0, 4, 2000)[400:]
    )
    turned = angle - 10 * np.arange(3)[:, None]
    noise = np.angle(np.exp(1j * turned)) / 2.5
    n = noise.size  # the noise is N(0, 0.2²): five standard errors of mean and deviation
    assert abs(noise.mean()) < 5 * 0.2 / n**0.5
    assert abs(noise.std() - 0.2) < 5 * 0.2 / (2 * n) ** 0.5
    everything = np.concatenate([dataset.x_train, dataset.x_test])
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, x.tolist()))


def test_spiral_checks_its_arguments():
    with pytest.raises(ValueError, match="samples"):
        spiral(0, key=Key(0))
    with pytest.raises(TypeError, match="key"):
        spiral(key=0)
    assert spiral(1, 2, key=Key(0))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_names_and_arguments(tmp_path):
    assert [name for name, _ in data.NAMES] == ["digits", "spiral", "mnist", "cifar10"]
    assert "did you mean mnist?" in line(load, "mnits")
    assert "got 'table.xlsx'" in line(load, "table.xlsx")
    assert "no such file (looked in" in line(load, tmp_path / "mine.npz")
    assert "leave it out" in line(load, "spiral", label="y")
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="test_share"):
            load("spiral", test_share=share)
    with pytest.raises(ValueError, match="limit"):
        load("spiral", limit=0)
    with pytest.raises(TypeError, match="limit"):
        load("spiral", limit=2.5)


def test_limit_takes_nested_parts():
    large, small = check(load("spiral", limit=500)), check(load("spiral", limit=50))
    assert (len(large.x_train), len(large.x_test)) == (500, 100)
    assert (len(small.x_train), len(small.x_test)) == (50, 10)
    np.testing.assert_array_equal(small.x_train, large.x_train[:50])
    np.testing.assert_array_equal(small.x_test, large.x_test[:10])
    assert len(load("spiral", limit=1).x_test) == 1
    assert len(load("spiral", limit=10**9).x_train) == 3000
    assert len({small.fingerprint, large.fingerprint, load("spiral").fingerprint}) == 3


def test_holdout_never_looks_at_the_test_data():
    whole = load("spiral")
    for n_or_share, n in ((600, 600), (0.2, 600), (np.float32(0.2), 600), (np.int64(5), 5)):
        part = check(holdout(whole, n_or_share, Key(3)))
        assert (len(part.x_train), len(part.x_test)) == (3000 - n, n)
        both = np.concatenate([part.x_train, part.x_test])
        assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, whole.x_train.tolist()))
        assert part.fingerprint != whole.fingerprint
        assert "held out" in part.note
    again, other = holdout(whole, 600, Key(3)), holdout(whole, 600, Key(4))
    assert holdout(whole, 600, Key(3)).fingerprint == again.fingerprint != other.fingerprint
    for wrong in (0, 3000, -1, 0.0, 1.0, 1e-9, float("nan")):
        with pytest.raises(ValueError, match="n_or_share"):
            holdout(whole, wrong, Key(0))


# MNIST


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder with a small MNIST, whose checksums are taken for the canonical ones."""
    rng = np.random.default_rng(0)
    folder, arrays = tmp_path / "data" / "mnist", {}
    folder.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 6)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 4, 3))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n) % 10
    table = {}
    for name in images.MNIST:
        whole = idx(arrays[name])
        packed = gzip.compress(whole, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        sums = hashlib.sha256(whole).hexdigest(), hashlib.sha256(packed).hexdigest()
        table[name] = (arrays[name].ndim, *sums)
    monkeypatch.setattr(images, "MNIST", table)
    return folder


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
        f"--data-dir: no folder {tmp_path / 'no'}"
    )
    monkeypatch.setenv("THINNED_DATA", str(tmp_path / "no"))
    assert line(load, "mnist").startswith("$THINNED_DATA: no folder")


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
        "expected SHA-256",
        images.MNIST[TRAIN][1],
        hashlib.sha256(whole).hexdigest(),
        ".npz",
    ):
        assert part in text


def test_every_truncation_of_an_idx_file(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3))
    path = tmp_path / "x"
    for whole in (idx(array), gzip.compress(idx(array))):
        path.write_bytes(whole)
        np.testing.assert_array_equal(images.read_idx(path, 3), array)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert str(path) in line(images.read_idx, path, 3)


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
        (idx(np.zeros((2, 2, 2))) + b"x", "expected 8 bytes after the header, got more"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, "as no file of MNIST does"),
        (gzip.compress(bytes((0, 0, 8, 3)) + b"\x0f" * 12), "as no file of MNIST does"),
        (gzip.compress(b"")[:10] + b"\xff\xff", "truncated or damaged"),
        (gzip.compress(idx(np.zeros((2, 2, 2))))[:-8] + bytes(8), "truncated or damaged (CRC"),
    ],
)
def test_what_is_no_idx_file(tmp_path, content, fault):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert fault in line(images.read_idx, path, 3)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    import tracemalloc

    path = tmp_path / "x"
    path.write_bytes(bomb())
    tracemalloc.start()
    text = line(images.read_idx, path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "expected 4 bytes after the header, got more" in text
    assert peak < 1 << 24


def test_labels_that_do_not_fit(mnist, monkeypatch):
    name = "t10k-labels-idx1-ubyte"
    for labels in (np.arange(5), np.arange(5, 11)):
        whole = idx(labels)
        (mnist / f"{name}.gz").write_bytes(gzip.compress(whole))
        monkeypatch.setitem(images.MNIST, name, (1, hashlib.sha256(whole).hexdigest(), ""))
        assert "expected 6 labels from 0 to 9" in line(load, "mnist", data_dir=mnist)


def real(name):
    """A folder with real data, or a skip."""
    found = [place for place in REAL if (place / name).is_dir()]
    if not found:
        pytest.skip(f"no {name}/ in $THINNED_DATA or ../shared/data")
    return found[0]


def test_the_real_mnist():
    dataset = check(load("mnist", data_dir=real("mnist")))
    assert (len(dataset.x_train), len(dataset.x_test), dataset.shape) == (60000, 10000, (28, 28))
    assert np.bincount(dataset.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.x_train.mean(dtype=float) == pytest.approx(0.1307, abs=1e-4)
    assert dataset.fingerprint == "9c61eadb2ae17c11c29c7588a9c4053f"


# CIFAR-10


def records(seed, n):
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
    out[:, 0] = np.arange(n) % 10
    return out


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder with a small CIFAR-10."""
    monkeypatch.setattr(images, "CIFAR_IMAGES", 20)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i, name in enumerate(images.CIFAR):
        records(i, 20).tofile(folder / name)
    return folder


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
    assert "has 5 bytes, expected 61,460" in line(load, "cifar10", data_dir=path.parent)
    archive(cifar, path, (tarfile.TarInfo("huge"), bytes(61_461)))
    assert "'huge' has 61,461 bytes" in line(load, "cifar10", data_dir=path.parent)
    whole = archive(cifar, path).read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:length])
        assert "cifar-10-binary.tar.gz: " in line(load, "cifar10", data_dir=path.parent)


def test_bad_files_of_cifar10(cifar):
    path = cifar / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{path}: expected 61,460 bytes, got 61,459" in line(load, "cifar10", data_dir=cifar)
    path.write_bytes(whole[: 3073 * 7] + b"\x0a" + whole[3073 * 7 + 1 :])
    assert "image 7 has the label 10" in line(load, "cifar10", data_dir=cifar)
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


# Downloads


class Server(http.server.ThreadingHTTPServer):
    """A server on this machine, and what its handler shall do."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cuts, self.ranges = {}, [], 0, True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a dictionary, knows Range, and can cut a connection."""

    server: "Server"

    def do_GET(self) -> None:
        server = self.server
        content, asked = server.files.get(self.path), self.headers.get("Range")
        server.asked.append((self.path, asked))
        if content is None:
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content)
        if server.cuts:
            end = start + (end - start) // 2
            server.cuts -= 1
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    pytest.importorskip("pooch")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CONTENT = np.random.default_rng(7).bytes(300_000)
SUM = hashlib.sha256(CONTENT).hexdigest()


def fetch(server, tmp_path, urls=None, content_sum=SUM):
    return download.fetch(
        "a.bin", urls or [f"{server.url}/a.bin"], content_sum, tmp_path / "store", "do it by hand"
    )


def test_a_download_is_kept(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    for _ in range(2):
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/a.bin", None)]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a.bin"]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.files["/a.bin"], server.cuts = CONTENT, 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    starts = [int(asked.strip("bytes=-")) for _, asked in server.asked[1:]]
    assert server.asked[0] == ("/a.bin", None)
    assert 0 < starts[0] <= 150_000 < starts[1] <= 225_000


def test_a_later_call_continues(server, tmp_path, monkeypatch):
    server.files["/a.bin"], server.cuts = CONTENT, 1
    monkeypatch.setattr(download, "TRIES", 1)
    assert "127.0.0.1 was cut off" in line(fetch, server, tmp_path)
    [part] = (tmp_path / "store").iterdir()
    assert part.name == "a.bin.part"
    size = part.stat().st_size
    assert 0 < size <= 150_000
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.bin", f"bytes={size}-")


@pytest.mark.parametrize(
    "part", [CONTENT[:1000], CONTENT, CONTENT + b"more", b"other" * 1000, b"x" * 400_000]
)
@pytest.mark.parametrize("ranges", [True, False])
def test_any_part_that_lies_there(server, tmp_path, part, ranges):
    server.files["/a.bin"], server.ranges = CONTENT, ranges
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.bin.part").write_bytes(part)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a.bin"]


def test_a_wrong_checksum_is_removed(server, tmp_path):
    server.files["/a.bin"] = b"something else"
    text = line(fetch, server, tmp_path)
    assert text.startswith(
        "could not download a.bin (127.0.0.1 sent a file with another SHA-256, which was removed)"
    )
    assert list((tmp_path / "store").iterdir()) == []


def test_a_file_without_end_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    server.files["/a.bin"] = CONTENT
    assert "could not download" in line(fetch, server, tmp_path)
    assert list((tmp_path / "store").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    fetch(server, tmp_path).write_bytes(CONTENT[:-1])
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_order(server, tmp_path):
    server.files["/good"], server.files["/bad"] = CONTENT, b"bad"
    urls = ["http://127.0.0.1:9/a.bin", f"{server.url}/missing", f"{server.url}/bad", f"{server.url}/good"]
    assert fetch(server, tmp_path, urls).read_bytes() == CONTENT
    shutil.rmtree(tmp_path / "store")
    text = line(fetch, server, tmp_path, urls[:3])
    assert "127.0.0.1 cannot be reached; 127.0.0.1 answered 404; 127.0.0.1 sent a file with another" in text
    assert text.endswith("; do it by hand")


@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder")
def test_a_cache_that_cannot_be_written(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    (tmp_path / "store").write_text("no folder")
    assert "a.bin" in line(fetch, server, tmp_path)


def test_mnist_is_downloaded_once(mnist, server, tmp_path, monkeypatch):
    server.files |= {f"/m/{path.name}": path.read_bytes() for path in mnist.iterdir()}
    monkeypatch.setattr(images, "MNIST_URLS", (f"{server.url}/m/",))
    expected = load("mnist", data_dir=mnist).fingerprint
    assert "allow the download" in line(load, "mnist", download=False)
    assert load("mnist").fingerprint == expected
    assert len(server.asked) == 4
    assert load("mnist", download=False).fingerprint == expected
    assert len(server.asked) == 4


def test_cifar10_is_downloaded_once(cifar, server, tmp_path, monkeypatch):
    content = archive(cifar, tmp_path / "x.tar.gz").read_bytes()
    server.files["/c"] = content
    monkeypatch.setattr(images, "CIFAR_URLS", (f"{server.url}/c",))
    assert "sent a file with another SHA-256" in line(load, "cifar10")
    monkeypatch.setattr(images, "CIFAR_SHA256", hashlib.sha256(content).hexdigest())
    assert "allow the download" in line(load, "cifar10", download=False)
    expected = load("cifar10", data_dir=cifar).fingerprint
    assert load("cifar10").fingerprint == load("cifar10", download=False).fingerprint == expected
    assert [p.name for p in (tmp_path / "cache" / "cifar10").iterdir()] == ["cifar-10-batches-bin"]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network_is_one_clear_line(name):
    pytest.importorskip("pooch")
    text = line(load, name)
    assert "127.0.0.1 cannot be reached" in text
    assert "--data-dir or $THINNED_DATA" in text


def test_no_pooch(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("THINNED_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert 'pip install "thinned[lab]"' in line(load, "mnist")


# The user's own


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path / "mine.npz"


def four(rng, **changed):
    """Two classes, three columns."""
    arrays = {
        "x_train": rng.normal(size=(30, 3)),
        "y_train": np.arange(30) % 2,
        "x_test": rng.normal(size=(10, 3)),
        "y_test": np.arange(10) % 2,
    }
    return arrays | changed


def test_npz_with_test_data(tmp_path, rng):
    x = rng.normal(5, 100, (40, 3)).astype(np.float32)
    x[:, 1] = 0.1  # constant
    arrays = four(rng, x_train=x[:30], x_test=x[30:])
    arrays["x_test"][0, 1] = 7.0  # constant in training alone
    dataset = check(load(npz(tmp_path, **arrays)))
    assert (dataset.name, dataset.classes, dataset.shape) == ("mine.npz", ("0", "1"), (3,))
    np.testing.assert_allclose(dataset.x_train[:, [0, 2]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.x_train[:, [0, 2]].std(0), 1, rtol=1e-5)
    assert not dataset.x_train[:, 1].any()
    assert not dataset.x_test[:, 1].any()
    train = arrays["x_train"].astype(float)
    expected = (arrays["x_test"] - train.mean(0)) / np.where(train.std(0) > 1, train.std(0), np.inf)
    np.testing.assert_allclose(dataset.x_test, expected, rtol=1e-5, atol=1e-6)


def test_large_tables_are_scaled_in_blocks(tmp_path, rng, monkeypatch):
    path = npz(tmp_path, **four(rng))
    whole = load(path)
    monkeypatch.setattr(tables, "BLOCK", 10)
    np.testing.assert_allclose(load(path).x_train, whole.x_train, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["?", "i1", "i8", "u2", "f2", "f8", ">f4"])
def test_numbers_of_any_type(tmp_path, rng, dtype):
    arrays = four(rng, x_train=rng.integers(0, 2, (30, 3)).astype(dtype), x_test=np.ones((10, 3), dtype))
    check(load(npz(tmp_path, **arrays)))


def test_npz_to_be_split(tmp_path, rng):
    y = np.repeat(["b", "a", "c"], [50, 30, 1])
    path = npz(tmp_path, x=rng.normal(size=(81, 2, 2)), y=y[:, None])
    dataset = check(load(path, test_share=0.1))
    assert dataset.classes == ("a", "b", "c")
    assert dataset.shape == (2, 2)
    assert np.bincount(dataset.y_test, minlength=3).tolist() == [3, 5, 0]
    assert np.bincount(dataset.y_train).tolist() == [27, 45, 1]
    assert load(path, test_share=0.1).fingerprint == dataset.fingerprint
    assert load(path).fingerprint != dataset.fingerprint
    assert len(load(path, limit=20).x_test) == 4


def test_uint8_is_images(tmp_path, rng):
    x = rng.integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    arrays = four(rng, x_train=x[:30], x_test=x[30:])
    dataset = check(load(npz(tmp_path, **arrays)))
    assert dataset.shape == (5, 4, 3)
    np.testing.assert_array_equal(dataset.x_train, (x[:30] / 255).astype(np.float32).reshape(30, -1))


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([10, 9], ("9", "10"), [1, 0]),
        ([1.0, -2.0], ("-2", "1"), [1, 0]),
        ([True, False], ("0", "1"), [1, 0]),
        (["größer", "als"], ("als", "größer"), [1, 0]),
        ([b"x", b"y"], ("x", "y"), [0, 1]),
    ],
)
def test_labels_of_any_kind(tmp_path, rng, labels, classes, codes):
    y = np.array(labels * 20)
    dataset = check(load(npz(tmp_path, **four(rng, y_train=y[:30], y_test=y[:10]))))
    assert dataset.classes == classes
    np.testing.assert_array_equal(dataset.y_train, np.resize(codes, 30))
    np.testing.assert_array_equal(dataset.y_test, np.resize(codes, 10))


X, Y = np.zeros((30, 3)), np.arange(30) % 2
NAN = np.where(np.arange(90).reshape(30, 3) == 50, np.nan, 1.0)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"x_train": NAN}, "x_train: row 16, column 2 is nan"),
        ({"x_train": np.where(np.isnan(NAN), -np.inf, 1).reshape(30, 3, 1)}, "row 16, column (2, 0) is -inf"),
        ({"x_test": NAN[10:20]}, "x_test: row 6, column 2 is nan"),
        ({"x_train": np.full((30, 3), "a")}, "x_train: expected an array of numbers, got <U1"),
        ({"x_train": X.astype(complex)}, "expected an array of numbers, got complex128"),
        ({"x_train": X[:, 0]}, "x_train: expected the shape (examples, features, ...), got (30,)"),
        ({"x_train": X[:0]}, "x_train: empty, of shape (0, 3)"),
        ({"x_train": X[:, :0]}, "x_train: empty, of shape (30, 0)"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "x_test: empty"),
        ({"x_test": X[:10, :2]}, "one shape of examples in x_train and x_test, got (3,) and (2,)"),
        ({"x_test": X[:10].astype(np.uint8)}, "or none, got float64 and uint8"),
        ({"y_train": Y[:29]}, "y_train: expected one label for each of 30 examples, got the shape (29,)"),
        (
            {"y_test": np.eye(10)},
            "y_test: expected one label for each of 10 examples, got the shape (10, 10)",
        ),
        ({"y_train": Y + 0.5}, "y_train: row 0 is 0.5; expected whole numbers or strings"),
        ({"y_train": np.where(Y, np.nan, 0)}, "y_train: row 1 is nan"),
        ({"y_train": Y.astype(complex)}, "expected whole numbers or strings, got complex128"),
        ({"y_test": np.array(list("ababababab"))}, "numbers in both y_train and y_test, or strings"),
        ({"y_train": Y * 0}, "all training examples are of one class, '0'"),
        (
            {"y_test": np.arange(10)},
            "y_test: row 2 is 2, but the training data has the classes '0', '1' alone",
        ),
        ({"y_test": np.arange(10) - 4}, "y_test: row 0 is -4"),
        ({"x_train": np.where(np.arange(30)[:, None] == 3, 1e300, 0) + np.zeros(3)}, "column 0 is too large"),
        ({"x_train": np.arange(90.0).reshape(30, 3) * 1e-300}, "column 0 is too large, too small"),
        ({"x_train": np.arange(90.0).reshape(30, 3), "x_test": X[:10] + 1e300}, "or too far off"),
        ({"y_train": np.array([None] * 30)}, "pickle is never loaded"),
    ],
)
def test_npz_that_cannot_be_learnt_from(tmp_path, rng, changed, fault):
    path = npz(tmp_path, **four(rng, **changed))
    text = line(load, path)
    assert text.startswith(str(path))
    assert fault in text


def test_npz_with_other_names_or_no_npz(tmp_path, rng):
    assert "got X, Y" in line(load, npz(tmp_path, X=X, Y=Y))
    assert "or x, y; got none" in line(load, npz(tmp_path))
    assert "no class has two examples" in line(load, npz(tmp_path, x=X[:2], y=Y[:2]))
    assert "x: empty" in line(load, npz(tmp_path, x=X[:0], y=Y[:0]))
    path = npz(tmp_path, **four(rng))
    path.write_bytes(path.read_bytes()[:-100])
    assert line(load, path).startswith(f"{path}: expected an .npz archive; the file is truncated")


def csv_file(tmp_path, text, encoding="utf-8"):
    (tmp_path / "mine.csv").write_text(text, encoding=encoding, newline="")
    return tmp_path / "mine.csv"


GOOD = 'length, width ,kind\n1,2.5,"a"\n2,-1e3, b \n3,0,a\n\n4,1,b\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv(tmp_path, encoding, ends):
    path = csv_file(tmp_path, GOOD.replace("\n", ends), encoding)
    dataset = check(load(path, label="kind", test_share=0.5))
    assert (dataset.name, dataset.classes, dataset.shape) == ("mine.csv", ("a", "b"), (2,))
    assert (len(dataset.x_train), len(dataset.x_test)) == (2, 2)


def test_csv_is_as_npz(tmp_path, rng):
    x, y = rng.normal(size=(60, 4)), rng.integers(8, 12, 60)
    rows = "\n".join(
        ",".join([*map(repr, row.tolist()), str(label)]) for row, label in zip(x, y, strict=True)
    )
    dataset = load(csv_file(tmp_path, "a,b,c,d,y\n" + rows), label="y")
    assert dataset.classes == ("8", "9", "10", "11")
    assert dataset.fingerprint == load(npz(tmp_path, x=x, y=y)).fingerprint


@pytest.mark.parametrize(
    ("text", "label", "fault"),
    [
        ("", "kind", "empty; expected a first line"),
        (GOOD, None, "no label column was named, expected --label to be one of 'length', 'width', 'kind'"),
        (GOOD, "sort", "0 columns are named 'sort'"),
        ("a,a\n1,2\n", "a", "2 columns are named 'a'"),
        ("a;b;y\n1;2;3\n", "y", "separate columns by commas"),
        ("y\n1\n", "y", "only the label column"),
        ("a,y\n", "y", "no examples"),
        ("a,y\n1,2\n3\n", "y", "line 3: expected 2 columns as in the first line, got 1"),
        ("a,y\n1,2\n3,4,5\n", "y", "line 3: expected 2 columns as in the first line, got 3"),
        ("a,b,y\n1,2,0\n1,two,0\n", "y", "line 3, column 'b': expected a finite number, got 'two'"),
        ("y,a,b\n0,1,2\n0,1,\n", "y", "line 3, column 'b': expected a finite number, got ''"),
        ("a,y\n\nnan,0\n", "y", "line 3, column 'a': expected a finite number, got 'nan'"),
        ("a,y\n1e999,0\n", "y", "line 2, column 'a': expected a finite number, got '1e999'"),
        ("a,y\n1, \n", "y", "line 2, column 'y': no label"),
        ("a,y\n1,0\n2,0\n3,0\n", "y", "all training examples are of one class, '0'"),
        ('a,y\n1,"0\n', "y", "not a comma-separated table"),
        ("a,y\n1,x" + "x" * 200_000, "y", "not a comma-separated table"),
    ],
)
def test_csv_that_cannot_be_learnt_from(tmp_path, text, label, fault):
    path = csv_file(tmp_path, text)
    answer = line(load, path, label=label)
    assert answer.startswith(str(path))
    assert fault in answer


def test_csv_in_another_encoding(tmp_path):
    assert "expected text in UTF-8" in line(
        load, csv_file(tmp_path, GOOD + "5,1,größer", "latin-1"), label="kind"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = csv_file(tmp_path, GOOD)
    path.chmod(0)
    assert "cannot be read" in line(load, path, label="kind")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise PermissionError(13, "Permission denied", "mine.csv")

    monkeypatch.setattr(tables, "read_csv", broken)
    assert line(load, csv_file(tmp_path, GOOD)) == "mine.csv: cannot be read: Permission denied"


@pytest.mark.parametrize("seed", range(5))
def test_stratified_is_a_split(seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(rng.integers(-5, 5, 4), rng.integers(1, 200))
    share = rng.uniform(0.01, 0.99)
    train, test = tables.stratified(y, share, Key(seed))
    assert sorted([*train, *test]) == list(range(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True), strict=True):
        mine = int((y[test] == label).sum())
        assert abs(mine - share * count) <= 1
        assert mine < count


def test_a_terminal_shows_a_bar(server, tmp_path, monkeypatch):
    pytest.importorskip("rich")
    server.files["/a.bin"] = CONTENT

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with contextlib.redirect_stderr(Terminal()):
        assert fetch(server, tmp_path).read_bytes() == CONTENT
