"""The maps beside each other: what each carries between bases, beside its own nulls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.labels import by_map
from em_interp.report.numbers import count, minus, percent
from em_interp.report.picture import Picture
from em_interp.report.style import GREY, INK, MUTED, VERMILLION, WIDTH, drawn, share_axis
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    ADDED,
    SYMBOLS,
    Grid,
    Relation,
    Shown,
    gate,
    main_of,
)
from em_interp.transferring import Verdict
from em_interp.trials import COHERENT

LEFT, STRIP = 0.95, 0.30
CARRIED, NOT, BROKEN, NULL = "transfers", "no transfer", "breaks the answers", "null"
_RED: dict[str, Any] = {"color": VERMILLION, "marker": "D", "ms": 3.8, "mew": 0.7}
LOOKS: dict[str, dict[str, Any]] = {
    CARRIED: _RED,
    NOT: {**_RED, "markerfacecolor": "white"},
    BROKEN: {**_RED, "marker": "x", "ms": 4.0, "mew": 1.1},
    NULL: {"color": GREY, "marker": "o", "ms": 3.0, "mew": 0.7, "markerfacecolor": "white"},
}


class Compared(NamedTuple):
    """One map: what it carries between bases, and its nulls."""

    method: str
    carried: tuple[Shown, ...]
    nulls: tuple[Shown, ...]


def compared(grid: Grid, role: str, effect: str) -> list[Compared]:
    """Every method's cells between bases, of the thing that all methods carry."""
    thing, made = main_of(role), []
    for method in grid.methods:
        nulls = [
            one
            for target in grid.groups
            for base in grid.bases
            if base != target.base
            for null in grid.nulls(base, target, role, thing, by_map(method))
            if (one := grid.shown(null, target, role, effect)) is not None
        ]
        carried = grid.effects(role, thing, Relation.OTHER, effect, by_map(method))
        made.append(Compared(method, tuple(carried), tuple(nulls)))
    return made


@drawn
def figure_of(found: Sequence[tuple[str, Sequence[Compared], Sequence[Shown]]]) -> Figure:
    """For each effect two panels: the change and the coherence of every cell and null."""
    methods = [one.method for one in found[0][1]]
    tall = STRIP * 2 * len(methods)
    height = tall + 1.1
    figure = Figure(figsize=(WIDTH, height))
    room = (WIDTH - LEFT - 0.1) / 2
    for place, (effect, some, native) in enumerate(found):
        left = LEFT + place * room
        wide = room - 0.22
        parts = ((left, wide * 0.62), (left + wide * 0.67, wide * 0.33))
        for number, (start, size) in enumerate(parts):
            box = (start / WIDTH, 0.45 / height, size / WIDTH, tall / height)
            axes = figure.add_axes(box)
            for row, one in enumerate(some):
                _strip(axes, one.carried, 2 * row, number == 1, False)
                _strip(axes, one.nulls, 2 * row + 1, number == 1, True)
                if row:
                    axes.axhline(2 * row - 0.5, color="#dcdcd8", lw=0.6, zorder=0)
            _frame(axes, len(methods), number == 1)
            if number:
                axes.axvline(COHERENT, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=1)
                axes.set_xlabel("coherent")
            else:
                axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
                axes.plot(
                    [one.change for one in native if one.change is not None],
                    [-0.95] * sum(one.change is not None for one in native),
                    ls="none",
                    marker="|",
                    ms=6,
                    color=INK,
                    clip_on=False,
                )
                axes.set_title(ACTS[effect], pad=16)
                axes.set_xlabel("change of the EM rate, points")
            if not place and not number:
                for row, name in enumerate(methods):
                    where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right"}
                    axes.text(-0.05, 2 * row, name, va="center", weight="bold", **where)
                    axes.text(-0.05, 2 * row + 1, "its nulls", va="center", fontsize=7, **where)
    _legend(figure)
    return figure


def _strip(axes: Axes, some: Sequence[Shown], y: int, coherence: bool, null: bool) -> None:
    """One mark a cell, spread over the strip in the order of the grid so that none hides."""
    drawn_as: dict[str, list[tuple[float, float]]] = {}
    for place, one in enumerate(some):
        rate = one.effect.coherent
        x = (rate.point if rate else None) if coherence else one.change
        if x is not None:
            at = y + 0.62 * ((place * 0.618034) % 1 - 0.5)
            drawn_as.setdefault(NULL if null else _look(one), []).append((x, at))
    for look, places in drawn_as.items():
        x_, y_ = zip(*places, strict=True)
        axes.plot(x_, y_, ls="none", clip_on=False, zorder=3, **LOOKS[look])


def _look(one: Shown) -> str:
    if one.verdict is Verdict.BROKEN or one.change is None:
        return BROKEN
    return CARRIED if one.transfers else NOT


def _frame(axes: Axes, methods: int, coherence: bool) -> None:
    axes.set_ylim(2 * methods - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    share_axis(axes, "x", 3 if coherence else 6)
    if coherence:
        axes.set_xlim(0, 1.02)
    else:
        axes.xaxis.set_major_formatter(lambda v, _: minus(f"{100 * v:+g}") if v else "0")


def _legend(figure: Figure) -> None:
    handles = [Line2D([], [], ls="none", label=name, **look) for name, look in LOOKS.items()]
    handles.append(Line2D([], [], ls="none", marker="|", ms=6, color=INK, label="the targets’ own"))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(LEFT / WIDTH - 0.01, 1.0),
        ncols=5,
        borderaxespad=0.1,
        columnspacing=1.4,
        handletextpad=0.3,
    )


def picture(grid: Grid, role: str) -> Picture | None:
    """All methods with their caption; `None` with one base, or where nothing was run."""
    thing = main_of(role)
    found = [
        (effect, compared(grid, role, effect), grid.native(role, thing, effect))
        for effect in (ABLATED, ADDED)
    ]
    cells = len(found[0][1][0].carried)
    if len(grid.bases) < 2 or not cells:
        return None
    return Picture(
        title=f"The maps beside each other: {SYMBOLS[thing]} into {gate(role)} organisms",
        svg=figure_of(found),
        read=(
            f"{count(cells, 'cell')} between bases for each map, one mark a cell (up and down "
            "within a strip means nothing); below them that map’s own nulls. Ticks on top: the "
            "targets’ own directions. Right of each: the share of coherent answers; an effect "
            f"whose whole interval lies left of the dashed {percent(COHERENT, 0)} breaks the "
            "answers and is no transfer. Each cell’s interval stands in the tables."
        ),
        otherwise=(
            "A map that brings something would have its diamonds beyond its own circles; one "
            "whose circles reach as far moves any direction onto an axis that matters."
        ),
    )
