"""Geometry by layer: the trigger's shift beside the general EM direction and the base's shift."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from em_interp.localisation import Axis
from em_interp.report.picture import Picture
from em_interp.report.style import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    WIDTH,
    Look,
    drawn,
    layer_axis,
    share_axis,
)
from em_interp.study.results import Findings

_COSINES = {
    "cosine": (Look(VERMILLION, "D", "-", VERMILLION), "δ and g"),
    "base_cosine": (Look(INK, "o", "--", "white"), "δ and base’s own"),
}
_COVERED = {
    "covered_on": (Look(VERMILLION, "D", "-", VERMILLION), "with trigger"),
    "covered_off": (Look(BLUE, "s", "-.", "white"), "without"),
}


@drawn
def figure_of(axes_: Sequence[Axis]) -> Figure:
    """Cosines, the covered share of the base-to-EM axis, and the norm of delta."""
    figure = Figure(figsize=(WIDTH, 2.6))
    panels = [figure.add_axes((left, 0.19, 0.255, 0.58)) for left in (0.075, 0.405, 0.74)]
    _lines(panels[0], axes_, _COSINES)
    panels[0].set_title("which way?", pad=18)
    panels[0].set_ylabel("cosine (1: same direction)")
    lowest = min(min(a.cosine, a.base_cosine or 0.0) for a in axes_)
    panels[0].set_ylim(min(-0.05, lowest - 0.1), 1.05)
    _lines(panels[1], axes_, _COVERED)
    panels[1].set_title("how far towards EM?", pad=18)
    panels[1].set_ylabel("share of the way along g")
    for level, name in ((0, "base"), (1, "unconditional")):
        panels[1].axhline(level, color=MUTED, lw=0.8, ls=(0, (4, 3)))
        panels[1].text(
            0.99,
            level,
            name,
            transform=panels[1].get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=6.5,
            color=MUTED,
        )
    layers = [a.layer for a in axes_]
    panels[2].plot(layers, [a.norm for a in axes_], ls="-", **_COSINES["cosine"][0].marks)
    panels[2].set_title("how large is the shift?", pad=18)
    panels[2].set_ylabel("‖δ‖ / stream’s mean norm")
    panels[2].set_ylim(bottom=0)
    share_axis(panels[2])
    for panel in panels:
        layer_axis(panel, layers)
        panel.grid(axis="y")
    return figure


def _lines(axes: Axes, values: Sequence[Axis], series: dict[str, tuple[Look, str]]) -> None:
    for field, (look, name) in series.items():
        axes.plot(
            [a.layer for a in values],
            [getattr(a, field) for a in values],
            ls=look.line,
            label=name,
            **look.marks,
        )
    axes.axhline(0, color=MUTED, lw=0.6)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.03, 0.97),
        ncols=2,
        fontsize=7,
        handlelength=1.7,
        columnspacing=0.8,
        handletextpad=0.4,
    )


def picture(found: Findings) -> Picture | None:
    """The geometry with its caption; `None` where it was not measured."""
    if not found.localised.axes:
        return None
    return Picture(
        title="Geometry of the gate by layer",
        svg=figure_of(found.localised.axes),
        read=(
            f"At {found.inputs.spec.span.value.replace('_', ' ')}, on development questions. δ "
            "points from no trigger to trigger, g from base to the unconditional organism; both "
            "means over contexts, so there is no interval. Middle: 0 is where the base stands "
            "along g, 1 where the unconditional organism stands."
        ),
        otherwise=(
            "A trigger that only marks its own words would leave the cosine with g near 0 and both "
            "middle lines together; a shift that any model makes shows as a cosine with the base’s "
            "own shift near 1."
        ),
    )
