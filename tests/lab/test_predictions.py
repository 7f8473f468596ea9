"""`thinned predict`: rows of a new table, or new images, in; predictions out."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from helpers.commands import call  # noqa: E402

import thinned  # noqa: E402


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


TRAINED = ["--hidden", "8", "--epochs", "30", "--seeds", "1", "--methods", "dropout", "--p", "0.2"]


@pytest.fixture
def pictures(in_tmp):
    """Light and dark images in a folder a class, and a comparison of them."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for name, level in (("dark", 40), ("light", 200)):
        (in_tmp / "shades" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(level - 30, level + 30, (6, 5), np.uint8)
            Image.fromarray(pixels).save(in_tmp / "shades" / name / f"{i:02}.png")
    assert call("compare", "--data", "shades", "--out", "out", *TRAINED).exit_code == 0
    return in_tmp


def test_images_of_a_folder(pictures):
    from PIL import Image

    result = call("predict", "out", "--data", "shades")
    assert result.exit_code == 0, result.output
    found = rows(result.stdout)
    assert [row["file"] for row in found] == [f"{k}/{i:02}.png" for k in ("dark", "light") for i in range(20)]
    assert all(row["file"].startswith(row["prediction"]) for row in found)
    assert all(float(row["deviation of dark"]) >= 0 for row in found)
    one = call("predict", "out", "--data", "shades/light/03.png")
    (row,) = rows(one.stdout)
    assert (row["file"], row["prediction"]) == ("03.png", "light")
    Image.new("RGB", (60, 60), "white").save(pictures / "large.png")
    large = call("predict", "out", "--data", "large.png")
    assert rows(large.stdout)[0]["prediction"] == "light"
    remark = "images were resized to 5 × 6 pixels, as in training; colours became grey, as in training"
    assert remark in large.stderr


def test_images_of_an_array(pictures):
    from PIL import Image

    paths = sorted((pictures / "shades").rglob("*.png"))
    x = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.savez("new.npz", x=x)
    np.savez("both.npz", x_train=x, x_test=x[:3])
    folder = rows(call("predict", "out", "--data", "shades").stdout)
    found = rows(call("predict", "out", "--data", "new.npz").stdout)
    assert found == [{name: cell for name, cell in row.items() if name != "file"} for row in folder]
    both = call("predict", "out", "--data", "both.npz")
    assert "both.npz: x_test was read" in both.stderr
    assert rows(both.stdout) == found[:3]
    (run,) = pictures.glob("out/*/model.npz")
    assert thinned.load(run).predict(x).tolist() == [row["prediction"] for row in found]


def test_a_remark_where_there_is_no_dropout(pictures):
    assert call("compare", "--data", "shades", "--out", "plain", *TRAINED, "--methods", "none").exit_code == 0
    result = call("predict", "plain", "--data", "shades")
    assert "no error bars: this network was trained without dropout" in result.stderr
    assert "deviation of dark" not in rows(result.stdout)[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("none", "none: no such file or folder; correct the path"),
        ("empty", "empty: no images; give a folder with files such as .png, .jpg, .jpeg"),
        ("words.png", "words.png: no image that is known here; replace or remove it"),
        ("t.csv", "data must be a .npz file, an image or a folder of images, as the run reads, got t.csv"),
        ("floats.npz", "floats.npz: examples must be uint8, as in training, got float64"),
        ("named.npz", "named.npz: the examples must be an array x, got images"),
        ("nan.npz", "nan.npz: x: row 0, column (0, 1) is nan; fill in or remove such examples"),
    ],
)
def test_bad_images(pictures, data, message):
    Path("empty").mkdir()
    Path("words.png").write_text("no image")
    Path("t.csv").write_text("a\n1\n")
    np.savez("floats.npz", x=np.zeros((2, 6, 5)))
    np.savez("named.npz", images=np.zeros((2, 6, 5), np.uint8))
    np.savez("nan.npz", x=np.array([[[0, np.nan]]]))
    result = call("predict", "out", "--data", data, "--out", "p.csv")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"thinned: {message}"]
    assert not Path("p.csv").exists()


def test_images_where_the_network_reads_numbers(in_tmp):
    np.savez("t.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=np.arange(40) % 2)
    assert call("compare", "--data", "t.npz", "--out", "out", *TRAINED).exit_code == 0
    Path("shades").mkdir()
    result = call("predict", "out", "--data", "shades")
    assert "shades: the network reads arrays of 3 numbers; give them as x in a .npz file" in result.stderr
