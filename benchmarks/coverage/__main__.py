"""`python -m benchmarks.coverage`: how often each interval of `em_interp.stats` holds the truth.

Every cell of the grid (a design, a number of questions) is simulated: 2,000 evaluations whose truth
is known, each handed to the real function. Written: `benchmarks/results/coverage.json` and the page
`docs/coverage.md`. Exit code 1 where an interval that is shown without a warning falls short of its
nominal coverage by more than two points. Seeded; about eight minutes on one core.
"""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.coverage.cells import Cell, Shot, grid
from benchmarks.coverage.page import NOMINAL, SLACK, Row, page, short
from em_interp.records import write_json, write_text
from em_interp.stats import contrasts, judge_error

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
REPS = 2000


def simulate(cell: Cell, reps: int = REPS) -> list[Row]:
    """What each interval of a cell did: shown, held where shown, missed without a warning."""
    shots: dict[str, list[Shot]] = {}
    for shot in cell.draw(np.random.default_rng(cell.seed), reps):
        shots.setdefault(shot.interval, []).append(shot)
    rows: list[Row] = []
    for name, some in shots.items():
        given = [one for one in some if one.low is not None and one.high is not None]
        plain = [one for one in given if not one.caution]
        rows.append(
            {
                "interval": name,
                "design": cell.design,
                "questions": cell.questions,
                "given": _share(len(given), some),
                "shown": _share(len(plain), some),
                "held": _share(sum(map(_holds, plain)), plain),
                "held_with_warned": _share(sum(map(_holds, given)), given),
                "missed": _share(len(plain) - sum(map(_holds, plain)), some),
            }
        )
    return rows


def _holds(one: Shot) -> bool:
    slack = 1e-12  # of an end that is the truth itself, up to rounding
    assert one.low is not None
    assert one.high is not None
    return one.low - slack <= one.truth <= one.high + slack


def _share(count: int, of: list[Shot]) -> float | None:
    return round(count / len(of), 4) if of else None


def quick() -> None:
    """Leave out of `paired` and `judge_corrected` what no interval here depends on."""
    contrasts.EXACT_UP_TO, contrasts.DRAWS = 0, 1  # the p of a permutation test
    judge_error.DRAWS = 2000


def main(reps: int = REPS) -> int:
    """Simulate the grid, write record and page; exit code 1 where an interval falls short."""
    quick()
    start, rows = time.monotonic(), list[Row]()
    for cell in grid():
        rows += simulate(cell, reps)
    record = {"reps": reps, "nominal": NOMINAL, "slack": SLACK, "rows": rows}
    write_json(RESULTS, record)
    write_text(PAGE, page(record))
    failed = [row for row in rows if short(row)]
    for row in failed:
        print(row)
    print(f"{len(rows)} cells, {len(failed)} fall short, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
