"""Compare two results of `thinned bench --json`: python tests/ratios.py BEFORE AFTER prints a table.

A figure is the time of ours over that of a peer, both measured in turns on the same machine.
"""

import json
import sys
from pathlib import Path


def ratios(found):
    """(group, name, threads, peer) -> the median of ours/peer."""
    return {
        (row["group"], row["name"], row["threads"], peer): figure["median"]
        for row in found["results"]
        for peer, figure in row["ratios"].items()
    }


def table(before, after):
    """Rows that both have, those that got slower first."""
    old, new = ratios(before), ratios(after)
    changes = sorted(((new[row] / old[row], row) for row in old.keys() & new.keys()), reverse=True)
    lines = [
        "| measured | threads | peer | before | after | change |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for change, row in changes:
        group, name, threads, peer = row
        figures = f"{old[row]:.2f} | {new[row]:.2f} | {change:.2f}"
        lines.append(f"| {group}: {name} | {threads} | {peer} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(*(json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:])))
