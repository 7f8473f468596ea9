"""The report: well-formed, self-contained, safe with untrusted text, right in its figures, small, atomic."""

from __future__ import annotations

import base64
import itertools
import math
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")

from helpers.pages import page, row, run, usual

from thinned.lab.reporting import curves
from thinned.lab.reporting import html as report
from thinned.lab.reporting.html import render
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.wording import finding

VOID = {"meta", "link", "br", "img", "hr"}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Parsed(HTMLParser):
    """Every element in order, with the path above it and its text; balanced tags or an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.stack)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes another element, line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _, _ in self.elements)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs, _ in self.elements if name == tag]


def outer_svgs(text: str) -> list[str]:
    """Each outermost <svg>…</svg> of the page."""
    found, depth, start = [], 0, 0
    for tag in re.finditer(r"<svg\b|</svg>", text):
        if tag[0] == "</svg>":
            depth -= 1
            if depth == 0:
                found.append(text[start : tag.end()])
        else:
            start = tag.start() if depth == 0 else start
            depth += 1
    return found


def check(text: str) -> Parsed:
    """What holds for every report; returns the parsed page."""
    parsed = Parsed(text)
    assert [above for tag, _, above in parsed.elements if tag == "title" and "svg" not in above] == [
        ("html", "head")
    ]
    assert parsed.count("h1") == parsed.count("main") == 1
    check_nothing_is_loaded(text, parsed)
    ids = [a["id"] for _, a, _ in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = [str(a.get("aria-labelledby") or "") for _, a, _ in parsed.elements]
    assert set(" ".join(wanted).split()) <= set(ids)
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), levels
    for root in map(ET.fromstring, outer_svgs(text)):
        named = root.get("aria-label") or root.get("aria-labelledby")
        assert root.get("aria-hidden") or (root.get("role") == "img" and named)
        for element in root.iter():
            for name, value in element.attrib.items():
                assert name == "aria-label" or not re.search(r"\b(nan|inf|None)\b", value), ET.tostring(
                    element
                )
    assert len(text.encode()) < 500_000
    return parsed


def check_nothing_is_loaded(text: str, parsed: Parsed) -> None:
    assert parsed.count("script") == 0
    for tag, attrs, _ in parsed.elements:
        for name, value in attrs.items():
            assert not name.startswith("on"), f"a handler: {tag} {name}"
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                assert (value or "").startswith(("data:", "#")), f"{tag} {name}={value}"
    assert not re.search(r"@import|url\(|https?://", text)
    policy = [a for a in parsed.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


# --- structure ---


def test_holds_everything_in_order(tmp_path: Path) -> None:
    reference = Reference(["run", "error"], [["theirs", "1.60"], ["ours", "1.58"]], "As printed.")
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    extras = [Figure("One", "An svg.", "A drawing", svg=svg), Figure("Two", "A png.", "A photo", png=PNG)]
    full = usual(references=[reference], extras=extras, notes=["The seed differs."], rebuild="runs/a b")
    path = render(tmp_path / "new" / "folder", full)
    assert path == tmp_path / "new" / "folder" / "report.html"
    parsed = check(path.read_text(encoding="utf-8"))
    wanted = [
        "A title", finding(full.rows)[:20], "A lead.", "Training and test error", "In numbers", "Over epochs",
        "Beside the source", "theirs", "As printed.", "The seed differs.", "A photo", "Settings", "digits",
        "Machine", "processor", "thinned compare", "thinned report 'runs/a b'",
    ]  # fmt: skip
    words = parsed.text + ""
    for attrs in parsed.attributes("img"):
        assert attrs["alt"] in ("A drawing", "A photo")
    places = [words.find(w) for w in wanted if w != "A photo"]
    assert -1 not in places, dict(zip(wanted, places, strict=False))
    assert places == sorted(places)


def test_table_is_complete() -> None:
    parsed = check(report.html(usual()))
    heads = [a for a in parsed.attributes("th") if a.get("scope") == "col"]
    assert len(heads) == 6
    assert parsed.count("td") == 2 * 5
    assert all(a.get("scope") for a in parsed.attributes("th"))
    text = parsed.text.replace("\N{NO-BREAK SPACE}", " ")
    sd = 100 * math.sqrt(((0.040 - 0.041) ** 2 + (0.042 - 0.041) ** 2) / 1)
    assert f"4.10 ± {sd:.2f}" in text
    assert "3.00 ±" in text  # the gap: 4.1 - 1.1
    assert "12,345" in text
    assert "0.500" in text


def test_lowest_is_bold_and_ties_are_too() -> None:
    html = report.html(page([row("a", [0.04]), row("b", [0.04001]), row("c", [0.05])], []))
    assert len(re.findall(r'<tr class="lowest">', html)) == 2
    assert "lowest" not in re.sub(
        r"<style>.*?</style>", "", report.html(page([row("a", [0.04])], [])), flags=re.S
    )


def test_same_page_same_bytes(tmp_path: Path) -> None:
    first = render(tmp_path, usual()).read_bytes()
    assert render(tmp_path, usual()).read_bytes() == first


def test_untrusted_text_stays_text() -> None:
    bad = "<script>alert('x')</script>\"><img src=http://evil/ onerror=x>{{ 7*7 }}"
    evil = page(
        [row("none", [0.05, 0.06]), row(bad, [0.04, 0.05])],
        [run(bad, 0, [0.5, 0.04]), run(bad, 1, [0.5, 0.05])],
        title=bad, lead=bad, command=bad, settings={bad: bad}, machine={bad: bad}, rebuild=bad, notes=[bad],
        references=[Reference([bad], [[bad]], bad)], extras=[Figure(bad, bad, bad, png=PNG)], baseline="none",
    )  # fmt: skip
    text = report.html(evil)
    parsed = Parsed(text)
    assert parsed.count("script") == 0
    assert parsed.count("img") == 1
    assert "{{ 7*7 }}" in parsed.text
    assert all(not name.startswith("on") for _, attrs, _ in parsed.elements for name in attrs)
    assert text.count(bad) == 0


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = render(tmp_path, usual())
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        render(tmp_path, usual(title="Another"))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# --- edge cases ---


def test_one_seed_has_no_plus_minus() -> None:
    text = report.html(page([row("none", [0.05]), row("dropout", [0.04])], [run("none", 0, [0.3, 0.05])]))
    assert "±" not in check(text).text
    assert "1 seed" in text


@pytest.mark.parametrize("epochs", [1, 2])
def test_one_method_few_epochs(epochs: int) -> None:
    parsed = check(
        report.html(
            page([row("dropout", [0.04, 0.05])], [run("dropout", s, [0.04] * epochs) for s in (0, 1)])
        )
    )
    assert "Over epochs" in parsed.text


def test_no_series_and_no_finished_run() -> None:
    assert "Over epochs" not in check(report.html(page([row("dropout", [0.04])], []))).text
    text = report.html(
        page([row("none", [math.nan], [math.nan], ("diverged",))], [run("none", 0, [math.nan] * 3)])
    )
    parsed = Parsed(text)
    assert "No run finished: none diverged." in parsed.text
    assert parsed.count("figure") == 0


def test_long_runs_stay_small() -> None:
    rng = np.random.default_rng(0)
    series = []
    for label in (labels := [f"method {i}" for i in range(12)]):
        for seed in range(5):
            errors = (0.1 + 0.5 * np.exp(-np.arange(10_001) / 1000)) * rng.uniform(0.8, 1.2, 10_001)
            series.append(run(label, seed, errors.tolist()))
    text = report.html(page([row(label, [0.1] * 5) for label in labels], series))
    check(text)
    assert "A point is the mean of" in text


def test_many_stray_seeds_stay_small() -> None:
    labels = [f"method {i}" for i in range(12)]
    rows = [row(label, [math.nan] * 20, status=("diverged",) * 20) for label in labels]
    errors = np.linspace(0.9, 0.5, 2000).tolist()
    series = [
        run(label, s, errors[: 1000 + s] + [math.nan] * (1000 - s)) for label in labels for s in range(20)
    ]
    assert len(report.html(page(rows, series)).encode()) < 500_000


def test_diverged_and_stopped_seeds_are_drawn_and_said() -> None:
    rows = [row("none", [0.05, math.nan, 0.2], status=("done", "diverged", "stopped"))]
    series = [
        run("none", 0, [0.5, 0.2, 0.1, 0.05]),
        run("none", 1, [0.5, 0.4, 1e30, math.nan]),
        run("none", 2, [0.5, 0.3]),
    ]
    text = report.html(page(rows, series))
    parsed = check(text)
    assert "1 of 3 seeds diverged, 1 of 3 seeds stopped" in parsed.text
    assert "seed 1: no further after epoch 3" in text
    assert "seed 2: no further after epoch 2" in text
    assert "a seed that diverged or was cut off" in parsed.text


def test_zero_error_on_a_logarithmic_axis() -> None:
    series = [
        run("none", 0, [0.5, 0.1, 0.02], [0.4, 0.01, 0.0]),
        run("dropout", 0, [0.5, 0.1, 0.01], [0.3, 0.1, 0.0]),
    ]
    text = report.html(page([row("none", [0.02], [0.0]), row("dropout", [0.01], [0.0])], series))
    assert "(logarithmic)" in check(text).text
    assert "&lt; 1<" in text
    check(
        report.html(page([row("none", [0.0, 0.0], [0.0, 0.0])], [run("none", s, [0.0, 0.0]) for s in (0, 1)]))
    )


def test_long_names_and_twelve_methods() -> None:
    labels = ["none", *(f"a method {i} with a name that is far too long for any picture" for i in range(11))]
    rows = [row(label, [0.02 + 0.001 * i]) for i, label in enumerate(labels)]
    text = report.html(page(rows, [run(r.label, 0, [0.5, r.test_error[0]]) for r in rows]))
    assert "…" not in check(text).text  # so many names are in the legend
    classes = re.findall(r'class="g-name (c\d)"', text)
    assert classes == ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c1", "c2", "c3", "c4"]
    check(
        report.html(
            page([row(f"m{i}", [0.1]) for i in range(30)], [run(f"m{i}", 0, [0.5, 0.1]) for i in range(30)])
        )
    )


def test_one_colour_a_method_everywhere() -> None:
    text = report.html(usual(baseline="dropout"))
    assert re.findall(r'class="g-name (c\d)"', text) == ["c1", "c0"]
    assert set(re.findall(r'<g class="(c\d)" data-m="0">\n<title>(\w+)', text)) == {("c0", "dropout")}
    style = re.search(r"<style>.*?</style>", text, re.S)
    assert style
    for scheme in (r":root \{.*?\}", r"prefers-color-scheme: dark.*?\}"):
        block = re.search(scheme, style[0], re.S)
        assert block
        colours = re.findall(r"--c\d: (#\w{6})", block[0])
        assert len(set(colours)) == curves.COLOURS + 1
