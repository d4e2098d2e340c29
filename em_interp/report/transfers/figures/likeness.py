"""Where carried directions point: the cosine to the target's own, beside what chance gives."""

from em_interp.maps import Likeness
from em_interp.report.numbers import free
from em_interp.report.picture import Picture
from em_interp.report.transfers.figures.effects import DASH, columns
from em_interp.report.transfers.figures.heat import Block, Panel, Row, Scale, Tile, figure_of
from em_interp.report.transfers.grid import SYMBOLS, Grid, gate, things_of
from em_interp.study.transfers.inputs import Group
from em_interp.study.transfers.spec import TARGETS
from em_interp.transferring import Thing

CHANCE = "chance at most"


def panels(grid: Grid) -> list[list[Panel]]:
    """Gated targets above unconditional ones, one panel a thing."""
    return [
        [Panel(f"{SYMBOLS[thing]}, {gate(role)}", _blocks(grid, role, thing)) for thing in Thing]
        for role in TARGETS
    ]


def found(
    grid: Grid, source: Group, target: Group, role: str, thing: Thing
) -> tuple[float, Likeness | None] | None:
    """The cosine at the layer that is added at, and its nulls where there are some."""
    column, cell = grid.column(target, role), grid.carried(source, target, role, thing)
    if column is None or cell is None:
        return None
    site = column.transfer.added_at[0]
    return (cell.cosines[site], cell.likeness.get(site)) if site in cell.cosines else None


def _blocks(grid: Grid, role: str, thing: Thing) -> tuple[Block, ...]:
    def tile(source: Group, target: Group) -> Tile | None:
        if source == target and thing in things_of(role):
            return None
        one = found(grid, source, target, role, thing)
        if one is None:
            return Tile(None, DASH)
        cosine, like = one
        return Tile(cosine, free(cosine), like is not None and like.transfers)

    def chance(target: Group) -> Tile | None:
        some = (found(grid, source, target, role, thing) for source in grid.groups)
        highs = [one[1].high for one in some if one is not None and one[1] is not None]
        return Tile(max(highs), free(max(highs))) if highs else None

    sources = tuple(
        Row(grid.short(source), source.base, tuple(tile(source, t) for t in grid.groups))
        for source in grid.groups
    )
    nulls = (Row(CHANCE, "", tuple(chance(target) for target in grid.groups)),)
    return Block("from", sources), Block("", nulls)


def picture(grid: Grid) -> Picture:
    """The cosines with their caption."""
    scale = Scale(-1, 1, "cosine to the target’s own", framed="above chance at 1%")
    return Picture(
        title="Where carried directions point",
        svg=figure_of(panels(grid), columns(grid), scale),
        read=(
            "Cosine of the carried direction to the target’s own of the same kind (in "
            "unconditional targets always to g), at the layer that is added at, the first of "
            "several; every layer stands in the tables. Bold frame: above 99% of three nulls of "
            "hundreds of draws each (random source directions and draws from the source’s "
            "covariance through the same map, draws from the target’s covariance), and both "
            "streams move together along the two directions on the fitting texts, more than 99% of "
            "random functions of the texts do. Bottom row: what 99% of the cosines’ draws stay "
            "under in the column’s worst cell. A cosine has no interval: the "
            "directions are means over the development questions."
        ),
        otherwise=(
            "Were it the map that makes directions alike, or leading axes that meet, frames would "
            "be missing however high the cosines; with the wrong sign a cell is purple and has no "
            "frame."
        ),
    )
