"""Folders in which data sets are looked for, and what to do where one is not there."""

from __future__ import annotations

import os
from pathlib import Path

from thinned.lab.errors import LabError

REPLACE = "replace it with the original"
BY_HAND = "or name the folder that holds {what} with --data-dir or $THINNED_DATA"


def user_folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The user's user_folders, in the order in which they are searched: `data_dir`, then $THINNED_DATA."""
    named = [("--data-dir", data_dir), ("$THINNED_DATA", os.environ.get("THINNED_DATA"))]
    found = []
    for source, folder in named:
        if folder:
            path = Path(folder).expanduser()
            if not path.is_dir():
                raise LabError(f"{source}: no folder {path}; correct it or leave it out")
            found.append(path)
    return found


def listed(paths: list[Path]) -> str:
    """The paths, for a message."""
    return ", ".join(map(str, paths))
