"""Tables of every format: one table, written in many ways, gives the same cells."""

import gzip
import json

import numpy as np
import pytest
from helpers.data import line

pd = pytest.importorskip("pandas")
from thinned.lab.data import frames  # noqa: E402
from thinned.lab.errors import CallError  # noqa: E402

NAMES = ["größe", "wort", "wahl"]
ROWS = [["1.5", "rot, hell", "a"], ["-2", "blau", "b"], ["3e2", 'ein "Zitat"', "a"], ["NA", "grün", "b"]]


def expected():
    return [[None if cell in frames.MISSING else cell for cell in row] for row in ROWS]


def cells(frame):
    return [[None if pd.isna(cell) else str(cell) for cell in row] for row in frame.to_numpy(object)]


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


def text(separator, ends="\n", names=NAMES):
    return ends.join(separator.join(map(quoted, row)) for row in [names, *ROWS]) + ends


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_separators_and_encodings(tmp_path, separator, encoding, ends):
    path = tmp_path / "a.csv"
    path.write_bytes(text(separator, ends).encode(encoding))
    frame, said = frames.read(path)
    assert list(frame.columns) == NAMES
    assert cells(frame) == expected()
    assert (frames.SEPARATORS[separator] in said) == (separator != ",")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert cells(frames.read(tmp_path / "b.csv.gz")[0]) == expected()


def test_chinese_text_in_gbk(tmp_path):
    words = ["北京市朝阳区的天气很好", "上海市浦东新区下雨了", "广州市的房价一直在上涨", "成都的火锅非常好吃"]
    path = tmp_path / "a.csv"
    path.write_bytes(("城市,数字\n" + "".join(f"{word},{i}\n" for i, word in enumerate(words))).encode("gbk"))
    frame, said = frames.read(path)
    assert list(frame["城市"]) == words
    assert "gb18030" in said


def test_spaces_in_rows_and_decimal_commas(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("  a   b  kind\n 1   2.5  x\n10  -3    y\n")
    assert cells(frames.read(path)[0]) == [["1", "2.5", "x"], ["10", "-3", "y"]]
    path.write_text("a;b\n1,5;x\n-2,25;1,2,3\n")
    assert cells(frames.read(path)[0]) == [["1.5", "x"], ["-2.25", "1,2,3"]]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a, b ,a\n1,2,3\n", ["a", "b", "a (2)"]),
        (",b,\n1,2,3\n", ["unnamed 0", "b", "unnamed 2"]),
        ("a,b\nr1,1,2\nr2,3,4\n", ["unnamed 0", "a", "b"]),  # R: rows have names, their column has none
        ("a,b\n1,2,\n3,4,\n", ["a", "b"]),
        ("0,1\n5,6\n", ["0", "1"]),
    ],
)
def test_headers_of_every_kind(tmp_path, content, names):
    (tmp_path / "a.csv").write_text(content)
    frame = frames.read(tmp_path / "a.csv")[0]
    assert list(frame.columns) == names
    assert len(frame) == content.count("\n") - 1
    assert not frame.isna().any().any()


@pytest.mark.parametrize(
    "kind", sorted({one for one, read in frames.FORMATS.items() if read is not frames._text})
)
def test_no_header_is_refused_where_columns_have_names(tmp_path, kind):
    with pytest.raises(CallError, match=f"--no-header is for text; columns of a {kind} file have names"):
        frames.read(tmp_path / f"a{kind}", header=False)


def test_no_header(tmp_path):
    (tmp_path / "a.csv").write_text("7,x\n8,y\n")
    assert cells(frames.read(tmp_path / "a.csv", header=False)[0]) == [["7", "x"], ["8", "y"]]


def test_json_lines_and_arff(tmp_path):
    rows = [dict(zip(NAMES, row, strict=True)) for row in expected()]
    for name, content in (("a.jsonl", "\n".join(map(json.dumps, rows))), ("a.json", json.dumps(rows))):
        (tmp_path / name).write_text(content)
        assert cells(frames.read(tmp_path / name)[0]) == expected()
    (tmp_path / "a.arff").write_text(
        "@relation r\n@attribute a real\n@attribute k {x,y}\n@data\n1.5,x\n?,y\n"
    )
    frame = frames.read(tmp_path / "a.arff")[0]
    assert list(frame["k"]) == ["x", "y"]
    np.testing.assert_array_equal(frame["a"], [1.5, np.nan])


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"n": [1.5, None], "w": ["x", None], "b": [True, False], "l": [[1], [2]]})
    frame.to_parquet(tmp_path / "a.parquet")
    came = frames.read(tmp_path / "a.parquet")[0]
    assert came["n"].isna().tolist() == came["w"].isna().tolist() == [False, True]
    assert came["b"].dtype == bool
    assert came.attrs["nested"] == ("l",)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", b"", "empty; the first line must name the columns"),
        ("a.csv", b"\n \n", "empty"),
        ("a.csv", b"a,y\n1,2\n3\n", "row 3 (the names are row 1) must have 2 columns, as others have, got 1"),
        ("a.csv", b"a,y\n1,2\n3,4,5\n", "Expected 2 fields in line 3, saw 3"),
        (
            "a.csv",
            b"a,y\n1,2,3,4\n1,2,3,4\n",
            "(rows have more columns than the 2 that the first line names)",
        ),
        ("a.csv", b'a,y\n1,"0\n', "not a table separated by a comma"),
        ("a.csv", b"a,y\n1,\0\n", "must be text, got a zero byte at 6"),
        ("a.csv", b"3,4\n1,2\n", "give --no-header"),
        ("a.csv.gz", gzip.compress(b"a,b\n" * 99)[:-9], "truncated or damaged gzip"),
        ("a.jsonl", b'{"a": 1}\n{"a":', "must have a JSON object in each line"),
        ("a.arff", b"@relation r\n@attribute a real\n", "cannot be read as ARFF"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_damaged_files(tmp_path, name, content, fault):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    answer = line(frames.read, tmp_path / name)
    assert answer.startswith(str(tmp_path / name))
    assert fault in answer


def test_files_that_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MAX_BYTES", 100)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000))
    assert "at most 100 bytes" in line(frames.read, tmp_path / "a.csv.gz")
