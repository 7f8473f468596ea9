"""`thinned predict`: rows of a new table in, predictions out."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from helpers.commands import call  # noqa: E402


@pytest.fixture
def trained(in_tmp):
    """A comparison of a table, and a folder for new ones."""
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 2
    frame = pd.DataFrame(
        {"kind": np.where(kind, "yes", "no"), "a": kind + rng.normal(size=90), "b": kind * 9.5}
    )
    frame.to_csv("t.csv", index=False)
    options = ["--data", "t.csv", "--hidden", "4", "--epochs", "3", "--seeds", "1", "--methods", "dropout"]
    assert call("compare", "--label", "kind", "--out", "out", *options).exit_code == 0
    assert call("compare", "--label", "a", "--out", "numbers", *options).exit_code == 0
    (in_tmp / "new.csv").write_text("more,b,a\n1,9.5,1.2\n2,0,\n")
    return in_tmp


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_classes(trained):
    result = call("predict", "out", "--data", "new.csv", "--samples", 50)
    assert result.exit_code == 0, result.output
    found = rows(result.stdout)
    assert len(found) == 2
    names = ["probability of no", "deviation of no", "probability of yes", "deviation of yes"]
    assert list(found[0]) == ["prediction", *names]
    for row in found:
        p, std, q, _ = (float(row[name]) for name in names)
        assert abs(p + q - 1) < 1e-5
        assert 0 < std < 0.5
        assert row["prediction"] == ("no" if p > q else "yes")
    assert call("predict", "out", "--data", "new.csv", "--samples", 50).stdout == result.stdout
    as_json = json.loads(call("predict", "out", "--data", "new.csv", "--samples", 50, "--json").stdout)
    assert [row["prediction"] for row in as_json] == [row["prediction"] for row in found]
    written = call("predict", "out", "--data", "new.csv", "--samples", 50, "--out", "p.csv")
    assert (trained / "p.csv").read_text() == result.stdout
    assert written.stdout.startswith("2 predictions: ")


def test_numbers(trained):
    result = call("predict", "numbers", "--data", "t.csv")
    assert "column 'a', the label, is not read" in result.stderr
    for row in rows(result.stdout):
        assert float(row["5 %"]) < float(row["95 %"])
        assert float(row["deviation"]) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "new.csv: columns 'b' are missing; the model reads 'a', 'b', got 'a', 'c'"),
        ("a,b\n1,many\n", "new.csv: column 'b' must hold numbers, as in training, got 'many'"),
        ("a,b\n", "new.csv: no rows"),
    ],
)
def test_bad_tables(trained, text, message):
    (trained / "new.csv").write_text(text)
    result = call("predict", "out", "--data", "new.csv", "--out", "p.csv")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"thinned: {message}"]
    assert not (trained / "p.csv").exists()


def test_bad_runs(trained):
    for run, data, message in (
        ("nothing", "new.csv", "nothing/model.npz: no such file; give the folder of a run"),
        ("out", "none.csv", "none.csv: no such file; correct the path"),
        ("out", "new.npz", "data must be a file ending in .csv, .tsv"),
    ):
        result = call("predict", run, "--data", data)
        assert result.exit_code == 1
        assert message in result.stderr
    for path in trained.glob("out/*/model.npz"):
        path.unlink()
    assert (
        "none of its runs keeps a network for new data" in call("predict", "out", "--data", "new.csv").stderr
    )
    shutil.rmtree("out")


def test_one_of_several_comparisons_must_be_named(trained):
    options = ["--data", "t.csv", "--hidden", "4", "--epochs", "3", "--seeds", "1", "--methods", "none"]
    assert call("compare", "--label", "kind", "--out", "out", *options).exit_code == 0
    result = call("predict", "out", "--data", "new.csv")
    assert result.exit_code == 1
    assert "out: several comparisons; give one of out/dropout-" in result.stderr
    (named,) = (trained / "out").glob("none-*/page.json")
    assert call("predict", str(named.parent), "--data", "new.csv").exit_code == 0
