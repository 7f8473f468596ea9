"""Every data set by name: its sizes and its loader. A new one is a file of its own and a row here."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinned import _checks
from thinned.lab.data import cifar10, mnist, small, words
from thinned.lab.data.columns import NO_TABLE, How
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.files import READERS
from thinned.lab.data.frames import suffix
from thinned.lab.data.images import read_images
from thinned.lab.data.table import Table, limited, of_images, pixels
from thinned.lab.data.tabular import TASKS
from thinned.lab.errors import CallError, LabError


@dataclass(frozen=True)
class Request:
    """What a loader may need: a user's folder, whether it may download, the share that becomes test data."""

    data_dir: str | os.PathLike[str] | None
    download: bool
    test_share: float


@dataclass(frozen=True)
class BuiltIn:
    """A data set with a name.

    Attributes:
        summary: what it is, in a line.
        inputs, examples, classes: features, training examples and classes, known before anything is loaded.
        load: the data, for a request.
    """

    summary: str
    inputs: int
    examples: int
    classes: int
    load: Callable[[Request], Table]


BUILT_IN = {
    "digits": BuiltIn(
        "1,797 handwritten digits of 8 × 8 pixels, embedded in scikit-learn (the default)",
        64, 1_438, 10, lambda wanted: small.digits(wanted.test_share),
    ),
    "spiral": BuiltIn(
        "three spiral arms of 2,000 points in the plane, generated",
        2, 3_000, 3, lambda wanted: small.spiral_table(),
    ),
    "mnist": BuiltIn(
        "70,000 handwritten digits of 28 × 28 pixels (a download of 11 MB)",
        784, 60_000, 10,
        lambda wanted: of_images(mnist.mnist(wanted.data_dir, wanted.download), mnist.CLASSES),
    ),
    "cifar10": BuiltIn(
        "60,000 colour photographs of 32 × 32 pixels in ten classes (a download of 162 MB)",
        3_072, 50_000, 10,
        lambda wanted: of_images(cifar10.cifar10(wanted.data_dir, wanted.download), cifar10.CLASSES),
    ),
    "words": BuiltIn(
        "30,000 Chinese words of ten word classes, embedded in jieba",
        words.INPUTS, words.TRAIN, words.CLASSES, lambda wanted: words.words(),
    ),
}  # fmt: skip


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    label: str | None = None,
    header: bool = True,
    task: str = "auto",
    group: str | None = None,
    time: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
    id: tuple[str, ...] = (),
    test_share: float = 0.2,
    limit: int | None = None,
    download: bool = True,
) -> Dataset:
    """The data set of a built-in name (a key of `BUILT_IN`), a file (arrays in `.npz`, a table), or a folder.

    A folder has a folder of images for each class.

    MNIST and CIFAR-10 are looked for in `data_dir`, in `$THINNED_DATA`, then in the user's cache. A
    download fills the cache, unless `download` is False.

    Args:
        name_or_path: a name, a file or a folder.
        data_dir: a folder with the canonical files of `mnist` or `cifar10`.
        label: the column of the labels; for tables alone, as the arguments below; `task` is for `.npz` too.
        header: whether the first line names the columns; without, they are called 0, 1, ….
        task: what is predicted, "classes" or "numbers"; "auto" takes numbers for classes where they are
            whole and of at most 20 values.
        group: a column; its groups are never in both training and test data.
        time: a column; the latest rows are the test data.
        drop, categorical, numeric, id: columns whose kind is not what `Dataset.columns` says.
        test_share: the share of each class, in (0, 1), that becomes test data where there is none (`digits`,
            tables, `.npz` with `x, y`); the choice is made with `Key(0)`.
        limit: the number of training examples to keep, chosen with `Key(0)`; test data keeps a fifth of that
            number.

    Raises:
        LabError: the data is missing or damaged, or cannot be learnt from.
        TypeError, ValueError: `test_share` or `limit` is out of range.
    """
    test_share = _checks.number("test_share", test_share)
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share:g}")
    if limit is not None:
        limit = _checks.positive_int("limit", limit)
    name, wanted = os.fspath(name_or_path), Request(data_dir, download, test_share)
    how = How(label, header, _checks.one_of("task", task, TASKS), group, time, drop, categorical, numeric, id)
    is_file = suffix(Path(name)) in READERS
    is_folder = name not in BUILT_IN and Path(name).expanduser().is_dir()
    if how != How() and name in BUILT_IN:
        raise CallError(f"{name}: {NO_TABLE}")
    try:
        if is_folder:
            table = read_images(Path(name).expanduser(), how, test_share)
        else:
            table = _from_file(Path(name), how, test_share) if is_file else _built_in(name, wanted)
    except OSError as error:
        raise LabError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from error
    if limit is not None:
        table = limited(table, limit)
    if table.x_train.dtype == np.uint8:
        table = table._replace(x_train=pixels(table.x_train), x_test=pixels(table.x_test))
    return Dataset(name if name in BUILT_IN else Path(name).name, **table._asdict())


def _from_file(path: Path, how: How, test_share: float) -> Table:
    path = path.expanduser()
    if not path.is_file():
        raise LabError(f"{path}: no such file (looked in {Path.cwd()}); correct the path")
    return READERS[suffix(path)](path, how, test_share)


def _built_in(name: str, wanted: Request) -> Table:
    if name in BUILT_IN:
        return BUILT_IN[name].load(wanted)
    near = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    suffixes = " or ".join(READERS)
    raise CallError(
        f"data must be {', '.join(BUILT_IN)}, a folder of images, or a file ending in {suffixes}, "
        f"got {name!r}{hint}"
    )
