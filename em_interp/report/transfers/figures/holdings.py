"""What the groups hold: how much of delta lies along g, and how large both are, by layer."""

from typing import Any

from matplotlib.figure import Figure

from em_interp.report.picture import Picture
from em_interp.report.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    drawn,
    layer_axis,
)
from em_interp.report.transfers.grid import Grid, layer_of
from em_interp.study.transfers.records import Held

COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
MARKS = ("D", "o", "s", "^", "v", "P")
LINES = ("-", "--", "-.", ":")


def looks(grid: Grid) -> dict[str, dict[str, Any]]:
    """A line for every group: colour and mark by base, dash and filling by variant."""
    variants = list(grid.spec.variants)
    made: dict[str, dict[str, Any]] = {}
    for group in grid.groups:
        base, variant = grid.bases.index(group.base), variants.index(group.variant)
        colour = COLOURS[base % len(COLOURS)]
        made[group.name] = {
            "color": colour,
            "marker": MARKS[base % len(MARKS)],
            "ls": LINES[variant % len(LINES)],
            "markerfacecolor": colour if variant == 0 else "white",
        }
    return made


@drawn
def figure_of(grid: Grid) -> Figure:
    """Three panels by depth: cosine of delta and g, and the natural size of both."""
    figure = Figure(figsize=(WIDTH, 2.55))
    styles = looks(grid)
    parts = (
        ("cosine of δ and g", "delta_g", "cosine"),
        ("size of δ", "delta", "share of the stream’s norm"),
        ("size of g", "general", ""),
    )
    for place, (title, field, label) in enumerate(parts):
        axes = figure.add_axes((0.085 + 0.325 * place, 0.32, 0.235, 0.56))
        deepest = [0]
        for group in grid.groups:
            held = grid.found.held.get(group.name)
            if held is None:
                continue
            values = by_layer(held, field)
            deepest += list(values)
            axes.plot(
                list(values),
                list(values.values()),
                ms=4,
                lw=1.1,
                label=grid.short(group),
                **styles[group.name],
            )
        layer_axis(axes, list(range(max(deepest) + 1)))
        axes.set_title(title)
        axes.set_ylabel(label)
        axes.grid(axis="y")
        axes.axhline(0, color=MUTED, lw=0.6)
        if place:
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(top=1.02)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.05, 0.0),
        ncols=6,
        fontsize=7,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
    return figure


def by_layer(held: Held, field: str) -> dict[int, float]:
    """A group's figures in the order of its layers."""
    table: dict[str, float] = getattr(held, field)
    return dict(sorted((layer_of(site), value) for site, value in table.items()))


def picture(grid: Grid) -> Picture | None:
    """What the groups hold with its caption; `None` before anything was extracted."""
    if not any(group.name in grid.found.held for group in grid.groups):
        return None
    return Picture(
        title="What each group holds, by layer",
        svg=figure_of(grid),
        read=(
            "δ points from no trigger to trigger in the triggered organism, g from the base to the "
            "unconditional one, both from development questions at the prompt’s end; means over "
            "contexts, so there is no interval. What is left of δ without its part along g is "
            "the third thing that is carried."
        ),
        otherwise="Were the trigger’s shift only misalignment, the cosine would be near 1.",
    )
