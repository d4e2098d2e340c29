"""Intervals hold what they claim: the named cells in small, and the page that measures all."""

import json

import pytest

from benchmarks.coverage import __main__ as coverage
from benchmarks.coverage import cells
from benchmarks.coverage.page import WORDS, page, short

REPS = 400
CELLS = {
    "a rate where 5 % of questions fire at 90 %": cells.hot(0.001, 12),
    "a difference at eight questions": cells.pairs(0.9, 0.05, 0.3, 8),
    "a share of a measured gap": cells.shares(1, 0, False, 24),
    "kappa at eight questions": cells.kappas(0.2, 0.95, 0.3, 0.0, 8),
    "alpha at eight questions": cells.alphas(0.05, 4, 0.3, 0.0, 8),
    "AUROC 0.96 at 25 questions, and a TPR that so few negatives do not resolve": cells.areas(
        0.96, 1, "exponential", 25
    ),
    "three training seeds that differ": cells.runs(0.6, 0.6, 0.3, 3, 100),
}


@pytest.fixture(scope="module")
def record():
    return json.loads(coverage.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("what", CELLS)
def test_what_is_shown_without_a_warning_holds(what, monkeypatch):
    """At most 7 % of readers are misled, give or take what chance does to 400 evaluations."""
    monkeypatch.setattr("em_interp.stats.contrasts.EXACT_UP_TO", 0)  # no p is read here
    monkeypatch.setattr("em_interp.stats.contrasts.DRAWS", 1)
    for row in coverage.simulate(cells.Cell(what, 0, CELLS[what]), REPS):
        assert row["missed"] <= 0.07 + 2 * 0.013, row
    if "TPR" in what:
        tpr = coverage.simulate(cells.Cell(what, 0, CELLS[what]), 5)[1:]
        assert [row["given"] for row in tpr] == [0, 0]


def test_the_page_of_coverage_is_what_its_record_says(record):
    assert coverage.PAGE.read_text(encoding="utf-8") == page(record)
    assert [row for row in record["rows"] if short(row)] == []
    assert {row["interval"] for row in record["rows"]} == set(WORDS)
    assert record["reps"] >= 2000


def test_the_record_of_coverage_is_of_this_grid_and_of_these_intervals(record):
    grid = list(cells.grid())
    assert {(row["design"], row["questions"]) for row in record["rows"]} == {
        (cell.design, cell.questions) for cell in grid
    }
    for again in (grid[0], next(cell for cell in grid if "seeds" in cell.design)):
        rows = coverage.simulate(again, record["reps"])
        committed = [
            row
            for row in record["rows"]
            if (row["design"], row["questions"]) == (again.design, again.questions)
        ]
        assert rows == committed


def test_a_cell_that_misleads_is_called_short():
    row = {"shown": 1.0, "held": 0.94, "missed": 0.06}
    assert not short(row)
    assert short(row | {"held": 0.92})
    assert short({"shown": 0.2, "held": 0.5, "missed": 0.1})
    assert not short({"shown": 0.02, "held": 0.5, "missed": 0.01})
