"""What a report of a comparison shows besides the runs: labels, baselines, columns that matter, examples.

It is kept beside the record as `evidence.npz`, so that a report can be made again without the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from thinned import _files
from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder

NAME = "evidence.npz"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the test data.

    Attributes:
        what: the plural of an example: "images" or "rows".
        classes: their names; empty for numbers.
        labels: (N,) of the test examples; empty where each run holds out its own.
        baselines: name -> (N, K) probabilities or (N,) numbers, of predictors that are no networks.
        importance: column -> by how much log loss, or RMSE, of each run grows where the column is shuffled.
        of: the label of the row that importance and examples are about.
        index: (M,) which test examples are kept, the worst-predicted first.
        images: (M, height, width) or (M, 3, height, width) of these examples, or empty.
        rows, columns: their cells as text, or empty, and the names of the columns.
    """

    what: str
    classes: tuple[str, ...]
    labels: np.ndarray
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    importance: Mapping[str, Sequence[float]] = field(default_factory=dict)
    of: str = ""
    index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rows: Sequence[Sequence[str]] = ()
    columns: Sequence[str] = ()

    def save(self, place: Folder) -> None:
        """Write `evidence.npz`, whole or not at all."""
        arrays = {
            "what": np.array(self.what),
            "classes": np.array(self.classes, str),
            "labels": self.labels,
            "of": np.array(self.of),
            "index": self.index,
            "images": self.images,
            "rows": np.array(self.rows, str),
            "columns": np.array(self.columns, str),
            "important": np.array(list(self.importance), str),
            "importance": np.array(list(self.importance.values()), np.float64),
        }
        arrays |= {f"baseline/{name}": values for name, values in self.baselines.items()}
        _files.save_npz(place / NAME, arrays)

    @classmethod
    def load(cls, place: Folder) -> Evidence | None:
        """What was kept; None where nothing was.

        Raises:
            LabError: the file is damaged.
        """
        try:
            arrays = _files.load_npz(place / NAME)
            named = zip(arrays["important"].tolist(), arrays["importance"].tolist(), strict=True)
            prefix = "baseline/"
            return cls(
                what=str(arrays["what"]),
                classes=tuple(arrays["classes"].tolist()),
                labels=arrays["labels"],
                baselines={k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)},
                importance=dict(named),
                of=str(arrays["of"]),
                index=arrays["index"],
                images=arrays["images"],
                rows=arrays["rows"].tolist(),
                columns=arrays["columns"].tolist(),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise LabError(
                f"{place / NAME}: damaged ({error}); run the command that made it again"
            ) from error
