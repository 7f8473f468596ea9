"""`thinned predict`: a trained network on the rows of a new table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from thinned.lab.data import frames
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
            f"{place}: none of its runs keeps a network for new data; runs of a table do, those of images, "
            ".npz or built-in data do not"
        )
    return first[min(errors, key=lambda method: float(np.mean(errors[method])))]


def predictions(run: Folder, data: Path, header: bool, samples: int) -> tuple[Columns, list[str]]:
    """Columns of predictions for the rows of a table, and what a reader should know of them.

    Classes: the likeliest, the probability of each, and its standard deviation over thinned networks.
    Numbers: the prediction, and the deviation and 5 % and 95 % quantiles over thinned networks. Without
    dropout there are no error bars.

    Raises:
        LabError: the model or the table cannot be read, or columns are missing.
    """
    model = load(str(run))
    if frames.suffix(data) not in frames.FORMATS:
        raise LabError(f"data must be a file ending in {', '.join(frames.FORMATS)}, got {data}")
    if not data.is_file():
        raise LabError(f"{data}: no such file; correct the path")
    frame, read_as = frames.read(data, header)
    if not len(frame):
        raise LabError(f"{data}: no rows")
    notes = [f"{data} was {read_as}"] if read_as else []
    columns, network = model["columns"], model["network"]
    if columns.label in frame.columns:
        notes.append(f"column {columns.label!r}, the label, is not read")
    try:
        x = columns.transform(frame)
    except LabError as error:
        raise LabError(f"{data}: {error}") from None
    try:
        bars = network.samples(x, samples, RANGE)
    except ValueError as error:
        bars = None
        notes.append(f"no error bars: {error}")
    found: Columns = {"prediction": network.predict(x)}
    if hasattr(network, "classes_"):
        shares = network.predict_proba(x)
        for i, name in enumerate(network.classes_):
            found[f"probability of {name}"] = shares[:, i]
            if bars is not None:
                found[f"deviation of {name}"] = bars.std[:, i]
    elif bars is not None:
        found |= {"deviation": bars.std, "5 %": bars.quantiles[0], "95 %": bars.quantiles[1]}
    return found, notes


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
