"""Tables as people keep them: text, Parquet, JSON lines, ARFF. pandas makes frames of them."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from thinned.lab.data.table import some_of
from thinned.lab.errors import CallError, LabError

MAX_BYTES = 1 << 32  # no unpacked table is larger
SAMPLE = 1 << 16  # characters in which separator and names are looked for
MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "?", "#N/A", "<NA>")
OTHERS = {  # what files of other kinds begin with
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive, such as .xlsx or .npz",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"PAR1": "a Parquet file without its suffix",
    b"SQLite format 3": "a data base",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
# In which text that is not UTF-8 may be. GB18030 holds GBK.
ENCODINGS = ["gb18030", "cp1252", "big5", "shift_jis", "euc_kr", "cp1251", "cp1250"]


def read(path: Path, header: bool = True) -> tuple[Any, str]:
    """A pandas frame, and how the file was read in a few words ("" where nothing had to be found out).

    Cells of text files stay text. Missing ones (`MISSING`) are NaN. Without a header, columns are 0, 1, ….

    Raises:
        LabError: the file is damaged, too large, or no table; or a package is missing.
        CallError: ``header`` is False for a format that always has names.
    """
    kind = suffix(path)
    if not header and FORMATS[kind] is not _text:
        raise CallError(f"{path}: --no-header is for text; columns of a {kind} file have names: leave it out")
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise LabError(
            f'{path}: pandas, which reads tables, is missing; run pip install "thinned[lab]"'
        ) from None
    return FORMATS[kind](path, header)


def suffix(path: Path) -> str:
    """The suffix that names the format: `.csv` of `a.csv.gz`."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _text(path: Path, header: bool) -> tuple[Any, str]:
    data = _bytes(path)
    encoding = _encoding(path, data)
    sample = _start(data, encoding)
    separator = _separator(sample, path)
    names, extra = _names(path, sample, separator, header)
    options = {
        "sep": r"\s+" if separator == " " else separator,
        "encoding": encoding,
        "header": 0 if header else None,
        "names": names + extra,
    }
    frame = _parsed(path, data, SEPARATORS[separator], options)
    if frame.iloc[:, len(names) - 1].isna().any():
        _check_lengths(path, data, encoding, separator, len(names) + len(extra), header)
    frame = frame.drop(columns=extra)
    frame = frame.apply(_stripped)
    if separator == ";" and _decimal_commas(sample):
        frame = frame.apply(_points)
    found = [] if encoding in ("utf-8", "utf-8-sig") else [f"read as {encoding}"]
    found += [] if separator == "," else [f"columns are separated by a {SEPARATORS[separator]}"]
    return frame, ", ".join(found)


def _parsed(path: Path, data: bytes, separator: str, options: dict[str, Any]) -> Any:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than names
            return pd.read_csv(
                io.BytesIO(data),
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_values=list(MISSING),
                skipinitialspace=True,
                **options,
            )
    except pd.errors.ParserWarning:
        fault = f"rows have more columns than the {len(options['names'])} that the first line names"
    except (ValueError, OverflowError, EOFError) as error:
        fault = _short(error)
    raise LabError(f"{path}: not a table separated by a {separator} ({fault}); correct it")


def _short(error: Exception) -> str:
    return str(error).removeprefix("Error tokenizing data. ").removeprefix("C error: ").strip().split("\n")[0]


def _stripped(cells: Any) -> Any:
    cells = cells.str.strip()
    return cells.mask(cells.isin(MISSING))


def _points(cells: Any) -> Any:
    """1,5 becomes 1.5."""
    return cells.str.replace(r"^([+-]?\d*),(\d+)$", r"\1.\2", regex=True)


def _bytes(path: Path) -> bytes:
    """The file's bytes, unpacked where it is gzip; never more than `MAX_BYTES`."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"{path}: truncated or damaged gzip ({error}); replace it") from None
    if len(data) > MAX_BYTES:
        raise LabError(f"{path} must have at most {MAX_BYTES:,} bytes, unpacked; give a part of it")
    return data


def _encoding(path: Path, data: bytes) -> str:
    """From the byte order mark, else UTF-8 where all bytes are, else what the bytes look like most."""
    for start, what in OTHERS.items():
        if data.lstrip()[: len(start)].lower() == start.lower():
            raise LabError(f"{path} must be a table in text, got {what}; give the table itself")
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    start = data[:SAMPLE]
    for zeros, name in ((start[1::2], "utf-16-le"), (start[::2], "utf-16-be")):
        if len(start) > 3 and zeros.count(0) > len(zeros) // 2:
            return name
    if b"\0" in data:
        raise LabError(f"{path} must be text, got a zero byte at {data.index(0)}; save it as text in UTF-8")
    try:
        for _ in codecs.iterdecode(_blocks(data), "utf-8"):
            pass
        return "utf-8"
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(
            b"\n".join(line for line in data.splitlines() if not line.isascii()), cp_isolation=ENCODINGS
        ).best()
        if best is None:
            raise LabError(
                f"{path} must be text in UTF-8, and is in no encoding known here; save it in UTF-8"
            ) from None
        return best.encoding


def _blocks(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _start(data: bytes, encoding: str) -> list[str]:
    """The first lines that are not blank, as text."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(data[: 2 * SAMPLE])[:SAMPLE]
    lines = text.splitlines(keepends=True)
    return [line for line in lines if line.strip()][: max(1, len(lines) - 1) if len(text) == SAMPLE else None]


def _rows(lines: Any, separator: str) -> Iterator[list[str]]:
    """The cells of each row."""
    if separator == " ":
        return csv.reader((re.sub(r"[ \t]+", " ", line.strip()) for line in lines), delimiter=" ")
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _separator(sample: list[str], path: Path) -> str:
    """The separator that cuts most of the first rows into one number of cells, more than one."""

    def agreement(separator: str) -> tuple[float, int]:
        try:
            counts = [len(row) for row in itertools.islice(_rows(sample, separator), 200) if row]
        except csv.Error:
            return 0.0, 0
        usual = max(set(counts), key=counts.count, default=0)
        return (counts.count(usual) / len(counts), usual) if usual > 1 else (0.0, 0)

    order = ["\t", ",", ";", "|", " "] if suffix(path) == ".tsv" else [",", ";", "\t", "|", " "]
    best = max(order, key=lambda one: (agreement(one)[0] > 0.9, agreement(one)[0], one != " "))
    return best if agreement(best)[0] > 0 else order[0]


def _decimal_commas(sample: list[str]) -> bool:
    cells = [cell for row in itertools.islice(_rows(sample[1:], ";"), 50) for cell in row]
    return any(re.fullmatch(r"[+-]?\d*,\d+", cell.strip()) for cell in cells)


def _names(path: Path, sample: list[str], separator: str, header: bool) -> tuple[list[str], list[str]]:
    """The names of the columns, and of a column that an empty cell at the end of each row makes."""
    rows = [row for row in itertools.islice(_rows(sample, separator), 50) if row]
    if not rows:
        raise LabError(f"{path}: empty; the first line must name the columns")
    if not header:
        return [str(i) for i in range(len(rows[0]))], []
    first, later = [name.strip() for name in rows[0]], rows[1:]
    if all(re.fullmatch("'.+'", name) for name in first):  # SAS and R write such names
        first = [name[1:-1] for name in first]
    if len(first) > 1 and all(map(_is_number, first)) and first not in _counted(len(first)):
        raise LabError(
            f"{path}: the first line must name the columns, got numbers ({some_of(first[:4])}); "
            "give --no-header if there are no names, and --label as the column's place: 0, 1, …"
        )
    width = {len(row) for row in later}
    if width == {
        len(first) + 1
    }:  # each row has one cell more: its name (R), or nothing after a last separator
        if all(not row[-1].strip() for row in later):
            return _named(first), ["trailing"]
        first = ["", *first]
    return _named(first), []


def _counted(n: int) -> list[list[str]]:
    return [[str(i + start) for i in range(n)] for start in (0, 1)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _named(names: list[str]) -> list[str]:
    """Each with a name of its own: a blank one becomes "unnamed 0", a repeated one "a (2)"."""
    found: list[str] = []
    for at, name in enumerate(names):
        name, n = name or f"unnamed {at}", 1
        while (name if n == 1 else f"{name} ({n})") in found:
            n += 1
        found.append(name if n == 1 else f"{name} ({n})")
    return found


def _check_lengths(path: Path, data: bytes, encoding: str, separator: str, width: int, header: bool) -> None:
    """LabError where a row is too short: pandas would fill it up without a word."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    rows = (cells for cells in _rows(text, separator) if cells)
    for at, cells in enumerate(rows):
        if not (header and at == 0) and len(cells) != width:
            raise LabError(
                f"{path}: row {at + 1} (the names are row 1) must have {width} columns, as others have, "
                f"got {len(cells)}; correct it"
            )


def _parquet(path: Path, header: bool) -> tuple[Any, str]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise LabError(
            f'{path}: pyarrow, which reads Parquet, is missing; run pip install "thinned[parquet]"'
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if size > MAX_BYTES:
                raise LabError(
                    f"{path} must have at most {MAX_BYTES:,} bytes, unpacked, got {size:,}; give a part of it"
                )
            frame = file.read().to_pandas(ignore_metadata=True, date_as_object=False)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise LabError(f"{path}: cannot be read as Parquet ({_short(error)}); replace it") from None
    return _typed(frame), ""


def _json(path: Path, header: bool) -> tuple[Any, str]:
    """JSON lines: an object a line; or one list of objects."""
    import pandas as pd

    data = _bytes(path)
    try:
        text = data.decode(_encoding(path, data)).strip()
        parts = [text] if text.startswith("[") else list(filter(str.strip, text.splitlines()))
        rows = [json.loads(part) for part in parts]
        rows = rows[0] if text.startswith("[") else rows
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("no objects" if rows else "empty")
    except (ValueError, RecursionError) as error:
        raise LabError(f"{path} must have a JSON object in each line ({_short(error)}); correct it") from None
    return _typed(pd.DataFrame(rows)), ""


def _arff(path: Path, header: bool) -> tuple[Any, str]:
    import pandas as pd
    from scipy.io import arff

    data = _bytes(path)
    try:
        records, about = arff.loadarff(io.StringIO(data.decode(_encoding(path, data))))
    except (
        ValueError,
        NotImplementedError,
        StopIteration,
        IndexError,
        AttributeError,
        arff.ArffError,
    ) as error:
        raise LabError(
            f"{path}: cannot be read as ARFF ({_short(error) or 'truncated'}); save it as .csv"
        ) from None
    frame = pd.DataFrame({name: records[name] for name in about.names()})
    for name, kind in zip(about.names(), about.types(), strict=True):
        if kind == "nominal":
            frame[name] = _stripped(frame[name].str.decode("utf-8").astype(str))
    return _typed(frame), ""


def _typed(frame: Any) -> Any:
    """Names as text, one each; text cells stripped. `attrs["nested"]` has columns of lists or objects."""
    frame.columns = _named([str(name).strip() for name in frame.columns])
    nested = []
    for name, cells in frame.items():
        if cells.dtype.kind in "iufM" or cells.dtype == bool:
            continue
        if cells.map(_nested).any():
            nested.append(name)
        text = cells.map(str, na_action="ignore").astype("str")
        frame[name] = _stripped(text).where(cells.notna())
    frame.attrs["nested"] = tuple(nested)
    return frame


def _nested(cell: Any) -> bool:
    return isinstance(cell, (list, dict, tuple, bytes)) or (hasattr(cell, "shape") and cell.shape != ())


# By suffix; each takes the path and whether the first line names the columns.
FORMATS: dict[str, Callable[[Path, bool], tuple[Any, str]]] = {
    ".csv": _text,
    ".tsv": _text,
    ".txt": _text,
    ".parquet": _parquet,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".arff": _arff,
}
