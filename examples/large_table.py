"""A large table of mixed kinds: how long it takes to read it, and how much memory, beside pandas.

    python examples/large_table.py --rows 1000000

50 columns: 25 of numbers, some missing, 8 of whole numbers, 8 of a few words, 3 of a thousand words, 3 of
yes and no, 2 of dates, and the label. Then a network of 64-64 trains for one epoch. Each step is a process of
its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STEPS = {
    "pandas reads it": "import pandas; pandas.read_csv({file!r})",
    "read and understood": "from thinned.lab.data.registry import load; load({file!r}, label='label')",
    "with one epoch": """
from thinned.lab.data.registry import load
from thinned.lab.storage.remote import folder
from thinned.lab.training.config import Config
from thinned.lab.training.train import train
data = load({file!r}, label="label")
training = dict(hidden=(64, 64), epochs=1, optimizer="adam", lr=0.001)
config = Config(data="large", fingerprint="", method="dropout", **training)
train(config, data, folder({runs!r}))
""",
}
MEASURED = """
import resource, time
start = time.perf_counter()
{step}
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def write(file: Path, rows: int) -> None:
    """A table of 50 columns."""
    import pandas as pd

    rng = np.random.default_rng(0)
    columns = {
        f"number{i}": np.where(rng.random(rows) < 0.03, np.nan, rng.normal(size=rows).round(4))
        for i in range(25)
    }
    columns |= {f"count{i}": rng.integers(0, 1000, rows) for i in range(8)}
    columns |= {f"word{i}": rng.choice([f"value {k}" for k in range(3 + i)], rows) for i in range(8)}
    columns |= {f"city{i}": rng.choice([f"city {k}" for k in range(1000)], rows) for i in range(3)}
    columns |= {f"flag{i}": rng.choice(["yes", "no"], rows) for i in range(3)}
    days = np.datetime64("2020-01-01") + rng.integers(0, 1500, (2, rows)).astype("timedelta64[D]")
    columns |= {"day0": days[0], "day1": days[1]}
    score = np.nan_to_num(columns["number0"]) + columns["count0"] / 500 - 1 + (columns["word0"] == "value 1")
    columns["label"] = np.where(score + rng.normal(size=rows) > 0, "yes", "no")
    pd.DataFrame(columns).to_csv(file, index=False)


def main(arguments: list[str] | None = None) -> None:
    """Print seconds and GB of each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args(arguments).rows
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "large.csv"
        write(file, rows)
        print(f"{rows:,} rows of 50 columns, {file.stat().st_size / 1e6:.0f} MB")
        for name, step in STEPS.items():
            code = MEASURED.format(step=step.format(file=str(file), runs=str(Path(place) / "runs")))
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seconds, memory = map(float, done.stdout.split()[-2:])
            print(f"{name}: {seconds:.1f} s, {memory:.2f} GB")


if __name__ == "__main__":
    main()
