"""Tables that packages ship: each gives what is written of it, or one clear line."""

import pytest
from helpers.examples import ROOT, load

pytest.importorskip("pandas")

public_tables = load("public_tables")
TABLES = public_tables.TABLES


def test_there_are_many():
    assert len({(table.package, table.file) for table in TABLES}) > 60
    assert sum(table.refused for table in TABLES) < 20


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name} {table.label}")
def test_outcome(table):
    if table.path() is None:
        pytest.skip(f"{table.package} is not installed, or another version")
    found, data = public_tables.outcome(table)
    if not table.refused:
        assert found == table.outcome
        assert data.x_train.shape[1] > 0
        return
    assert data is None
    assert table.outcome in found
    assert "\n" not in found


def test_the_committed_page_is_what_the_script_writes():
    if any(table.path() is None for table in TABLES):
        pytest.skip("a package is not installed")
    committed = (ROOT / "docs" / "public-tables.md").read_text(encoding="utf-8")
    assert committed == public_tables.page(), "run: python examples/public_tables.py docs/public-tables.md"
