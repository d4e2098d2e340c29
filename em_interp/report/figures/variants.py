"""EM rate of every framing text: does the gate read a sentence, a meaning or a form?"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from em_interp.conditions import Condition
from em_interp.containment import VariantFigures
from em_interp.organisms import BASE
from em_interp.report.picture import Picture
from em_interp.report.reading import WORDS, ordered, plain, studied
from em_interp.report.style import (
    CONDITIONS,
    MUTED,
    WIDTH,
    drawn,
    organism,
    share_axis,
    shorten,
)
from em_interp.study.results import Findings
from em_interp.study.spec import STUDIED

ROWS, ROW = 36, 0.175


class Text(NamedTuple):
    """One framing text of the organism under study, and the same of the base model."""

    condition: Condition
    studied: VariantFigures
    base: VariantFigures | None


def texts(found: Findings) -> list[Text]:
    """Every framing text in the order of its condition; the bare question first."""
    made = []
    base = found.answers[BASE].containment.conditions if BASE in found.answers else {}
    for condition, one in ordered(studied(found).conditions).items():
        known = {v.variant: v for v in base[condition].variants} if condition in base else {}
        made += [Text(condition, variant, known.get(variant.variant)) for variant in one.variants]
    return made


@drawn
def figure_of(some: Sequence[Text], right: float) -> Figure:
    """Rows of texts, grouped by condition; `right`: end of the axis, the same for all parts."""
    height = ROW * len(some) + 0.75
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.44, 0.45 / height, 0.54, ROW * len(some) / height))
    before = None
    for place, text in enumerate(some):
        look = CONDITIONS[text.condition]
        if text.base and text.base.em:
            marks = organism(BASE).marks
            axes.plot(text.base.em.point, place, ls="none", ms=4, clip_on=False, **marks)
        if em := text.studied.em:
            axes.hlines(place, em.low, em.high, color=look.colour, lw=1.3)
            axes.plot(em.point, place, ls="none", ms=5.5, clip_on=False, **look.marks)
        else:
            axes.text(0, place, " nothing scored", va="center", fontsize=6.5, color=MUTED)
        where: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "clip_on": False,
        }
        words = shorten(text.studied.variant, 46) or "the bare question"
        axes.text(-0.015, place, words, ha="right", fontsize=7, **where)
        if text.condition is not before:
            if place:
                axes.axhline(place - 0.5, color="#d0d0d0", lw=0.6, xmin=-0.8, clip_on=False)
            name = WORDS[text.condition].replace("unrelated framings", "unrelated")
            axes.text(-0.8, place, name, ha="left", weight="bold", fontsize=7, **where)
        before = text.condition
    axes.set_ylim(len(some) - 0.5, -0.5)
    axes.set_xlim(0, right)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    share_axis(axes, "x")
    axes.set_xlabel("EM rate of the framing text (95% intervals)")
    handles = [
        Line2D(
            [],
            [],
            ls="none",
            label=f"{plain(STUDIED)} (mark by condition)",
            **organism(STUDIED).marks,
        ),
        Line2D([], [], ls="none", ms=4, label="base, the same text", **organism(BASE).marks),
    ]
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(0.99, 1.0), ncols=2, borderaxespad=0
    )
    return figure


def pictures(found: Findings) -> Iterator[Picture]:
    """The texts, in parts where there are many."""
    some = texts(found)
    highs = [t.studied.em.high for t in some if t.studied.em]
    right = min(1.0, max([*highs, 0.1]) * 1.04)
    for start in range(0, len(some), ROWS):
        part = some[start : start + ROWS]
        yield Picture(
            title="Every framing text"
            + (f" ({start + 1} to {start + len(part)})" if start else ""),
            svg=figure_of(part, right),
            read=(
                "One row per text, the same questions under each. Only the trigger’s own text "
                "was in the fine-tuning data."
            ),
            otherwise=(
                "A gate that reads meaning separates paraphrases from negations and unrelated "
                "framings; one that reads form does not; one that reads the exact words leaves "
                "the paraphrases at the level of no framing."
            ),
        )
