"""How results are shown: figures with units, tables for a terminal."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from thinned.lab.bench.harness import show
from thinned.lab.bench.harness.measure import Case, contest


def test_figures_read_well():
    seconds = [show.quantity(s, "s") for s in (0.0, 4.5e-10, 3.35e-5, 0.1587, 1.206)]
    assert seconds == ["0 ps", "450 ps", "33.5 µs", "159 ms", "1.21 s"]
    assert [show.quantity(b, "B") for b in (24, 1500, 411e6)] == ["24 B", "1.50 kB", "411 MB"]
    assert [show.times(r) for r in (0.0, 1.0, 1.123, 18.19, 1 / 48.6, 0.025)] == [
        "0",
        "1",
        "1.12",
        "18.2",
        "1/48.6",
        "1/40",
    ]


def test_the_terminal_gets_tables(capsys):
    from rich.console import Console

    works = {"ours": lambda: 10.0, "floor": lambda: 5.0}
    result = contest(Case("sizes", "a row", "ours", works, {"floor": 2.0}, unit="B"))
    show.to_terminal(Console(width=140), [result], {"processor": "any", "cores": 2})
    shown = capsys.readouterr().out
    for text in ("processor any, cores 2", "sizes", "÷ floor", "floor ≤ 2: met"):
        assert text in shown
