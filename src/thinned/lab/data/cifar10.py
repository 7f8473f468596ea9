"""CIFAR-10 in its binary version: found in a folder or downloaded, checked, read; never pickle."""

from __future__ import annotations

import gzip
import os
import shlex
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from thinned._files import atomic_write
from thinned.lab.data import download
from thinned.lab.data.folders import BY_HAND, REPLACE, listed, user_folders
from thinned.lab.data.table import Bytes, Four
from thinned.lab.errors import LabError

FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
URLS = (
    f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
    f"https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/{ARCHIVE}",
)
IMAGES = 10_000  # in a file
RECORD = 1 + 3 * 32 * 32  # bytes of an image: label, red, green, blue
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(data_dir: str | os.PathLike[str] | None, fetch: bool) -> Four:
    """Images (N, 3, 32, 32) and labels (N,) of 50,000 training and 10,000 test images, as uint8.

    In a user's folder, only sizes and labels are checked, because copies with re-encoded pixels are in use. A
    download is checked by SHA-256.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    searched = user_folders(data_dir)
    source = next(filter(None, map(_find, searched)), None) or _fetch(searched, fetch)
    images = np.empty((len(FILES), IMAGES, 3, 32, 32), np.uint8)
    labels = np.empty((len(FILES), IMAGES), np.uint8)
    for name, records in _records(source):
        i = FILES.index(name)
        labels[i], images[i] = records[:, 0], records[:, 1:].reshape(images.shape[1:])
    return images[:-1].reshape(-1, 3, 32, 32), labels[:-1].reshape(-1), images[-1], labels[-1]


def _records(source: Path) -> Iterator[tuple[str, Bytes]]:
    """(name, records) of each of the six files, from a folder or an archive."""
    if source.is_dir():
        for name in FILES:
            yield name, read_cifar(source / name)
    else:
        for name, data in members(source):
            yield name, check_cifar(np.frombuffer(data, np.uint8), f"{source}: {name}")


def _find(folder: Path) -> Path | None:
    """The folder with the six files, or their archive; None where there is neither."""
    top = folder / "cifar10"
    for place in (top / FOLDER, folder / FOLDER, top, folder):
        missing = [name for name in FILES if not (place / name).is_file()]
        if not missing:
            return place
        if len(missing) < len(FILES):
            raise LabError(
                f"{place}: has some of CIFAR-10's files but lacks {', '.join(missing)}; put it there"
            )
    return next((path for path in (top / ARCHIVE, folder / ARCHIVE) if path.is_file()), None)


def _hint(folder: Path) -> str | None:
    """What to do where a folder has CIFAR-10 in a form that cannot be read here."""
    for place in (folder / "cifar10", folder):
        for other in (place / "cifar-10-batches-py", place / "cifar-10-python.tar.gz"):
            if other.exists():
                return (
                    f"{other}: the Python version of CIFAR-10 is pickle, which is never loaded; "
                    f"put the binary version ({URLS[0]}) beside it"
                )
    expand = folder / "expand.py"
    if expand.is_file() and any((folder / "cifar10").glob("*.npz")):
        return (
            f"{folder}: holds CIFAR-10 in compact containers only; write the canonical files with "
            f"python {shlex.quote(str(expand))} DEST, then give --data-dir DEST"
        )
    return None


def _fetch(searched: list[Path], fetch: bool) -> Path:
    """The cache's folder of the six files, filled from the archive where files are missing."""
    top = download.cache() / "cifar10"
    folder = top / FOLDER
    if all((folder / name).is_file() for name in FILES):
        return folder
    for hint in filter(None, map(_hint, searched)):
        raise LabError(hint)
    by_hand = BY_HAND.format(what=f"{FOLDER}/")
    if not fetch:
        raise LabError(f"cifar10: not in {listed([*searched, top])}; allow the download, {by_hand}")
    archive = download.fetch(ARCHIVE, URLS, SHA256, top, f"try again, {by_hand}")
    for name, data in members(archive):
        with atomic_write(folder / name) as file:
            file.write(data)
    archive.unlink()
    return folder


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The six files in an archive of CIFAR-10's binary version, in its order; exact names, sizes checked.

    Raises:
        LabError: the archive is damaged or truncated, or a file is missing or has another size.
    """
    wanted = {f"{FOLDER}/{name}": name for name in FILES}
    size = IMAGES * RECORD
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                is_wanted = member.isfile() and member.name in wanted
                most = "" if is_wanted else "at most "
                if member.size > size or (is_wanted and member.size != size):
                    raise LabError(
                        f"{archive}: {member.name!r} must have {most}{size:,} bytes, "
                        f"got {member.size:,}; {REPLACE}"
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
        LabError: the file has another size, or a label above 9.
    """
    came, expected = path.stat().st_size, IMAGES * RECORD
    if came != expected:
        raise LabError(f"{path} must have {expected:,} bytes, got {came:,}; {REPLACE}")
    return check_cifar(np.fromfile(path, np.uint8), str(path))


def check_cifar(data: Bytes, where: str) -> Bytes:
    """`data` as records; LabError where a label is above 9."""
    records = data.reshape(IMAGES, RECORD)
    bad = int(np.argmax(records[:, 0] > 9))
    if records[bad, 0] > 9:
        raise LabError(
            f"{where}: the label of image {bad} must be in 0 to 9, got {records[bad, 0]}; replace the file"
        )
    return records
