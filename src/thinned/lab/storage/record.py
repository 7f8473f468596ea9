"""The record of a comparison or experiment, beside its run folders: a report can be made from it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thinned import _files
from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, folders, read

RECORD = "page.json"  # the name of its file


@dataclass(frozen=True)
class Record:
    """What a report needs besides the runs.

    Args:
        kind: `"compare"`, or the name of an experiment.
        command: the command that made the runs.
        settings: the settings that the report prints, by name.
        runs: names of the run folders, in order; empty for all of them.
        budget: the budget of an experiment; empty for a comparison.
        shared: whether the runs lie in the folder above, which several comparisons share.
        tried: method -> (p, lowest held-out error) of `--tune`.
    """

    kind: str
    command: str
    settings: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[str] = ()
    budget: str = ""
    shared: bool = False
    tried: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def save(self, out: Folder) -> None:
        """Write the record beside the runs."""
        try:
            _files.write_json(out / RECORD, dataclasses.asdict(self))
        except OSError as error:
            raise LabError(
                f"cannot write {out / RECORD}: {error.strerror or error}; give another folder with --out"
            ) from error

    @classmethod
    def load(cls, out: Folder) -> Record:
        """The record in `out`; where there is none, a comparison of every run in the folder."""
        path = out / RECORD
        if not path.exists():
            return cls("compare", "")
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{path}: damaged ({error}); run the command that made it again") from error

    def stored(self, out: Folder) -> list[Stored]:
        """The runs of this record that have a folder in `out`.

        Raises:
            LabError: none has.
        """
        out = out.resolve().parent if self.shared else out
        there = folders(out)
        if self.runs:
            there = [out / name for name in self.runs if out / name in there]
            if not there:
                raise LabError(f"{out}: none of its runs has begun; run the command that made it again")
        return [read(path) for path in there]
