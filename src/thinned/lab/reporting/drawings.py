"""Pictures of predictions as small SVG: differences, confusions, calibration, targets, columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np

from thinned.lab.reporting.curves import Scale, colour, linear, spread
from thinned.lab.reporting.figures import STYLE, png
from thinned.lab.reporting.page import Figure
from thinned.lab.reporting.wording import shorten

WIDTH = 460  # pixels; narrow, so that text stays readable on a telephone
LINE = 30  # pixels of a row of bars
STEP = 16  # between two names
MORE = (
    ".axis{stroke:#767a82;stroke-dasharray:2 3}.bar{stroke-width:2.5;fill:none}"
    ".strong{fill:#15181c;font-weight:600}.light{fill:#ffffff}.dot{stroke:none;fill-opacity:.45}"
    ".cell{fill:#0a4aa8;stroke:none}.miss{fill:#c95a00;stroke:none}"
    "@media (prefers-color-scheme:dark){.strong{fill:#e6e8eb}.cell{fill:#6a7cf0}.miss{fill:#f07f22}}"
)


@dataclass
class Canvas:
    """An SVG that grows: scales inside margins, and what was drawn."""

    x: Scale
    y: Scale
    height: int
    left: int = 54
    right: int = 16
    top: int = 26
    bottom: int = 46
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        width, height = WIDTH - self.left - self.right, self.height - self.top - self.bottom
        return self.left + float(self.x([x])[0]) * width, self.top + (1 - float(self.y([y])[0])) * height

    def text(self, x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> None:
        """Words at pixels."""
        named = f' class="{kind}"' if kind else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'
        )

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through pixels."""
        path = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        self.parts.append(f'<path class="{kind}" d="{path}" fill="none"/>')

    def dot(self, x: float, y: float, kind: str, radius: float = 4) -> None:
        """A disc at pixels."""
        self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def x_axis(self, name: str, most: int = 5) -> None:
        """Ticks and a name below."""
        bottom = self.height - self.bottom
        for tick in self.x.ticks(most):
            at = self.left + tick.at * (WIDTH - self.left - self.right)
            self.line([(at, self.top), (at, bottom)], "grid")
            anchor = "end" if tick.at > 0.97 else "middle"
            self.text(at + (8 if tick.at > 0.97 else 0), bottom + 17, tick.text.replace("-", "−"), anchor)
        self.text(WIDTH - self.right, bottom + 36, name, "end")

    def y_axis(self, name: str, most: int = 5) -> None:
        """Ticks and a name above."""
        for tick in self.y.ticks(most):
            at = self.top + (1 - tick.at) * (self.height - self.top - self.bottom)
            self.line([(self.left, at), (WIDTH - self.right, at)], "grid")
            self.text(self.left - 7, at + 4, tick.text.replace("-", "−"), "end")
        self.text(0, 13, name)

    def svg(self) -> str:
        """The document."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" '
            f'height="{self.height}"><style>{STYLE}{MORE}</style>{"".join(self.parts)}</svg>'
        )


def intervals(
    title: str,
    axis: str,
    rows: Mapping[str, tuple[float, float, float]],
    styles: Mapping[str, int],
    caption: str,
) -> Figure:
    """A row each: its name, (mean, low, high) as a disc and a bar, and a line at 0."""
    values = [value for row in rows.values() for value in row if math.isfinite(value)]
    top, bottom = 8, 46
    canvas = Canvas(
        linear([*values, 0.0]), Scale(0, 1), top + bottom + LINE * len(rows) + 14,
        left=min(170, 14 + 8 * max(map(len, rows))), top=top, bottom=bottom,
    )  # fmt: skip
    canvas.x_axis(axis)
    zero = canvas.at(0, 0)[0]
    canvas.line([(zero, top), (zero, canvas.height - bottom)], "axis")
    for i, (name, (mean, low, high)) in enumerate(rows.items()):
        y = top + LINE * (i + 0.5) + 7
        kind = f"c{colour(styles.get(name, 1))}"
        canvas.text(0, y + 4, shorten(name, 20), kind="strong")
        canvas.line([(canvas.at(low, 0)[0], y), (canvas.at(high, 0)[0], y)], f"bar {kind}")
        canvas.dot(canvas.at(mean, 0)[0], y, kind, 5)
    words = "; ".join(f"{n}: {m:.3g}, from {a:.3g} to {b:.3g}" for n, (m, a, b) in rows.items())
    return Figure(title=title, caption=caption, alt=f"{axis}. {words}.", svg=canvas.svg())


def matrix(title: str, names: Sequence[str], counts: np.ndarray, caption: str) -> Figure:
    """Shares of each true class (a row) by predicted class (a column); mistakes in another colour."""
    k = len(names)
    left = min(120, 34 + 7 * max(len(shorten(name, 12)) for name in names))
    size = min(44.0, (WIDTH - left - 4) / k)
    top = 40
    canvas = Canvas(Scale(0, 1), Scale(0, 1), round(top + size * k + 6), left=left, top=top)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    canvas.text(left + size * k / 2, 12, "predicted", "middle")
    canvas.text(0, 12, "true")
    for i, name in enumerate(names):
        most = max(2, int(size / 7.5))
        canvas.text(left + size * (i + 0.5), top - 8, shorten(name, most), "middle")
        canvas.text(left - 8, top + size * (i + 0.5) + 4, shorten(name, 12), "end")
        for j in range(k):
            x, y, share = left + size * j, top + size * i, float(shares[i, j])
            kind = "cell" if i == j else "miss"
            depth = share if i == j else min(1.0, 3 * share)
            canvas.parts.append(
                f'<rect class="grid" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" '
                'fill="none"/>'
            )
            if share:
                canvas.parts.append(
                    f'<rect class="{kind}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2:.1f}" '
                    f'height="{size - 2:.1f}" fill-opacity="{0.12 + 0.88 * depth:.2f}"/>'
                )
                if size >= 24:
                    light = "light" if depth > 0.5 else "strong"
                    canvas.text(x + size / 2, y + size / 2 + 4, _count(float(counts[i, j])), "middle", light)
    pairs = [f"{names[i]} for {names[j]}: {counts[i, j]:.1f}" for i, j in _mistakes(counts)[:5]]
    alt = "Confusion matrix. Most frequent mistakes: " + ("; ".join(pairs) or "none") + "."
    return Figure(title=title, caption=caption, alt=alt, svg=canvas.svg())


def reliability(
    title: str,
    bins: Mapping[str, Sequence[tuple[float, float, float]]],
    styles: Mapping[str, int],
    caption: str,
) -> Figure:
    """(confidence, share of right answers, share of examples) in bins, a line a name, and the diagonal."""
    points = [value for one in bins.values() for point in one for value in point[:2]]
    lo = min(0.9, math.floor(10 * min(points)) / 10)
    canvas = Canvas(Scale(lo, 1), Scale(lo, 1), 340)
    canvas.y_axis("right answers, share")
    canvas.x_axis("probability of the answer")
    canvas.line([canvas.at(lo, lo), canvas.at(1, 1)], "axis")
    for name, found in bins.items():
        kind = f"c{colour(styles.get(name, 1))}"
        canvas.line([canvas.at(x, y) for x, y, _ in found], f"curve {kind}")
        for x, y, weight in found:
            canvas.dot(*canvas.at(x, y), kind, 2 + 5 * math.sqrt(weight))
    _legend(canvas, list(bins), styles)
    words = "; ".join(f"{n}: " + ", ".join(f"{x:.2f} → {y:.2f}" for x, y, _ in v) for n, v in bins.items())
    return Figure(
        title=title, caption=caption, alt=f"Share right over probability. {words}.", svg=canvas.svg()
    )


def scatter(title: str, x_name: str, y_name: str, x: np.ndarray, y: np.ndarray, caption: str) -> Figure:
    """A disc for each example, and the diagonal."""
    scale = linear([float(f(v)) for v in (x, y) for f in (np.min, np.max)])
    longest = max(len(tick.text) for tick in scale.ticks(5))
    canvas = Canvas(scale, scale, 360, left=16 + 7 * longest)
    canvas.y_axis(y_name)
    canvas.x_axis(x_name, 4)
    canvas.line([canvas.at(scale.lo, scale.lo), canvas.at(scale.hi, scale.hi)], "axis")
    for a, b in zip(x, y, strict=True):
        canvas.dot(*canvas.at(float(a), float(b)), "dot c1", 3)
    alt = f"{y_name} over {x_name}, {len(x)} examples; correlation {np.corrcoef(x, y)[0, 1]:.3f}."
    return Figure(title=title, caption=caption, alt=alt, svg=canvas.svg())


def picture(image: np.ndarray, lo: float, hi: float) -> bytes:
    """A PNG of (height, width), or (1 or 3, height, width), with values from `lo` to `hi`."""
    flat = image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    shown = np.clip((flat - lo) / ((hi - lo) or 1.0), 0, 1)
    return png(shown.transpose(1, 2, 0) if shown.ndim == 3 else shown)


def _legend(canvas: Canvas, names: Sequence[str], styles: Mapping[str, int]) -> None:
    """Names below the diagonal, where calibrated lines do not go."""
    right, bottom = WIDTH - canvas.right, canvas.height - canvas.bottom
    for name, y in zip(names, spread([bottom] * len(names), STEP, canvas.top, bottom - 12), strict=True):
        canvas.text(right - 22, y, shorten(name, 24), "end")
        canvas.dot(right - 10, y - 4, f"c{colour(styles.get(name, 1))}")


def _mistakes(counts: np.ndarray) -> list[tuple[int, int]]:
    """(true, predicted) of the mistakes, the most frequent first."""
    off = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-off, axis=None, kind="stable")
    pairs = [divmod(int(i), len(counts)) for i in order]
    return [(i, j) for i, j in pairs if off[i, j] > 0]


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 or abs(value - round(value)) < 0.05 else f"{value:.1f}"
