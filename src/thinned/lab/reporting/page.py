"""`report.html`: a comparison on one self-contained page: finding, pictures, table, settings and command."""

from __future__ import annotations

import base64
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from thinned import _files
from thinned.lab.reporting import curves as charts
from thinned.lab.reporting.summary import (
    BASELINE,
    Row,
    Summary,
    best,
    finding,
    gap_finding,
    number,
    plural,
    seconds_text,
    seeds_text,
    summarise,
    table_text,
)
from thinned.lab.storage.remote import Folder

__all__ = ["Figure", "Page", "Reference", "Row", "Series", "finding", "render", "table_text"]

NAME = "report.html"


@dataclass(frozen=True)
class Series:
    """One run's history: the method's label, the seed, the epochs and the columns of `history.csv`.

    Raises:
        ValueError: a column is not as long as `epoch`.
    """

    label: str
    seed: int
    epoch: Sequence[int]
    columns: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.epoch):
                raise ValueError(
                    f"columns: expected {len(self.epoch)} values in {name!r} as in epoch, got {len(values)}"
                )


@dataclass(frozen=True)
class Reference:
    """A table of the source's figures, theirs and ours.

    Raises:
        ValueError: a row is not as long as `columns`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: expected {len(self.columns)} cells in each, got {list(row)!r}")

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold figures (and are set to the right)."""
        figure = re.compile(r"[-−+<≤~]?\s?\d[\d.,]*(\s?%)?(\s±.*)?")
        return [any(figure.fullmatch(row[i]) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Figure:
    """One more picture, either `svg` (a whole SVG document) or `png`; `alt` tells what it shows without it.

    Raises:
        ValueError: not exactly one picture, or it is not what it is said to be.
    """

    title: str
    caption: str
    alt: str
    svg: str = ""
    png: bytes = b""

    def __post_init__(self) -> None:
        if bool(self.svg) == bool(self.png):
            raise ValueError("figure: expected exactly one of svg and png")
        if self.png and not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"png: expected a PNG file's bytes, got {self.png[:8]!r}…")
        if self.svg:
            try:
                tag = ET.fromstring(self.svg).tag
            except ET.ParseError as error:
                raise ValueError(
                    f"svg: expected an SVG document, got text that is no XML: {error}"
                ) from error
            if tag != "{http://www.w3.org/2000/svg}svg":
                raise ValueError(f"svg: expected <svg xmlns='http://www.w3.org/2000/svg'>, got <{tag}>")

    @property
    def themed(self) -> bool:
        """Whether the picture has colours of its own for dark pages; others get a white ground."""
        return "prefers-color-scheme" in self.svg

    @property
    def source(self) -> str:
        """The picture as a data URL; inside <img> an SVG can run nothing and load nothing."""
        kind, data = ("png", self.png) if self.png else ("svg+xml", self.svg.encode())
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Page:
    """All that a report shows; rows and series keep the order they come in.

    `notes` say in what the run differs from its source; `baseline` is the label of the row that others are
    compared with; `rebuild` the folder to name in `thinned report`, the report's own if empty; `headline` is
    what the page says first, the finding on the test errors if empty.

    Raises:
        ValueError: two rows with one label, or a series without a row.
    """

    title: str
    lead: str
    rows: Sequence[Row]
    series: Sequence[Series]
    settings: Mapping[str, str]
    command: str
    machine: Mapping[str, str]
    references: Sequence[Reference] = ()
    extras: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    baseline: str = BASELINE
    rebuild: str = ""
    headline: str = ""

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(f"rows: expected each label once, got {', '.join(sorted(twice))} more than once")
        unknown = {s.label for s in self.series} - set(labels)
        if unknown:
            raise ValueError(f"series: expected labels of rows, got {', '.join(sorted(unknown))}")


def render(out_dir: Folder, page: Page) -> Folder:
    """Write `page` as `out_dir/report.html`, whole or not at all; the same page, the same bytes."""
    path = out_dir / NAME
    _files.write_text(path, html(page, out_dir.as_posix()))
    return path


def html(page: Page, folder: str = ".") -> str:
    """The page as one HTML document that requests nothing from anywhere."""
    every = [summarise(row) for row in page.rows]
    styles = _styles([row.label for row in page.rows], page.baseline)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            page=page,
            summaries=every,
            styles=styles,
            bold=_bold(every),
            seeds=seeds_text(every),
            finding=page.headline or finding(page.rows, page.baseline),
            gap_finding="" if page.headline else gap_finding(page.rows, page.baseline),
            gaps=charts.gaps(every, styles, page.baseline),
            pictures=_pictures(page, styles),
            rebuild=f"thinned report {shlex.quote(page.rebuild or folder)}",
            charts=charts,
        )
    )


def _styles(labels: Sequence[str], baseline: str) -> dict[str, int]:
    """A style number a method, the same in every picture: 0 for the baseline, 1, 2, … for the others."""
    others = [label for label in labels if label != baseline]
    return {label: 0 if label == baseline else 1 + others.index(label) for label in labels}


def _bold(every: Sequence[Summary]) -> dict[str, list[bool]]:
    """Which rows have the best test error, gap and time."""
    return {
        "test": best([s.test.mean for s in every], [number(s.test.mean) for s in every]),
        "gap": best([abs(s.gap.mean) for s in every], [number(s.gap.mean) for s in every]),
        "seconds": best([s.seconds.mean for s in every], [seconds_text(s.seconds.mean) for s in every]),
    }


def _pictures(page: Page, styles: Mapping[str, int]) -> list[tuple[str, str, charts.CurvePicture]]:
    """The curves: (name, unit, picture), error first."""
    loss = "train_loss" if any("train_loss" in s.columns for s in page.series) else "loss"
    found = []
    for name, unit, columns, factor in (
        ("Error", "%", ("train_error", "test_error"), 100.0),
        ("Loss", "", (loss, "test_loss"), 1.0),
    ):
        train, test = (
            {label: _runs(page.series, label, column, factor) for label in styles} for column in columns
        )
        picture = charts.curves(train, test, styles)
        if picture is not None:
            found.append((name, unit, picture))
    return found


def _runs(series: Sequence[Series], label: str, column: str, factor: float) -> dict[int, charts.Run]:
    """{seed: (epochs, values)} of one method's column."""
    return {
        s.seed: (s.epoch, [factor * v for v in s.columns[column]])
        for s in series
        if s.label == label and column in s.columns
    }


def templates() -> jinja2.Environment:
    """The pages' templates, with the filters that they use."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(number=number, seconds=seconds_text, tied=_tied, shorten=_shorten, pc=_pc, px=_px)
    env.globals.update(plural=plural)
    return env


def _tied(text: str) -> str:
    """Numbers stay on one line with their % and ±."""
    return re.sub(r" (?=%|±|points\b)|(?<=±) ", "\N{NO-BREAK SPACE}", text)


def _shorten(text: str, most: int = 20) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _pc(share: float) -> Markup:
    """A place 0…1 as a percentage for SVG."""
    return Markup(f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%")


def _px(value: float) -> Markup:
    return Markup(f"{value:.1f}".rstrip("0").rstrip("."))
