"""`make battery`: every stream under our own tests and dieharder's; writes docs/randomness.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import thinned
from thinned import _files, kernels

from . import dieharder, judge, streams

ROOT = Path(__file__).parents[2]
PAGE, DONE = ROOT / "docs" / "randomness.md", ROOT / "build" / "battery"
WEAK, FAILED = 0.01, 1e-6  # two-sided; WEAK is dieharder's own, 0.005 at each end
GROWTH = 4  # each repetition has so many times the samples
REPEATS = 2


@dataclass
class Row:
    """One test of one stream: its p-value, and those of its repetitions."""

    stream: str
    test: str
    values: list[float] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """FAILED, weak at first or passed, by the rule on the page."""
        if min(self.values) < FAILED or (len(self.values) > REPEATS and max(self.values) < WEAK):
            return "FAILED"
        return "weak at first" if len(self.values) > 1 else "passed"


def own(name: str, n: int) -> list[Row]:
    """Our tests of 2ⁿ bits of a stream; weak tests are repeated on later bits."""
    tests, source = judge.bit_tests(), streams.STREAMS[name]()
    rows = {test: Row(name, test) for test in tests}
    for repeat in range(REPEATS + 1):
        weak = [test for test, row in rows.items() if not row.values or row.values[-1] < WEAK]
        if weak:
            data = streams.take(source, (1 << n) // 8 * GROWTH**repeat)
            for test in weak:
                rows[test].values.append(tests[test](data))
    return list(rows.values())


def units(p: float, n: int) -> list[Row]:
    """Our tests of 2ⁿ units of one mask; weak tests are repeated on later units."""
    rows: dict[str, Row] = {}
    start = 0
    for repeat in range(REPEATS + 1):
        weak = [test for test, row in rows.items() if row.values[-1] < WEAK]
        if repeat and not weak:
            break
        size = (1 << n) * GROWTH**repeat
        found = judge.unit_tests(p, size, start)
        start += size
        for test in weak or found:
            rows.setdefault(test, Row(f"units, p = {p:g}", test)).values.append(found[test])
    return list(rows.values())


def theirs(name: str) -> list[Row]:
    """Dieharder's tests of a stream; a test with a weak line is repeated on later bits with more samples."""
    rows = []
    with dieharder.pipe(name) as source:
        for test in dieharder.TESTS:
            lines = dieharder.run(test, source)
            found = {line.test: Row(name, line.test, [two_sided(line.p)]) for line in lines}
            samples = lines[0].samples
            for _ in range(REPEATS):
                weak = [row for row in found.values() if row.values[-1] < WEAK]
                if not weak:
                    break
                samples *= GROWTH
                again = {line.test: line.p for line in dieharder.run(test, source, samples)}
                for row in weak:
                    row.values.append(two_sided(again[row.test]))
            rows += found.values()
    return rows


def two_sided(p: float) -> float:
    """The two-sided p-value; both ends of ``p`` are suspect."""
    return 2 * min(p, 1 - p)


def pour(name: str) -> None:
    """Write a stream to stdout until the reader closes the pipe."""
    try:
        for chunk in streams.STREAMS[name]():
            sys.stdout.buffer.write(chunk.data)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def matrix(rows: list[Row]) -> str:
    """A table of p-values: a line a test, a column a stream; repetitions follow an arrow."""
    names, tests = list(dict.fromkeys(r.stream for r in rows)), list(dict.fromkeys(r.test for r in rows))
    cells = {(r.stream, r.test): " → ".join(f"{p:.2g}" for p in r.values) for r in rows}
    lines = [["test", *names], ["---"] + ["---:"] * len(names)]
    lines += [[test, *(cells.get((name, test), "") for name in names)] for test in tests]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def summary(rows: list[Row], names: Iterable[str]) -> str:
    """A line a stream: how many tests, the smallest p-value, how many were weak, how many failed."""
    lines = [
        "| stream | tests | smallest p | weak at first | failed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        mine = [r for r in rows if r.stream == name]
        count = {verdict: sum(r.verdict == verdict for r in mine) for verdict in ("weak at first", "FAILED")}
        least = min(r.values[0] for r in mine)
        cells = [name, str(len(mine)), f"{least:.2g}", str(count["weak at first"]), str(count["FAILED"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(ours: list[Row], units_: list[Row], hard: list[Row], n: int, version: str | None) -> str:
    """The text of docs/randomness.md."""
    rows = [*ours, *units_, *hard]
    weak, failed = (sum(r.verdict == verdict for r in rows) for verdict in ("weak at first", "FAILED"))
    chance = FAILED * (1 + WEAK + WEAK**2) + WEAK ** (REPEATS + 1)  # of a false alarm, a test
    cpu = kernels.extension()
    level = cpu.levels()[-1] if cpu else "numpy"
    named = "\n".join(f"- `{name}`: {streams.DESCRIPTIONS[name]}" for name in streams.STREAMS)
    kinds = [("Our tests of fair bits", ours), (f"Our tests of 2^{n} units", units_)]
    kinds += [(f"dieharder {version}", hard)] if hard else []
    parts = [
        f"""# The masks under a statistical battery

Written by `make battery`: thinned {thinned.__version__}, kernels {level}, NumPy {np.__version__}, \
{f"dieharder {version}" if hard else "no dieharder"}. \
All randomness comes from keys: another run gives the same page.

**{len(rows)} tests, {weak} weak at first, {failed} failed.** \
Perfect randomness is expected to be weak at first in {WEAK * len(rows):.0f} of {len(rows)}.

The rule was set before the run. p-values are two-sided. A test with a p-value below {FAILED:g} has failed. \
A test below {WEAK:g} is
weak: it is repeated on later bits with {GROWTH} times the samples, up to {REPEATS} times. \
A test that is weak every time
has failed. Perfect randomness fails any test of this page with a probability of at most \
{len(rows)} × {chance:.2g} = {100 * len(rows) * chance:.2g} %.

Our tests take 2^{n} bits of each stream; dieharder takes as many as it needs. The streams:

{named}
- `units, p`: the units of one mask of that rate, unchanged

Our tests of bits: ones and lags (binomial, exact); bytes and words (chi-square), where bits 128 apart
are the same lane of neighbouring groups; and birthday spacings (Marsaglia 1985), for sizes where the
error of their Poisson law cannot be detected. Our tests of units: how many are dropped, in which lane,
how many in a group, and how many are kept between two dropped ones (geometric); and correlations.
dieharder reads a stream through a pipe; each test starts where the last one ended: `dieharder -g 200 -d
TEST`. It runs all tests that it rates good, except the two slowest, with its own number of samples.
"""
    ]
    for title, found in kinds:
        names = list(dict.fromkeys(r.stream for r in found))
        parts.append(f"## {title}\n\n{summary(found, names)}\n\n{matrix(found)}\n")
    return "\n".join(parts)


def resumed(what: str, work: Callable[[], list[Row]], done: Path) -> list[Row]:
    """The rows of ``work``, run now or stored by a run that was cut off; a summary goes to stderr."""
    begin, kept = time.perf_counter(), done / f"{what}.json"
    if kept.exists():
        return [Row(**row) for row in json.loads(kept.read_text())]
    rows = work()
    _files.write_text(kept, json.dumps([asdict(row) for row in rows]))
    weak = [
        f"{r.test}: {' → '.join(f'{p:.2g}' for p in r.values)} {r.verdict}" for r in rows if len(r.values) > 1
    ]
    failed = sum(r.verdict == "FAILED" for r in rows)
    seconds = time.perf_counter() - begin
    print(f"{what}: {len(rows)} tests, {failed} failed, {seconds:.0f} s", *weak, sep="\n  ", file=sys.stderr)
    return rows


def main() -> None:
    """Run the battery and write the page."""
    parser = argparse.ArgumentParser(prog="python -m battery", description=__doc__)
    parser.add_argument(
        "--bits", type=int, default=30, help="each of our tests takes 2 to this power of bits"
    )
    parser.add_argument("--own", action="store_true", help="our own tests alone")
    parser.add_argument("--pour", choices=[*streams.STREAMS], help="only write a stream to stdout")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    asked = parser.parse_args()
    if asked.pour:
        pour(asked.pour)
        return
    os.nice(10)
    version = dieharder.version()
    if version is None and not asked.own:
        raise SystemExit(
            "dieharder is not installed (Debian: apt-get install dieharder); --own goes without it"
        )
    done = DONE / f"{thinned.__version__}-{asked.bits}"
    done.mkdir(parents=True, exist_ok=True)
    ours = [
        r for name in streams.STREAMS for r in resumed(name, lambda name=name: own(name, asked.bits), done)
    ]
    raw = [r for p in judge.RATES for r in resumed(f"units, p = {p}", lambda p=p: units(p, asked.bits), done)]
    hard = []
    if not asked.own:
        hard = [
            r
            for name in dieharder.STREAMS
            for r in resumed(f"dieharder {name}", lambda name=name: theirs(name), done)
        ]
    _files.write_text(asked.page, page(ours, raw, hard, asked.bits, version))
    shutil.rmtree(done)
    if any(row.verdict == "FAILED" for row in (*ours, *raw, *hard)):
        raise SystemExit(f"there are failures: see {asked.page}")


if __name__ == "__main__":
    main()
