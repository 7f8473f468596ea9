"""MNIST in its canonical files: found in a folder or downloaded, checked, read."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path

import numpy as np

from thinned.lab.data import download
from thinned.lab.data.folders import BY_HAND, REPLACE, listed, user_folders
from thinned.lab.data.table import Bytes, Four
from thinned.lab.errors import LabError

# name: (rank, SHA-256 of the unpacked file, SHA-256 of the published .gz file)
FILES = {
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
URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
IDX_LIMIT = 1 << 28  # bytes: five times the largest file of MNIST
CLASSES = tuple("0123456789")


def mnist(data_dir: str | os.PathLike[str] | None, fetch: bool) -> Four:
    """Images (N, 28, 28) and labels (N,) of 60,000 training and 10,000 test digits, as uint8.

    Source: LeCun, Bottou, Bengio and Haffner 1998, doi:10.1109/5.726791.
    """
    searched = user_folders(data_dir)
    paths = next(filter(None, map(_find, searched)), None) or _fetch(searched, fetch)
    x_train, y_train, x_test, y_test = (
        read_idx(paths[name], rank, sha256) for name, (rank, sha256, _) in FILES.items()
    )
    for images, labels, part in ((x_train, y_train, "train"), (x_test, y_test, "t10k")):
        if len(images) != len(labels) or labels.max(initial=0) > 9:
            raise LabError(
                f"{paths[f'{part}-labels-idx1-ubyte']} must have {len(images)} labels from 0 to 9, one an "
                f"image, got {len(labels)} up to {labels.max(initial=0)}; replace the file"
            )
    return x_train, y_train, x_test, y_test


def _find(folder: Path) -> dict[str, Path] | None:
    """The four files in a folder, packed or not; None where the folder has none of them."""
    for place in (folder / "mnist", folder / "MNIST" / "raw", folder):
        candidates = {name: (place / name, place / f"{name}.gz") for name in FILES}
        found = {name: path for name, two in candidates.items() for path in two if path.is_file()}
        if len(found) == len(FILES):
            return found
        if found:
            missing = ", ".join(name for name in FILES if name not in found)
            raise LabError(
                f"{place}: has some of MNIST's files but lacks {missing} (.gz or not); put it there"
            )
    return None


def _fetch(searched: list[Path], fetch: bool) -> dict[str, Path]:
    folder = download.cache() / "mnist"
    by_hand = BY_HAND.format(what="the four files *-idx?-ubyte.gz")
    if not fetch and not all((folder / f"{name}.gz").is_file() for name in FILES):
        raise LabError(f"mnist: not in {listed([*searched, folder])}; allow the download, {by_hand}")
    return {
        name: download.fetch(
            f"{name}.gz", [url + f"{name}.gz" for url in URLS], packed, folder, f"try again, {by_hand}"
        )
        for name, (_, _, packed) in FILES.items()
    }


def read_idx(path: Path, rank: int, sha256: str | None = None) -> Bytes:
    """The uint8 array of an IDX file, gzipped or not.

    Header and sizes are checked before the data is unpacked. No more is unpacked than the header announces.
    Last, the SHA-256 of the unpacked file is checked, where one is given.

    Raises:
        LabError: the file is not an IDX file of this rank, is truncated or too long, or has another checksum.
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
        raise LabError(f"{path} must have {expected:,} bytes after the header, got {came}; {REPLACE}")
    if sha256 is not None:
        digest = hashlib.sha256(header)
        digest.update(data)
        if digest.hexdigest() != sha256:
            raise LabError(
                f"{path} must be the canonical MNIST file, of SHA-256 {sha256} (unpacked), "
                f"got {digest.hexdigest()}; {REPLACE}, or give images of your own as an .npz file"
            )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _idx_shape(path: Path, header: bytes, rank: int) -> tuple[int, ...]:
    """The sizes in a header: two zeros, the type (8 = uint8), the rank, then big-endian 32-bit sizes."""
    if header[:4] != bytes((0, 0, 8, rank)):
        came = header[:4].hex(" ") or "an empty file"
        raise LabError(f"{path} must be an IDX file (first bytes 00 00 08 0{rank}), got {came}; {REPLACE}")
    if len(header) < 4 + 4 * rank:
        raise LabError(f"{path}: truncated within its header; {REPLACE}")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if math.prod(shape) > IDX_LIMIT:
        raise LabError(f"{path}: announces {math.prod(shape):,} bytes, as no file of MNIST does; {REPLACE}")
    return shape
