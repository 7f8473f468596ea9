"""What a report shows, before it is drawn: rows, curves, the source's figures, pictures, notes."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thinned.lab.reporting.from_runs import Row, Series
from thinned.lab.reporting.paired import Difference
from thinned.lab.reporting.summary import BASELINE
from thinned.lab.reporting.wording import finding, gap_finding


@dataclass(frozen=True)
class Reference:
    """A table of the source's figures and ours.

    Raises:
        ValueError: a row and `columns` differ in length.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows must have {len(self.columns)} cells each, got {list(row)!r}")

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold figures; they are aligned to the right."""
        figure = re.compile(r"[-−+<≤~]?\s?\d[\d.,]*(\s?%)?(\s±.*)?")
        return [any(figure.fullmatch(row[i]) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Figure:
    """A picture, either `svg` (a whole SVG document) or `png`; `alt` is a description in words.

    Raises:
        ValueError: not exactly one of svg and png is given, or it has another format.
    """

    title: str
    caption: str
    alt: str
    svg: str = ""
    png: bytes = b""

    def __post_init__(self) -> None:
        if bool(self.svg) == bool(self.png):
            raise ValueError(
                "figure must have exactly one of svg and png, got " + ("both" if self.svg else "neither")
            )
        if self.png and not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"png must be the bytes of a PNG file, got {self.png[:8]!r}…")
        if self.svg:
            try:
                tag = ET.fromstring(self.svg).tag
            except ET.ParseError as error:
                raise ValueError(f"svg must be an SVG document, got text that is not XML: {error}") from error
            if tag != "{http://www.w3.org/2000/svg}svg":
                raise ValueError(f"svg must be <svg xmlns='http://www.w3.org/2000/svg'>, got <{tag}>")

    @property
    def themed(self) -> bool:
        """Whether the picture has its own colours for dark pages; other pictures get a white background."""
        return "prefers-color-scheme" in self.svg

    @property
    def source(self) -> str:
        """The picture as a data URL; an SVG inside <img> cannot run or load anything."""
        kind, data = ("png", self.png) if self.png else ("svg+xml", self.svg.encode())
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a report with its own heading: tables, figures, and text below them."""

    title: str
    text: str = ""
    tables: Sequence[Reference] = ()
    figures: Sequence[Figure] = ()
    gallery: bool = False  # whether the figures are small images, side by side


@dataclass(frozen=True)
class Page:
    """Everything that a report shows; rows and series keep their order.

    Args:
        found: sentences on the test errors; if empty, they follow from the rows.
        next: what to do next.
        sections: what a comparison shows of single examples, classes and columns.
        differences: of every row from the baseline.
        scores: row, or baseline -> figures of merit, a list over seeds.
        files: names of files -> their text, to download.
        notes: how the runs differ from their source.
        baseline: the label of the row that others are compared with.
        rebuild: the folder to name in `thinned report`; if empty, the report's own.
        headline: the first sentence; if empty, the finding on the test errors.

    Raises:
        ValueError: two rows have the same label, or a series has no row.
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
    found: Sequence[str] = ()
    next: str = ""
    sections: Sequence[Section] = ()
    differences: Sequence[Difference] = ()
    scores: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(
                f"rows must have different labels, got {', '.join(sorted(twice))} more than once"
            )
        unknown = {s.label for s in self.series} - set(labels)
        if unknown:
            raise ValueError(f"series must have labels of rows, got {', '.join(sorted(unknown))}")

    def sentences(self) -> list[str]:
        """What was learned: the headline, or what the test errors and the gaps show."""
        if self.headline:
            return [self.headline]
        found = [*(self.found or [finding(self.rows, self.baseline)]), gap_finding(self.rows, self.baseline)]
        return [text for text in [*found, self.next] if text]
