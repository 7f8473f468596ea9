"""MNIST and CIFAR-10 in their canonical files: found in a folder or fetched, checked, read; never pickle."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import shlex
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thinned._files import atomic_write
from thinned.lab.data import download
from thinned.lab.errors import LabError

Bytes = NDArray[np.uint8]
Four = tuple[Bytes, Bytes, Bytes, Bytes]  # training images and labels, test images and labels

# name: (rank, SHA-256 of the unpacked file, SHA-256 of the published .gz file)
MNIST = {
    "train-images-idx3-ubyte": (
        3,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": (
        1,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": (
        3,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": (
        1,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
MNIST_URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
IDX_LIMIT = 1 << 28  # bytes: five times the largest file of MNIST

CIFAR = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_FOLDER, CIFAR_ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR_URLS = (
    f"https://www.cs.toronto.edu/~kriz/{CIFAR_ARCHIVE}",
    f"https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/{CIFAR_ARCHIVE}",
)
CIFAR_IMAGES, CIFAR_RECORD = (
    10_000,
    1 + 3 * 32 * 32,
)  # images in a file; bytes of an image: label, red, green, blue

REPLACE = "replace it with the original"
BY_HAND = "or name the folder that holds {what} with --data-dir or $THINNED_DATA"


def folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The user's folders, in the order in which they are searched: `data_dir`, then $THINNED_DATA."""
    named = [("--data-dir", data_dir), ("$THINNED_DATA", os.environ.get("THINNED_DATA"))]
    found = []
    for source, folder in named:
        if folder:
            path = Path(folder).expanduser()
            if not path.is_dir():
                raise LabError(f"{source}: no folder {path}; correct it or leave it out")
            found.append(path)
    return found


# MNIST


def mnist(data_dir: str | os.PathLike[str] | None, fetch: bool) -> Four:
    """Images (N, 28, 28) and labels (N,) of 60,000 training and 10,000 test digits, as uint8.

    Source: LeCun, Bottou, Bengio and Haffner 1998, doi:10.1109/5.726791.
    """
    searched = folders(data_dir)
    paths = next(filter(None, map(_find_mnist, searched)), None) or _fetch_mnist(searched, fetch)
    x_train, y_train, x_test, y_test = (
        read_idx(paths[name], rank, sha256) for name, (rank, sha256, _) in MNIST.items()
    )
    for images, labels, part in ((x_train, y_train, "train"), (x_test, y_test, "t10k")):
        if len(images) != len(labels) or labels.max(initial=0) > 9:
            raise LabError(
                f"{paths[f'{part}-labels-idx1-ubyte']}: expected {len(images)} labels from 0 to 9, one an "
                f"image, got {len(labels)} up to {labels.max(initial=0)}; replace the file"
            )
    return x_train, y_train, x_test, y_test


def _find_mnist(folder: Path) -> dict[str, Path] | None:
    """The four files in a folder, packed or not; None if there is none of them."""
    for place in (folder / "mnist", folder / "MNIST" / "raw", folder):
        candidates = {name: (place / name, place / f"{name}.gz") for name in MNIST}
        found = {name: path for name, two in candidates.items() for path in two if path.is_file()}
        if len(found) == len(MNIST):
            return found
        if found:
            missing = ", ".join(name for name in MNIST if name not in found)
            raise LabError(
                f"{place}: has some of MNIST's files but lacks {missing} (.gz or not); put it there"
            )
    return None


def _fetch_mnist(searched: list[Path], fetch: bool) -> dict[str, Path]:
    folder = download.cache() / "mnist"
    by_hand = BY_HAND.format(what="the four files *-idx?-ubyte.gz")
    if not fetch and not all((folder / f"{name}.gz").is_file() for name in MNIST):
        raise LabError(f"mnist: not in {_listed([*searched, folder])}; allow the download, {by_hand}")
    return {
        name: download.fetch(
            f"{name}.gz", [url + f"{name}.gz" for url in MNIST_URLS], packed, folder, f"try again, {by_hand}"
        )
        for name, (_, _, packed) in MNIST.items()
    }


def read_idx(path: Path, rank: int, sha256: str | None = None) -> Bytes:
    """The uint8 array of an IDX file, gzipped or not.

    Header and sizes are checked before the data is unpacked, and no more is ever unpacked than the header
    announces; then the SHA-256 of the unpacked file, if one is given.

    Raises:
        LabError: not an IDX file of this rank, truncated, too long, or another checksum.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(4 + 4 * rank)
            shape = _idx_shape(path, header, rank)
            data = file.read(math.prod(shape) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"{path}: truncated or damaged ({error}); {REPLACE}") from error
    if len(data) != (expected := math.prod(shape)):
        came = "more" if len(data) > expected else f"{len(data):,}"
        raise LabError(f"{path}: expected {expected:,} bytes after the header, got {came}; {REPLACE}")
    if sha256 is not None:
        digest = hashlib.sha256(header)
        digest.update(data)
        if digest.hexdigest() != sha256:
            raise LabError(
                f"{path}: not the canonical MNIST file: expected SHA-256 {sha256} (unpacked), "
                f"got {digest.hexdigest()}; {REPLACE}, or bring images of your own as an .npz file"
            )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _idx_shape(path: Path, header: bytes, rank: int) -> tuple[int, ...]:
    """Two zeros, the type (8 = uint8), the rank, then a big-endian 32-bit size for each dimension."""
    if header[:4] != bytes((0, 0, 8, rank)):
        came = header[:4].hex(" ") or "an empty file"
        raise LabError(f"{path}: expected an IDX file (first bytes 00 00 08 0{rank}), got {came}; {REPLACE}")
    if len(header) < 4 + 4 * rank:
        raise LabError(f"{path}: truncated within its header; {REPLACE}")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if math.prod(shape) > IDX_LIMIT:
        raise LabError(f"{path}: announces {math.prod(shape):,} bytes, as no file of MNIST does; {REPLACE}")
    return shape


# CIFAR-10


def cifar10(data_dir: str | os.PathLike[str] | None, fetch: bool) -> Four:
    """Images (N, 3, 32, 32) and labels (N,) of 50,000 training and 10,000 test images, as uint8.

    Files of the binary version in a user's folder are checked by size and labels alone, because copies whose
    pixels were stored anew are in use; a download is checked by SHA-256.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    searched = folders(data_dir)
    source = next(filter(None, map(_find_cifar, searched)), None) or _fetch_cifar(searched, fetch)
    images = np.empty((len(CIFAR), CIFAR_IMAGES, 3, 32, 32), np.uint8)
    labels = np.empty((len(CIFAR), CIFAR_IMAGES), np.uint8)
    for name, records in _cifar_files(source):
        i = CIFAR.index(name)
        labels[i], images[i] = records[:, 0], records[:, 1:].reshape(images.shape[1:])
    return images[:-1].reshape(-1, 3, 32, 32), labels[:-1].reshape(-1), images[-1], labels[-1]


def _cifar_files(source: Path) -> Iterator[tuple[str, Bytes]]:
    """(name, records) of each of the six files, from a folder or an archive."""
    if source.is_dir():
        for name in CIFAR:
            yield name, read_cifar(source / name)
    else:
        for name, data in members(source):
            yield name, check_cifar(np.frombuffer(data, np.uint8), f"{source}: {name}")


def _find_cifar(folder: Path) -> Path | None:
    """The folder with the six files, or the archive of them; None if there is neither."""
    top = folder / "cifar10"
    for place in (top / CIFAR_FOLDER, folder / CIFAR_FOLDER, top, folder):
        missing = [name for name in CIFAR if not (place / name).is_file()]
        if not missing:
            return place
        if len(missing) < len(CIFAR):
            raise LabError(
                f"{place}: has some of CIFAR-10's files but lacks {', '.join(missing)}; put it there"
            )
    return next((path for path in (top / CIFAR_ARCHIVE, folder / CIFAR_ARCHIVE) if path.is_file()), None)


def _cifar_hint(folder: Path) -> str | None:
    """What to do where a folder holds CIFAR-10 in a form that is not read."""
    for place in (folder / "cifar10", folder):
        for other in (place / "cifar-10-batches-py", place / "cifar-10-python.tar.gz"):
            if other.exists():
                return (
                    f"{other}: the Python version of CIFAR-10 is pickle, which is never loaded; "
                    f"put the binary version ({CIFAR_URLS[0]}) beside it"
                )
    expand = folder / "expand.py"
    if expand.is_file() and any((folder / "cifar10").glob("*.npz")):
        return (
            f"{folder}: holds CIFAR-10 in compact containers only; write the canonical files with "
            f"python {shlex.quote(str(expand))} DEST, then give --data-dir DEST"
        )
    return None


def _fetch_cifar(searched: list[Path], fetch: bool) -> Path:
    """The cache's folder of the six files, filled from the archive if it is not complete."""
    top = download.cache() / "cifar10"
    folder = top / CIFAR_FOLDER
    if all((folder / name).is_file() for name in CIFAR):
        return folder
    for hint in filter(None, map(_cifar_hint, searched)):
        raise LabError(hint)
    by_hand = BY_HAND.format(what=f"{CIFAR_FOLDER}/")
    if not fetch:
        raise LabError(f"cifar10: not in {_listed([*searched, top])}; allow the download, {by_hand}")
    archive = download.fetch(CIFAR_ARCHIVE, CIFAR_URLS, CIFAR_SHA256, top, f"try again, {by_hand}")
    for name, data in members(archive):
        with atomic_write(folder / name) as file:
            file.write(data)
    archive.unlink()
    return folder


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The six files in an archive of CIFAR-10's binary version, in its order; exact names, sizes checked.

    Raises:
        LabError: damaged, truncated, or a file that is missing or of another size.
    """
    wanted = {f"{CIFAR_FOLDER}/{name}": name for name in CIFAR}
    size = CIFAR_IMAGES * CIFAR_RECORD
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                is_wanted = member.isfile() and member.name in wanted
                if member.size > size or (is_wanted and member.size != size):
                    raise LabError(
                        f"{archive}: {member.name!r} has {member.size:,} bytes, expected {size:,}; {REPLACE}"
                    )
                if is_wanted and (file := tar.extractfile(member)):
                    yield wanted.pop(member.name), file.read()
                if not wanted:
                    return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"{archive}: truncated or damaged ({error}); {REPLACE}") from error
    raise LabError(f"{archive}: lacks {', '.join(wanted)}; {REPLACE}")


def read_cifar(path: Path) -> Bytes:
    """The (10000, 3073) records of one file: a label, then 1,024 red, green and blue bytes each.

    Raises:
        LabError: another size, or a label above 9.
    """
    came, expected = path.stat().st_size, CIFAR_IMAGES * CIFAR_RECORD
    if came != expected:
        raise LabError(f"{path}: expected {expected:,} bytes, got {came:,}; {REPLACE}")
    return check_cifar(np.fromfile(path, np.uint8), str(path))


def check_cifar(data: Bytes, where: str) -> Bytes:
    """`data` as records, after a look at their labels."""
    records = data.reshape(CIFAR_IMAGES, CIFAR_RECORD)
    bad = int(np.argmax(records[:, 0] > 9))
    if records[bad, 0] > 9:
        raise LabError(
            f"{where}: image {bad} has the label {records[bad, 0]}, expected 0 to 9; replace the file"
        )
    return records


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))
