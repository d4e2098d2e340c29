"""`python -m benchmarks`: measure everything, print the table, write `results/cpu.json`."""

import itertools
import os
import platform
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import capturing, extracting, gridding, memory
from benchmarks.paired import Row
from em_interp.cards import versions
from em_interp.records import write_json

RESULTS = Path(__file__).parent / "results" / "cpu.json"
# (what, its rows, rounds): rounds chosen so that all of it takes about five minutes on two cores.
PARTS = ((capturing, 5), (extracting, 3), (gridding, 3), (memory, 1))


def main() -> int:
    """Run all parts; exit code 1 where a target is missed."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2),
        "processor": platform.machine(),
    }
    start, found = time.monotonic(), []
    for part, rounds in PARTS:
        before = time.monotonic()
        rows = part.rows(rounds)
        show(rows)
        print(f"{rounds} rounds in {time.monotonic() - before:.0f} s\n")
        found += rows
    print(f"{machine}; {time.monotonic() - start:.0f} s in all")
    plain = [row.as_dict() for row in found]
    write_json(RESULTS, {"machine": machine, "versions": versions(), "rows": plain})
    return 0 if all(row.met is not False for row in found) else 1


def show(rows: list[Row]) -> None:
    """Print one part's rows as a table for each of its groups."""
    for group, some in itertools.groupby(rows, key=lambda row: row.group):
        table = Table(group, "ratio: median [min, max]", "target", "met")
        for row in some:
            met = {True: "yes", False: "NO", None: ""}[row.met]
            table.add_row(row.name, str(row.ratio), row.target, met)
        Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
