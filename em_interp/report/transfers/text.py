"""A transfer study in the terminal: the answer, then how many of how many, with ranges."""

from em_interp.report.text import table
from em_interp.report.transfers.grid import Grid
from em_interp.report.transfers.tables import score
from em_interp.report.transfers.words import headline as answered
from em_interp.study.transfers.results import Findings
from em_interp.study.transfers.spec import TARGETS


def headline(found: Findings) -> str:
    """The answer in sentences, and the score of both kinds of target."""
    grid = Grid(found)
    _, answer, why = answered(grid)
    parts = [f"{answer}\n{why}"]
    for role in TARGETS:
        made = score(grid, role)
        rows = [[block.heading, *[""] * (len(made.heads) - 1)] for block in made.blocks]
        lines = []
        for head, block in zip(rows, made.blocks, strict=True):
            lines += [head, *([f"  {row[0]}", *row[1:]] for row in block.rows)]
        parts.append(table(made.caption, made.heads, lines))
    return "\n\n".join(parts)
