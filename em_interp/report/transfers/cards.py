"""Cards beside the main figure: likeness, read-outs, maps, targets without a gate."""

from em_interp.conditions import Condition
from em_interp.report.first_screen import Card, Line
from em_interp.report.numbers import free, points
from em_interp.report.transfers.counts import Spread, spread, tally
from em_interp.report.transfers.figures import likeness, methods, readouts
from em_interp.report.transfers.grid import ABLATED, SYMBOLS, Grid, Relation
from em_interp.report.transfers.words import WHERE, apart, tallied
from em_interp.study.spec import GENERAL, STUDIED
from em_interp.transferring import Thing
from em_interp.transferring.effects import LEVEL

SIDES = {Relation.GROUP: "in group", Relation.BASE: "within", Relation.OTHER: "between"}


def cards(grid: Grid) -> list[Card]:
    """Four answers beside the main figure: likeness, read-outs, maps, targets without a gate."""
    found = [_likeness(grid), _readouts(grid), _methods(grid), _ungated(grid)]
    return [one for one in found if one is not None]


def _range(one: Spread | None) -> str:
    if one is None:
        return "none"
    low, middle, high = map(free, (one.low, one.middle, one.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def _likeness(grid: Grid) -> Card:
    lines = []
    for thing in (Thing.DELTA, Thing.GENERAL):
        for relation in apart(grid):
            seen = [
                one
                for source, target, _ in grid.pairs(STUDIED, thing, relation)
                if (one := likeness.found(grid, source, target, STUDIED, thing)) is not None
            ]
            above = sum(like is not None and like.transfers for _, like in seen)
            shown = _range(spread(cosine for cosine, _ in seen))
            lines.append((f"{SYMBOLS[thing]} {SIDES[relation]}", above, len(seen), shown))
    last = lines[len(apart(grid)) - 1]
    return Card(
        "Does it point the same way?",
        "likeness",
        f"{last[1]} of {last[2]} above chance",
        tuple(Line(name, f"{above} of {of} · {shown}") for name, above, of, shown in lines),
        "Cells above chance and median cosine (range), at the layer added at. The large figure: "
        f"δ {WHERE[apart(grid)[-1]]}.",
    )


def _readouts(grid: Grid) -> Card:
    lines = []
    for name in ("δ", "probe"):
        for relation in apart(grid):
            seen = []
            for source, target, cell in grid.pairs(STUDIED, Thing.DELTA, relation):
                if name == "δ":
                    reading = cell.reading if cell else None
                else:
                    one = grid.probe(source, target, STUDIED, grid.via(source, target))
                    reading = one.reading if one else None
                if (scored := readouts.scored(reading, Condition.TRIGGER)) is not None:
                    seen.append(scored)
            above = sum(chance.p <= LEVEL for _, chance in seen)
            shown = _range(spread(one.auroc for one, _ in seen))
            lines.append((f"{name} {SIDES[relation]}", above, len(seen), shown))
    last = lines[len(apart(grid)) - 1]
    return Card(
        "Does it read the trigger?",
        "readouts",
        f"{last[1]} of {last[2]} above chance",
        tuple(Line(name, f"{above} of {of} · {shown}") for name, above, of, shown in lines),
        "Read-outs above 95% of random directions that came by the same way, and median AUROC "
        f"(range). The large figure: δ {WHERE[apart(grid)[-1]]}.",
    )


def _methods(grid: Grid) -> Card | None:
    if Relation.OTHER not in apart(grid):
        return None
    made = {m.method: tally(m.carried) for m in methods.compared(grid, STUDIED, ABLATED)}
    lines = [
        Line(name, one.counted + (f", {one.broken} break" if one.broken else ""))
        for name, one in made.items()
    ]
    best = max(made, key=lambda name: made[name].transfers)  # the first of equals
    return Card(
        "Does it depend on the map?",
        "methods",
        f"{best}: {made[best].counted}" if made[best].transfers else "no map carries it",
        tuple(lines),
        "Cells in which ablating δ between bases transfers, by map, each judged by its own nulls. "
        "The large figure: the map with most.",
    )


def _ungated(grid: Grid) -> Card:
    lines = []
    for thing in (Thing.GENERAL, Thing.DELTA):
        for relation in grid.relations(GENERAL, thing):
            one = tallied(grid, GENERAL, thing, relation, ABLATED)
            lines.append(
                Line(
                    f"{SYMBOLS[thing]} {SIDES[relation]}",
                    f"{one.counted} · {points(one.change.middle) if one.change else 'nothing'}",
                )
            )
    last = tallied(grid, GENERAL, Thing.GENERAL, apart(grid)[-1], ABLATED)
    return Card(
        "And where there is no gate?",
        "ungated",
        f"g: {last.counted}",
        tuple(lines),
        "Ablating in unconditional organisms: cells that transfer, median points. The large "
        f"figure: g {WHERE[apart(grid)[-1]]}.",
    )
