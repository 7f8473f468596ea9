"""Data to train on: embedded, generated, downloaded, or the user's own."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thinned import _checks
from thinned.key import Key, choose, is_key, normals, permutation
from thinned.lab.data import files as tables
from thinned.lab.data import images
from thinned.lab.data.files import Table
from thinned.lab.errors import LabError

NAMES = (
    ("digits", "1,797 handwritten digits of 8 × 8 pixels, embedded in scikit-learn (the default)"),
    ("spiral", "three spiral arms of 2,000 points in the plane, generated"),
    ("mnist", "70,000 handwritten digits of 28 × 28 pixels (a download of 11 MB)"),
    ("cifar10", "60,000 colour photographs of 32 × 32 pixels in ten classes (a download of 162 MB)"),
)
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, ready for a network.

    Attributes:
        name: the built-in name, or the file's.
        x_train: (N, features) float32; x_test likewise.
        y_train: (N,) int64 in 0 … len(classes) - 1; y_test likewise.
        classes: the names of the classes.
        shape: of one example before it was flattened.
        note: how inputs were scaled and split.
    """

    name: str
    x_train: Floats = field(repr=False)
    y_train: Labels = field(repr=False)
    x_test: Floats = field(repr=False)
    y_test: Labels = field(repr=False)
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    note: str

    @cached_property
    def fingerprint(self) -> str:
        """BLAKE2b, in hex, of the classes, the shape and the four arrays."""
        digest = hashlib.blake2b(repr((self.classes, self.shape)).encode(), digest_size=16)
        for name in tables.FOUR:
            values = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    label: str | None = None,
    test_share: float = 0.2,
    limit: int | None = None,
    download: bool = True,
) -> Dataset:
    """The data set of a built-in name (`NAMES`), or of a file ending in `.npz` or `.csv`.

    MNIST and CIFAR-10 are searched for in `data_dir`, in `$THINNED_DATA`, then in the user's cache, which is
    filled by download unless `download` is False.

    Args:
        name_or_path: a name or a file.
        data_dir: a folder with the canonical files of `mnist` or `cifar10`.
        label: the column of the labels; for `.csv` alone.
        test_share: the share of each class, in (0, 1), that becomes test data where there is none (`digits`,
            `.csv`, `.npz` with `x, y`); the choice is made with `Key(0)`.
        limit: keep so many training examples, chosen with `Key(0)`, and a fifth as many test examples.

    Raises:
        LabError: the data is missing, damaged, or nothing to learn from.
        TypeError, ValueError: `test_share` or `limit` is out of range.
    """
    test_share = _checks.number("test_share", test_share)
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share:g}")
    if limit is not None:
        limit = _checks.positive_int("limit", limit)
    name = os.fspath(name_or_path)
    suffix = Path(name).suffix.lower()
    if label is not None and suffix != ".csv":
        raise LabError(f"{name}: --label names a column of a .csv file; leave it out here")
    try:
        if suffix in (".npz", ".csv"):
            table = _from_file(Path(name).expanduser(), label, test_share)
        else:
            table = _built_in(name, data_dir, test_share, download)
    except OSError as error:
        raise LabError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from error
    if limit is not None:
        table = _limited(table, limit)
    if table.x_train.dtype == np.uint8:
        table = table._replace(x_train=_pixels(table.x_train), x_test=_pixels(table.x_test))
    return Dataset(name if name in dict(NAMES) else Path(name).name, **table._asdict())


def holdout(dataset: Dataset, n_or_share: int | float, key: Key) -> Dataset:
    """The training data alone, a part of it chosen with `key` put in the places of the test data.

    Whatever is chosen (a rate, an epoch) is chosen on this, never on the test data.

    Args:
        dataset: any data set.
        n_or_share: how many training examples to hold out, or their share in (0, 1).
        key: which ones.

    Raises:
        TypeError, ValueError: nothing would be held out, or nothing left to train on.
    """
    key = is_key("key", key)
    total = len(dataset.x_train)
    if isinstance(n_or_share, (float, np.floating)):
        if not 0.0 < n_or_share < 1.0:
            raise ValueError(f"n_or_share must be a count, or a share between 0 and 1, got {n_or_share:g}")
        n_or_share = round(n_or_share * total)
    n = _checks.integer("n_or_share", n_or_share, 1, total)
    held = np.zeros(total, bool)
    held[choose(key, total, n)] = True
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train[~held],
        y_train=dataset.y_train[~held],
        x_test=dataset.x_train[held],
        y_test=dataset.y_train[held],
        note=f"{dataset.note} In place of the test data: {n:,} of the training examples, held out.",
    )


def spiral(samples: int = 2000, classes: int = 3, *, key: Key) -> tuple[Floats, Labels]:
    """Points on spiral arms, `samples` for each of `classes`, arm after arm.

    Arm c has radius r from 0 to 1 and angle 2.5 t, t from 4c to 4(c + 1) plus 0.2 N(0, 1).

    Returns:
        x (samples · classes, 2) float32, y (samples · classes,) int64.

    Source: Kinsley and Kukieła 2020, "Neural networks from scratch in Python", after Karpathy's CS231n notes.
    """
    samples, classes = _checks.positive_int("samples", samples), _checks.positive_int("classes", classes)
    noise = 0.2 * normals(is_key("key", key), samples * classes).reshape(classes, samples)
    r = np.linspace(0.0, 1.0, samples)
    t = np.linspace(4.0 * np.arange(classes), 4.0 * np.arange(1, classes + 1), samples, axis=1) + noise
    x = np.stack([r * np.sin(2.5 * t), r * np.cos(2.5 * t)], axis=-1)
    return x.reshape(-1, 2).astype(np.float32), np.repeat(np.arange(classes, dtype=np.int64), samples)


def _from_file(path: Path, label: str | None, test_share: float) -> Table:
    if not path.is_file():
        raise LabError(f"{path}: no such file (looked in {Path.cwd()}); correct the path")
    if path.suffix.lower() == ".npz":
        return tables.read_npz(path, test_share)
    return tables.read_csv(path, label, test_share)


def _built_in(name: str, data_dir: str | os.PathLike[str] | None, test_share: float, download: bool) -> Table:
    if name == "digits":
        return _digits(test_share)
    if name == "spiral":
        return _spiral()
    if name == "mnist":
        return _images(images.mnist(data_dir, download), DIGITS)
    if name == "cifar10":
        return _images(images.cifar10(data_dir, download), CIFAR_CLASSES)
    names = [known for known, _ in NAMES]
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise LabError(f"data: expected {', '.join(names)}, or a file ending in .npz or .csv, got {name!r}{hint}")


def _digits(test_share: float) -> Table:
    """Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49; the part that scikit-learn embeds."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise LabError(
            'digits: embedded in scikit-learn, which is missing; run pip install "thinned[lab]"'
        ) from None
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16.0).astype(np.float32), y.astype(np.int64)
    train, test = tables.stratified(y, test_share, Key(0))
    note = f"Inputs: grey levels / 16; {test_share:g} of each class is test data."
    return Table(x[train], y[train], x[test], y[test], DIGITS, (8, 8), note)


def _spiral() -> Table:
    """Half of the shuffled points to train, half to test, unscaled."""
    key = Key(0).fold_in("spiral")
    x, y = spiral(key=key.fold_in("points"))
    train, test = np.split(permutation(key.fold_in("order"), len(y)), 2)
    note = "Inputs: the coordinates as they are; 3,000 of 6,000 points are test data."
    return Table(x[train], y[train], x[test], y[test], ("0", "1", "2"), (2,), note)


def _images(four: images.Four, classes: tuple[str, ...]) -> Table:
    """Images flattened, still in bytes."""
    x_train, x_test = (x.reshape(len(x), -1) for x in four[::2])
    y_train, y_test = (y.astype(np.int64) for y in four[1::2])
    note = "Inputs: bytes / 255; its own test data."
    return Table(x_train, y_train, x_test, y_test, classes, four[0].shape[1:], note)


def _limited(table: Table, limit: int) -> Table:
    """`limit` training and a fifth as many test examples; a smaller limit gives a part of a larger one's."""
    train = permutation(Key(0), len(table.x_train))[:limit]
    test = permutation(Key(0), len(table.x_test))[: max(1, limit // 5)]
    return table._replace(
        x_train=table.x_train[train],
        y_train=table.y_train[train],
        x_test=table.x_test[test],
        y_test=table.y_test[test],
        note=f"{table.note} Cut down to {len(train):,} training and {len(test):,} test examples.",
    )


def _pixels(x: NDArray[np.uint8]) -> Floats:
    """Bytes as float32 in [0, 1]."""
    return np.divide(x, 255, dtype=np.float32)
