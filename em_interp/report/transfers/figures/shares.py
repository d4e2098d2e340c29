"""Shares of the native effect with their intervals: one row a source, grouped by target."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.report.picture import Picture
from em_interp.report.style import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    WIDTH,
    drawn,
    share_axis,
    shorten,
)
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
from em_interp.study.transfers.inputs import Group
from em_interp.transferring import Verdict

ROW, GAP, LEFT = 0.125, 0.10, 1.9
LOW, HIGH = -0.6, 1.8  # what lies outside is drawn at the edge with an arrow
LOOKS = {
    Relation.GROUP: (INK, "s"),
    Relation.BASE: (VERMILLION, "D"),
    Relation.OTHER: (BLUE, "o"),
}
NAMES = {
    Relation.GROUP: "own group",
    Relation.BASE: "another fine-tune of the base",
    Relation.OTHER: "another base",
}


class Line(NamedTuple):
    """A source's effects in one target."""

    source: str
    relation: Relation
    ablated: Shown | None
    added: Shown | None


def lines(grid: Grid, role: str, target: Group) -> list[Line]:
    """Every source of a target's main thing, the nearest first."""
    thing, made = main_of(role), []
    for relation in Relation:
        for source, other, cell in grid.pairs(role, thing, relation):
            if other == target:
                effects = [grid.shown(cell, target, role, e) for e in (ABLATED, ADDED)]
                made.append(Line(grid.short(source), relation, *effects))
    return made


@drawn
def figure_of(found: Sequence[tuple[str, Sequence[Line]]]) -> Figure:
    """Two panels, ablating and adding; a block of rows for each target."""
    rows = sum(len(some) for _, some in found)
    tall = ROW * rows + GAP * len(found)
    height = tall + 0.85
    figure = Figure(figsize=(WIDTH, height))
    wide = (WIDTH - LEFT - 0.35) / 2
    for place, effect in enumerate((ABLATED, ADDED)):
        left = LEFT + place * (wide + 0.2)
        axes = figure.add_axes((left / WIDTH, 0.42 / height, wide / WIDTH, tall / height))
        at = 0.0
        for name, some in found:
            if not place:
                axes.text(
                    (0.05 - LEFT) / wide,
                    at + ROW * len(some) / 2,
                    shorten(name, 18),
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    weight="bold",
                    fontsize=7,
                )
            for line in some:
                _line(axes, line, effect, at + ROW / 2)
                if not place:
                    axes.text(
                        -0.02,
                        at + ROW / 2,
                        shorten(line.source, 18),
                        transform=axes.get_yaxis_transform(),
                        ha="right",
                        va="center",
                        fontsize=6.3,
                    )
                at += ROW
            at += GAP
            axes.axhline(at - GAP / 2, color="#e0e0de", lw=0.6, zorder=0)
        _frame(axes, tall, effect)
    _legend(figure, found)
    return figure


def _line(axes: Axes, line: Line, effect: str, y: float) -> None:
    one = line.ablated if effect == ABLATED else line.added
    share = one.effect.of_native if one else None
    if one is None or share is None:
        words = "not run" if one is None else "no native effect, or nothing scored"
        axes.text(0, y, f" {words}", va="center", fontsize=5.5, color=MUTED)
        return
    colour, marker = LOOKS[line.relation]
    low, high = max(share.low, LOW), min(share.high, HIGH)
    axes.hlines(y, low, high, color=colour, lw=1.0)
    for beyond, end, arrow in ((share.low < LOW, LOW, "<"), (share.high > HIGH, HIGH, ">")):
        if beyond:
            axes.plot(end, y, marker=arrow, ms=3.2, color=colour, clip_on=False)
    x = min(max(share.fraction, LOW), HIGH)
    if one.verdict is Verdict.BROKEN:
        axes.plot(x, y, marker="x", ms=4.2, color=colour, mew=1.2)
    else:
        face = colour if one.transfers else "white"
        axes.plot(x, y, marker=marker, ms=4.2, color=colour, markerfacecolor=face)


def _frame(axes: Axes, tall: float, effect: str) -> None:
    axes.set_ylim(tall, 0)
    axes.set_xlim(LOW, HIGH)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
    axes.axvline(1, color=INK, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.text(1, 0, "own ", ha="right", va="bottom", fontsize=6.3, color=MUTED)
    axes.grid(axis="x")
    share_axis(axes, "x")
    axes.set_title(f"{ACTS[effect]}")
    axes.set_xlabel("share of the own direction’s effect [95%]")


def _legend(figure: Figure, found: Sequence[tuple[str, Sequence[Line]]]) -> None:
    there = {line.relation for _, some in found for line in some}
    handles = [
        Line2D([], [], ls="-", lw=1, ms=4.2, color=colour, marker=marker, label=NAMES[relation])
        for relation, (colour, marker) in LOOKS.items()
        if relation in there
    ]
    grey: dict[str, Any] = {"ls": "none", "ms": 4.2, "color": MUTED}
    handles.append(
        Line2D([], [], marker="o", markerfacecolor="white", label="hollow: no transfer", **grey)
    )
    handles.append(Line2D([], [], marker="x", mew=1.2, label="breaks the answers", **grey))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(handles),
        borderaxespad=0.1,
        handlelength=1.8,
        columnspacing=1.3,
        fontsize=7,
    )


def picture(grid: Grid, role: str) -> Picture | None:
    """The shares with their caption; `None` where no target was run."""
    found = [
        (grid.short(target), lines(grid, role, target))
        for target in grid.groups
        if grid.column(target, role) is not None
    ]
    if not found:
        return None
    symbol = SYMBOLS[main_of(role)]
    return Picture(
        title=f"How much of the native effect arrives: {symbol} into {gate(role)} organisms",
        svg=figure_of(found),
        read=(
            f"A block a target, a row a source: the effect of its {symbol} over that of the "
            f"target’s own {symbol} (dashed: as much), with 95% intervals over questions "
            "(Donner and Zou). The interval does not use that both effects were measured on the "
            "same questions, so it is rather too wide. Filled: transfers; a cross: too few "
            "coherent answers for a rate to mean much. Arrows: beyond the axis."
        ),
        otherwise=(
            "Were nothing carried, all marks would stand at 0; a mark beyond 0 without "
            "filling is what some null does as well."
        ),
    )
