"""The benchmark runs, tells the same in its table and its JSON, and refuses unknown names. No timings."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from thinned.lab import bench
from thinned.lab.errors import LabError


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bench, "SIZES", {"1K": 1 << 10})
    monkeypatch.setattr(bench, "RATES", (0.5,))
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "ROUNDS", 3)


def test_every_case_is_measured(short, capsys):
    bench.run(json=True)
    told = json.loads(capsys.readouterr().out)
    assert {(r["work"], r["size"], r["p"]) for r in told["results"]} == {
        ("dropout forward", "1K", 0.5),
        ("dropout forward + backward", "1K", 0.5),
    }
    for r in told["results"]:
        assert 0 < r["low"] <= r["microseconds"] <= r["high"]
        assert r["copy"] > 0
        assert r["torch"] > 0


def test_the_table_is_for_readers(short, capsys):
    bench.run("dropout")
    told = capsys.readouterr().out
    assert "dropout forward + backward, float32, 1 thread" in told
    assert "1K" in told


def test_an_unknown_name_is_refused():
    with pytest.raises(LabError, match="no benchmark named 'cats'; there is: dropout"):
        bench.run("cats")
