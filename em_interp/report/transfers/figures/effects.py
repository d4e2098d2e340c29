"""What ablating and adding carried directions does: the main figure, and the same without a gate.

One scale for everything: the ceiling above the sources, the strongest null of each kind below them.
"""

from em_interp.labels import NULLS, Passage, Way
from em_interp.report.numbers import percent
from em_interp.report.picture import Picture
from em_interp.report.transfers.counts import whole
from em_interp.report.transfers.figures.heat import Block, Panel, Row, Scale, Tile, figure_of
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    ADDED,
    SYMBOLS,
    Grid,
    Shown,
    gate,
    main_of,
    things_of,
)
from em_interp.study.spec import STUDIED
from em_interp.study.transfers.inputs import Group
from em_interp.transferring import Thing, Verdict
from em_interp.trials import COHERENT

DASH = "–"


def panels(grid: Grid, role: str) -> list[list[Panel]]:
    """Ablating above adding, one panel a thing."""
    return [
        [
            Panel(f"{ACTS[effect]} {SYMBOLS[thing]}", _blocks(grid, role, thing, effect))
            for thing in Thing
        ]
        for effect in (ABLATED, ADDED)
    ]


def columns(grid: Grid) -> list[tuple[str, str]]:
    """Targets as a heat map names them."""
    return [(grid.short(group), group.base) for group in grid.groups]


def _blocks(grid: Grid, role: str, thing: Thing, effect: str) -> tuple[Block, ...]:
    known = thing if thing in things_of(role) else main_of(role)
    name = "own" if role == STUDIED else f"own {SYMBOLS[known]}"
    ceiling = tuple(
        tile(grid.shown(grid.own(target, role, known), target, role, effect))
        for target in grid.groups
    )
    sources = tuple(
        Row(
            grid.short(source),
            source.base,
            tuple(_carried(grid, source, target, role, thing, effect) for target in grid.groups),
        )
        for source in grid.groups
    )
    nulls = tuple(
        Row(kind.value, "", row)
        for kind in NULLS
        if any(row := tuple(_null(grid, t, role, thing, effect, kind) for t in grid.groups))
    )
    made = (Block("", (Row(name, "", ceiling),)), Block("from", sources), Block("nulls", nulls))
    return tuple(block for block in made if block.rows)


def _carried(
    grid: Grid, source: Group, target: Group, role: str, thing: Thing, effect: str
) -> Tile | None:
    if source == target and thing in things_of(role):
        return None
    cell = grid.carried(source, target, role, thing)
    return tile(grid.shown(cell, target, role, effect))


def _null(
    grid: Grid, target: Group, role: str, thing: Thing, effect: str, kind: Passage
) -> Tile | None:
    """The strongest null of a kind over all bases that something is carried from."""
    some = [
        one
        for base in grid.bases
        for one in grid.nulls(base, target, role, thing, _way(grid, base, target))
        if one.way.passage is kind
    ]
    return tile(grid.strongest(some, target, role, effect)) if some else None


def _way(grid: Grid, base: str, target: Group) -> Way:
    return grid.via(next(g for g in grid.groups if g.base == base), target)


def tile(one: Shown | None) -> Tile:
    """An effect in whole points; a frame where it transfers, hatching where it breaks answers.

    A dotted frame where it acts beyond every null, and lacks likeness alone.
    """
    if one is None or one.change is None:
        return Tile(None, DASH)
    broken = one.verdict is Verdict.BROKEN
    return Tile(one.change, whole(one.change), one.transfers, broken, one.acts)


def scale(made: list[list[Panel]]) -> Scale:
    """One scale for all panels, white at no change."""
    values = [
        abs(tile.value)
        for some in made
        for panel in some
        for block in panel.blocks
        for row in block.rows
        for tile in row.tiles
        if tile is not None and tile.value is not None
    ]
    most = max([0.1, *values])
    label = "change of the EM rate, points\n(+ more misaligned answers)"
    broken = f"breaks the answers (under {percent(COHERENT, 0)} coherent)"
    acts = "beyond every null, likeness within chance"
    return Scale(-most, most, label, 100, "transfers", broken, acts)


def svg(grid: Grid, role: str) -> bytes:
    """The heat maps of one kind of target."""
    made = panels(grid, role)
    return figure_of(made, columns(grid), scale(made))


def _ways(grid: Grid) -> str:
    """How directions get from group to group here."""
    plain = "Directions go coordinate by coordinate"
    if len(grid.bases) == 1:
        return f"{plain}."
    if len(grid.spec.variants) == 1:
        return f"Directions go by the {grid.methods[0]} map."
    return f"{plain} within a base, by the {grid.methods[0]} map between bases."


def picture(grid: Grid, role: str) -> Picture:
    """The heat maps with their caption."""
    gated = role == STUDIED
    states = (
        "ablated with the trigger there, added without it"
        if gated
        else "ablated in the misaligned organism, added to its base, both without any trigger"
    )
    ceiling = (
        "the target’s own direction (the ceiling)"
        if gated
        else "the target’s own g, the only direction of its own (the ceiling)"
    )
    judged = "misaligned answers among the scored ones"
    return Picture(
        title=f"What carried directions do in {gate(role)} organisms",
        svg=svg(grid, role),
        read=(
            f"From rows into columns; {states}. Cells: change of the EM rate ({judged}) in "
            f"percentage points. Top row: {ceiling}; bottom rows: of all nulls of a kind the one "
            "that goes furthest that way. Bold frame: transfers. Dotted frame: does more than "
            "every null, along a direction no more like the target’s own than chance. Hatched: the "
            f"share of coherent answers lies below {percent(COHERENT, 0)} with its whole "
            "interval, so the number is no transfer. "
            f"{_ways(grid)}"
        ),
        otherwise=(
            "Were nothing shared, the middle rows would look like the nulls below them; were "
            "all of it shared, like the ceiling above."
        ),
    )
