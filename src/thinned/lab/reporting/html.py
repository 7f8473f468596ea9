"""`report.html`: a page as one self-contained document."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from thinned import _files
from thinned.lab.reporting import curves
from thinned.lab.reporting.from_runs import Series
from thinned.lab.reporting.measure import ERROR, Measure
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.summary import Summary, best, summarise
from thinned.lab.reporting.summary import styles as style_of
from thinned.lab.reporting.wording import (
    finding,
    gap_finding,
    number,
    plural,
    seconds_text,
    seeds_text,
    shorten,
)
from thinned.lab.storage.remote import Folder

NAME = "report.html"


def render(out_dir: Folder, page: Page) -> Folder:
    """Write `page` as `out_dir/report.html` atomically; equal pages give equal bytes."""
    path = out_dir / NAME
    _files.write_text(path, html(page, out_dir.as_posix()))
    return path


def html(page: Page, folder: str = ".") -> str:
    """The page as one HTML document that loads nothing from elsewhere."""
    every = [summarise(row) for row in page.rows]
    styles = style_of([row.label for row in page.rows], page.baseline)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            page=page,
            summaries=every,
            styles=styles,
            bold=_bold(every),
            seeds=seeds_text(every),
            finding=page.headline or (*page.found, finding(page.rows, page.baseline))[0],
            more=page.found[1:],
            gap_finding="" if page.headline else gap_finding(page.rows, page.baseline),
            gaps=curves.gaps(every, styles, page.baseline),
            pictures=_pictures(page, styles),
            rebuild=f"thinned report {shlex.quote(page.rebuild or folder)}",
            curves=curves,
            measure=_measure(page),
        )
    )


def _measure(page: Page) -> Measure:
    return page.rows[0].measure if page.rows else ERROR


def _bold(every: Sequence[Summary]) -> dict[str, list[bool]]:
    """Which rows have the lowest test error, gap and time."""
    return {
        "test": best([s.test.mean for s in every], [s.measure.text(s.test.mean) for s in every]),
        "gap": best([abs(s.gap.mean) for s in every], [s.measure.text(s.gap.mean) for s in every]),
        "seconds": best([s.seconds.mean for s in every], [seconds_text(s.seconds.mean) for s in every]),
    }


def _pictures(page: Page, styles: Mapping[str, int]) -> list[tuple[str, str, curves.CurvePicture]]:
    """The curves as (name, unit, picture), error first."""
    loss = "train_loss" if any("train_loss" in s.columns for s in page.series) else "loss"
    found = []
    measure = _measure(page)
    title = measure.name[:1].upper() + measure.name[1:]
    for name, unit, columns, factor in (
        (title, measure.unit, ("train_error", "test_error"), measure.factor),
        ("Loss", "", (loss, "test_loss"), 1.0),
    ):
        train, test = (
            {label: _runs(page.series, label, column, factor) for label in styles} for column in columns
        )
        picture = curves.curves(train, test, styles)
        if picture is not None:
            found.append((name, unit, picture))
    return found


def _runs(series: Sequence[Series], label: str, column: str, factor: float) -> dict[int, curves.Run]:
    """{seed: (epochs, values)} for one label and one column."""
    return {
        s.seed: (s.epoch, [factor * v for v in s.columns[column]])
        for s in series
        if s.label == label and column in s.columns
    }


def templates() -> jinja2.Environment:
    """The templates of the pages, with their filters."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        number=number, seconds=seconds_text, tied=_tied, data=_data, shorten=shorten, pc=_pc, px=_px
    )
    env.globals.update(plural=plural)
    return env


def _tied(text: str) -> str:
    """The text with numbers tied to their % and ± by no-break spaces."""
    return re.sub(r" (?=%|±|points\b)|(?<=±) ", "\N{NO-BREAK SPACE}", text)


def _data(text: str) -> str:
    """A CSV text as a data URL."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _pc(share: float) -> Markup:
    """A place from 0 to 1 as a percentage for SVG."""
    return Markup(f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%")


def _px(value: float) -> Markup:
    return Markup(f"{value:.1f}".rstrip("0").rstrip("."))
