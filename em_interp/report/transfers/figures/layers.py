"""Which layers resemble each other across bases, and how much of delta lies along g."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from em_interp.report.numbers import free
from em_interp.report.picture import Picture
from em_interp.report.style import (
    INK,
    VERMILLION,
    WIDTH,
    boxes,
    drawn,
    shorten,
)
from em_interp.report.transfers.grid import Grid, layer_of
from em_interp.study.transfers.records import Crossing

MAP = "Blues"
ROOMY = 8  # layers up to which every number is printed


def crossings(grid: Grid) -> list[Crossing]:
    """Ordered pairs of different bases, in the declaration's order."""
    pairs = [(a, b) for a in grid.bases for b in grid.bases if a != b]
    return [grid.found.crossings[pair] for pair in pairs if pair in grid.found.crossings]


def matched(grid: Grid, one: Crossing) -> list[tuple[int, int]]:
    """Source and target layer of every leg of the first map."""
    legs = one.maps.get(grid.methods[0], ())
    return sorted((layer_of(leg.source), layer_of(leg.target)) for leg in legs)


@drawn
def similarity(grid: Grid) -> Figure:
    """One matrix for each ordered pair of bases: rows are the source's layers."""
    some = crossings(grid)
    across = min(len(some), 6 if len(some) > 12 else 4 if len(some) > 6 else 3)
    side = (WIDTH - 0.75) / across
    wide = min(side - 0.42, 1.9)
    down = -(-len(some) // across)
    height = down * (wide + 0.52) + 0.08
    figure = Figure(figsize=(WIDTH, height))
    norm = Normalize(0, 1)
    for place, one in enumerate(some):
        row, column = divmod(place, across)
        left = 0.42 + column * side
        bottom = height - (row + 1) * (wide + 0.52) + 0.34
        box = (left / WIDTH, bottom / height, wide / WIDTH, wide / height)
        _matrix(figure.add_axes(box), one, matched(grid, one), norm)
    bar = figure.add_axes((1 - 0.42 / WIDTH, 0.34 / height, 0.1 / WIDTH, wide / height))
    shown = mpl.cm.ScalarMappable(norm, mpl.colormaps[MAP])
    figure.colorbar(shown, cax=bar).outline.set_visible(False)
    bar.tick_params(labelsize=6.5)
    bar.set_title("CKA", fontsize=7, weight="normal")
    return figure


def _matrix(axes: Axes, one: Crossing, legs: list[tuple[int, int]], norm: Normalize) -> None:
    rows, columns = len(one.cka), len(one.cka[0])
    colours = mpl.colormaps[MAP]
    places = [(r, c) for r in range(rows) for c in range(columns)]
    shades = [colours(norm(one.cka[r][c])) for r, c in places]
    boxes(axes, [(c, r, c + 1, r + 1) for r, c in places], shades, antialiased=False)
    if max(rows, columns) <= ROOMY:
        for (r, c), shade in zip(places, shades, strict=True):
            ink = "white" if sum(shade[:3]) < 1.5 else INK
            size = 7 if max(rows, columns) <= 4 else 5.5
            axes.text(
                c + 0.5,
                r + 0.5,
                free(one.cka[r][c]),
                ha="center",
                va="center",
                fontsize=size,
                color=ink,
            )
    edge = {"lw": 1.6 if max(rows, columns) <= ROOMY else 0.7}
    corners = [(c + 0.04, r + 0.04, c + 0.96, r + 0.96) for r, c in legs]
    boxes(axes, corners, ["none"], edgecolors=VERMILLION, **edge)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    for which, count in (("x", columns), ("y", rows)):
        step = max(1, -(-count // 8))
        ticks = list(range(0, count, step))
        getattr(axes, f"set_{which}ticks")([t + 0.5 for t in ticks], map(str, ticks))
    axes.tick_params(length=0, labelsize=6.3, pad=1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(f"into {shorten(one.target, 18)}", fontsize=7, labelpad=1)
    axes.set_ylabel(f"from {shorten(one.source, 18)}", fontsize=7, labelpad=1)


def picture(grid: Grid) -> Picture | None:
    """The matrices with their caption; `None` with one base."""
    if not crossings(grid):
        return None
    how = grid.spec.fitting.match
    first = crossings(grid)[0]
    return Picture(
        title="Similarity of layers between bases",
        svg=similarity(grid),
        read=(
            f"Linear CKA of block outputs at the prompt’s end, over {first.prompts:,} harmless "
            "prompts that both bases read; rows are the source’s layers, columns the target’s. "
            f"Outlined: the layers that maps go between (matched by {how}). It orients the "
            "choice of layers and decides no verdict."
        ),
        otherwise=(
            "Were layers alike by depth, the outlined diagonal would be the brightest cell of "
            "every column."
        ),
    )
