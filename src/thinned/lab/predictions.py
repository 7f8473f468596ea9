"""`thinned predict`: a trained network on the rows of a new table, or on new images."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from thinned import _files
from thinned.lab.data import frames
from thinned.lab.data.arrays import FittedArrays
from thinned.lab.data.fitted import FittedColumns
from thinned.lab.data.images import SUFFIXES, read_new
from thinned.lab.data.table import Floats, check_inputs
from thinned.lab.errors import LabError
from thinned.lab.storage.record import RECORD, Record
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import MODEL
from thinned.lab.training.model import load

RANGE = (0.05, 0.95)  # quantiles of thinned networks
Columns = dict[str, Any]


def chosen(place: Folder) -> Folder:
    """The run of a folder: its own, or in a comparison's folder that of the best method's first seed.

    Raises:
        LabError: the folder holds several comparisons, or none of its runs has a model.
    """
    if (place / MODEL).exists():
        return place
    if not (place / RECORD).exists():
        questions = sorted(path.parent for path in place.glob(f"*/{RECORD}"))
        if len(questions) > 1:
            raise LabError(f"{place}: several comparisons; give one of {', '.join(map(str, questions))}")
        if not questions:
            return place
        place = questions[0]
    errors: dict[str, list[float]] = {}
    first: dict[str, Folder] = {}
    for run in Record.load(place).stored(place):
        if run.status == "done" and (run.folder / MODEL).exists():
            errors.setdefault(run.config["method"], []).append(float(run.result["test_error"]))
            first.setdefault(run.config["method"], run.folder)
    if not errors:
        raise LabError(
            f"{place}: none of its runs keeps a network for new data: none ended, or an older version "
            "trained them; run the command that made them again"
        )
    return first[min(errors, key=lambda method: float(np.mean(errors[method])))]


def predictions(run: Folder, data: Path, header: bool, samples: int) -> tuple[Columns, list[str]]:
    """Columns of predictions for the rows of a table, or for images, and what a reader should know of them.

    Classes: the likeliest, the probability of each, and its standard deviation over thinned networks.
    Numbers: the prediction, and the deviation and 5 % and 95 % quantiles over thinned networks. Without
    dropout there are no error bars. Images come with the names of their files.

    Raises:
        LabError: the model or the data cannot be read, or columns are missing.
    """
    model = load(str(run))
    inputs, network = model[0], model["network"]
    if isinstance(inputs, FittedArrays):
        found, x, notes = _arrays(data, inputs)
    else:
        found, x, notes = _rows(data, header, inputs)
    bars = None
    if network.config.method == "none":
        notes.append(
            "no error bars: this network was trained without dropout; name a run with it to get some"
        )
    else:
        try:
            bars = network.samples(x, samples, RANGE)
        except ValueError as error:
            notes.append(f"no error bars: {error}")
    found["prediction"] = network.predict(x)
    if hasattr(network, "classes_"):
        shares = network.predict_proba(x)
        for i, name in enumerate(network.classes_):
            found[f"probability of {name}"] = shares[:, i]
            if bars is not None:
                found[f"deviation of {name}"] = bars.std[:, i]
    elif bars is not None:
        found |= {"deviation": bars.std, "5 %": bars.quantiles[0], "95 %": bars.quantiles[1]}
    return found, notes


def _rows(data: Path, header: bool, columns: FittedColumns) -> tuple[Columns, Floats, list[str]]:
    """Nothing to put first, the inputs of a table's rows, and remarks."""
    if frames.suffix(data) not in frames.FORMATS:
        raise LabError(f"data must be a file ending in {', '.join(frames.FORMATS)}, got {data}")
    if not data.is_file():
        raise LabError(f"{data}: no such file; correct the path")
    frame, read_as = frames.read(data, header)
    if not len(frame):
        raise LabError(f"{data}: no rows")
    notes = [f"{data} was {read_as}"] if read_as else []
    if columns.label in frame.columns:
        notes.append(f"column {columns.label!r}, the label, is not read")
    try:
        return {}, columns.transform(frame), notes
    except LabError as error:
        raise LabError(f"{data}: {error}") from None


def _arrays(data: Path, inputs: FittedArrays) -> tuple[Columns, Floats, list[str]]:
    """Names of files, where there are any; the inputs; remarks."""
    found: Columns = {}
    if not data.exists():
        raise LabError(f"{data}: no such file or folder; correct the path")
    if data.suffix.lower() == ".npz":
        x, remark = _array(data)
    elif data.is_dir() or data.suffix.lower() in SUFFIXES:
        if not inputs.images or not (len(inputs.shape) == 2 or inputs.shape[:1] == (3,)):
            shape = " × ".join(map(str, inputs.shape))
            raise LabError(
                f"{data}: the network reads arrays of {shape} numbers; give them as x in a .npz file"
            )
        x, names, remark = read_new(data, inputs.shape)
        found["file"] = np.array(names)
    else:
        raise LabError(
            f"data must be a .npz file, an image or a folder of images, as the run reads, got {data}"
        )
    try:
        return found, inputs.transform(x), [remark] if remark else []
    except LabError as error:
        raise LabError(f"{data}: {error}") from None


def _array(data: Path) -> tuple[np.ndarray, str]:
    """The array `x` of a file, or its `x_test` with a remark."""
    try:
        arrays = _files.load_npz(data)
    except ValueError as error:  # its message begins with the path
        raise LabError(str(error)) from error
    name = next((name for name in ("x", "x_test") if name in arrays), None)
    if name is None:
        raise LabError(f"{data}: the examples must be an array x, got {', '.join(arrays) or 'none'}")
    check_inputs(f"{data}: {name}", arrays[name])
    return arrays[name], "" if name == "x" else f"{data}: x_test was read"


def as_csv(columns: Columns) -> str:
    """The columns as text; numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    cells = [
        [one if isinstance(one, str) else f"{one:.6g}" for one in values.tolist()]
        for values in columns.values()
    ]
    writer.writerows(zip(*cells, strict=True))
    return text.getvalue()
