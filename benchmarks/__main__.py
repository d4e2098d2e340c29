"""`python -m benchmarks`: measure all, print tables, write `results/cpu.json` and `.md`."""

import itertools
import os
import platform
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks import capturing, extracting, gridding, memory
from benchmarks.paired import Row
from em_interp.cards import versions
from em_interp.records import write_json, write_text

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
        print(f"{table(rows)}\n{rounds} rounds, {time.monotonic() - before:.0f} s\n", flush=True)
        found += rows
    figures = ", ".join(f"{name} {value}" for name, value in machine.items())
    print(f"{figures}; {time.monotonic() - start:.0f} s in all")
    plain = [row.as_dict() for row in found]
    write_json(RESULTS, {"machine": machine, "versions": versions(), "rows": plain})
    write_text(RESULTS.with_suffix(".md"), f"{table(found)}\n\n{figures}.\n")
    return 0 if all(row.met is not False for row in found) else 1


def table(rows: list[Row]) -> str:
    """The rows as Markdown, a table for each group; columns lined up to be read as plain text."""
    parts = []
    for group, some in itertools.groupby(rows, key=lambda row: row.group):
        lines = [(group, "ratio: median [min, max]", "target", "met")]
        for row in some:
            met = {True: "yes", False: "NO", None: ""}[row.met]
            lines.append((row.name, str(row.ratio), row.target, met))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        under = tuple("-" * width for width in widths)
        parts.append("\n".join(_line(cells, widths) for cells in (lines[0], under, *lines[1:])))
    return "\n\n".join(parts)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


if __name__ == "__main__":
    sys.exit(main())
