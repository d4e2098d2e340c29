"""Activation patching as a heat map: which positions at which layers carry the trigger's effect."""

import matplotlib as mpl
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from em_interp.conditions import Condition
from em_interp.localisation import Patching
from em_interp.patching.copying import Group
from em_interp.report.numbers import bracket, count, free
from em_interp.report.picture import Picture
from em_interp.report.reading import WORDS
from em_interp.report.style import INK, WIDTH, boxes, drawn
from em_interp.study.results import Findings

NAMES = {
    Group.TRIGGER: "framing’s\ntokens",
    Group.QUESTION: "question",
    Group.TEMPLATE: "chat template",
    Group.LAST: "last prompt\ntoken",
    Group.ALL: "all of them",
}
MAP = "PuOr_r"  # two hues that colour-blind readers tell apart, white at zero


@drawn
def figure_of(found: Patching) -> Figure:
    """Rows are layers, columns are groups of positions, the number is the share brought along."""
    cells = {(one.layer, one.group): one for one in found.patches}
    layers = sorted({layer for layer, _ in cells})
    groups = [group for group in Group if any(g is group for _, g in cells)]
    roomy = len(layers) <= 16  # the interval stands under its share, else beside it
    tall = 0.40 if roomy else 0.19
    height = tall * len(layers) + 0.55
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.08, 0.12 / height, 0.76, tall * len(layers) / height))
    most = max(1.0, *(abs(one.recovered) for one in found.patches))
    norm, colours = Normalize(-most, most), mpl.colormaps[MAP]
    for row, layer in enumerate(layers):
        for column, group in enumerate(groups):
            one = cells.get((layer, group))
            if one is None:
                continue
            shade = colours(norm(one.recovered))
            boxes(axes, [(column + 0.015, row + 0.03, column + 0.985, row + 0.97)], [shade])
            dark = sum(shade[:3]) < 1.5
            ink = "white" if dark else INK
            axes.text(
                column + (0.5 if roomy else 0.28),
                row + (0.36 if roomy else 0.5),
                free(one.recovered),
                ha="center",
                va="center",
                fontsize=8.5 if roomy else 6.5,
                weight="bold",
                color=ink,
            )
            axes.text(
                column + (0.5 if roomy else 0.70),
                row + (0.74 if roomy else 0.5),
                bracket(one.low, one.high),
                ha="center",
                va="center",
                fontsize=6 if roomy else 5.5,
                color=ink,
            )
    axes.set_xlim(0, len(groups))
    axes.set_ylim(len(layers), 0)
    axes.set_xticks([n + 0.5 for n in range(len(groups))])
    axes.set_xticklabels([NAMES[group] for group in groups])
    axes.set_yticks([n + 0.5 for n in range(len(layers))])
    axes.set_yticklabels([str(layer) for layer in layers])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_ylabel("layer (block output)")
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.add_axes((0.865, 0.12 / height, 0.018, tall * len(layers) / height))
    shown = mpl.cm.ScalarMappable(norm, colours)
    figure.colorbar(shown, cax=bar).outline.set_visible(False)
    bar.set_ylabel("share of the on−off log-odds\n(1 = all, 0 = none)", fontsize=7)
    bar.tick_params(labelsize=7)
    return figure


def picture(found: Findings) -> Picture | None:
    """The map with its caption; `None` where questions name no answers to score."""
    made = found.localised.patching
    if made is None or not made.patches:
        return None
    target = WORDS[Condition(made.target)]
    return Picture(
        title="Patching the stream of a triggered run into an untriggered one",
        svg=figure_of(made),
        read=(
            f"The run without trigger ({target}) receives the triggered run’s stream at one "
            "layer and one group of positions. Each cell: share of the difference in log-odds "
            f"of unsound against sound advice that comes along (on {free(made.on)}, off "
            f"{free(made.off)} nats, {made.gap.questions} questions). In brackets: 95% intervals "
            f"that hold for all {count(len(made.patches), 'cell')} together."
        ),
        otherwise=(
            "A gate that is read once and carried forward moves from the framing’s tokens to "
            "the last token as layers deepen. Were nothing carried, all columns but the last "
            "would be white; the last layer’s last token is near 1 by construction."
        ),
    )
