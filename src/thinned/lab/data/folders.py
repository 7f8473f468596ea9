"""Folders in which data sets are looked for, and what messages advise where one is missing."""

from __future__ import annotations

import os
from pathlib import Path

from thinned.lab.errors import LabError

REPLACE = "replace it with the original"
BY_HAND = "or name the folder that holds {what} with --data-dir or $THINNED_DATA"


def user_folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The user's folders, in the order of the search: `data_dir`, then $THINNED_DATA."""
    named = [("--data-dir", data_dir), ("$THINNED_DATA", os.environ.get("THINNED_DATA"))]
    found = []
    for source, folder in named:
        if folder:
            path = Path(folder).expanduser()
            if not path.is_dir():
                raise LabError(
                    f"{source} must be a folder, got {path}, which is none; correct it or leave it out"
                )
            found.append(path)
    return found


def listed(paths: list[Path]) -> str:
    """The paths, for a message."""
    return ", ".join(map(str, paths))
