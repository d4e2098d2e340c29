"""The answer of a transfer study in sentences, counted from the records.

Which word stands for how many is fixed here: all, more than half, some, none. Knows no figures.
"""

from em_interp.report.first_screen import Headline
from em_interp.report.numbers import points
from em_interp.report.transfers.counts import Tally, changes, in_points, tally
from em_interp.report.transfers.grid import (
    ABLATED,
    ADDED,
    SYMBOLS,
    Grid,
    Relation,
)
from em_interp.study.spec import STUDIED
from em_interp.transferring import Thing

WHERE = {
    Relation.GROUP: "within a group",
    Relation.BASE: "within a base",
    Relation.OTHER: "between bases",
}


SIDES = {Relation.GROUP: "in group", Relation.BASE: "within", Relation.OTHER: "between"}


def degree(one: Tally) -> str:
    """All, more than half, some or none of the cells in a word."""
    if not one.cells:
        return "nothing was scored"
    if one.transfers == one.cells:
        return "it carries over"
    if 2 * one.transfers > one.cells:
        return "it mostly carries over"
    return "it carries over in part" if one.transfers else "it does not carry over"


def tallied(grid: Grid, role: str, thing: Thing, relation: Relation, effect: str) -> Tally:
    """The count of a thing's cells by relation."""
    return tally(grid.effects(role, thing, relation, effect))


def apart(grid: Grid) -> list[Relation]:
    """The relations between different groups that this study has."""
    known = grid.relations(STUDIED, Thing.DELTA)
    return [one for one in (Relation.BASE, Relation.OTHER) if one in known]


def headline(grid: Grid) -> Headline:
    """Does a containment direction carry over, within a base and between bases, and which part?"""
    calls: list[str] = []
    parts: list[str] = []
    own = in_points(changes(grid.native(STUDIED, Thing.DELTA, ABLATED)))
    for relation in apart(grid):
        one = tallied(grid, STUDIED, Thing.DELTA, relation, ABLATED)
        calls.append(f"{WHERE[relation]}: {one.counted}")
        act = "ablating another group’s δ" if not parts else "it"
        beside = f", where the targets’ own δ brings {own}" if not parts else ""
        parts.append(
            f"{WHERE[relation].capitalize()} {degree(one)}: {act} transfers in {one.counted} "
            f"cells, {_points(one)}{beside}."
        )
    said = " ".join(one for one in (_acting(grid), _which(grid), _adding(grid)) if one)
    return Headline(" · ".join(calls), " ".join(parts), said)


def _acting(grid: Grid) -> str:
    """Cells that lack likeness alone: they act, and a reader should not take that for nothing."""
    relation = apart(grid)[-1]
    some = grid.effects(STUDIED, Thing.DELTA, relation, ABLATED)
    acting = [one for one in some if one.acts]
    if not acting:
        return ""
    spread = in_points(changes(acting))
    number = "1 more cell" if len(acting) == 1 else f"{len(acting)} more cells"
    return (
        f"In {number} {WHERE[relation]} ablating δ does more than every null ({spread} points), "
        "but along a direction that is no more like the target’s own than chance."
    )


def _points(one: Tally) -> str:
    if one.change is None:
        return "with nothing scored"
    low, high = points(one.change.low), points(one.change.high)
    if low == high:
        return f"{low} points"
    return f"{points(one.change.middle)} points at the median ({low} to {high})"


def _which(grid: Grid) -> str:
    """Which part carries over, by the farthest relation there is."""
    relation = apart(grid)[-1]
    told = []
    for thing in (Thing.GENERAL, Thing.REST):
        one = tallied(grid, STUDIED, thing, relation, ABLATED)
        told.append(f"{SYMBOLS[thing]} in {one.counted} cells, {_points(one)}")
    return f"Which part: {WHERE[relation]}, ablating transfers for {told[0]}, and for {told[1]}."


def _adding(grid: Grid) -> str:
    told = []
    for relation in apart(grid):
        one = tallied(grid, STUDIED, Thing.DELTA, relation, ADDED)
        broken = f" ({one.broken} break the answers)" if one.broken else ""
        told.append(f"{one.counted} {WHERE[relation]}{broken}")
    return f"Adding δ without the trigger transfers in {' and '.join(told)}."
