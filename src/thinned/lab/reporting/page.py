"""What a report shows, before it is drawn: rows, curves, the source's figures, pictures, notes."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thinned.lab.reporting.from_runs import Row, Series
from thinned.lab.reporting.summary import BASELINE
from thinned.lab.reporting.wording import finding, gap_finding


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

    def sentences(self) -> list[str]:
        """What was learned: the headline, or what the test errors and the gaps show."""
        if self.headline:
            return [self.headline]
        found = [finding(self.rows, self.baseline), gap_finding(self.rows, self.baseline)]
        return [text for text in found if text]
