"""A hundred malformed files: one clear line each, and nothing is written."""

import gzip
import io
import json

import numpy as np
import pytest
from helpers.commands import call

pd = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
GOOD = "a,b,y\n" + "".join(f"{i / 7:.3f},{i % 5},{'yes' if i % 2 else 'no'}\n" for i in range(40))
X, Y = RNG.normal(size=(40, 3)), np.arange(40) % 2


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parquet(frame):
    pytest.importorskip("pyarrow")
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def rows(first, *others):
    return "\n".join([first, *others]) + "\n"


def many(line, n=40):
    return GOOD.split("\n")[0] + "\n" + "".join(line(i) + "\n" for i in range(n))


def lying(npz_bytes):
    """A header that claims more numbers than there are."""
    return npz_bytes.replace(b"(40, 3)", b"(90, 3)", 1)


ARFF = "@relation r\n@attribute a numeric\n@attribute y {yes,no}\n@data\n"
PACKED = gzip.compress(GOOD.encode(), mtime=0)
ARRAYS = npz(x=X, y=Y)
TEXT = {
    "empty.csv": "",
    "blank.csv": "\n\n\n",
    "mark.csv": "\ufeff",
    "names.csv": "a,b,y\n",
    "one row.csv": "a,b,y\n1,2,yes\n",
    "short row.csv": GOOD + "1,2\n",
    "short first row.csv": rows("a,b,y", "1,2", "1,2,yes", "1,2,no", "1,2,yes"),
    "long row.csv": GOOD + "1,2,yes,9,9\n",
    "open quote.csv": GOOD + '1,"2,yes\n3,4,no\n',
    "other label.csv": GOOD.replace("a,b,y", "a,b,z"),
    "two labels.csv": GOOD.replace("a,b,y", "y,b,y"),
    "numbers first.csv": GOOD.partition("\n")[2].replace("yes", "1").replace("no", "0"),
    "one class.csv": GOOD.replace("no", "yes"),
    "no labels.csv": many(lambda i: f"{i},{i % 3},"),
    "half labels.csv": many(lambda i: f"{i},{i % 3},{'yes' if i % 2 else ''}"),
    "each its own.csv": many(lambda i: f"{i * 1.5},{i % 3},name{i}"),
    "all classes once.csv": many(lambda i: f"{i * 1.5},{i % 3},name{i}", 6),
    "label alone.csv": "y\n" + "yes\nno\n" * 20,
    "constants.csv": many(lambda i: f"1,x,{'yes' if i % 2 else 'no'}"),
    "row numbers.csv": "a,b,y\n" + "".join(f"{i},{i + 1},{'yes' if i % 2 else 'no'}\n" for i in range(40)),
    "texts.csv": many(lambda i: f"it was the day number {i},,{'yes' if i % 2 else 'no'}"),
    "huge.csv": GOOD + "1e200,2,yes\n",
    "half huge.tsv": GOOD.replace(",", "\t") + "-1e300\t2\tyes\n",
    "empty columns.csv": many(lambda i: f",,{'yes' if i % 2 else 'no'}"),
    "one number.csv": many(lambda i: f"{i * 1.5},{i % 3},2.5"),
    "prose.txt": "It was a dark and stormy night.\nThe rain fell in torrents.\n" * 20,
    "page.csv": "<!DOCTYPE html><html><body><p>404 Not Found</p></body></html>\n",
    "error.csv": '{"error": "no such dataset"}\n',
    "empty.tsv": "",
    "empty.txt": " \t \n",
    "names.tsv": "a\tb\ty\n",
    "empty.json": "",
    "empty list.json": "[]",
    "a number.json": "7",
    "a text.json": '"a"',
    "one object.json": '{"a": [1, 2], "y": ["yes", "no"]}',
    "numbers.json": "[1, 2, 3]",
    "lists.json": "[[1, 2], [3, 4]]",
    "cut.json": json.dumps([{"a": 1, "y": "yes"}] * 9)[:-5],
    "deep.json": "[" * 100_000,
    "no label.json": json.dumps([{"a": 1}] * 9),
    "empty.jsonl": "\n",
    "cut.jsonl": '{"a": 1, "y": "yes"}\n{"a": 2, "y": ',
    "mixed.jsonl": '{"a": 1, "y": "yes"}\n[1, 2]\n',
    "quotes.jsonl": "{'a': 1, 'y': 'yes'}\n",
    "nested.jsonl": "".join(json.dumps({"a": {"b": i}, "y": "yn"[i % 2]}) + "\n" for i in range(9)),
    "python.ndjson": "None\nTrue\n",
    "empty.arff": "",
    "no data.arff": "@relation r\n@attribute a numeric\n",
    "no rows.arff": ARFF,
    "short row.arff": ARFF + "1,yes\n2\n",
    "other class.arff": ARFF + "1,perhaps\n",
    "a word.arff": ARFF + "many,yes\n",
    "text.arff": "@relation r\n@attribute a string\n@attribute y {yes,no}\n@data\nx,yes\n",
    "odd kind.arff": "@relation r\n@attribute a complex\n@attribute y {yes,no}\n@data\n1,yes\n",
    "csv.arff": GOOD,
    "text.npz": GOOD,
    "text.parquet": GOOD,
    "empty.npz": "",
    "empty.parquet": "",
    "a.xlsx": "PK\x03\x04",
    "a.docx": "PK\x03\x04",
    "a": GOOD,
    "a.csv.bz2": GOOD,
}
BYTES = {
    "zero bytes.csv": GOOD.encode() + b"\0\0\0\n",
    "noise.csv": RNG.integers(0, 256, 3000).astype(np.uint8).tobytes(),
    "picture.csv": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100),
    "zip.csv": ARRAYS,
    "odd.csv": b"\xff\xfe" + GOOD.encode("utf-16-le")[:-1],
    "cut utf-16.csv": GOOD.encode("utf-16")[:5],
    "not packed.csv.gz": b"\x1f\x8b" + GOOD.encode(),
    "packed nothing.csv.gz": gzip.compress(b""),
    "changed.csv.gz": PACKED[:-8] + bytes(4) + PACKED[-4:],
    "half.csv.gz": PACKED[: len(PACKED) // 2],
    "objects.npz": npz(x=X, y=np.array([{"a": 1}] * 40, dtype=object)),
    "other names.npz": npz(data=X, target=Y),
    "no labels.npz": npz(x=X),
    "three.npz": npz(x_train=X, y_train=Y, x_test=X),
    "too few labels.npz": npz(x=X, y=Y[:-1]),
    "labels in columns.npz": npz(x=X, y=np.stack([Y, Y], axis=1)),
    "one axis.npz": npz(x=X[:, 0], y=Y),
    "no rows.npz": npz(x=X[:0], y=Y[:0]),
    "no columns.npz": npz(x=X[:, :0], y=Y),
    "not finite.npz": npz(x=np.where(X > 1, np.nan, X), y=Y),
    "infinite.npz": npz(x=np.where(X > 1, np.inf, X), y=Y),
    "words.npz": npz(x=X.astype(str), y=Y),
    "complex.npz": npz(x=X.astype(complex), y=Y),
    "one class.npz": npz(x=X, y=0 * Y),
    "a scalar.npz": npz(x=np.float64(1), y=np.float64(1)),
    "lost labels.npz": npz(x=X, y=np.where(Y, np.nan, 1.0)),
    "other test.npz": npz(x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y),
    "other classes.npz": npz(x_train=X, y_train=Y, x_test=X, y_test=Y + 5),
    "far off.npz": npz(x=X * 1e300, y=Y),
    "lying.npz": lying(ARRAYS),
    **{f"cut {i}.npz": ARRAYS[: i * len(ARRAYS) // 9] for i in range(1, 9)},
    **{f"cut {i}.csv.gz": PACKED[: i * len(PACKED) // 9] for i in range(1, 9)},
}


def bytes_of(name):
    if name == "no rows.parquet":
        return parquet(pd.DataFrame({"a": [1.0], "y": ["yes"]})[:0])
    if name == "no label.parquet":
        return parquet(pd.DataFrame({"a": [1.0, 2.0]}))
    if name == "lists.parquet":
        return parquet(pd.DataFrame({"a": [[1], [2]] * 9, "y": ["yes", "no"] * 9}))
    if name.startswith("cut ") and name.endswith(".parquet"):
        whole = parquet(pd.DataFrame({"a": X[:, 0], "y": Y}))
        return whole[: int(name.split()[1].split(".")[0]) * len(whole) // 9]
    return TEXT[name].encode() if name in TEXT else BYTES[name]


PARQUET = [
    "no rows.parquet",
    "no label.parquet",
    "lists.parquet",
    *(f"cut {i}.parquet" for i in range(1, 9, 2)),
]
NAMES = [*TEXT, *BYTES, *PARQUET]
# The label is no column, or the suffix no reader's: the call is wrong, not the file.
CALLS = ("other label.csv", "two labels.csv", "error.csv", "no label.json", "no label.parquet")
CALLS += ("a.xlsx", "a.docx", "a", "a.csv.bz2")


def test_there_are_a_hundred():
    assert len(NAMES) >= 100
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_one_clear_line_and_nothing_is_written(in_tmp, name):
    (in_tmp / name).write_bytes(bytes_of(name))
    options = [] if name.endswith(".npz") else ["--label", "y"]
    result = call("compare", "--data", name, *options, "--seeds", 1, "--epochs", 1)
    assert result.exit_code == (2 if name in CALLS else 1), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("thinned: ")
    assert name in line
    assert 20 < len(line) < 600, line
    assert result.stdout == ""
    assert [path.name for path in in_tmp.iterdir()] == [name]
