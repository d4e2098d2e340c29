"""The maps as tables: what each carries between bases, and how each was fitted."""

from collections.abc import Sequence

from em_interp.maps.shelf import Leg
from em_interp.report.numbers import count, percent, span
from em_interp.report.tables import Block, Cells, Table
from em_interp.report.transfers.counts import changes, in_points, in_shares, spread, tally
from em_interp.report.transfers.figures import methods as strips
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    ADDED,
    SYMBOLS,
    Grid,
    Shown,
    gate,
    layer_of,
    main_of,
)
from em_interp.study.transfers.records import Crossing


def methods(grid: Grid, role: str) -> Table | None:
    """The maps beside each other between bases, each beside its own nulls."""
    if len(grid.bases) < 2:
        return None
    blocks = []
    for effect in (ABLATED, ADDED):
        rows = []
        for one in strips.compared(grid, role, effect):
            made = tally(one.carried)
            rows.append(
                (
                    one.method,
                    made.counted,
                    str(made.broken),
                    str(made.unscored),
                    in_points(made.change),
                    in_points(changes(one.nulls)),
                    _coherent(one.carried),
                    _coherent(one.nulls),
                )
            )
        blocks.append(Block(ACTS[effect], tuple(rows)))
    return Table(
        f"Maps between bases, {SYMBOLS[main_of(role)]} into {gate(role)} targets: medians and "
        "ranges over cells, and over each map’s own nulls.",
        (
            "map",
            "transfer",
            "break",
            "unscored",
            "points",
            "nulls, points",
            "coherent",
            "nulls, coherent",
        ),
        tuple(blocks),
    )


def _coherent(some: Sequence[Shown]) -> str:
    return in_shares(spread(o.effect.coherent.point for o in some if o.effect.coherent))


def maps(grid: Grid) -> Table | None:
    """Every map between two bases: rank, penalty and what it explains, ranges over layers."""
    blocks = []
    for (a, b), one in _pairs(grid):
        rows = [_map(name, legs) for name, legs in _legs(grid, one) if name in grid.methods]
        blocks.append(Block(f"{a} to {b}, {count(one.rows, 'row')}", tuple(rows)))
    if not blocks:
        return None
    last = str(grid.spec.fitting.spans[-1]).replace("_", " ")
    return Table(
        "Maps between bases, ranges over layers. Explained: share of the target’s variance, at the "
        f"{last}, on folds left out (which also chose rank and penalty); negative is worse than "
        "the mean. Penalty: as a share of the source’s mean variance a dimension. A map on "
        "shuffled prompts has the rank and penalty of its like.",
        ("map", "rank", "penalty", "explained"),
        tuple(blocks),
    )


def legs(grid: Grid) -> Table | None:
    """The same layer by layer."""
    blocks = []
    for (a, b), one in _pairs(grid):
        rows = [
            (
                f"{name}, layer {layer_of(leg.source)} to {layer_of(leg.target)}",
                str(leg.fit.rank),
                f"{leg.fit.penalty:g}",
                "" if leg.fit.held_in is None else percent(leg.fit.held_in),
            )
            for name, some in _legs(grid, one)
            for leg in some
        ]
        blocks.append(Block(f"{a} to {b}", tuple(rows)))
    heads = ("map", "rank", "penalty", "explained")
    return Table("Every map at every layer.", heads, tuple(blocks)) if blocks else None


def _pairs(grid: Grid) -> list[tuple[tuple[str, str], Crossing]]:
    pairs = [(a, b) for a in grid.bases for b in grid.bases if a != b]
    return [(pair, grid.found.crossings[pair]) for pair in pairs if pair in grid.found.crossings]


def _legs(grid: Grid, one: Crossing) -> list[tuple[str, list[Leg]]]:
    """Maps in the order of the declaration, those that should carry nothing last."""
    names = [m for m in grid.methods if m in one.maps]
    names += sorted(name for name in one.maps if name not in names)
    return [(n, sorted(one.maps[n], key=lambda leg: layer_of(leg.target))) for n in names]


def _map(name: str, some: Sequence[Leg]) -> Cells:
    ranks = sorted(leg.fit.rank for leg in some)
    penalties = sorted(leg.fit.penalty for leg in some)
    held = sorted(leg.fit.held_in for leg in some if leg.fit.held_in is not None)
    ends = [f"{ranks[0]}", f"{ranks[-1]}"], [f"{penalties[0]:g}", f"{penalties[-1]:g}"]
    return (
        name,
        *(a if a == b else f"{a} to {b}" for a, b in ends),
        span(held) if held else "",
    )
