"""Components and subspaces: tables for the terminal, and one figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from em_interp.patching import Carriers, ComponentMap, Effect
from em_interp.patching.copying import Group
from em_interp.patching.subspaces import Subspace
from em_interp.report.figures.patching import MAP, NAMES
from em_interp.report.numbers import bracket, count, free, p_value
from em_interp.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH,
    boxes,
    drawn,
)
from em_interp.report.text import table

LOOKS = {
    Group.TRIGGER: (VERMILLION, "D"),
    Group.QUESTION: (BLUE, "s"),
    Group.TEMPLATE: (GREEN, "^"),
    Group.LAST: (INK, "o"),
    Group.ALL: (PURPLE, "v"),
}
LINES = ((VERMILLION, "D", "-"), (BLUE, "s", "--"), (GREEN, "^", "-."), (ORANGE, "P", ":"))
LINES_MORE = ((PURPLE, "v", "-"), (INK, "o", "--"))
ROWS, LAYERS = 16, 6  # what a page holds


def component_tables(found: Carriers, top: int) -> str:
    """The largest effects of each group, the controls, and what subspaces bring."""
    parts = [_effects(found.components, group, top) for group in _groups(found.components)]
    parts += [_controls(found.components), _subspaces(found.subspaces)]
    return "\n\n".join(part for part in parts if part)


def _groups(found: ComponentMap) -> list[Group]:
    return [one.group for one in found.agreement]


def _effects(found: ComponentMap, group: Group, top: int) -> str:
    mine = [one for one in found.effects if one.group is group]
    largest = sorted(mine, key=lambda one: -abs(one.recovered))[:top]
    rows = [
        [
            one.component,
            _share(one),
            p_value(one.p, found.floor),
            free(one.attributed, sign=True),
            free(one.placebo, sign=True),
        ]
        for one in largest
    ]
    title = (
        f"Trigger-on into {found.target}, {group.value}: share of the log-odds gap recovered "
        f"({found.off:+.2f} to {found.on:+.2f} nats; {len(largest)} largest of {len(mine)})"
    )
    columns = ("", "share [95 %]", "p", "attributed", "placebo")
    searched = count(len(found.effects), "effect")
    return table(title, columns, rows) + (
        f"\nintervals and p count all {searched} of the map (max-T over questions); "
        f"no p can be smaller than {found.floor:.1g}"
    )


def _share(one: Effect) -> str:
    return f"{free(one.recovered, sign=True)} {bracket(one.low, one.high, sign=True)}"


def _controls(found: ComponentMap) -> str:
    rows = [["own activations, largest change (nats)", f"{found.own:.1g}"]]
    rows += [["everything at once, share", f"{found.everything:+.2f}"]]
    rows += [
        [
            f"attributed against exact, {one.group.value}: r (Pearson), rho (Spearman)",
            "does not vary"
            if one.pearson is None or one.spearman is None
            else f"{one.pearson:.2f}, {one.spearman:.2f}",
        ]
        for one in found.agreement
    ]
    return table("Controls", ("", ""), rows)


def _subspaces(found: Sequence[Subspace]) -> str:
    if not found:
        return ""
    names = ["whole" if one.rank is None else str(one.rank) for one in found[0].ranks]
    rows = []
    for one in found:
        rows.append([f"layer {one.layer}", *(f"{r.recovered:+.2f}" for r in one.ranks)])
        null = ("" if r.random is None else f"{r.random:+.2f}" for r in one.ranks)
        rows.append(["  random directions", *null])
    title = f"Share that principal directions of the stream bring ({found[0].group.value} token)"
    return table(title, ("directions", *names), rows)


@drawn
def component_figure(found: Carriers) -> Figure:
    """Largest components by group; estimate against exact effect; subspaces of growing rank."""
    names = _largest(found.components)
    height = 0.21 * len(names) + 3.5
    figure = Figure(figsize=(WIDTH, height))
    top = 0.21 * len(names) / height
    heat = figure.add_axes((0.13, 1 - top - 0.55 / height, 0.68, top))
    bar = figure.add_axes((0.84, 1 - top - 0.55 / height, 0.02, top))
    _heat(heat, bar, found.components, names, figure)
    low = 2.1 / height
    _scatter(figure.add_axes((0.09, 0.45 / height, 0.36, low)), found.components)
    _curves(figure.add_axes((0.58, 0.45 / height, 0.39, low)), found.subspaces)
    return figure


def _largest(found: ComponentMap) -> list[str]:
    """The components with the largest effect anywhere, in the order of the network."""
    most: dict[str, float] = {}
    for one in found.effects:
        most[one.component] = max(most.get(one.component, 0.0), abs(one.recovered))
    kept = set(sorted(most, key=lambda name: -most[name])[:ROWS])
    return [name for name in most if name in kept]


def _heat(axes: Axes, bar: Axes, found: ComponentMap, names: Sequence[str], figure: Figure) -> None:
    groups = _groups(found)
    cells: dict[tuple[str, Group], Effect] = {(e.component, e.group): e for e in found.effects}
    most = max(1.0, *(abs(e.recovered) for e in found.effects))
    norm, colours = Normalize(-most, most), mpl.colormaps[MAP]
    for row, name in enumerate(names):
        for column, group in enumerate(groups):
            one = cells[name, group]
            shade = colours(norm(one.recovered))
            boxes(axes, [(column + 0.01, row + 0.04, column + 0.99, row + 0.96)], [shade])
            ink = "white" if sum(shade[:3]) < 1.5 else INK
            middle: dict[str, Any] = {"ha": "center", "va": "center"}
            axes.text(column + 0.5, row + 0.5, _share(one), fontsize=7, color=ink, **middle)
    axes.set_xlim(0, len(groups))
    axes.set_ylim(len(names), 0)
    axes.set_xticks([n + 0.5 for n in range(len(groups))], [NAMES[group] for group in groups])
    axes.set_yticks([n + 0.5 for n in range(len(names))], list(names))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(mpl.cm.ScalarMappable(norm, colours), cax=bar).outline.set_visible(False)
    bar.set_ylabel("share of the log-odds gap\n(1 = all; + to misaligned)", fontsize=7)


def _scatter(axes: Axes, found: ComponentMap) -> None:
    ends = [value for e in found.effects for value in (e.recovered, e.attributed)]
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=GREY, lw=0.8, ls="--", zorder=1)
    for group in _groups(found):
        mine = [e for e in found.effects if e.group is group]
        colour, marker = LOOKS[group]
        r = next(one.pearson for one in found.agreement if one.group is group)
        label = group.value if r is None else f"{group.value}, r = {r:.2f}"
        x, y = [e.recovered for e in mine], [e.attributed for e in mine]
        axes.scatter(x, y, s=14, marker=marker, facecolors="none", edgecolors=colour, label=label)
    axes.set_xlabel("share recovered by patching")
    axes.set_ylabel("share by attribution patching")
    axes.set_title("Estimate against exact effect")
    axes.legend(loc="upper left", fontsize=7)


def _curves(axes: Axes, found: Sequence[Subspace]) -> None:
    step = max(1, -(-len(found) // LAYERS))
    for one, (colour, marker, line) in zip(found[::step], (*LINES, *LINES_MORE), strict=False):
        places = range(len(one.ranks))
        shares = [rank.recovered for rank in one.ranks]
        reach = [
            [0.0 if r.low is None else r.recovered - r.low for r in one.ranks],
            [0.0 if r.high is None else r.high - r.recovered for r in one.ranks],
        ]
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "ls": line,
            "ms": 4,
            "capsize": 2,
            "lw": 1.2,
        }
        axes.errorbar(places, shares, reach, label=f"layer {one.layer}", elinewidth=0.7, **style)
        null = [rank.random for rank in one.ranks if rank.random is not None]
        axes.plot(range(len(null)), null, color=GREY, lw=0.8, ls=":", zorder=1)
    if found:
        names = ["whole" if rank.rank is None else str(rank.rank) for rank in found[0].ranks]
        axes.set_xticks(range(len(names)), names)
        axes.plot([], [], color=GREY, lw=0.8, ls=":", label="random directions")
        axes.legend(loc="upper left", fontsize=7)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_xlabel("directions copied at the last prompt token")
    axes.set_ylabel("share recovered")
    axes.set_title("How many directions carry it")
