"""Downloads into the user's cache: checked by SHA-256, whole or absent, continued after a cut connection."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from thinned.lab.errors import LabError

TIMEOUT = (10.0, 30.0)  # seconds to connect, seconds without a byte
TRIES = 20  # connections for a file, as long as each brings some of it
PAUSE = 0.5  # seconds before a cut connection is opened again
MAX_BYTES = 1 << 28  # no file of a data set here is larger


def cache() -> Path:
    """The folder for downloads: `thinned` in the place where the system keeps a user's caches."""
    return Path(_pooch().os_cache("thinned"))


def fetch(name: str, urls: Sequence[str], sha256: str, folder: Path, by_hand: str) -> Path:
    """The file `folder/name`, downloaded from the first address that has it unless it is there already.

    A file with another SHA-256 is removed; one in the cache is downloaded again. After a cut connection, the
    part stays as `name.part`, and the next call continues it.

    Raises:
        LabError: no address gave the right file; the message ends with `by_hand`, which says what else to do.
    """
    pooch = _pooch()
    pooch.get_logger().setLevel("WARNING")  # this module announces a download itself, once bytes arrive
    from requests import RequestException

    failures = []
    for url in urls:
        downloader = ResumingDownloader(folder / f"{name}.part")
        for _ in range(
            2
        ):  # a bad checksum may come from the stale part that was continued: try once from its start
            try:
                return Path(pooch.retrieve(url, f"sha256:{sha256}", name, folder, downloader=downloader))
            except (RequestException, ValueError) as error:
                failures.append(f"{urlsplit(url).hostname} {_reason(error)}")
                if isinstance(error, RequestException) or not downloader.resumed:
                    break
            except OSError as error:
                raise LabError(
                    f"cannot write {name} to {folder}: {error.strerror or error}; free or change it"
                ) from error
    raise LabError(f"could not download {name} ({'; '.join(dict.fromkeys(failures))}); {by_hand}")


class ResumingDownloader:
    """A downloader for pooch that collects a file in `part` and asks only for the rest of it (HTTP Range).

    `resumed` is True where the last call continued an earlier part.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` to `output_file`; a cut connection is opened again as long as bytes keep coming."""
        from requests import RequestException

        self.resumed = self._have() > 0
        with _progress(self.part.stem) as advance:
            for attempt in range(TRIES):
                before = self._have()
                try:
                    self._rest(url, advance)
                    break
                except RequestException:
                    if attempt == TRIES - 1 or self._have() == before:
                        raise
                    time.sleep(PAUSE)
        self.part.replace(output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _rest(self, url: str, advance: Callable[[int, int | None], None]) -> None:
        """One connection: append what is missing to `part`, or start again if the server sends all."""
        import requests

        have = self._have()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # 416: nothing is left, the part is the whole
            if response.status_code == 416 or (response.status_code == 206 and not resumes):
                self.part.unlink()  # the server has no rest of this part: the next try starts again
                raise requests.ConnectionError("no rest of this part")
            response.raise_for_status()
            done = have if response.status_code == 206 else 0
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdigit() else None
            with self.part.open("ab" if done else "wb") as file:
                for chunk in response.iter_content(1 << 16):
                    done += len(chunk)
                    if done > MAX_BYTES:
                        self.part.unlink()
                        raise ValueError(f"more than {MAX_BYTES:,} bytes")
                    file.write(chunk)
                    advance(done, total)
                file.flush()
                os.fsync(file.fileno())
        if total is not None and done < total:
            raise requests.exceptions.ChunkedEncodingError("the connection was cut")


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yields advance(bytes done, bytes in total): a bar on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():
        lines = iter([f"downloading {title}"])
        yield lambda done, total: next(map(_print, lines), None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "was cut off"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    if isinstance(error, requests.RequestException):
        return f"failed: {error}"
    return "sent a file with another SHA-256, which was removed"


def _pooch() -> Any:
    try:
        import pooch
    except ImportError:
        raise LabError('downloads need pooch: run pip install "thinned[lab]"') from None
    return pooch
