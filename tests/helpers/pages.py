"""Small pages, and their rows and curves, for tests of reports."""

from thinned.lab.reporting.from_runs import Row, Series
from thinned.lab.reporting.page import Page


def run(label: str, seed: int, errors: list[float], train: list[float] | None = None) -> Series:
    train = train or [e / 2 for e in errors]
    columns = {"test_error": errors, "train_error": train, "test_loss": errors, "train_loss": train}
    return Series(label, seed, list(range(1, len(errors) + 1)), columns)


def row(
    label: str, tests: list[float], trains: list[float] | None = None, status: tuple[str, ...] = ()
) -> Row:
    return Row(label, tests, trains or [t / 2 for t in tests], [0.5] * len(tests), 12345, status)


def page(rows: list[Row], series: list[Series], **more: object) -> Page:
    values: dict[str, object] = {
        "title": "A title",
        "lead": "A lead.",
        "rows": rows,
        "series": series,
        "settings": {"data": "digits"},
        "command": "thinned compare",
        "machine": {"processor": "one"},
    }
    return Page(**(values | more))  # type: ignore[arg-type]


def usual(**more: object) -> Page:
    rows = [row("none", [0.050, 0.054], [0.0, 0.0]), row("dropout", [0.040, 0.042], [0.01, 0.012])]
    series = [run(r.label, s, [0.5, 0.2, r.test_error[s]]) for r in rows for s in (0, 1)]
    return page(rows, series, **more)
