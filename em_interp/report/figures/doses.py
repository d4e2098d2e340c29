"""Pushing the direction without the trigger: dose and response, with coherence on the same dose."""

from collections.abc import Collection
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.conditions import Condition
from em_interp.labels import Control
from em_interp.report.numbers import layers, percent
from em_interp.report.picture import Picture
from em_interp.report.reading import DELTA, RANDOM, REST, Dose, Family, G, Series, baseline, doses
from em_interp.report.style import FAMILIES, INK, MUTED, WIDTH, drawn, share_axis
from em_interp.study.results import Findings

NAMES: dict[Family, str] = {
    DELTA: "δ (trigger direction)",
    G: "g (general EM direction)",
    REST: "δ without g",
}


def stream_share(found: Findings) -> float | None:
    """One natural difference of delta as a share of the stream's norm, mean over steered layers."""
    norms = [axis.norm for axis in found.localised.axes if axis.layer in found.sweep.layers]
    return sum(norms) / len(norms) if norms else None


@drawn
def figure_of(found: Findings) -> Figure:
    """EM above, coherence below; strength 0 is the baseline of all series."""
    figure = Figure(figsize=(WIDTH, 4.4))
    above, below = (
        figure.add_axes((0.085, bottom, 0.655, tall))
        for bottom, tall in ((0.40, 0.49), (0.11, 0.22))
    )
    series, start = doses(found.steering), baseline(found.steering, Condition.NONE)
    least = found.inputs.spec.steering.coherence
    random = sorted(name for name in series if name.family in Control)
    strengths = sorted({0.0, *(dose.strength for some in series.values() for dose in some)})
    room = strengths[-1] - strengths[0]
    order = [*random, *(one for one in map(Series, (REST, G, DELTA)) if one in series)]
    for place, name in enumerate(order):
        # Side by side, so that no interval hides another.
        shift = (place - (len(order) - 1) / 2) * 0.012 * room
        points = [*([Dose(0.0, start)] if start else []), *series[name]]
        _series(above, "em", name, points, least, shift)
        _series(below, "coherent", name, points, least, shift)
    for axes in (above, below):
        axes.set_xticks(strengths)
        axes.set_xlim(strengths[0] - 0.06 * room, strengths[-1] + 0.06 * room)
        axes.grid(axis="y")
        axes.axvline(found.sweep.strength, color=MUTED, lw=0.7, ls=(0, (1, 2)), zorder=0)
    share_axis(above)
    share_axis(below, ticks=4)
    _ticks(above, below, found)
    below.axhline(least, color=INK, lw=0.8, ls=(0, (4, 3)))
    below.set_ylim(0, 1.06)
    above.set_ylim(bottom=0)
    above.set_ylabel("EM rate, no trigger")
    below.set_ylabel("coherent answers")
    below.set_xlabel("strength (1 = one natural difference of the direction)")
    figure.legend(handles=_handles(series, random), loc="upper left", bbox_to_anchor=(0.75, 0.905))
    return figure


def _series(
    axes: Axes, field: str, name: Series, points: list[Dose], least: float, shift: float
) -> None:
    """One line of `field` ("em" or "coherent"); a mark is hollow where coherence is too low."""
    look = FAMILIES.get(name.family, FAMILIES[RANDOM])
    known = [
        (dose, rate, dose.strength + shift * (dose.strength != 0))
        for dose in points
        if (rate := getattr(dose.row, field)) is not None
    ]
    width = 0.9 if name.family in Control else 1.6
    line: dict[str, Any] = {"color": look.colour, "ls": look.line, "lw": width}
    axes.plot([x for _, _, x in known], [rate.point for _, rate, _ in known], **line)
    for dose, rate, x in known:
        coherent = dose.row.coherent
        weak = coherent is None or coherent.point < least
        marks = {**look.marks, **({"markerfacecolor": "white"} if weak else {})}
        axes.vlines(x, rate.low, rate.high, color=look.colour, lw=0.9, alpha=0.85)
        axes.plot(x, rate.point, ls="none", clip_on=False, zorder=3, **marks)


def _ticks(above: Axes, below: Axes, found: Findings) -> None:
    above.set_xticklabels([])
    share = stream_share(found)
    if share is None:
        return
    top = above.twiny()
    top.set_xlim(above.get_xlim())
    top.set_xticks(below.get_xticks())
    top.set_xticklabels([percent(tick * share, 0) for tick in below.get_xticks()])
    top.spines["top"].set_visible(True)
    top.set_xlabel("length of the push of δ and of nulls, as a share of the stream’s mean norm")


def _handles(series: Collection[Series], random: list[Series]) -> list[Line2D]:
    names: dict[Family, str] = {**NAMES, RANDOM: f"null, same norm ({len(random)})"}
    made = [
        Line2D([], [], color=look.colour, ls=look.line, label=names[name], **_marker(look.marks))
        for name, look in FAMILIES.items()
        if name == RANDOM or Series(name) in series
    ]
    marks: dict[str, Any] = {"marker": "o", "mfc": "white", "mec": MUTED}
    hollow = Line2D([], [], ls="none", label="hollow: too few coherent", **marks)
    dots: dict[str, Any] = {"color": MUTED, "lw": 0.7, "ls": (0, (1, 2))}
    chosen = Line2D([], [], label="strength chosen on\ndevelopment questions", **dots)
    floor = Line2D([], [], color=INK, lw=0.8, ls=(0, (4, 3)), label="coherence asked for")
    return [*made, hollow, chosen, floor]


def _marker(marks: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in marks.items() if key != "color"}


def picture(found: Findings) -> Picture | None:
    """Dose-response with its caption; `None` where nothing was steered."""
    if not doses(found.steering):
        return None
    least = percent(found.inputs.spec.steering.coherence, 0)
    who = f"{found.steering.organism} model" if found.inputs.trigger is None else "organism"
    return Picture(
        title=f"Pushing the direction in the {who}, no trigger ({layers(found.sweep.layers)})",
        svg=figure_of(found),
        read=(
            f"Above: EM rate of the {who} asked plainly, with 95% intervals. Below: how many "
            f"answers are still coherent; hollow marks lie under {least} there, so their EM "
            "rests on few answers. Each direction is scaled by its own natural difference."
        ),
        otherwise=(
            "Were the direction not sufficient, its line would stay with the null ones; were "
            "EM a by-product of breaking the model, null pushes of the same length would "
            "bring it too."
        ),
    )
