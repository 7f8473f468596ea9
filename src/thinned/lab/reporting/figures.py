"""Pictures for reports: lines with error bars as SVG with light and dark colours, and grey tiles as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np

from thinned.lab.reporting.curves import Scale, linear, spread
from thinned.lab.reporting.page import Figure

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 16, 52
LETTER = 8.5  # px of a letter of a name, in a wide font
NAMES, VALUES, ROW = 315, 130, 22  # beside an axis of ratios: the columns of names and texts, a row's height
LIGHT = ("#767a82", "#0a4aa8", "#c95a00", "#3fa477", "#d45fb3", "#b08a00", "#279de0", "#811331")
DARK = ("#9298a2", "#6a7cf0", "#f07f22", "#4be3a0", "#f08ee6", "#f4cc33", "#aedcfb", "#b2566b")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#59606b}"
    ".grid{stroke:#e2e5e9}.one{stroke:#767a82;stroke-width:1.5}.head{font-weight:600}.curve{fill:none;stroke-width:2.25}"
    + "".join(f".c{i}{{--c:{c};stroke:{c};fill:{c}}}" for i, c in enumerate(LIGHT))
    + ".curve{fill:none}.name{stroke:none;font-weight:600}"
    + "@media (prefers-color-scheme:dark){text{fill:#a3aab4}.grid{stroke:#31363c}"
    + "".join(f".c{i}{{stroke:{c};fill:{c}}}" for i, c in enumerate(DARK))
    + ".curve{fill:none}.name{stroke:none}}"
)


@dataclass(frozen=True)
class Ratio:
    """A row of `ratios`: a value that is 1 where two are equal, its standard deviation, a text at its end."""

    name: str
    value: float  # NaN: none
    sd: float
    text: str


@dataclass(frozen=True)
class Point:
    """A mean at x, and its standard deviation (NaN for none)."""

    x: float
    y: float
    sd: float = math.nan


def lines(
    title: str,
    x_name: str,
    y_name: str,
    curves: Mapping[str, Sequence[Point]],
    *,
    log: bool = False,
    log_y: bool = False,
    caption: str = "",
) -> Figure:
    """A line through the points of each name, with bars of one standard deviation.

    Raises:
        ValueError: no point is finite.
    """
    curves = {n: [p for p in points if math.isfinite(p.y)] for n, points in curves.items()}
    every = [p for points in curves.values() for p in points]
    if not every:
        raise ValueError("curves must have a finite point, got none")
    xs, ys = [p.x for p in every], [p.y + s * _bar(p) for p in every for s in (-1, 1)]
    x = Scale(min(xs) / 1.15, max(xs) * 1.15, log=True) if log else linear(xs)
    y = Scale(min(v for v in ys if v > 0) / 1.2, max(ys) * 1.2, log=True) if log_y else linear(ys)
    parts = [_axes(x, y, x_name, y_name)]
    ends = _apart([float(_y(y, points[-1].y)) for points in curves.values() if points])
    for i, (name, points) in enumerate((n, p) for n, p in curves.items() if p):
        parts.append(_curve(name, sorted(points, key=lambda p: p.x), x, y, i % len(LIGHT), ends[i]))
    values = "; ".join(f"{n}: " + ", ".join(f"{p.y:.3g} at {p.x:g}" for p in ps) for n, ps in curves.items())
    longest = max(len(name) for name, points in curves.items() if points)
    svg = _document(parts, width=max(WIDTH, math.ceil(WIDTH - RIGHT + 10 + LETTER * longest)))
    return Figure(title=title, caption=caption, alt=f"{y_name} over {x_name}. {values}.", svg=svg)


def ratios(
    title: str, x_name: str, text_name: str, groups: Mapping[str, Sequence[Ratio]], caption: str = ""
) -> Figure:
    """A dot a row, with a bar of one standard deviation, on an axis of ratios with a line at 1.

    Raises:
        ValueError: there is no row.
    """
    rows = [row for members in groups.values() for row in members]
    if not rows:
        raise ValueError("groups must have a row, got none")
    known = [row for row in rows if math.isfinite(row.value)]
    ends = [row.value + s * _bar(row) for row in known for s in (-1, 1)]
    x, y, parts = linear([0.9, 1.1, *ends]), float(TOP), []
    for name, members in groups.items():
        parts.append(f'<text class="head" x="0" y="{y + 12:.1f}">{escape(name)}</text>')
        parts += [_ratio(row, y + ROW * i + 8, x) for i, row in enumerate(members, 1)]
        y += ROW * (len(members) + 1) + 6
    words = "; ".join(f"{row.name}: {row.text}" for row in rows)
    drawn = [_ratio_axis(x, y, x_name, text_name), *parts]
    return Figure(title=title, caption=caption, alt=f"{title}. {words}.", svg=_document(drawn, y + 48))


def steps(
    title: str, x_name: str, y_name: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]],
    caption: str = "",
) -> Figure:  # fmt: skip
    """Histograms over common `edges`, one line each: the share of values between edges, on a log axis."""
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    curves = {
        name: [Point(m, s) for m, s in zip(middles, values, strict=True) if s > 0]
        for name, values in shares.items()
    }
    return lines(title, x_name, y_name, curves, log_y=True, caption=caption)


def tiles(title: str, weights: np.ndarray, shape: tuple[int, int], caption: str, columns: int = 16) -> Figure:
    """Rows of `weights` (units, height·width) as grey pictures, each scaled to its largest weight."""
    height, width = shape
    rows = math.ceil(len(weights) / columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), 0.5)
    for i, w in enumerate(weights):
        top, left = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        scale = float(np.abs(w).max()) or 1.0
        sheet[top : top + height, left : left + width] = 0.5 + 0.5 * w.reshape(shape) / scale
    times = max(1, 640 // sheet.shape[1])
    sheet = np.kron(sheet, np.ones((times, times)))
    alt = f"{len(weights)} first-layer features as {height} × {width} pictures: {title}"
    return Figure(title=title, caption=caption, alt=alt, png=png(sheet))


def png(shown: np.ndarray) -> bytes:
    """A PNG of grey (height, width) or colours (height, width, 3), from 0 to 1."""
    import io

    from matplotlib import image

    file = io.BytesIO()
    image.imsave(file, shown, cmap="gray", vmin=0.0, vmax=1.0, format="png", metadata={"Software": "thinned"})
    return file.getvalue()


def _bar(of: Point | Ratio) -> float:
    return of.sd if math.isfinite(of.sd) else 0.0


def _x(scale: Scale, value: float) -> float:
    return LEFT + float(scale([value])[0]) * (WIDTH - LEFT - RIGHT)


def _y(scale: Scale, value: float) -> float:
    return TOP + (1 - float(scale([value])[0])) * (HEIGHT - TOP - BOTTOM)


def _apart(wanted: Sequence[float], step: float = 17.0) -> list[float]:
    return spread(wanted, step, TOP, HEIGHT - BOTTOM)


def _axes(x: Scale, y: Scale, x_name: str, y_name: str) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y.ticks(5):
        at = TOP + (1 - tick.at) * (bottom - TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick.text}</text>')
    for tick in x.ticks(7):
        at = LEFT + tick.at * (right - LEFT)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 20}" text-anchor="middle">{tick.text}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 40}" text-anchor="end">{escape(x_name)}</text>')
    parts.append(f'<text x="{LEFT}" y="{bottom + 40}">{escape(y_name)}</text>')
    return "".join(parts)


def _curve(name: str, points: Sequence[Point], x: Scale, y: Scale, colour: int, name_y: float) -> str:
    path = "".join(f"{'L' if i else 'M'}{_x(x, p.x):.1f} {_y(y, p.y):.1f}" for i, p in enumerate(points))
    parts = [f'<path class="curve c{colour}" d="{path}"/>']
    for p in points:
        at = _x(x, p.x)
        if math.isfinite(p.sd):
            top, bottom = _y(y, p.y + p.sd), _y(y, max(p.y - p.sd, y.lo))
            parts.append(f'<path class="curve c{colour}" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(f'<circle class="c{colour}" cx="{at:.1f}" cy="{_y(y, p.y):.1f}" r="3.5"/>')
    parts.append(
        f'<text class="name c{colour}" x="{WIDTH - RIGHT + 10}" y="{name_y + 4:.1f}">{escape(name)}</text>'
    )
    return "".join(parts)


def _ratio_axis(x: Scale, bottom: float, x_name: str, text_name: str) -> str:
    parts = []
    for tick in x.ticks(5):
        at = _along(tick.at)
        kind = "one" if tick.text == "1" else "grid"
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom:g}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18:g}" text-anchor="middle">{tick.text}</text>')
    parts.append(f'<text x="{_along(0):.1f}" y="{bottom + 40}">{escape(x_name)}</text>')
    parts.append(f'<text x="{WIDTH}" y="{bottom + 18}" text-anchor="end">{escape(text_name)}</text>')
    return "".join(parts)


def _ratio(row: Ratio, y: float, x: Scale) -> str:
    parts = [f'<text x="12" y="{y + 4:.1f}">{escape(row.name)}</text>']
    parts.append(f'<text x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{escape(row.text)}</text>')
    if math.isfinite(row.value):
        colour = 3 if row.value <= 1 else 2
        at, low, high = (_along(float(x([row.value + s * _bar(row)])[0])) for s in (0, -1, 1))
        parts.append(f'<path class="curve c{colour}" d="M{low:.1f} {y:.1f}H{high:.1f}"/>')
        parts.append(f'<circle class="c{colour}" cx="{at:.1f}" cy="{y:.1f}" r="5"/>')
    return "".join(parts)


def _along(place: float) -> float:
    return NAMES + place * (WIDTH - NAMES - VALUES)


def _document(parts: Sequence[str], height: float = HEIGHT, width: int = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )
