"""The folder of results: on this machine, or at a URL that fsspec reaches, such as `s3://bucket/runs`."""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import posixpath
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinned._files import MAX_NPZ_BYTES
from thinned.lab.errors import LabError

MAX_TEXT_BYTES = 1 << 26  # 64 MiB: more than any text of a run
# Systems with real folders. The others are object stores, where one put appears whole or not at all.
FOLDERS = ("sftp", "ssh", "ftp", "smb", "hdfs", "arrow_hdfs", "webhdfs")
REPLACING = ("sftp", "ssh")  # those of them where a move replaces the file that was there
CODES: dict[type[Exception], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
}


@dataclass(frozen=True, order=True, repr=False)
class Remote:
    """A file or folder at a URL, with the part of `pathlib.Path` that runs and reports need.

    Every error is an OSError that names the URL, whatever the file system's own library raises.
    """

    url: str  # may hold a password, so it is never shown

    def __str__(self) -> str:
        return re.sub(r"(?<=://)[^/@]*@", "", self.url)

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return posixpath.basename(self.url.rstrip("/"))

    @property
    def parent(self) -> Remote:
        """The folder that holds this file or folder."""
        return Remote(posixpath.dirname(self.url.rstrip("/")))

    def as_posix(self) -> str:
        """The URL without a password."""
        return str(self)

    def resolve(self) -> Remote:
        """This URL: there is no current folder that it could depend on."""
        return self

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        with self._reached() as (fs, path):
            return bool(fs.exists(path))

    def is_dir(self) -> bool:
        """Whether a folder is there."""
        with self._reached() as (fs, path):
            return bool(fs.isdir(path))

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make the folder and those above it, on systems that have folders."""
        with self._reached() as (fs, path):
            if _protocol(self.url) in FOLDERS:
                fs.makedirs(path, exist_ok=exist_ok)

    def glob(self, pattern: str) -> Iterator[Remote]:
        """The files and folders below this one whose names match a pattern such as `*/config.json`."""
        with self._reached() as (fs, path):
            root = path.rstrip("/")
            found = fs.glob(f"{glob.escape(root)}/{pattern}")
        for one in found:
            yield self / one.removeprefix(root).lstrip("/")

    def read_bytes(self, max_bytes: int = MAX_NPZ_BYTES) -> bytes:
        """The whole file.

        Raises:
            ValueError: it is larger than `max_bytes`; nothing was read.
        """
        with self._reached() as (fs, path):
            size = fs.size(path)
        if size is None or size > max_bytes:
            found = "an unknown size" if size is None else f"{size:,} bytes"
            raise ValueError(f"{self} must hold at most {max_bytes:,} bytes, got {found}")
        with self._reached() as (fs, path):
            data: bytes = fs.cat_file(path)
        return data

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole file as text."""
        return self.read_bytes(MAX_TEXT_BYTES).decode(encoding)

    def put(self, data: bytes) -> None:
        """Write the file, whole or not at all: in one put, or under another name that is then moved."""
        with self._reached() as (fs, path):
            if _protocol(self.url) not in FOLDERS:
                fs.pipe_file(path, data)
                return
            folder, name = posixpath.split(path)
            temporary = f"{folder}/.{name[:100]}.{secrets.token_hex(8)}.tmp"
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(temporary, data)
            if _protocol(self.url) not in REPLACING and fs.exists(path):
                fs.rm_file(path)
            fs.mv(temporary, path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        with self._reached() as (fs, path), contextlib.suppress(*[FileNotFoundError] * missing_ok):
            fs.rm_file(path)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it, without cached listings: other processes write there too."""
        try:
            fs, path = importlib.import_module("fsspec.core").url_to_fs(self.url)
            fs.invalidate_cache()
            yield fs, path
        except Exception as error:
            known = isinstance(error, OSError)
            text = getattr(error, "strerror", None) or (str(error) if known else _first_line(error))
            code = getattr(error, "errno", None) or CODES.get(type(error), errno.EIO)
            raise OSError(code, text, str(self)) from error


Folder = Path | Remote


def folder(place: str | Path) -> Folder:
    """The folder at a path, or at a URL of any file system that fsspec knows.

    Raises:
        LabError: fsspec does not know the URL, or a package for it is missing.
    """
    text = str(place)
    if "://" not in text:
        return Path(place)
    shown = str(Remote(text))
    if "::" in text:
        raise LabError(f"folder must be a URL of one file system, got the chain {shown}")
    try:
        fsspec = importlib.import_module("fsspec")
        fsspec.get_filesystem_class(_protocol(text))
        if _protocol(text) in ("file", "local"):
            return Path(fsspec.core.url_to_fs(text)[1])
    except ImportError as error:
        hint = "" if "nstall" in str(error) else "; run pip install fsspec"
        raise LabError(f"{shown}: {error}{hint}") from None
    except ValueError as error:
        raise LabError(
            f"folder must be a path, or a URL such as s3://bucket/runs, got {shown}: {error}"
        ) from None
    return Remote(text)


def private(place: Folder) -> bool:
    """Whether only this process sees what is written there."""
    return isinstance(place, Remote) and _protocol(place.url) == "memory"


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
