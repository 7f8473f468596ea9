"""Tables that packages ship, read as they are: what `thinned compare` understands of each.

python examples/public_tables.py docs/public-tables.md
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SKLEARN, STATSMODELS, VEGA, PENGUINS = "sklearn", "statsmodels", "vega_datasets", "palmerpenguins"
OPENML = "datasets/tests/data/openml/id_"


@dataclass(frozen=True)
class Public:
    """A table: its package, its file in it, the label, and what must come of it.

    Attributes:
        outcome: "3 classes", "numbers", or a part of the one line that refuses it.
        options: of `thinned.lab.data.registry.load`.
    """

    package: str
    file: str
    label: str
    outcome: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The package and the file's name, or its folder's."""
        path = Path(self.file)
        return f"{self.package}: {path.parent.name if path.name.startswith('data') else path.name}"

    @property
    def refused(self) -> bool:
        """Whether it must be refused."""
        return self.outcome != "numbers" and not self.outcome.endswith(" classes")

    def path(self) -> Path | None:
        """Where it lies; None if the package is not installed or has no such file."""
        spec = importlib.util.find_spec(self.package)
        path = Path(spec.origin).parent / self.file if spec and spec.origin else None
        return path if path and path.exists() else None


def _statsmodels(name: str, label: str, outcome: str, **options: Any) -> Public:
    return Public(STATSMODELS, f"datasets/{name}.csv", label, outcome, options)


def _vega(name: str, label: str, outcome: str, **options: Any) -> Public:
    return Public(VEGA, f"_data/{name}", label, outcome, options)


def _openml(name: str, label: str, outcome: str, **options: Any) -> Public:
    return Public(SKLEARN, f"{OPENML}{name}.arff.gz", label, outcome, options)


TABLES = (
    Public(PENGUINS, "data/penguins.csv", "species", "3 classes"),
    Public(PENGUINS, "data/penguins.csv", "sex", "2 classes"),
    Public(PENGUINS, "data/penguins.csv", "body_mass_g", "numbers"),
    Public(PENGUINS, "data/penguins-raw.csv", "Species", "3 classes"),
    Public(SKLEARN, "datasets/data/iris.csv", "virginica", "3 classes"),
    Public(SKLEARN, "datasets/data/breast_cancer.csv", "malignant", "rows have more columns than the 4"),
    Public(SKLEARN, "datasets/data/digits.csv.gz", "64", "10 classes", {"header": False}),
    Public(SKLEARN, "datasets/data/digits.csv.gz", "64", "give --no-header"),
    Public(SKLEARN, "datasets/data/diabetes_data_raw.csv.gz", "9", "numbers", {"header": False}),
    Public(SKLEARN, "datasets/data/wine_data.csv", "class_2", "rows have more columns than the 5"),
    Public(SKLEARN, "datasets/data/linnerud_physiological.csv", "Weight", "numbers"),
    Public(SKLEARN, "datasets/data/linnerud_exercise.csv", "Chins", "numbers"),
    _openml("61/data-v1-dl-61", "class", "3 classes"),
    _openml("1119/data-v1-dl-54002", "class", "2 classes"),
    _openml("40945/data-v1-dl-16826755", "survived", "String attributes"),
    _openml("42585/data-v1-dl-21854866", "species", "3 classes"),
    _openml("2/data-v1-dl-1666876", "class", "value not in"),
    _openml("40966/data-v1-dl-17928620", "class", "got 'c-CS-m' alone"),
    _openml("561/data-v1-dl-52739", "class", "numbers"),
    _openml("40675/data-v1-dl-4965250", "class", "2 classes"),
    _openml("62/data-v1-dl-52352", "type", "7 classes"),
    _openml("3/data-v1-dl-3", "class", "2 classes"),
    _openml("1/data-v1-dl-1", "class", "value not in"),
    _openml("292/data-v1-dl-49822", "Y", "value not in"),
    _openml("42074/data-v1-dl-21552912", "class", "String attributes"),
    _statsmodels("anes96/anes96", "vote", "2 classes"),
    _statsmodels("cancer/cancer", "cancer", "numbers"),
    _statsmodels("ccard/ccard", "AVGEXP", "numbers"),
    _statsmodels("china_smoking/china_smoking", "Location", "no class has two examples"),
    _statsmodels("co2/co2", "co2", "numbers"),
    _statsmodels("committee/committee", "BILLS104", "numbers"),
    _statsmodels("copper/copper", "COPPERPRICE", "numbers"),
    _statsmodels("cpunish/cpunish", "EXECUTIONS", "or give --task numbers"),
    _statsmodels("cpunish/cpunish", "EXECUTIONS", "numbers", task="numbers"),
    _statsmodels("danish_data/data", "ibo", "numbers"),
    _statsmodels("elec_equip/elec_equip", "STS.M.I7.W.TOVT.NS0016.4.000", "numbers"),
    _statsmodels("elnino/elnino", "DEC", "numbers"),
    _statsmodels("engel/engel", "foodexp", "numbers"),
    _statsmodels("fair/fair", "affairs", "numbers"),
    _statsmodels("fair/fair_pt", "religious", "5 classes"),
    _statsmodels("fertility/fertility", "2010", "numbers"),
    _statsmodels("grunfeld/grunfeld", "invest", "numbers"),
    _statsmodels("heart/heart", "censors", "2 classes"),
    _statsmodels("interest_inflation/E6", "R", "numbers"),
    _statsmodels("interest_inflation/E6_jmulti", "1", "numbers", header=False),
    _statsmodels("longley/longley", "TOTEMP", "numbers"),
    _statsmodels("macrodata/macrodata", "unemp", "numbers"),
    _statsmodels("modechoice/modechoice", "mode", "4 classes"),
    _statsmodels("nile/nile", "volume", "--numeric year takes it"),
    _statsmodels("nile/nile", "volume", "numbers", numeric=("year",)),
    _statsmodels("randhie/randhie", "mdvis", "numbers"),
    _statsmodels("scotland/scotvote", "YES", "numbers"),
    _statsmodels("spector/spector", "GRADE", "2 classes"),
    _statsmodels("stackloss/stackloss", "STACKLOSS", "numbers"),
    _statsmodels("star98/star98", "MATHTOT", "numbers"),
    _statsmodels("statecrime/statecrime", "murder", "numbers"),
    _statsmodels("strikes/strikes", "duration", "numbers"),
    _statsmodels("sunspots/sunspots", "SUNACTIVITY", "--numeric YEAR takes it"),
    _vega("airports.csv", "state", "got one of 'DC', 'GU'"),
    _vega("iowa-electricity.csv", "source", "3 classes"),
    _vega("la-riots.csv", "gender", "2 classes"),
    _vega("seattle-temps.csv", "temp", "numbers"),
    _vega("seattle-weather.csv", "weather", "5 classes"),
    _vega("sf-temps.csv", "temp", "numbers"),
    _vega("stocks.csv", "symbol", "5 classes"),
    _vega("us-employment.csv", "nonfarm", "numbers"),
    _vega("anscombe.json", "Series", "4 classes"),
    _vega("barley.json", "yield", "numbers"),
    _vega("burtin.json", "Gram_Staining", "2 classes"),
    _vega("cars.json", "Origin", "3 classes"),
    _vega("cars.json", "Miles_per_Gallon", "numbers"),
    _vega("crimea.json", "disease", "numbers"),
    _vega("driving.json", "gas", "numbers"),
    _vega("iris.json", "species", "3 classes"),
    _vega("ohlc.json", "signal", "got one of 'neutral'"),
    _vega("wheat.json", "wages", "numbers"),
)


PAGE = """# Public tables

Tables that packages ship, as they are: `thinned compare --data FILE --label LABEL`, with the options of
column four. Each gives a right answer or one clear line: `tests/lab/data/test_public_tables.py` checks it.
`python examples/public_tables.py docs/public-tables.md` writes this page. What networks, boosted trees and
linear models learn from them: [benchmark](public-tables-benchmark.md).

"""
HEAD = ("package", "file", "label", "options", "outcome", "rows", "columns read", "numbers a row")


def outcome(table: Public) -> tuple[str, Any]:
    """What comes of a table: "3 classes", "numbers" or the line that refuses it; and the data, or None."""
    from thinned.lab.data.registry import load
    from thinned.lab.errors import LabError

    path = table.path()
    assert path is not None, f"{table.name}: {table.package} is not installed"
    try:
        data = load(path, label=table.label, **table.options)
    except LabError as error:
        return str(error).replace(str(path), path.name), None
    return (f"{len(data.classes)} classes" if data.classes else "numbers"), data


def row(table: Public) -> list[str]:
    """The row of a table in the page."""
    found, data = outcome(table)
    package, file = table.name.split(": ")
    given = {"header": "--no-header"}
    options = " ".join(
        given.get(name) or f"--{name} {value if isinstance(value, str) else ','.join(value)}"
        for name, value in table.options.items()
    )
    cells = [package, file, table.label, options]
    if data is None:
        return [*cells, f"refused: {found}", "", "", ""]
    read = sum("left out" not in str(column).split(", ")[1:2] for column in data.columns[1:])
    rows = len(data.x_train) + len(data.x_test)
    return [*cells, found, f"{rows:,}", str(read), str(data.x_train.shape[1])]


def page() -> str:
    """The page, in Markdown."""
    lines = [HEAD, ["---"] * 5 + ["---:"] * 3, *(row(table) for table in TABLES)]
    return PAGE + "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
