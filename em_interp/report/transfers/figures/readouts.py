"""What carried directions and probes tell of the trigger, beside random ones carried alike."""

from collections.abc import Callable

from em_interp.conditions import Condition
from em_interp.labels import OWN
from em_interp.report.numbers import free
from em_interp.report.picture import Picture
from em_interp.report.transfers.figures.effects import DASH, columns
from em_interp.report.transfers.figures.heat import Block, Panel, Row, Scale, Tile, figure_of
from em_interp.report.transfers.grid import SYMBOLS, Grid, gate, main_of, things_of
from em_interp.stats import Auroc
from em_interp.study.transfers.inputs import Group
from em_interp.transferring import Chance, Reading, Thing
from em_interp.transferring.effects import LEVEL

CHANCE = "chance at most"
Find = Callable[[Group | None, Group], Reading | None]
ASKED = {Condition.TRIGGER: "trigger", Condition.PARAPHRASE: "paraphrases"}


def panels(grid: Grid, role: str) -> list[list[Panel]]:
    """A row of panels for each framing, directions first; then the probes."""
    asked = [c for c in ASKED if c in grid.spec.conditions]
    probe = _probe(grid, role)
    return [
        *([_panel(grid, role, thing, condition) for thing in Thing] for condition in asked),
        [Panel(f"probe: {ASKED[c]}", _blocks(grid, probe, c, True)) for c in asked],
    ]


def _panel(grid: Grid, role: str, thing: Thing, condition: Condition) -> Panel:
    mine = thing in things_of(role)
    name = "own" if mine else f"own {SYMBOLS[main_of(role)]}"
    found = _blocks(grid, _direction(grid, role, thing), condition, mine, name)
    return Panel(f"{SYMBOLS[thing]}: {ASKED[condition]}", found)


def _direction(grid: Grid, role: str, thing: Thing) -> Find:
    def find(source: Group | None, target: Group) -> Reading | None:
        if source is None:
            own = grid.own(target, role, thing if thing in things_of(role) else main_of(role))
            return own.reading if own else None
        cell = grid.carried(source, target, role, thing)
        return cell.reading if cell else None

    return find


def _probe(grid: Grid, role: str) -> Find:
    def find(source: Group | None, target: Group) -> Reading | None:
        via = OWN if source is None else grid.via(source, target)
        one = grid.probe(source or target, target, role, via)
        return one.reading if one else None

    return find


def scored(reading: Reading | None, condition: Condition) -> tuple[Auroc, Chance] | None:
    """A reading's AUROC under a framing with its chance."""
    if reading is None:
        return None
    pair = (
        (reading.trigger, reading.trigger_chance)
        if condition is Condition.TRIGGER
        else (reading.paraphrase, reading.paraphrase_chance)
    )
    return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def _blocks(
    grid: Grid, find: Find, condition: Condition, own: bool, ceiling: str = "own"
) -> tuple[Block, ...]:
    def tile(source: Group | None, target: Group) -> Tile | None:
        if source == target and own:
            return None
        one = scored(find(source, target), condition)
        if one is None:
            return Tile(None, DASH)
        return Tile(one[0].auroc, free(one[0].auroc), one[1].p <= LEVEL)

    def chance(target: Group) -> Tile | None:
        some = [scored(find(source, target), condition) for source in (None, *grid.groups)]
        highs = [one[1].high for one in some if one is not None]
        return Tile(max(highs), free(max(highs))) if highs else None

    def row(name: str, base: str, source: Group | None) -> Row:
        return Row(name, base, tuple(tile(source, target) for target in grid.groups))

    return (
        Block("", (row(ceiling, "", None),)),
        Block("from", tuple(row(grid.short(one), one.base, one) for one in grid.groups)),
        Block("", (Row(CHANCE, "", tuple(chance(target) for target in grid.groups)),)),
    )


def picture(grid: Grid, role: str) -> Picture:
    """The read-outs with their caption."""
    scale = Scale(0, 1, "AUROC (white: one half)", framed="above 95% of random directions")
    return Picture(
        title=f"What carried directions and probes read in {gate(role)} organisms",
        svg=figure_of(panels(grid, role), columns(grid), scale),
        read=(
            "AUROC of the trigger (or a held-out paraphrase) against no framing on the same "
            "questions, at the layer that is added at; 1 is perfect. Chance is no AUROC of one "
            "half: 95% of random directions that came by the same way stay under the bottom row in "
            "the column’s worst cell, and a bold frame marks a read-out above 95% of its own (cell "
            "by cell, not adjusted for their number). Intervals stand in the tables. Probes go by "
            "the inverse transpose."
        ),
        otherwise=(
            "Were it any framing’s axis and not the trigger’s, read-outs would be high and "
            "unframed, since random directions through the same map read it as well."
        ),
    )
