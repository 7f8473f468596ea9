"""Debian's dieharder through a pipe: each test starts where the last one ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

STREAMS = ("half", "third", "seeds", "folded")  # of streams.py; each takes minutes, the others longer
# The tests that dieharder rates "good": not 5, 6, 7 ("suspect") nor 14 ("do not use"). Left out: 17 (gcd) and
# the longer lagged sums, which would take as long as all others together.
TESTS = (
    *map(str, (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 15, 16, 100, 101, 102)),
    *("200 -n 2", "200 -n 4", "200 -n 8", "201 -n 3", "202 -n 5", "203 -n 0", "203 -n 1"),
    *map(str, (204, 205, 206, 207, 208, 209)),
)
FIELDS = ("test_name", "ntuple", "psamples", "pvalues")


@dataclass(frozen=True)
class Line:
    """One p-value."""

    test: str
    samples: int  # p-values that it combines
    p: float


def version() -> str | None:
    """The program and its version, or None where it is not installed."""
    if shutil.which("dieharder") is None:
        return None
    printed = subprocess.run(["dieharder", "-l"], capture_output=True, text=True, check=False).stdout
    return " ".join(printed.split("version", 1)[1].split()[:1])


@contextmanager
def pipe(stream: str) -> Iterator[IO[bytes]]:
    """The output of a process that writes the stream until the pipe is closed."""
    call = [sys.executable, "-m", "battery", "--pour", stream]
    with subprocess.Popen(call, stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        try:
            yield source.stdout
        finally:
            source.stdout.close()
            source.terminate()


def run(test: str, source: IO[bytes], samples: int | None = None) -> list[Line]:
    """The lines of one test, with its own number of samples or another."""
    call = ["dieharder", "-g", "200", "-d", *test.split(), "-c", "|"]
    call += ["-p", str(samples)] if samples else []
    for name in FIELDS:
        call += ["-D", name]
    done = subprocess.run(call, stdin=source, capture_output=True, text=True, check=True)
    found = []
    for text in done.stdout.splitlines():
        cells = [cell.strip() for cell in text.split("|")]
        if len(cells) < len(FIELDS) or cells[0].startswith("#"):
            continue
        name, ntuple, psamples, p = cells[: len(FIELDS)]
        found.append(Line(f"{name} {ntuple}", int(psamples), float(p)))
    if not found:
        raise RuntimeError(f"dieharder -d {test} printed no result: {done.stdout} {done.stderr}")
    return numbered(found)


def numbered(lines: list[Line]) -> list[Line]:
    """Lines with numbers where several have the same name: some tests print several p-values."""
    names = [line.test for line in lines]
    out = []
    for i, line in enumerate(lines):
        mark = f" #{names[:i].count(line.test) + 1}" if names.count(line.test) > 1 else ""
        out.append(Line(line.test + mark, line.samples, line.p))
    return out
