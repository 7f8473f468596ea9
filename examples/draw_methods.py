"""Draw one picture a method on real images, and write the page that shows them.

python examples/draw_methods.py docs/images/methods

writes a PNG for each row of `thinned.methods.METHODS` into that folder, and `methods.md` two folders above.
The same pictures each time: all that is random has a fixed key. Needs torch, matplotlib and scikit-learn,
whose photographs and digits it takes; no network. `plain` draws a new row whose method drops units of x.
A function under ``@drawing(name)`` draws its row in another way; its docstring is the picture's alt text.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import thinned
from thinned import Key, keep_mask, masks, theory
from thinned._method import Method
from thinned.key import permutation
from thinned.methods import METHODS, Row
from thinned.nn.modules import MODULES
from thinned.scratch.drops import LAYERS

DROPPED, KEPT, INK, NOTE = "#e0148c", "#d5dbe1", "#1f2328", "#59636e"
WIDTH, MARGIN = 780, 20  # in pixels of the page
COLOURS = 96  # of a photograph: two of them and the letters fit into the 256 of a small file
GAMMA = 2.2  # arithmetic is on light; a screen shows light^(1/2.2)


# The canvas -----------------------------------------------------------------------------------------------


class Sheet:
    """A white card with rounded corners, readable on light and dark pages; lengths in pixels of the page."""

    def __init__(self, height: int, scale: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100 * scale, facecolor="none")
        FigureCanvasAgg(self.figure)
        below, self.page = self.axes(0, 0, WIDTH, height), self.axes(0, 0, WIDTH, height)
        for axes in (below, self.page):
            axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        self.page.set_zorder(2)  # words and frames are above the images
        card = FancyBboxPatch((1, 1), WIDTH - 2, height - 2, boxstyle="round,pad=0,rounding_size=10")
        card.set(facecolor="white", edgecolor="#d0d7de", linewidth=0.8)
        below.add_patch(card)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is there, without frame or ticks."""
        box = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(box)
        axes.axis("off")
        return axes

    def text(self, x: float, y: float, words: str, size: float = 13, colour: str = INK, **how: Any) -> None:
        """One line; (x, y) is the left end of its base line, unless ``ha`` says otherwise."""
        self.page.text(x, y, words, fontsize=0.72 * size, color=colour, **how)

    def image(self, x: float, y: float, side: float, pixels: Any, frame: bool = False) -> None:
        """(h, w, 3) of colours, ``side`` wide and high; ``frame``: with a border, of the dropped."""
        axes = self.axes(x, y, side, side)
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        if frame:
            self.page.add_patch(
                Rectangle((x - 2, y - 2), side + 4, side + 4, color=DROPPED, fill=False, lw=2)
            )

    def row(
        self,
        y: float,
        side: float,
        pictures: Sequence[Any],
        titles: Sequence[str] = (),
        notes: Sequence[str] = (),
        frames: Sequence[bool] = (),
    ) -> list[float]:
        """Square pictures over the whole width, a title above each and a note below; where each begins."""
        gap = (WIDTH - 2 * MARGIN - side * len(pictures)) / (len(pictures) - 1)
        places = [MARGIN + i * (side + gap) for i in range(len(pictures))]
        for i, x in enumerate(places):
            self.image(x, y, side, pictures[i], bool(frames) and bool(frames[i]))
            if titles:
                self.text(x + side / 2, y - 8, titles[i], 13, ha="center", weight="bold")
            if notes:
                self.text(x + side / 2, y + side + 18, notes[i], 12, NOTE, ha="center")
        return places

    def legend(self, count: str, dropped: str = "dropped", kept: str | None = "kept") -> None:
        """The last line: what the colours mean on the left, what was counted on the right."""
        x, y = MARGIN, self.height - 18
        for colour, word in ((DROPPED, dropped), (KEPT, kept)):
            if word:
                self.page.add_patch(Rectangle((x, y - 10), 12, 12, facecolor=colour, edgecolor="none"))
                self.text(x + 18, y, word, 12, NOTE)
                x += 42 + 7 * len(word)
        self.text(WIDTH - MARGIN, y, count, 12, NOTE, ha="right")

    def save(self, file: Path) -> None:
        """As PNG of at most 256 colours, without date or version."""
        self.figure.canvas.draw()
        pixels = np.asarray(self.figure.canvas.buffer_rgba())
        colours, index, count = np.unique(
            pixels.reshape(-1, 4).view(np.uint32)[:, 0], return_inverse=True, return_counts=True
        )
        colours = colours.view(np.uint8).reshape(-1, 4)
        often = colours[np.argsort(-count.astype(np.int64), kind="stable")[:256]]
        # The others are shades at the edges of letters: each becomes the nearest of the frequent ones.
        distance = ((colours[:, None].astype(np.int64) - often[None]) ** 2).sum(-1)
        image = Image.fromarray(distance.argmin(1)[index].reshape(pixels.shape[:2]).astype(np.uint8), "P")
        image.putpalette(often[:, :3].tobytes(), "RGB")
        image.save(file, optimize=True, transparency=often[:, 3].tobytes())


def colour(name: str) -> Any:
    """(3,): a colour as shares of red, green and blue."""
    return np.array(matplotlib.colors.to_rgb(name))


def paint(light: Any, kept: Any = True) -> Any:
    """Light, (h, w) or (3, h, w) -> (h, w, 3), in the colour of what is dropped where it is not kept."""
    shown = np.clip(light, 0, 1) ** (1 / GAMMA)
    shown = np.moveaxis(shown, 0, -1) if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1)
    if (shown == shown[..., :1]).all():
        shown = np.round(shown * 31) / 31  # few greys, likewise
    return np.where(np.broadcast_to(kept, shown.shape[:2])[..., None], shown, colour(DROPPED))


def paint_mask(kept: Any) -> Any:
    """(h, w) of bool -> (h, w, 3)."""
    return np.where(kept[..., None], colour(KEPT), colour(DROPPED))


# The images -----------------------------------------------------------------------------------------------


_whole = functools.cache(load_sample_image)


def photograph(name: str, n: int, top: int, left: int, side: int) -> Any:
    """(3, n, n) of light in [0, 1]: a square of one of scikit-learn's photographs, by means over blocks."""
    square = _whole(name)[top : top + side, left : left + side]
    means = square.reshape(n, side // n, n, side // n, 3).mean((1, 3)).round().astype(np.uint8)
    few = Image.fromarray(means).quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.moveaxis(np.asarray(few.convert("RGB")) / 255.0, -1, 0) ** GAMMA


def temple(n: int) -> Any:
    return photograph("china.jpg", n, 2, 4, 420 // n * n)


def flower(n: int) -> Any:
    side = 380 // n * n
    return photograph("flower.jpg", n, 214 - side // 2, 307 - side // 2, side)


def grey(light: Any) -> Any:
    """(3, h, w) -> (h, w): luminance."""
    return np.tensordot([0.2126, 0.7152, 0.0722], light, 1)


MAPS = ("red", "green", "blue", "edges |", "edges —", "edges ╲")


def edges(light: Any) -> Any:
    """(h, w) -> (3, h, w): how much it changes from left to right, from top to bottom, and across."""
    g = np.pad(light ** (1 / GAMMA), 1, mode="edge")
    steps = [g[1:-1, 2:] - g[1:-1, :-2], g[2:, 1:-1] - g[:-2, 1:-1], g[:-2, 2:] - g[2:, :-2]]
    return np.abs(steps) ** 1.5


def feature_maps(light: Any) -> Any:
    """(3, h, w) -> (6, h, w): what a first layer might see, `MAPS`, each with largest value 1."""
    maps = np.concatenate([light, edges(grey(light))])
    return maps / maps.max((1, 2), keepdims=True)


def standardized(x: Any) -> Any:
    """Mean 0 and variance 1 over the last two axes."""
    return (x - x.mean((-2, -1), keepdims=True)) / x.std((-2, -1), keepdims=True)


def paint_standardized(x: Any, kept: Any = True) -> Any:
    """As `paint`, for numbers around 0: −2 is black, 3 white."""
    return paint(np.clip((x + 2) / 5, 0, 1) ** GAMMA, kept)


# The drawings ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    draw: Callable[[float], Sheet]
    alt: str
    share: dict[str, Any]  # what theory needs to know for the expected share, where the row has one


DRAWINGS: dict[str, Drawing] = {}


def drawing(name: str, **share: Any) -> Callable[[Callable[[float], Sheet]], Callable[[float], Sheet]]:
    """Enter a function in `DRAWINGS`; its docstring is the alt text."""

    def enter(draw: Callable[[float], Sheet]) -> Callable[[float], Sheet]:
        DRAWINGS[name] = Drawing(draw, " ".join((inspect.getdoc(draw) or "").split()), share)
        return draw

    return enter


def _counted(kept: Any, p: float, units: str) -> str:
    dropped = int(kept.size - kept.sum())
    return f"p = {p}: {dropped:,} of {kept.size:,} {units} dropped, {dropped / kept.size:.1%}"


def _elements(scale: float, rescale: str, training: str, evaluation: str) -> Sheet:
    x, p, key = grey(flower(42))[None], 0.5, Key(0)
    kept = keep_mask(x.shape, p, key=key)
    train, test = (thinned.dropout(x, p, key=key, training=t, rescale=rescale) for t in (True, False))
    sheet = Sheet(276, scale)
    pictures = [paint(x[0]), paint_mask(kept[0]), paint(train[0], kept[0]), paint(test[0])]
    titles = ["x", "mask", "training", "evaluation"]
    sheet.row(40, 168, pictures, titles, ["a photograph", "of this key", training, evaluation])
    sheet.legend(_counted(kept, p, "elements"))
    return sheet


@drawing("dropout")
def draw_dropout(scale: float) -> Sheet:
    """A photograph; a mask in which half of the pixels are marked as dropped; in training the dropped pixels
    are gone and the others twice as bright; in evaluation the photograph is unchanged."""
    return _elements(scale, "train", "kept: x · 1/(1 − p), brighter", "x, unchanged")


@drawing("dropout-original")
def draw_dropout_original(scale: float) -> Sheet:
    """The same photograph and mask; in training the kept pixels are as they were; in evaluation the whole
    photograph is half as bright."""
    return _elements(scale, "test", "kept: x, unchanged", "x · (1 − p), darker")


@drawing("gaussian")
def draw_gaussian(scale: float) -> Sheet:
    """A photograph; a field of random factors around 1; their product, a photograph with grain, in which no
    pixel is dropped; in evaluation the photograph is unchanged."""
    x, p, key = grey(flower(42))[None], 0.2, Key(0)
    factor = thinned.gaussian_dropout(np.ones_like(x), p, key=key)[0]
    y = thinned.gaussian_dropout(x, p, key=key)
    stops = [0.0, 0.5, 1.0]  # factors 0, 1, 2
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list(
        "factor", list(zip(stops, (DROPPED, "#eef0f2", "#24292f"), strict=True)), N=24
    )
    sheet = Sheet(276, scale)
    pictures = [paint(x[0]), ramp(factor / 2)[..., :3], paint(y[0]), paint(x[0])]
    notes = ["a photograph", "N(1, p/(1 − p))", "x · factor: grain, no holes", "x, unchanged"]
    sheet.row(40, 168, pictures, ["x", "factor", "training", "evaluation"], notes)
    bar = sheet.axes(MARGIN + 72, sheet.height - 28, 120, 12)
    bar.imshow(np.linspace(0, 1, 120)[None], cmap=ramp, aspect="auto", interpolation="nearest")
    sheet.text(MARGIN, sheet.height - 18, "factor  ≤ 0", 12, NOTE)
    sheet.text(MARGIN + 199, sheet.height - 18, "≥ 2", 12, NOTE)
    text = f"p = {p}: factors of mean {factor.mean():.2f} and standard deviation {factor.std():.2f}"
    sheet.text(WIDTH - MARGIN, sheet.height - 18, f"{text} (theory: 1 and 0.50)", 12, NOTE, ha="right")
    return sheet


@drawing("alpha")
def draw_alpha(scale: float) -> Sheet:
    """A photograph of mean 0 and variance 1; a mask; the result, where dropped pixels are not zero but all
    have one low value; and its histogram, a high bar at that value and the kept values to the right."""
    p, key = 0.3, Key(0)
    x = standardized(grey(flower(42)) ** (1 / GAMMA))[None]
    kept, y = keep_mask(x.shape, p, key=key), thinned.alpha_dropout(x, p, key=key)
    a, b = theory.alpha_constants(p)
    low = a * theory.ALPHA_PRIME + b
    sheet = Sheet(276, scale)
    pictures = [paint_standardized(x[0]), paint_mask(kept[0]), paint_standardized(y[0], kept[0])]
    blank = np.ones((1, 1, 3))
    notes = ["mean 0, variance 1", "of this key", f"dropped: aα′ + b = {low:.2f}".replace("-", "−"), ""]
    *_, left = sheet.row(40, 168, [*pictures, blank], ["x", "mask", "training", "values in training"], notes)
    plot = sheet.axes(left, 44, 168, 144)
    bins = np.arange(-2.5, 3.01, 0.25)
    plot.hist(y[kept], bins, color="#8c959f")
    plot.bar(low, (~kept).sum(), 0.25, color=DROPPED)
    plot.axhline(0, color=NOTE, linewidth=0.8)
    plot.set(xlim=(-2.5, 3), ylim=(0, None))
    for value in (-2, 0, 2):
        sheet.text(left + 168 * (value + 2.5) / 5.5, 203, f"{value}".replace("-", "−"), 12, NOTE, ha="center")
    moments = f"mean {y.mean():.2f}, variance {y.var():.2f}"
    sheet.text(left + 84, 226, moments.replace("-", "−"), 12, NOTE, ha="center")
    sheet.legend(_counted(kept, p, "elements"))
    return sheet


def _channels(scale: float, p: float, key: Key, function: Any, alpha: bool, dropped: str) -> Sheet:
    """Two samples of six feature maps, before and after, whole maps gone."""
    show = paint_standardized if alpha else paint
    x = np.stack([feature_maps(temple(38)), feature_maps(flower(38))])
    x = standardized(x) if alpha else x * (1 - p)  # so that survivors end at 1, the brightest there is
    shape = (*x.shape[:2], 1, 1)
    thin = function is thinned.thin_dropout
    kept = masks.features(x.shape, p, key) if thin else keep_mask(shape, p, key=key)
    kept, y = np.broadcast_to(kept, shape), function(x, p, key=key)
    sheet = Sheet(660, scale)
    for i, name in enumerate(("the temple", "the flower")):
        top = 62 + 306 * i
        sheet.text(MARGIN, top - 34, f"sample {i + 1}, {name}: its channels x, and in training", 13, NOTE)
        sheet.row(top, 114, [show(m) for m in x[i]], MAPS)
        after = [show(m, k) for m, k in zip(y[i], kept[i, :, 0], strict=True)]
        sheet.row(top + 122, 114, after)
    sheet.legend(_counted(kept, p, "channels"), dropped, None)
    return sheet


@drawing("spatial")
def draw_spatial(scale: float) -> Sheet:
    """Two samples with six feature maps each, before and after: whole maps are dropped, different ones in
    each sample, and the others are brighter."""
    return _channels(scale, 0.3, Key(12), thinned.spatial_dropout, False, "dropped: all of it 0")


@drawing("thin")
def draw_thin(scale: float) -> Sheet:
    """Two samples with six feature maps each, before and after: three of the maps are dropped in the one, the
    other three in the other, and the others are brighter."""
    return _channels(scale, 0.5, Key(3), thinned.thin_dropout, False, "dropped: not computed")


@drawing("feature-alpha")
def draw_feature_alpha(scale: float) -> Sheet:
    """Two samples with six feature maps each, before and after: whole maps are set to one value, different
    ones in each sample, and the others keep their pattern with less contrast."""
    p = 0.3
    a, b = theory.alpha_constants(p)
    low = f"{a * theory.ALPHA_PRIME + b:.2f}".replace("-", "−")
    text = f"dropped: all of it aα′ + b = {low}"
    return _channels(scale, p, Key(20), thinned.feature_alpha_dropout, True, text)


@drawing("drop-block")
def draw_drop_block(scale: float) -> Sheet:
    """Five feature maps of a photograph; below, squares are dropped from them, at other places in each map;
    below that, the same squares in all maps."""
    p, size, key = 0.25, 7, Key(3)
    x = 0.75 * feature_maps(temple(28))[None, [0, 2, 3, 4, 5]]
    sheet = Sheet(588, scale)
    sheet.text(MARGIN, 28, "x, five channels of 28 × 28", 13, NOTE)
    sheet.row(54, 140, list(map(paint, x[0])), [MAPS[i] for i in (0, 2, 3, 4, 5)])
    text = {True: "each channel has its own blocks (the default)", False: "the same blocks in all channels"}
    for i, per_channel in enumerate((True, False)):
        kept = masks.blocks(x.shape, masks.seeds(x.shape, p, size, key, per_channel=per_channel))[0]
        y = thinned.drop_block(x, p, size, key=key, per_channel=per_channel)[0]
        after = [paint(m, k) for m, k in zip(y, np.broadcast_to(kept, y.shape), strict=True)]
        top = 232 + 174 * i
        sheet.text(MARGIN, top - 10, f"per_channel={per_channel}: {text[per_channel]}", 13, NOTE)
        sheet.text(WIDTH - MARGIN, top - 10, f"{1 - kept.mean():.0%} dropped", 13, NOTE, ha="right")
        sheet.row(top, 140, after)
    sheet.legend(f"p = {p}, block_size = {size}: a share {p} is dropped in expectation", kept=None)
    return sheet


@drawing("drop-path")
def draw_drop_path(scale: float) -> Sheet:
    """Six photographs; the output of a residual branch for each, which finds edges, dropped for two whole
    samples; the sums, where those two samples are the photographs themselves."""
    p, key = 0.4, Key(6)
    crops = (("china.jpg", 18, 90, 228), ("china.jpg", 170, 430, 190), ("flower.jpg", 134, 226, 152))
    some = [temple(38), flower(38), *(photograph(name, 38, *where) for name, *where in crops)]
    x = 0.7 * np.stack([grey(light) for light in [*some, some[0][..., ::-1]]])
    branch = 0.5 * np.stack([edges(light).sum(0) for light in x])
    kept, y = keep_mask(len(x), p, key=key), thinned.drop_path(branch, p, key=key)
    sheet = Sheet(516, scale)
    sheet.text(MARGIN, 28, "x, six samples", 13, NOTE)
    sheet.row(38, 114, list(map(paint, x)))
    sheet.text(
        MARGIN, 180, "the branch F(x)/(1 − p), here the edges of x; whole samples are dropped", 13, NOTE
    )
    sheet.row(190, 114, [paint(m, k) for m, k in zip(y, kept, strict=True)])
    sheet.text(MARGIN, 332, "x + F(x)/(1 − p); where the branch is dropped (framed), x itself", 13, NOTE)
    sheet.row(344, 114, list(map(paint, x + y)), frames=list(~kept))
    sheet.legend(_counted(kept, p, "samples"), kept=None)
    return sheet


@drawing("drop-connect")
def draw_drop_connect(scale: float) -> Sheet:
    """A weight matrix as ten small pictures, one for each output; below, for two samples, the same matrix
    with half of its weights dropped: another half for each sample."""
    digits, p, key = load_digits(), 0.5, Key(0)
    x = digits.data / 16.0
    means = np.stack([x[digits.target == k].mean(0) for k in range(10)])
    weight = means - means.mean(0)  # (10, 64): how a class differs from all
    some = x[[3, 6]]
    kept = keep_mask((2, *weight.shape), p, key=key)
    y = thinned.drop_connect(some, weight, p=p, key=key)
    tiles = np.clip(0.5 + weight / 1.2, 0, 1).reshape(10, 8, 8) ** GAMMA
    blank = np.ones((8, 8, 3))
    sheet = Sheet(404, scale)
    sheet.text(
        MARGIN, 28, "W, (10, 64), which tells digits apart: the row of each output, drawn as 8 × 8", 13, NOTE
    )
    sheet.row(38, 56, [blank, *map(paint, tiles)], notes=["", *map(str, range(10))])
    for i in range(2):
        top = 154 + 120 * i
        sheet.text(MARGIN, top - 10, f"sample {i + 1}: x, the weights it sees, and its outputs y", 13, NOTE)
        masked = [paint(t, k) for t, k in zip(tiles, kept[i].reshape(10, 8, 8), strict=True)]
        notes = ["x", *(f"{value:.1f}".replace("-", "−") for value in y[i])]
        sheet.row(top, 56, [paint(some[i].reshape(8, 8) ** GAMMA), *masked], notes=notes)
    sheet.legend(_counted(kept, p, "weights"), kept=None)
    return sheet


def _four(n: int) -> Any:
    """(4, 3, n, n): two photographs, and each mirrored."""
    a, b = temple(n), flower(n)
    return np.stack([a, b, a[..., ::-1], b[..., ::-1]])


@drawing("cutout", size=24, spatial=(60, 60))
def draw_cutout(scale: float) -> Sheet:
    """Four photographs, and below the same four with a square covered, at another place in each; squares at
    the edge are clipped."""
    images, size, key = _four(60), 24, Key(5)
    kept = masks.holes(images.shape, size, 1, key)[:, 0]
    after = thinned.cutout(images, size, key=key)
    sheet = Sheet(460, scale)
    sheet.text(MARGIN, 28, "images", 13, NOTE)
    sheet.row(38, 180, list(map(paint, images)))
    sheet.row(232, 180, [paint(m, k) for m, k in zip(after, kept, strict=True)])
    shares = ", ".join(f"{1 - k.mean():.0%}" for k in kept)
    sheet.legend(f"size = {size} of 60: covered {shares}", "covered with fill, here shown in colour", None)
    return sheet


def _mixed(scale: float, pictures: Sequence[Any], titles: Sequence[str], label: Any, text: str) -> Sheet:
    """Four pictures, and the mixed label as a bar."""
    sheet = Sheet(300, scale)
    sheet.row(40, 180, pictures, titles)
    sheet.text(MARGIN, 252, "label", 13, NOTE)
    left, length = MARGIN + 50, WIDTH - 2 * MARGIN - 50
    cut = length * float(label[0])
    sheet.page.add_patch(Rectangle((left, 237), length, 22, facecolor=DROPPED, edgecolor="none"))
    sheet.page.add_patch(Rectangle((left, 237), cut, 22, facecolor=KEPT, edgecolor="none"))
    sheet.text(left + cut / 2, 253, f"temple {label[0]:.0%}", ha="center")
    sheet.text(left + (cut + length) / 2, 253, f"flower {label[1]:.0%}", colour="white", ha="center")
    sheet.legend(text, "from the partner", "its own")
    return sheet


def _pair(n: int, key: Key) -> tuple[Any, Any]:
    """The two photographs, and their labels as integers; the key must exchange them."""
    if permutation(key.fold_in("partner"), 2).tolist() != [1, 0]:
        raise ValueError(f"the key must make each of two images the other's partner, got {key}")
    return np.stack([temple(n), flower(n)]), np.array([0, 1])


def outlined(pixels: Any, kept: Any) -> Any:
    """The kept places that touch one that is not are drawn in the colour of what is dropped."""
    cut = np.pad(~kept, 1)
    near = cut[:-2, 1:-1] | cut[2:, 1:-1] | cut[1:-1, :-2] | cut[1:-1, 2:]
    return np.where((near & kept)[..., None], colour(DROPPED), pixels)


@drawing("cutmix", share=0.3, spatial=(60, 60))
def draw_cutmix(scale: float) -> Sheet:
    """A photograph of a temple; its partner, a flower; the mask, a box; the temple with the flower's pixels
    in the box. A bar below divides the label between the two by area."""
    key = Key(28)
    images, labels = _pair(60, key)
    after, mixed = thinned.cutmix(images, labels, key=key, classes=2)
    kept = (after[0] == images[0]).all(0)
    pictures = [paint(images[0]), paint(images[1]), paint_mask(kept), outlined(paint(after[0]), kept)]
    text = f"λ = {mixed[0, 0]:.2f}, the share outside the box"
    return _mixed(scale, pictures, ["image", "partner", "mask", "result"], mixed[0], text)


@drawing("attentive-cutmix", patches=6, grid=7)
def draw_attentive_cutmix(scale: float) -> Sheet:
    """A photograph of a temple; its partner, a flower; a grid of 7 by 7 cells, bright where the flower has
    contrast, the six brightest marked; the temple with the flower's pixels in those six cells. A bar below
    divides the label."""
    key, grid = Key(28), 7
    images, labels = _pair(56, key)
    blocks = np.stack([grey(m) for m in images]).reshape(2, grid, 8, grid, 8)
    attention = blocks.std((2, 4))
    after, mixed = thinned.attentive_cutmix(
        images, labels, attention, key=key, patches=6, grid=grid, classes=2
    )
    kept = masks.cells(attention[1:], 6, 56, 56)[0, 0]
    heat = np.kron(attention[1] / attention[1].max(), np.ones((8, 8)))
    rim = np.arange(56) % 8 % 7 == 0  # first and last place of a cell
    framed = ~kept & (rim[:, None] | rim)
    pictures = [
        paint(images[0]),
        paint(images[1]),
        paint(heat**GAMMA, ~framed),
        outlined(paint(after[0]), kept),
    ]
    titles = ["image", "partner", "its attention, 7 × 7", "result"]
    text = "patches = 6 of 49 cells; attention is here the contrast in a cell"
    return _mixed(scale, pictures, titles, mixed[0], text)


def plain(row: Row) -> Drawing:
    """The drawing of a method that drops units of x: two samples of six feature maps, before and after."""
    method, p = row.function, inspect.signature(row.function).parameters["p"].default

    def run(x: Any, key: Key) -> Any:
        return method(x, p, key=key, **row.options)

    def draw(scale: float) -> Sheet:
        x = np.stack([feature_maps(temple(38)), feature_maps(flower(38))])
        for seed in range(100):  # a key by which some units are dropped and some kept
            y = run(x, Key(seed))
            kept = y != run(2 * x + 1, Key(seed))  # a place that is dropped does not depend on x
            if kept.any() and not kept.all():
                break
        brightest = max(1.0, float(y.max()))
        sheet = Sheet(660, scale)
        for i, name in enumerate(("the temple", "the flower")):
            top = 62 + 306 * i
            sheet.text(MARGIN, top - 34, f"sample {i + 1}, {name}: its channels x, and in training", 13, NOTE)
            sheet.row(top, 114, [paint(m / brightest) for m in x[i]], MAPS)
            sheet.row(top + 122, 114, [paint(m / brightest, k) for m, k in zip(y[i], kept[i], strict=True)])
        sheet.legend(_counted(kept, p, "places"), kept=None)
        return sheet

    alt = f"Two samples with six feature maps each, before and after. {row.title} {row.summary}."
    return Drawing(draw, alt, {})


def drawing_of(row: Row) -> Drawing:
    """The drawing of a row: its own, or the plain one."""
    return DRAWINGS.get(row.name) or plain(row)


# The page -------------------------------------------------------------------------------------------------

LINKS = {
    "PMLR 28(3):1058-1066": "https://proceedings.mlr.press/v28/wan13.html",
}

TOP = """\
# The methods

<!-- Written by examples/draw_methods.py from the table in src/thinned/methods.py: change those. -->

One section a method: what it drops, the call, a picture of it at work on a real image, its source. Where
a paper leaves a case open, or a known implementation does something else, [what our rule does and
why](methods-notes.md). In the calls `x` and `images` are NumPy arrays or torch tensors, and `key` is a
`thinned.Key(seed)`.

In all pictures, coloured places are dropped or replaced, and the rest is the image. A dropped unit is 0
unless the picture says otherwise. Survivors look brighter if they are divided by 1 − p. If there are few
units, the keys are chosen so that some are dropped and some kept.

## What p means

`p` is the probability that a unit is **dropped**, as in PyTorch, here and in all calls. Elsewhere:

| where | its symbol | here |
| --- | --- | --- |
| Srivastava et al. 2014 | p, the probability of retaining | p = 1 − theirs |
| … Gaussian dropout, section 10 | variance (1 − p)/p | variance p/(1 − p) |
| Wan et al. 2013 (DropConnect) | p, the probability of keeping a weight | p = 1 − theirs |
| Huang et al. 2016 (stochastic depth) | p, the survival probability | p = 1 − theirs |
| Klambauer et al. 2017 (alpha dropout) | q, the probability of keeping; 1 − q, the dropout rate | p = 1 − q |
| Ghiasi et al. 2018 (DropBlock) | keep_prob | p = 1 − keep_prob |
| Yun et al. 2019 (CutMix) | λ, the share that stays | the same λ |
| torch.nn, torchvision, timm, Keras | p, drop_prob, rate | the same p |
| TensorFlow 1 | keep_prob | p = 1 − keep_prob |

A unit is dropped with probability p, exact to 2⁻³², on every backend. DropBlock drops a share p of the map
in expectation, edges and overlaps included. Thin drops a unit with probability p, but its units and samples
are not independent: p·n of n units are dropped, to within a panel.

## All of them

"""


DRAWN = r"r \sim \text{Bernoulli}(1-p)"
EQUATIONS = {  # what training does; r, R and g are drawn anew for each unit
    "dropout": rf"y_i = \frac{{r_i\,x_i}}{{1-p}}, \qquad {DRAWN}",
    "dropout-original": rf"y_i = r_i\,x_i, \qquad {DRAWN}",
    "thin": r"h = f(x\,W_1[K]^\top + b_1[K]), \qquad y = \frac{h\,W_2[:,K]^\top}{1-p} + b_2",
    "gaussian": r"y_i = x_i\,g_i, \qquad g \sim \mathcal{N}\left(1, \frac{p}{1-p}\right)",
    "alpha": rf"y_i = a\,(r_i\,x_i + (1-r_i)\,\alpha') + b, \qquad {DRAWN}",
    "feature-alpha": rf"y_{{n,c}} = a\,(r_{{n,c}}\,x_{{n,c}} + (1-r_{{n,c}})\,\alpha') + b, \qquad {DRAWN}",
    "spatial": rf"y_{{n,c}} = \frac{{r_{{n,c}}\,x_{{n,c}}}}{{1-p}}, \qquad {DRAWN}",
    "drop-block": r"y = x\,r\,\frac{\text{places}}{\text{kept places}}, \qquad E[\text{dropped share}] = p",
    "drop-path": rf"y_n = \frac{{r_n\,x_n}}{{1-p}}, \qquad {DRAWN}",
    "drop-connect": r"y_n = \frac{(R_n * W)\,x_n}{1-p} + b, \qquad R \sim \text{Bernoulli}(1-p)",
    "cutmix": r"y = \lambda\,y_A + (1-\lambda)\,y_B, \qquad \lambda \sim \text{Beta}(\alpha, \alpha)",
}


def page(folder: str) -> str:
    """The page, with the pictures in ``folder``."""
    lines = ["| method | unit | input | on the command line |", "| --- | --- | --- | --- |"]
    for row in METHODS.values():
        anchor = re.sub(r"[^\w -]", "", row.title.lower()).replace(" ", "-")
        lines.append(f"| [{row.title}](#{anchor}) | {row.unit} | {_layout(row)} | `{row.name}` |")
    return TOP + "\n".join(lines) + "\n" + "".join(_section(row, folder) for row in METHODS.values())


def _layout(row: Row) -> str:
    return "any shape" if row.dims == "any" else row.dims.replace("*", r"\*")


def _section(row: Row, folder: str) -> str:
    """Heading, unit, summary, call, picture, theory, source."""
    also = ""
    if isinstance(row.method, Method):
        module, layer = MODULES[row.method].__name__, LAYERS[row.method].__name__
        also = f" As a layer: `thinned.nn.{module}`, `thinned.scratch.{layer}`."
    summary = row.summary[0].upper() + row.summary[1:]
    equation = f"\n$$\n{EQUATIONS[row.name]}\n$$\n" if row.name in EQUATIONS else ""
    return f"""
## {row.title}

{summary}. Unit: {row.unit}. Input: {_layout(row)}.
{equation}
```python
{_call(row)}
```

<img src="{folder}/{row.name}.png" width="{WIDTH}" alt="{drawing_of(row).alt}">

{_theory(row)}{also}

Source: {_linked(row.source)}.
"""


def _call(row: Row) -> str:
    """The call with its defaults, by the function's own signature."""
    words = []
    for name, argument in inspect.signature(row.function).parameters.items():
        default = row.options.get(name, argument.default)
        if name == "key":
            words.append("key=key")
        elif default is argument.empty:
            words.append(name)
        elif default is not None and name not in ("sample_offset", "training"):
            words.append(f'{name}="{default}"' if isinstance(default, str) else f"{name}={default}")
    images = tuple(inspect.signature(row.function).parameters)[:2]
    result = {("images", "labels"): "images, labels"}.get(images, "images" if images[0] == "images" else "y")
    return f"{result} = thinned.{row.function.__name__}({', '.join(words)})"


def _theory(row: Row) -> str:
    """What `thinned.theory` says of it."""
    if row.share is not None:
        given = ", ".join(f"{name} = {value}" for name, value in DRAWINGS[row.name].share.items())
        share = row.share(**DRAWINGS[row.name].share)
        text = f"Expected share of the image that is replaced: {share:.3f} for {given}"
        return f"{text} (`theory.{row.share.__name__}`)."
    if row.moments is None:
        return "No closed form."
    ones = {
        "block": "a 1, on a map of many blocks",
        "weight": "a weight of 1",
        "feature": "a 1, of many units",
    }.get(row.unit, "a 1")
    text = []
    for p in (0.1, 0.5):
        mean, variance = row.moments(p)
        text.append(f"mean {mean:.3g} and variance {variance:.3g} at p = {p}")
    return f"What training makes of {ones}: {', '.join(text)} (`theory.{row.moments.__name__}`)."


def _linked(source: str) -> str:
    """A source with its arXiv, DOI, JMLR or PMLR as links."""
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    source = re.sub(r"doi:(\S+)", r"[doi:\1](https://doi.org/\1)", source)
    if found := re.match(r"(\w+).*? \d\d(\d\d), (JMLR (\d+):[\d-]+)", source):
        author, year, where, volume = found.groups()
        page = f"https://jmlr.org/papers/v{volume}/{author.lower()}{year}a.html"
        source = source.replace(where, f"[{where}]({page})")
    for name, address in LINKS.items():
        source = source.replace(name, f"[{name}]({address})")
    return source


def check(rows: Mapping[str, Row]) -> None:
    """Each row has a drawing, each drawing a row."""
    for name, row in rows.items():
        if name not in DRAWINGS and row.unit in ("weight", "region"):
            raise SystemExit(f"{name} has no drawing: add a function under @drawing({name!r}) to {__file__}")
    for name in DRAWINGS:
        if name not in rows:
            raise SystemExit(f"{name} is drawn, but no row of thinned.methods.METHODS: {', '.join(rows)}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One picture a method, and the page that shows them.")
    parser.add_argument("folder", type=Path, help="where the pictures go, such as docs/images/methods")
    parser.add_argument("--page", type=Path, help="default: methods.md, two folders above the pictures")
    parser.add_argument("--scale", type=float, default=2.0, help="pixels of the file per pixel of the page")
    chosen = parser.parse_args(arguments)
    check(METHODS)
    target = chosen.page or chosen.folder.resolve().parent.parent / "methods.md"
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what the user's matplotlibrc says
        for row in METHODS.values():
            drawing_of(row).draw(chosen.scale).save(chosen.folder / f"{row.name}.png")
    folder = os.path.relpath(chosen.folder.resolve(), target.resolve().parent)
    target.write_text(page(Path(folder).as_posix()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
