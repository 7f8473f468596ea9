"""What lies beside the run folders, so that a report can be made of them again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thinned import _files
from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, folders, read

RECORD = "page.json"  # beside the run folders: which of them the report shows, and how


@dataclass(frozen=True)
class Record:
    """What a report needs beside the runs.

    Args:
        kind: `"compare"`, or the name of an experiment.
        command: the command that made it.
        settings: what the report prints, by name.
        runs: names of the run folders, in order; empty for every one there is.
        budget: of an experiment.
    """

    kind: str
    command: str
    settings: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[str] = ()
    budget: str = ""

    def save(self, out: Folder) -> None:
        """Write it beside the runs."""
        try:
            _files.write_json(out / RECORD, dataclasses.asdict(self))
        except OSError as error:
            raise LabError(
                f"cannot write {out / RECORD}: {error.strerror or error}; make room there"
            ) from error

    @classmethod
    def load(cls, out: Folder) -> Record:
        """The record in `out`; without one, a comparison of every run there is."""
        path = out / RECORD
        if not path.exists():
            return cls("compare", "")
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{path}: damaged ({error}); run the command that made it again") from error

    def stored(self, out: Folder) -> list[Stored]:
        """Those of the runs that lie in `out`; LabError where none does."""
        there = folders(out)
        if self.runs:
            there = [out / name for name in self.runs if out / name in there]
            if not there:
                raise LabError(f"{out}: none of its runs has begun; run the command that made it again")
        return [read(path) for path in there]
