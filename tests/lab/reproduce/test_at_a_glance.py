"""The printed errors beside ours at full size."""

import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned.lab import experiments
from thinned.lab.reproduce import at_a_glance


def row(system, mean, *, budget="paper", seeds=(0, 1), sd=0.1):
    error = None if mean is None else {"mean": mean, "sd": sd if len(seeds) > 1 else None}
    time = {"mean": 3700.0, "sd": None}
    return {"system": system, "budget": budget, "test_error": error, "seeds": list(seeds), "seconds": time}


@pytest.fixture
def found():
    """Two systems of DropConnect are run at full size, one at quick, one has lost all its seeds."""
    own = [
        row("no drop", 1.5),
        row("dropout", 1.29, seeds=(0,)),
        row("DropConnect", 0.5, budget="quick"),
    ]
    other = [row("A, standard", None)]
    return at_a_glance.pairs(lambda name: {"dropconnect-mnist": own, "cifar10-mlp": other}.get(name, []))


def test_every_printed_error_is_there(found):
    printed = [
        (name, target.label, target.theirs)
        for name in experiments.names()
        for target in experiments.load(name).targets
        if target.theirs is not None
    ]
    assert [(pair.experiment, pair.system, pair.printed) for pair in found] == printed
    assert len(printed) > 15


def test_only_full_size_counts(found):
    lines = {line.split(" | ")[1]: line for line in at_a_glance.table(found).splitlines()}
    assert (
        lines["no drop"]
        == "| [dropconnect-mnist](#dropconnect-mnist) | no drop | 1.62 | 1.50 ± 0.10 | 2 | 62 min |"
    )
    assert lines["dropout"].endswith("| 1.28 | 1.29 | 1 | 62 min |")
    assert lines["DropConnect"].endswith("| 1.20 | not run |  |  |")
    assert lines["A, standard"].endswith("| not run |  |  |")
    assert "2 of them have been run at full size; 1 of these" in at_a_glance.sentence(found)


def test_the_picture_has_a_dot_for_each_system_that_is_run(found):
    picture = at_a_glance.picture(found)
    root = ET.fromstring(picture.svg)
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == 2
    assert float(dots[0].get("cx")) < float(dots[1].get("cx"))  # 1.50/1.62 < 1.29/1.28
    assert all(pair.system in picture.alt for pair in found)
    assert "1.62 → 1.50" in picture.svg
    assert "1.20, not run" in picture.svg
    assert "nan" not in picture.svg
