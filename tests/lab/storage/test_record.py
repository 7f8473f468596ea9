"""The record beside the runs."""

import dataclasses

import pytest

from thinned.lab.errors import LabError
from thinned.lab.storage.record import Record


def test_a_record_comes_back(made):
    out, stored = made
    record = Record("compare", "thinned compare", {"a": "b"}, [stored[0].folder.name])
    record.save(out)
    assert dataclasses.asdict(Record.load(out)) == dataclasses.asdict(record)
    assert Record.load(out).stored(out) == [stored[0]]
    (out / "page.json").write_text('{"kind": ')
    with pytest.raises(LabError, match=r"page\.json"):
        Record.load(out)
    (out / "page.json").unlink()
    assert len(Record.load(out).stored(out)) == 5
