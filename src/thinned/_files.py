"""Files that appear whole or not at all, and `.npz` archives without pickle."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np


class Elsewhere(Protocol):
    """A file that is not on a disk of this machine (`thinned.lab.storage.remote.Remote`)."""

    def read_bytes(self, max_bytes: int) -> bytes:
        """The whole file; ValueError, before anything is read, where it is larger."""

    def put(self, data: bytes) -> None:
        """Write the file, whole or not at all."""


AnyFile = str | os.PathLike[str] | Elsewhere

MAX_NPZ_BYTES = 1 << 34  # 16 GiB unpacked: more than this library writes, less than a zip bomb


@contextlib.contextmanager
def atomic_write(path: AnyFile, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` only when the block ends well.

    A temporary file is written beside it, synced to disk and renamed, so that a reader (or a crash at any
    moment) finds the old file or the new one, never a part. On any exception the old file stays and the
    temporary one is removed.

    Args:
        path: the file. Missing folders are made, a symbolic link is followed. A file elsewhere gets its
            bytes in one piece.
        mode: `"wb"`, or `"w"` for UTF-8 text.

    Raises:
        ValueError: the mode is neither.
        OSError: the disk is full, the folder is not writable, and the like.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'mode must be "wb" or "w", got {mode!r}')
    if not isinstance(path, (str, os.PathLike)):
        buffer = io.BytesIO() if mode == "wb" else io.StringIO()
        yield buffer
        path.put(buffer.getvalue() if isinstance(buffer, io.BytesIO) else buffer.getvalue().encode())
        return
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    text = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(
                    OSError
                ):  # on a full disk, closing fails too: the first error counts
                    file.close()
                raise
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: AnyFile, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: AnyFile, obj: Any) -> None:
    """Write `obj` as JSON, whole or not at all.

    NumPy scalars and arrays become numbers and lists, paths strings; NaN and infinities become null, because
    JSON has no form for them.
    """
    write_text(path, json.dumps(_plain(obj), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _plain(obj: Any) -> Any:
    """`obj` in JSON's own types."""
    if isinstance(obj, (np.generic, np.ndarray)):
        obj = obj.tolist()
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    if isinstance(obj, Mapping):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    return str(obj) if isinstance(obj, os.PathLike) else obj


def save_npz(path: AnyFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as an uncompressed `.npz`, whole or not at all.

    The same arrays give the same bytes (no time stamps). `numpy.load` reads the file.

    Raises:
        ValueError: an array of Python objects (they would need pickle), or a name that is empty or no string.
    """
    for name, array in arrays.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"names of arrays must be non-empty strings, got {name!r}")
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"array {name!r} must hold numbers or strings, got Python objects")
    with atomic_write(path) as file:
        archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        try:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.close()
        except BaseException:
            archive.fp = None  # not closed: after an interrupt that would raise an error of its own
            raise


def load_npz(path: AnyFile, max_bytes: int = MAX_NPZ_BYTES) -> dict[str, np.ndarray]:
    """Read every array of an `.npz` file; pickled objects are never loaded.

    Array sizes are checked against the archive's before memory is taken.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no `.npz`, is truncated or damaged, holds Python objects, or unpacks to more
            than `max_bytes`.
    """
    if not isinstance(path, (str, os.PathLike)):
        source: Any = io.BytesIO(path.read_bytes(max_bytes))
    elif not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    else:
        source = path
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > max_bytes:
                raise ValueError(f"unpacked size must be at most {max_bytes:,} bytes, got {total:,}")
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: the file must be an .npz archive, got one that is truncated, damaged or of another kind"
        ) from error
    except (ValueError, EOFError, OSError, zlib.error, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before its start
            raise
        raise ValueError(f"{path}: cannot be read as an .npz archive: {error}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; its header is checked against the size of its member first."""
    name = member.filename
    if not name.endswith(".npy"):
        raise ValueError(f"member {name!r} must be an array (.npy)")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"array {name!r} must have the format version 1.0 or 2.0, got {version}")
        if dtype.hasobject:
            raise ValueError(
                f"array {name!r} must hold numbers or strings, got Python objects: pickle is never loaded"
            )
        needed, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if needed != there:
            raise ValueError(f"array {name!r} must have {needed:,} bytes of data, got {there:,}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
