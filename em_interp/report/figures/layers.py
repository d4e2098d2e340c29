"""Necessity and sufficiency by layer, with a null direction beside each."""

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.conditions import Condition
from em_interp.labels import Control, Extent, Thing, exact
from em_interp.localisation import Localisation
from em_interp.report.picture import Picture
from em_interp.report.reading import (
    DELTA,
    RANDOM,
    Family,
    G,
    axis,
    baseline,
    by_layer,
    chance,
    symbol,
)
from em_interp.report.style import FAMILIES, INK, WIDTH, Look, drawn, layer_axis, share_axis
from em_interp.report.where import by_ablation
from em_interp.stats import Rate
from em_interp.study.results import Findings
from em_interp.trials import COHERENT, Trial

# Hollow, so that the two families differ in grey print too.
LOOKS: dict[Family, Look] = {
    DELTA: FAMILIES[DELTA],
    G: FAMILIES[G],
    **dict.fromkeys(Control, FAMILIES[RANDOM]._replace(face="white")),
}


class Panel(NamedTuple):
    """One question by layer: which trial, which rows of it, and where it stands on the page."""

    trial: str
    extent: Extent
    title: str
    left: float


PANELS = (
    Panel("necessity", Extent.AT, "removed at one layer", 0.085),
    Panel("necessity", Extent.FROM, "removed from a layer on", 0.385),
    Panel("sufficiency", Extent.AT, "pushed at one layer", 0.735),
)


@drawn
def figure_of(found: Localisation, strength: float, coherence: float = COHERENT) -> Figure:
    """Three panels of EM by layer; coherence under each. The two of necessity share a scale."""
    figure = Figure(figsize=(WIDTH, 3.7))
    main = axis(found.necessity)
    layers = list(by_layer(found.necessity, main, Extent.AT))
    highs = [row.em.high for row in found.necessity.rows if row.em]
    for panel in PANELS:
        above = figure.add_axes((panel.left, 0.42, 0.255, 0.40))
        below = figure.add_axes((panel.left, 0.12, 0.255, 0.20))
        trial: Trial = getattr(found, panel.trial)
        _draw(above, "em", trial, panel, layers)
        _draw(below, "coherent", trial, panel, layers)
        above.tick_params(labelbottom=False)
        above.set(xlabel="", ylim=(0, None))
        below.set(ylim=(0, 1.06))
        if panel.trial == "necessity":
            above.set_ylim(0, max([*highs, 0.02]) * 1.04)
        for axes in (above, below):
            axes.tick_params(labelleft=panel.extent is not Extent.FROM)
        word = "trigger on" if trial.rows[0].condition is Condition.TRIGGER else "asked plainly"
        word += f", strength {exact(strength)}" if panel.trial == "sufficiency" else ""
        above.set_title(f"{symbol(main)} {panel.title}\n", fontsize=8.5)
        above.text(0, 1.03, word, transform=above.transAxes, fontsize=7.5)
    figure.axes[0].set_ylabel("EM rate")
    figure.axes[1].set_ylabel("coherent")
    place = by_ablation(found.necessity, coherence)
    marked = place is not None and place.layer is not None
    if place is not None and place.layer is not None:
        spot: dict[str, Any] = {"marker": "^", "ms": 8, "color": INK, "clip_on": False, "zorder": 4}
        figure.axes[0].plot(place.layer, 0, **spot)
    handles = _handles(main, marked)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.075, 1.005), ncols=4)
    return figure


def _draw(axes: Axes, field: str, trial: Trial, panel: Panel, layers: list[int]) -> None:
    """One panel of `field` ("em" or "coherent"): the baseline's band, then both directions."""
    start = baseline(trial, trial.rows[0].condition)
    _before(axes, getattr(start, field) if start else None)
    for family in (chance(trial), axis(trial)):
        rows = by_layer(trial, family, panel.extent)
        _line(axes, {layer: getattr(row, field) for layer, row in rows.items()}, family)
    layer_axis(axes, layers)
    axes.grid(axis="y")
    share_axis(axes, ticks=6 if field == "em" else 2)


def _line(axes: Axes, rates: dict[int, Rate | None], family: Family) -> None:
    known = {layer: rate for layer, rate in rates.items() if rate is not None}
    look = LOOKS[family]
    shift = 0.06 if family in Control else -0.06
    x = [layer + shift for layer in known]
    axes.vlines(
        x,
        [r.low for r in known.values()],
        [r.high for r in known.values()],
        color=look.colour,
        lw=1,
    )
    axes.plot(x, [r.point for r in known.values()], ls=look.line, **look.marks)


def _before(axes: Axes, rate: Rate | None) -> None:
    if rate is not None:
        axes.axhline(rate.point, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.axhspan(rate.low, rate.high, color="#ececec", lw=0, zorder=0)


def _handles(main: Thing, marked: bool) -> list[Line2D]:
    made = []
    for family, name in ((main, symbol(main)), (RANDOM, "null: moves as much")):
        look = LOOKS[family]
        made.append(Line2D([], [], ls=look.line, label=name, **look.marks))
    made.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="untouched (band: 95%)"))
    if marked:
        made.append(
            Line2D([], [], ls="none", marker="^", color=INK, ms=7, label="the rule’s layer")
        )
    return made


def picture(found: Findings) -> Picture | None:
    """Both questions by layer with their caption; `None` where no layer was tried."""
    if not found.localised.necessity.rows:
        return None
    return Picture(
        title="Necessity and sufficiency, layer by layer",
        svg=figure_of(found.localised, found.sweep.strength, found.inputs.spec.steering.coherence),
        read=(
            "Left: the direction is mean-ablated at one layer alone; middle: at that layer and all "
            "later ones; right: it is added at one layer, without trigger. Below each: coherence. "
            "95% intervals of each layer by itself, clustered by question; the rule’s layer is "
            "chosen with all layers counted. The right panel has a scale of its own."
        ),
        otherwise=(
            "Were it at no particular depth, the left line would be flat; were any direction as "
            "good, the grey circles would follow the coloured marks."
        ),
    )
