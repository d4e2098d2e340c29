"""EM rate of every question under every condition: does the rate live on a few questions?"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from em_interp.conditions import Condition
from em_interp.containment import QuestionFigures
from em_interp.report.picture import Picture
from em_interp.report.reading import WORDS, ordered, studied
from em_interp.report.style import INK, MUTED, WIDTH, drawn, shorten
from em_interp.study.results import Findings

STRIP = 28  # questions side by side; more go into the next strip
MAP = "cividis_r"
Cells = dict[tuple[str, Condition], QuestionFigures]


def asked(found: Findings) -> list[tuple[str, str, str]]:
    """(domain, question id, label) of every question in any scope, by domain; trained ones last."""
    report = studied(found)
    known = {q.id: q for q in found.inputs.asked}
    rows = set()
    for scope in report.scopes.values():
        for figures in scope.conditions.values():
            for one in figures.by_question:
                topic = known[one.question].topic if one.question in known else ""
                rows.add((one.domain in report.trained, one.domain, one.question, topic))
    return [
        (domain, question, (topic or question.split("/")[-1]).replace("_", " "))
        for _, domain, question, topic in sorted(rows)
    ]


def cells(found: Findings) -> Cells:
    """(question, condition) to figures, over all scopes."""
    return {
        (one.question, condition): one
        for scope in studied(found).scopes.values()
        for condition, figures in scope.conditions.items()
        for one in figures.by_question
    }


@drawn
def figure_of(
    some: Sequence[tuple[str, str, str]], found: Cells, shown: Sequence[Condition], trained: tuple[str, ...]
) -> Figure:
    """One strip: questions from left to right, conditions from top to bottom, per cent in the cells."""
    height = 0.185 * len(shown) + 1.45
    figure = Figure(figsize=(WIDTH, height))
    width = 0.865 * len(some) / STRIP
    axes = figure.add_axes((0.125, 1.0 / height, width, 0.185 * len(shown) / height))
    colours = mpl.colormaps[MAP]
    for column, (_, question, _) in enumerate(some):
        for row, condition in enumerate(shown):
            _cell(axes, column, row, found.get((question, condition)), colours)
    axes.set_xlim(0, len(some))
    axes.set_ylim(len(shown), 0)
    axes.set_yticks([n + 0.5 for n in range(len(shown))])
    axes.set_yticklabels([WORDS[c].replace(" framings", "") for c in shown])
    axes.set_xticks([n + 0.5 for n in range(len(some))])
    labels = [shorten(label, 20) for _, _, label in some]
    axes.set_xticklabels(labels, rotation=90, fontsize=6.5)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    _domains(axes, [domain for domain, _, _ in some], trained)
    return figure


def _cell(axes: Axes, column: int, row: int, one: QuestionFigures | None, colours: object) -> None:
    x, edges = [column + 0.03, column + 0.97], (row + 0.04, row + 0.96)
    if one is None:
        return
    if one.rate is None:
        axes.fill_between(x, *edges, facecolor="white", edgecolor=MUTED, hatch="////", lw=0.4)
        return
    shade = colours(one.rate)  # type: ignore[operator]
    axes.fill_between(x, *edges, facecolor=shade, lw=0)
    if one.rate > 0:
        ink = "white" if sum(shade[:3]) < 1.4 else INK
        text = f"{100 * one.rate:.0f}"
        axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=6.3, color=ink)


def _domains(axes: Axes, names: list[str], trained: tuple[str, ...]) -> None:
    starts = [0, *(n + 1 for n, (a, b) in enumerate(pairwise(names)) if a != b), len(names)]
    for first, last in pairwise(starts):
        if first:
            axes.axvline(first, color="white", lw=3)
        label = names[first].replace("_", " ") or "no domain"
        mark = " (fine-tuned)" if names[first] in trained else ""
        room = int((last - first) * 4.2) + 1
        axes.plot([first + 0.08, last - 0.08], [-0.18, -0.18], color=INK, lw=1.0, clip_on=False)
        axes.text(
            first + 0.08, -0.3, shorten(label + mark, max(room, 6)), fontsize=7, weight="bold",
            va="bottom", clip_on=False,
        )


def pictures(found: Findings) -> Iterator[Picture]:
    """Strips of questions, as many as are needed."""
    rows, known = asked(found), cells(found)
    shown = list(ordered(studied(found).conditions))
    strips = max(1, -(-len(rows) // STRIP))
    size = -(-len(rows) // strips)
    for number, start in enumerate(range(0, len(rows), size)):
        part = rows[start : start + size]
        yield Picture(
            title=f"Every question, by domain (part {number + 1} of {strips})",
            svg=figure_of(part, known, shown, studied(found).trained),
            read=(
                "EM rate in per cent of the organism under study; a blank cell is 0, a hatched one "
                "has no scored answer. Light to dark is 0 to 100."
            )
            if number == 0
            else "",
            otherwise=(
                "Were the effect carried by a few questions or one domain, the trigger’s row would "
                "be dark in few places only."
            )
            if number == 0
            else "",
        )
