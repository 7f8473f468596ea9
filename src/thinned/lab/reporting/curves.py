"""The geometry of a report's pictures as plain numbers: scales, ticks, gap lines and curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from thinned.lab.reporting.summary import Summary

Floats = NDArray[np.float64]
Run = tuple[Sequence[int], Sequence[float]]  # epochs and one column of one seed

BOX = 1000  # curves are drawn in a box of 1000 x 1000 that the page stretches
HEIGHT = 280  # pixels of a curve picture, without its axis
LABEL_STEP = 16  # pixels between two labels at line ends
ZERO_ZONE = 0.07  # part of a logarithmic axis that is kept for values at or below its floor
FIRST = 10  # the first tenth of the epochs has no say in the scale
NAMED = 8  # lines at most that have labels at their ends
COLOURS = 7  # colours of methods in the style sheet, besides colour 0 for the baseline


@dataclass(frozen=True)
class Tick:
    """A round value on an axis."""

    at: float  # 0…1 along the axis
    text: str


@dataclass(frozen=True)
class Scale:
    """An axis from `lo` to `hi`; a logarithmic axis with `floor` has a zone for values below `lo`."""

    lo: float
    hi: float
    log: bool = False
    floor: bool = False

    def __call__(self, values: Iterable[float] | Floats) -> Floats:
        """The places of the values along the axis, from 0 to 1 inside it."""
        v = np.asarray(values, dtype=np.float64)
        if not self.log:
            return (v - self.lo) / (self.hi - self.lo)
        zone = ZERO_ZONE if self.floor else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            place = zone + (1 - zone) * np.log(v / self.lo) / math.log(self.hi / self.lo)
        return np.where(v >= self.lo, place, zone / 2 if self.floor else -1.0)

    def ticks(self, most: int = 6, whole: bool = False) -> list[Tick]:
        """Round values on the axis, at most about `most` of them; `whole` allows integers only."""
        values = _log_ticks(self.lo, self.hi) if self.log else _linear_ticks(self.lo, self.hi, most, whole)
        found = [Tick(float(self([v])[0]), short(v)) for v in values]
        if self.log and self.floor:
            return [Tick(ZERO_ZONE / 2, f"< {short(self.lo)}"), *(t for t in found if t.at > 1.3 * ZERO_ZONE)]
        return found


def colour(style: int) -> int:
    """The colour of a style: 0 for the baseline, then 1 to `COLOURS` again and again."""
    return 0 if style == 0 else 1 + (style - 1) % COLOURS


def short(value: float) -> str:
    """A number as an axis shows it: 0.05, 20, 10,000, 1e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def _linear_ticks(lo: float, hi: float, most: int, whole: bool) -> list[float]:
    step = _round_step((hi - lo) / most)
    if whole:
        step = max(1.0, step)
    first = math.ceil(lo / step - 1e-9)
    last = math.floor(hi / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(lo: float, hi: float) -> list[float]:
    decades = math.log10(hi / lo)
    steps = (1,) if decades > 3.6 else (1, 3) if decades > 2 else (1, 2, 5)
    powers = range(math.floor(math.log10(lo)) - 1, math.ceil(math.log10(hi)) + 1)
    values = [float(f"{m}e{p}") for p in powers for m in steps]
    return [v for v in values if lo * (1 - 1e-9) <= v <= hi * (1 + 1e-9)]


def linear(values: Iterable[float], from_zero: bool = False) -> Scale:
    """A linear scale with round ends around the finite values."""
    v = [x for x in values if math.isfinite(x)] or [0.0, 1.0]
    lo, hi = min(v), max(v)
    if from_zero and lo >= 0:
        lo = 0.0
    if hi - lo <= 1e-12 * max(abs(lo), abs(hi)):
        lo, hi = (lo, lo + 1.0) if lo == 0 else (lo - abs(lo) / 10, hi + abs(hi) / 10)
    step = _round_step((hi - lo) / 6)
    return Scale(math.floor(lo / step + 1e-9) * step, math.ceil(hi / step - 1e-9) * step)


def curve_scale(values: Floats, test: Floats) -> Scale:
    """A logarithmic scale if the positive `test` values span more than a factor 8, else a linear one.

    The logarithmic axis ends a factor 10 below the lowest of them, or 4 decades below the highest value. So a
    training error that approaches 0 does not squeeze the test curves.
    """
    v = values[np.isfinite(values)]
    positive = v[v > 0]
    judged = test[np.isfinite(test) & (test > 0)]
    judged = judged if judged.size else positive
    if not positive.size or judged.max() <= 8 * judged.min():
        return linear(v.tolist(), from_zero=bool(v.size and v.min() < 0.5 * v.max()))
    hi = float(positive.max())
    lo = max(float(positive.min()), hi * 1e-4, float(judged.min()) / 10)
    power = 10.0 ** math.floor(math.log10(lo))
    lo = next(m * power for m in (5, 2, 1) if m * power <= lo)
    return Scale(lo, hi * 1.1, log=True, floor=bool((v < lo).any()))


def spread(wanted: Sequence[float], step: float, lo: float, hi: float) -> list[float]:
    """Places nearest to the wanted ones, at least `step` apart, inside [lo, hi] if there is room."""
    order = np.argsort(wanted, kind="stable")
    blocks: list[
        list[float]
    ] = []  # pooled means of wanted - i * step, which must not decrease (isotonic regression)
    for i, j in enumerate(order):
        blocks.append([wanted[j] - i * step, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            b, n = blocks.pop()
            a, m = blocks.pop()
            blocks.append([(a * m + b * n) / (m + n), m + n])
    flat = [value for value, count in blocks for _ in range(int(count))]
    top = max(lo, hi - step * (len(wanted) - 1))
    places = [0.0] * len(wanted)
    for i, j in enumerate(order):
        places[j] = min(max(flat[i], lo), top) + i * step
    return places


# --- test against training error, a line a method -----------------------------------------------------------


@dataclass(frozen=True)
class GapLine:
    """The line of one row: places of means and seeds, from 0 at the left to 1, and the texts beside them."""

    label: str
    style: int
    test: float
    train: float
    test_text: str
    train_text: str
    gap_text: str
    best: bool
    note: str
    seeds: list[tuple[float, float]]  # (test, training) of each seed


@dataclass(frozen=True)
class GapPicture:
    """Training and test error of every row on one axis."""

    lines: list[GapLine]
    ticks: list[Tick]
    baseline: float | None  # the baseline's test error


def gaps(summaries: Sequence[Summary], styles: Mapping[str, int], baseline: str) -> GapPicture | None:
    """Training and test error of each row on one axis; None if no run finished."""
    ended = [s for s in summaries if s.finished]
    if not ended:
        return None
    scale = linear([e for s in ended for e in (*s.tests, *s.trains)], from_zero=True)
    low = min(ended, key=lambda s: s.test.mean)
    lines = []
    for s in summaries:
        test, train = (float(v) for v in scale([s.test.mean, s.train.mean]))
        seeds = [(float(a), float(b)) for a, b in zip(scale(s.tests), scale(s.trains), strict=True)]
        is_low = (
            len(ended) > 1 and s.finished and s.measure.text(s.test.mean) == low.measure.text(low.test.mean)
        )
        lines.append(
            GapLine(
                label=s.label,
                style=styles[s.label],
                test=test,
                train=train,
                test_text=s.measure.text(s.test.mean),
                train_text=s.measure.text(s.train.mean),
                gap_text=s.measure.text(s.gap.mean),
                best=is_low,
                note=s.note,
                seeds=seeds if len(seeds) > 1 else [],
            )
        )
    base = next((line.test for line in lines if line.label == baseline and math.isfinite(line.test)), None)
    return GapPicture(lines, scale.ticks(6), base)


# --- curves over epochs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stray:
    """A seed that diverged or was cut off, drawn separately up to its last finite point."""

    path: str
    end: tuple[float, float]
    text: str


@dataclass(frozen=True)
class Line:
    """The mean over seeds of one method, its range as a band, and where it ends (0…1, from the top left)."""

    mean: str
    band: str
    end: tuple[float, float] | None
    stray: list[Stray] = field(default_factory=list)


@dataclass(frozen=True)
class Curve:
    """One method's training and test lines."""

    label: str
    style: int
    train: Line | None
    test: Line | None
    at: tuple[float, float] | None = None  # where the line ends, in shares of the box
    name_y: float | None = None  # pixels from the top, for the label at the line's end


@dataclass(frozen=True)
class CurvePicture:
    """One quantity over epochs."""

    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    log: bool
    floor: bool
    bin: int  # epochs that one point of a line stands for
    band: bool
    strays: bool
    above: bool = False  # whether first epochs are above the picture

    @property
    def named(self) -> bool:
        """Whether the lines have labels at their ends."""
        return any(c.name_y is not None for c in self.curves)


@dataclass
class _Lane:
    """The runs of one row and one column: complete runs, and the others."""

    epochs: Floats
    whole: Floats  # (seeds, epochs)
    strays: list[tuple[int, Floats, Floats]]


def _lane(runs: Mapping[int, Run]) -> _Lane | None:
    arrays = {
        s: (np.asarray(e, np.float64), np.asarray(v, np.float64)) for s, (e, v) in runs.items() if len(e)
    }
    if not arrays:
        return None
    longest = max((e for e, _ in arrays.values()), key=lambda e: (e[-1], len(e)))
    full = {s for s, (e, v) in arrays.items() if np.array_equal(e, longest) and np.isfinite(v).all()}
    whole = np.array([arrays[s][1] for s in arrays if s in full]).reshape(-1, len(longest))
    strays = []
    for s, (e, v) in arrays.items():
        finite = int(np.argmin(np.append(np.isfinite(v), False)))  # length of the finite beginning
        if s not in full and finite:
            strays.append((s, e[:finite], v[:finite]))
    return _Lane(longest, whole, strays)


def _bins(n: int, most: int) -> list[slice]:
    """`n` points in at most `most` groups of neighbours; the first and the last point are groups of one."""
    if n <= most:
        return [slice(i, i + 1) for i in range(n)]
    edges = np.linspace(1, n - 1, most - 1).round().astype(int)
    return [slice(0, 1), *(slice(a, b) for a, b in itertools.pairwise(edges)), slice(n - 1, n)]


def _path(x: Floats, y: Floats, close: bool = False) -> str:
    """An SVG path through points of the unit square (y upwards), in integer units of the box."""
    xs = np.clip(np.round(x * BOX), -BOX, 2 * BOX).astype(int)
    ys = np.clip(np.round((1 - y) * BOX), -BOX, 2 * BOX).astype(int)
    steps = "".join(
        f"{d:+d}" if d < 0 else f" {d}" for d in np.column_stack([np.diff(xs), np.diff(ys)]).ravel()
    )
    return f"M{xs[0]} {ys[0]}" + (f"l{steps.strip()}" if steps else "") + ("z" if close else "")


@dataclass(frozen=True)
class _Frame:
    x: Scale
    y: Scale
    points: int
    stray_points: int

    def line(self, lane: _Lane) -> Line:
        mean = band = ""
        end = None
        if len(lane.whole):
            x, y = self._thinned(lane.epochs, lane.whole, self.points)
            middle = self.y(y.mean(axis=0))
            mean, end = _path(x, middle), (float(x[-1]), float(1 - middle[-1]))
            if len(x) > 1 and len(y) > 1:
                low, high = self.y(y.min(axis=0)), self.y(y.max(axis=0))
                band = _path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]), close=True)
        return Line(mean, band, end, [self._stray(*s) for s in lane.strays])

    def _thinned(self, epochs: Floats, values: Floats, most: int) -> tuple[Floats, Floats]:
        """The places of at most `most` points along x, and the means of each seed over their epochs."""
        bins = _bins(len(epochs), most)
        return self.x([epochs[b].mean() for b in bins]), np.stack(
            [values[:, b].mean(axis=1) for b in bins], axis=1
        )

    def _stray(self, seed: int, epochs: Floats, values: Floats) -> Stray:
        x, v = self._thinned(epochs, values[None], self.stray_points)
        y = self.y(v[0])
        end = (float(x[-1]), float(np.clip(1 - y[-1], 0, 1)))
        return Stray(_path(x, y), end, f"seed {seed}: no further after epoch {epochs[-1]:g}")


def _shown(lanes: list[_Lane]) -> Floats:
    """The values that decide the scale: complete runs after their first tenth, and others if not higher.

    So the first epochs do not flatten the later ones; where they are higher, lines begin above the picture.
    """
    later = [lane.whole[:, lane.whole.shape[1] // FIRST :] for lane in lanes if lane.whole.size]
    strays = [v for lane in lanes for _, _, v in lane.strays]
    if not later and not strays:
        return np.empty(0)
    ceiling = max(float(v.max()) for v in later) if later else 3 * max(float(v[0]) for v in strays)
    means, tops = [v.mean(axis=0) for v in later], [v.max(axis=0) for v in later]
    return np.concatenate([*means, *tops, *(v[v <= ceiling] for v in strays)])


def curves(
    train: Mapping[str, Mapping[int, Run]], test: Mapping[str, Mapping[int, Run]], styles: Mapping[str, int]
) -> CurvePicture | None:
    """A picture of two columns, each `{label: {seed: (epochs, values)}}`; None if there are no values."""
    lanes = {
        (k, label): _lane(runs.get(label, {})) for k, runs in enumerate((train, test)) for label in styles
    }
    there = [lane for lane in lanes.values() if lane is not None and (lane.whole.size or lane.strays)]
    if not there:
        return None
    x_lo, x_hi = min(float(a.epochs[0]) for a in there), max(float(a.epochs[-1]) for a in there)
    x = Scale(x_lo, x_hi) if x_hi > x_lo else Scale(x_lo - 1, x_hi + 1)
    y = curve_scale(_shown(there), _shown([a for label in styles if (a := lanes[1, label]) is not None]))
    points = int(np.clip(2400 // len(styles), 60, 320))
    strays = sum(len(a.strays) for a in there)
    frame = _Frame(x, y, points, int(np.clip(6000 // max(strays, 1), 10, points)))
    drawn = []
    for label, style in styles.items():
        train_line, test_line = (
            None if a is None else frame.line(a) for a in (lanes[0, label], lanes[1, label])
        )
        drawn.append(Curve(label, style, train_line, test_line))
    return CurvePicture(
        curves=_named(drawn),
        x_ticks=[t for t in x.ticks(8, whole=True) if x_hi > x_lo or t.at == 0.5],
        y_ticks=y.ticks(5),
        log=y.log,
        floor=y.floor,
        bin=max(1, round(max(len(a.epochs) for a in there) / points)),
        band=any(len(a.whole) > 1 for a in there),
        strays=strays > 0,
        above=any(float(np.max(y(a.whole))) > 1 for a in there if a.whole.size),
    )


def _named(drawn: list[Curve]) -> list[Curve]:
    """The curves with a label at the end of each test line (or training line), without overlaps."""
    ends = {}
    for i, curve in enumerate(drawn):
        line = curve.test if curve.test and (curve.test.end or curve.test.stray) else curve.train
        end = None if line is None else line.end or (line.stray[-1].end if line.stray else None)
        if end is not None:
            ends[i] = (end[0], float(np.clip(end[1], 0, 1)))
    last = [i for i, (x, _) in ends.items() if x > 0.97]
    if len(last) > NAMED or len(last) < len(ends):
        return drawn  # labels would lie over lines: the legend names them
    places = {i: y * HEIGHT for i, (_, y) in ends.items()}
    places |= zip(last, spread([places[i] for i in last], LABEL_STEP, 6, HEIGHT - 6), strict=True)
    return [replace(c, at=ends.get(i), name_y=places.get(i)) for i, c in enumerate(drawn)]
