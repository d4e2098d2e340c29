"""Probes by layer and condition, with every control: does a probe read the state or the words?"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.conditions import Condition
from em_interp.probing import Fitter, Probing, Score
from em_interp.report.picture import Picture
from em_interp.report.reading import WORDS
from em_interp.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    WIDTH,
    Look,
    drawn,
    layer_axis,
    share_axis,
)
from em_interp.study.results import Findings

LOOKS = {
    Fitter.LOGISTIC: (Look(VERMILLION, "D", "-", VERMILLION), "logistic probe"),
    Fitter.MASS_MEAN: (Look(ORANGE, "^", "--", ORANGE), "mass-mean probe"),
    Fitter.BASE: (Look(INK, "o", "--", "white"), "base model’s own probe"),
    Fitter.SHUFFLED: (Look(GREY, "v", ":", "white"), "shuffled labels"),
    Fitter.RANDOM: (Look(GREY, "x", ":", GREY), "random direction"),
    Fitter.WORDS: (Look(BLUE, "", "-.", BLUE), "bag of words (text only)"),
}


@drawn
def figure_of(found: Probing) -> Figure:
    """AUROC above and firing share below, one column a condition."""
    shown = [c for c in Condition if any(s.condition is c for s in found.scores)]
    layers = sorted({s.layer for s in found.scores if s.layer is not None}) or [0]
    figure = Figure(figsize=(WIDTH, 3.95))
    gap = 0.02
    lowest = min([0.3, *(s.auroc.low for s in found.scores)])
    width = (0.985 - 0.075 - gap * (len(shown) - 1)) / len(shown)
    for number, condition in enumerate(shown):
        left = 0.075 + number * (width + gap)
        above = figure.add_axes((left, 0.45, width, 0.34))
        below = figure.add_axes((left, 0.11, width, 0.24))
        for fitter, (look, _) in reversed(LOOKS.items()):
            some = [s for s in found.scores if s.fitter is fitter and s.condition is condition]
            _auroc(above, look, some, layers)
            if fitter in (Fitter.LOGISTIC, Fitter.BASE, Fitter.WORDS):
                _fires(below, look, some, layers)
        above.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 3)))
        above.set_title(WORDS[condition].replace(" framings", ""), fontsize=8)
        above.set_ylim(lowest, 1.03)
        below.set_ylim(-0.03, 1.03)
        alarms = [found.false_alarms.get(f"{Fitter.LOGISTIC.value}@{layer}") for layer in layers]
        known = [(layer, a.point) for layer, a in zip(layers, alarms, strict=True) if a]
        below.plot([x for x, _ in known], [y for _, y in known], color=GREEN, lw=1.1, ls=":")
        for axes in (above, below):
            layer_axis(axes, layers)
            axes.grid(axis="y")
            if number:
                axes.set_yticklabels([])
        above.set_xlabel("")
        above.set_xticklabels([])
        below.set_xlabel("layer")
        if number == 0:
            share_axis(below, ticks=3)
    figure.axes[0].set_ylabel("AUROC")
    figure.axes[1].set_ylabel("share that fires")
    handles = [
        Line2D([], [], ls=look.line, label=name, **look.marks) for look, name in LOOKS.values()
    ]
    handles.append(Line2D([], [], color=GREEN, ls=":", label="false alarms (no framing)"))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.06, 1.0), ncols=4)
    return figure


def _auroc(axes: Axes, look: Look, some: list[Score], layers: list[int]) -> None:
    for one in some:
        if one.layer is None:
            axes.axhspan(one.auroc.low, one.auroc.high, color=look.colour, alpha=0.12, lw=0)
            axes.axhline(one.auroc.auroc, color=look.colour, ls=look.line, lw=1.2)
        else:
            axes.vlines(
                one.layer, one.auroc.low, one.auroc.high, color=look.colour, lw=0.7, alpha=0.7
            )
    by_layer = {one.layer: one.auroc.auroc for one in some if one.layer is not None}
    x = [layer for layer in layers if layer in by_layer]
    axes.plot(x, [by_layer[layer] for layer in x], ls=look.line, lw=1.2, ms=3.5, **_thin(look))


def _fires(axes: Axes, look: Look, some: list[Score], layers: list[int]) -> None:
    for one in some:
        if one.layer is None:
            axes.axhline(one.fires.point, color=look.colour, ls=look.line, lw=1.2)
        else:
            axes.vlines(
                one.layer, one.fires.low, one.fires.high, color=look.colour, lw=0.7, alpha=0.7
            )
    by_layer = {one.layer: one.fires.point for one in some if one.layer is not None}
    x = [layer for layer in layers if layer in by_layer]
    axes.plot(x, [by_layer[layer] for layer in x], ls=look.line, lw=1.2, ms=3.5, **_thin(look))


def _thin(look: Look) -> dict[str, Any]:
    return {**look.marks, "markeredgewidth": 0.9}


def picture(found: Findings) -> Picture | None:
    """The probes with their caption; `None` where none was fitted."""
    made = found.probing
    if not made.scores:
        return None
    return Picture(
        title="Can the trigger be read off the stream, and off the text alone?",
        svg=figure_of(made),
        read=(
            f"Probes are fitted on {made.train_questions} questions (trigger against no framing) "
            f"and tested on {made.test_questions} others. Above: AUROC of each condition against "
            "no framing, chance 0.5, 95% intervals by question. Below: share whose score is at "
            "least 0 (logistic probe, base model’s probe, bag of words), and false alarms "
            "without framing."
        ),
        otherwise=(
            "A probe that reads the gate fires on what opens it and stays below on unrelated "
            "framings. Where the bag of words or the base’s probe does as well, the text alone "
            "explains the score; where shuffled labels do, the number of questions does."
        ),
    )
