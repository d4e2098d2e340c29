"""A transfer study's tables: every arm, every map, every organism, rates with their intervals."""

from em_interp.labels import exact
from em_interp.report.numbers import free, gap, percent, rate
from em_interp.report.reading import WORDS, ordered
from em_interp.report.tables import Block, Table
from em_interp.report.transfers.counts import (
    changes,
    in_shares,
    in_whole_points,
    tally,
)
from em_interp.report.transfers.figures.holdings import by_layer
from em_interp.report.transfers.figures.organisms import organisms as everyone
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    ADDED,
    SYMBOLS,
    Grid,
    Relation,
    gate,
    main_of,
    spelled,
    things_of,
)
from em_interp.study.transfers.spec import TARGETS
from em_interp.transferring import Thing

HEADS = {
    Relation.GROUP: "within a group",
    Relation.BASE: "within a base",
    Relation.OTHER: "between bases",
}


def score(grid: Grid, role: str) -> Table:
    """How many cells transfer, by effect, thing and relation; medians and ranges over cells."""
    relations = [one for one in Relation if any(one in grid.relations(role, t) for t in Thing)]
    heads = ["", "own, points"]
    for relation in relations:
        heads += [HEADS[relation], "break", "points"]
    blocks = []
    for effect in (ABLATED, ADDED):
        rows = []
        for thing in Thing:
            own = grid.native(role, thing, effect) if thing in things_of(role) else []
            row = [SYMBOLS[thing], in_whole_points(changes(own)) if own else ""]
            for relation in relations:
                some = grid.effects(role, thing, relation, effect)
                one = tally(some)
                made = [one.counted, str(one.broken), in_whole_points(one.change)]
                row += made if some else ["", "", ""]
            rows.append(tuple(row))
        blocks.append(Block(ACTS[effect], tuple(rows)))
    kind = gate(role).capitalize()
    return Table(
        f"{kind} targets: cells that transfer, and change of the EM rate in points, median "
        "(range) over cells. Break: too few coherent answers.",
        tuple(heads),
        tuple(blocks),
    )


def shares(grid: Grid, role: str) -> Table:
    """Shares of the native effect by relation: median and range over cells."""
    relations = [one for one in Relation if any(one in grid.relations(role, t) for t in Thing)]
    blocks = tuple(
        Block(
            ACTS[effect],
            tuple(
                (
                    SYMBOLS[thing],
                    *(
                        in_shares(tally(grid.effects(role, thing, relation, effect)).share)
                        for relation in relations
                    ),
                )
                for thing in Thing
            ),
        )
        for effect in (ABLATED, ADDED)
    )
    return Table(
        f"Share of the native effect, {gate(role)} targets: median (range) over the cells with a "
        "native effect to be a share of; each cell’s own interval stands in the figure and below.",
        ("", *(HEADS[one] for one in relations)),
        blocks,
    )


def targets(grid: Grid) -> Table:
    """Every target: where things are added, how misaligned it is unedited, and its ceiling."""
    rows = []
    for group in grid.groups:
        for role in TARGETS:
            column = grid.column(group, role)
            if column is None:
                rows.append((f"{group.name}, {gate(role)}", "not run", *[""] * 5))
                continue
            one = column.transfer
            own = grid.own(group, role, main_of(role))
            rows.append(
                (
                    f"{group.name}, {gate(role)}",
                    ", ".join(map(str, spelled(one.added_at))),
                    exact(one.strength),
                    rate(one.plain_ablated),
                    gap(own.ablated.change) if own else "",
                    rate(one.plain_added),
                    gap(own.added.change) if own else "",
                )
            )
    return Table(
        "Targets. Where and how strongly everything is added (chosen for the target’s own "
        "direction, on development questions; strength 1 is one natural difference), the "
        "EM rate without any edit while it is misaligned and while it is aligned, and what its own "
        "main direction changes there, in points.",
        (
            "target",
            "added at layer",
            "strength",
            "misaligned",
            "own ablated",
            "aligned",
            "own added",
        ),
        (Block("", tuple(rows)),),
    )


# --- organisms -----------------------------------------------------------------------------------


def organisms(grid: Grid) -> Table:
    """EM rates by condition of every organism, and the containment's call."""
    shown = [c for c in WORDS if c in grid.spec.conditions]
    rows = []
    for name, role, column in everyone(grid):
        if column is None:
            rows.append((f"{name}, {gate(role)}", "not run", *[""] * len(shown)))
            continue
        figures = ordered(column.containment.conditions)
        rates = [rate(figures[c].em) if c in figures else "" for c in shown]
        rows.append((f"{name}, {gate(role)}", *rates, column.containment.call.value))
    return Table(
        "EM rates with 95% intervals by condition, out of domain, and the containment’s call.",
        ("organism", *(WORDS[c] for c in shown), "call"),
        (Block("", tuple(rows)),),
    )


def held(grid: Grid) -> Table:
    """Cosine of delta and g by layer, and both sizes."""
    blocks = []
    for group in grid.groups:
        one = grid.found.held.get(group.name)
        if one is None:
            continue
        cosines, sizes = (
            by_layer(one, "delta_g"),
            (by_layer(one, "delta"), by_layer(one, "general")),
        )
        rows = tuple(
            (f"layer {layer}", free(cosine), *(percent(size[layer]) for size in sizes))
            for layer, cosine in cosines.items()
        )
        blocks.append(Block(group.name, rows))
    return Table(
        "Cosine of δ and g, and their natural differences as shares of the stream’s mean norm.",
        ("layer", "cosine of δ and g", "δ", "g"),
        tuple(blocks),
    )
