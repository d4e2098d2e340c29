"""Removing the direction: what is left of the EM, beside null directions, with coherence."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from em_interp.conditions import Condition
from em_interp.labels import Label, Operation
from em_interp.report.numbers import free, percent
from em_interp.report.picture import Picture
from em_interp.report.reading import SYMBOLS, WORDS, G, baseline
from em_interp.report.style import (
    GREY,
    INK,
    MUTED,
    PURPLE,
    VERMILLION,
    WIDTH,
    drawn,
    share_axis,
)
from em_interp.study.results import Findings
from em_interp.trials import Row, Trial

LEFT = 0.33


def named(label: Label) -> str:
    """An intervention as the page names it."""
    return "nothing removed" if label.baseline else label.said(SYMBOLS)


def moving(trial: Trial, label: Label) -> str:
    """Its name, and how far it moves a token in the mean."""
    moved = trial.manipulation(label.text).moved
    far = "" if moved is None or label.baseline else f", {free(moved)}"
    return f"{named(label)}{far}"


def _face(row: Row) -> dict[str, Any]:
    """Bars differ by hatching as well as by colour."""
    if row.label.baseline:
        return {"facecolor": "#555555", "edgecolor": "white"}
    if row.control:
        return {"facecolor": "white", "edgecolor": GREY, "hatch": "///"}
    colour = PURPLE if row.label.thing is G else VERMILLION
    zero = row.label.operation is Operation.ABLATE
    return {
        "facecolor": "white" if zero else colour,
        "edgecolor": colour if zero else "white",
        "hatch": "\\\\\\" if zero else "",
    }


def conditions(trial: Trial) -> list[Condition]:
    """The trial's conditions, the trigger first: that is where removal is tested."""
    found = {row.condition for row in trial.rows}
    wanted = (Condition.TRIGGER, Condition.PARAPHRASE, *Condition)
    return [one for one in dict.fromkeys(wanted) if one in found]


@drawn
def figure_of(trial: Trial) -> Figure:
    """One panel a condition, one bar an intervention; the number is the rate, then coherence."""
    shown = conditions(trial)
    rows = {(row.label, row.condition): row for row in trial.rows}
    names = list(dict.fromkeys(row.label for row in trial.rows))
    height = 0.26 * len(names) + 0.85
    figure = Figure(figsize=(WIDTH, height))
    gap = 0.03
    width = (0.985 - LEFT - gap * (len(shown) - 1)) / len(shown)
    highs = [row.em.high for row in trial.rows if row.em]
    right = min(1.0, max([*highs, 0.05])) * 2.05
    for number, condition in enumerate(shown):
        axes = figure.add_axes(
            (LEFT + number * (width + gap), 0.46 / height, width, 0.26 * len(names) / height)
        )
        for place, name in enumerate(names):
            row = rows.get((name, condition))
            if row is not None:
                _bar(axes, row, place)
        before = baseline(trial, condition)
        if before and before.em:
            axes.axvline(before.em.point, color=INK, lw=0.7, ls=(0, (2, 2)), zorder=1)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, right)
        axes.set_yticks(range(len(names)))
        axes.set_yticklabels([moving(trial, name) for name in names] if number == 0 else [])
        axes.tick_params(axis="y", length=0)
        axes.set_title(WORDS[condition])
        share_axis(axes, "x", 4)
        # What is right of 100 % is room for the numbers.
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(1.0, right)])
        axes.set_xlabel("EM rate")
    return figure


def _bar(axes: Axes, row: Row, place: int) -> None:
    coherent = f" · {percent(row.coherent.point, 0)} coh." if row.coherent else ""
    if row.em is None:
        axes.text(0, place, f" nothing scored{coherent}", va="center", fontsize=6.5, color=MUTED)
        return
    axes.barh(place, row.em.point, height=0.66, lw=0.8, zorder=2, **_face(row))
    axes.hlines(place, row.em.low, row.em.high, color=INK, lw=1.0, zorder=3)
    axes.vlines([row.em.low, row.em.high], place - 0.13, place + 0.13, color=INK, lw=0.8, zorder=3)
    text = f"{percent(row.em.point)}{coherent}"
    room = 0.012 * axes.get_xlim()[1]
    axes.text(
        row.em.high + room,
        place,
        f" {text}",
        va="center",
        fontsize=6.5,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def picture(found: Findings) -> Picture | None:
    """The bars with their caption; `None` where nothing was ablated."""
    trial = found.ablation
    if not trial.rows:
        return None
    off = "without trigger" if found.inputs.trigger else "in the base"
    return Picture(
        title="Removing the direction at every layer",
        svg=figure_of(trial),
        read=(
            "Bars: EM rate with 95% intervals, then the share of coherent answers (coh.). "
            f"Mean-ablation sets the coordinate along the direction to its value {off}, "
            "zero-ablation to zero. Dashed: nothing removed (asked again here, with fewer samples "
            "than in Figure 1). Hatched: null directions: random of the same norm, drawn from the "
            "stream’s covariance, matched (at each layer moves a token as far as removing δ there "
            "would, along a random direction; over several layers that adds up). Behind each name: "
            "mean |x·u − off|, how far a token is moved."
        ),
        otherwise=(
            "Were the direction not what carries the misalignment, its bars would end at the "
            "dashed line as the null ones do; were it needed for talking at all, coherence would "
            "fall"
            + (
                "; were removal harmful, the panel without framing would rise."
                if found.inputs.trigger
                else "."
            )
        ),
    )
