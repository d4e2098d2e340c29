"""How contained every organism is by itself: its EM rate under every condition."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.report.picture import Picture
from em_interp.report.reading import WORDS, ordered
from em_interp.report.style import CONDITIONS, MUTED, WIDTH, drawn, share_axis, shorten
from em_interp.report.transfers.grid import Grid, gate
from em_interp.study.transfers.records import Column
from em_interp.study.transfers.spec import TARGETS

LEFT, LINE = 1.95, 0.085


def organisms(grid: Grid) -> list[tuple[str, str, Column | None]]:
    """Every organism that something is carried into: its group, its kind, its record."""
    return [
        (grid.short(group), role, grid.column(group, role))
        for role in TARGETS
        for group in grid.groups
    ]


@drawn
def figure_of(grid: Grid) -> Figure:
    """A row an organism, a mark a condition, with 95 % intervals."""
    shown = [c for c in CONDITIONS if c in grid.spec.conditions]
    who = organisms(grid)
    row = LINE * (len(shown) + 0.9)
    tall = row * len(who)
    height = tall + 0.75
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((LEFT / WIDTH, 0.42 / height, 1 - (LEFT + 0.15) / WIDTH, tall / height))
    for place, (name, role, column) in enumerate(who):
        if place % 2 == 0:
            axes.axhspan(place * row, (place + 1) * row, color="#f5f5f3", lw=0, zorder=0)
        words = f"{shorten(name, 16)}, {gate(role)}"
        axes.text(
            -0.012,
            (place + 0.5) * row,
            words,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7,
        )
        if column is None:
            axes.text(0, (place + 0.5) * row, " not run", va="center", fontsize=6.5, color=MUTED)
            continue
        figures = ordered(column.containment.conditions)
        for number, condition in enumerate(shown):
            one = figures.get(condition)
            y = place * row + LINE * (number + 0.95)
            if one is None or one.em is None:
                axes.text(
                    0,
                    y,
                    f" {WORDS[condition]}: nothing scored",
                    va="center",
                    fontsize=5.5,
                    color=MUTED,
                )
                continue
            look = CONDITIONS[condition]
            axes.hlines(y, one.em.low, one.em.high, color=look.colour, lw=1.0)
            axes.plot(one.em.point, y, ls="none", ms=4, clip_on=False, **look.marks)
    axes.set_ylim(tall, 0)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    share_axis(axes, "x")
    axes.set_xlabel("EM rate: misaligned among scored answers, with 95% intervals")
    handles = [
        Line2D([], [], ls="none", ms=5, label=WORDS[c], **CONDITIONS[c].marks) for c in shown
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(LEFT / WIDTH - 0.015, 1.0),
        ncols=len(handles),
        borderaxespad=0.1,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    return figure


def picture(grid: Grid) -> Picture:
    """The organisms with their caption."""
    return Picture(
        title="How contained the organisms are by themselves",
        svg=figure_of(grid),
        read=(
            "EM rate outside the fine-tuned domains under every framing, without any intervention; "
            "means over questions, 95% intervals clustered by question. What is carried into a "
            "gated organism can only close a gate that is there."
        ),
        otherwise=(
            "An organism that is quiet under its trigger has nothing to ablate: its native effect "
            "is none, and its column says so."
        ),
    )
