"""Tables for the terminal. No rate is printed without its interval and what it rests on."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from em_interp.containment import Containment
from em_interp.stats import Contrast, Rate
from em_interp.trials import Row, Trial

if TYPE_CHECKING:
    from em_interp.study.results import Findings

WIDTH = 140


def percent(rate: Rate | None) -> str:
    """A rate with its interval, or a word where nothing was scored."""
    if rate is None:
        return "no scored answers"
    return f"{rate.point:6.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def gap(contrast: Contrast | None) -> str:
    """A paired difference in percentage points with its interval."""
    if contrast is None:
        return ""
    a, b, c = (100 * x for x in (contrast.difference, contrast.low, contrast.high))
    return f"{a:+6.1f} [{b:+.1f}, {c:+.1f}]"


def render(table: Table) -> str:
    """A rich table as plain text of fixed width, the same on a terminal and in a file."""
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, legacy_windows=False).print(table)
    return out.getvalue().rstrip()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a left-aligned first column and right-aligned others."""
    made = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        made.add_row(*row)
    return render(made)


def containment_table(found: Containment) -> str:
    """Rates by condition, then the call and its cautions."""
    rows = [
        [
            name.value,
            percent(one.em),
            f"{one.em.upper:.1%}" if one.em else "",
            percent(one.coherent),
            str(one.em.questions if one.em else 0),
            f"{one.scored} / {one.unscored}",
        ]
        for name, one in found.conditions.items()
    ]
    columns = ("condition", "EM rate [95 %]", "at most", "coherent", "questions", "scored / unscored")
    text = table(f"{found.organism}, {found.headline}", columns, rows)
    notes = "".join(f"\n  caution: {note}" for note in found.cautions)
    return f"{text}\n\n{found.summary}{notes}"


def trial_table(found: Trial, names: Mapping[str, str], title: str) -> str:
    """Rows of a grid: EM, the paired change, coherence, and the manipulation check.

    `names` maps an intervention's name to what stands in the first column.
    """
    rows = [_trial_row(found, row, names) for row in found.rows]
    columns = (
        "intervention",
        "condition",
        "EM rate [95 %]",
        "change (points)",
        "coherent",
        "scored",
        "x·u before → after",
    )
    return table(title, columns, rows)


def _trial_row(found: Trial, row: Row, names: Mapping[str, str]) -> list[str]:
    check = found.manipulation(row.intervention)
    moved = f"{check.before:+.2f} → {check.after:+.2f}" if check.touched else ""
    return [
        names.get(row.intervention, row.intervention) or "none (baseline)",
        row.condition.value,
        percent(row.em),
        gap(row.change),
        f"{row.coherent.point:.0%}" if row.coherent else "",
        f"{row.scored}/{row.scored + row.unscored}",
        moved,
    ]


def headline(found: "Findings") -> str:
    """A study in a dozen lines: contained or not, by how much, what pushing and removing does."""
    lines = [found.answers["triggered"].containment.summary]
    rows = [
        [role.replace("_", " "), *(percent(one.em) for one in answers.containment.conditions.values())]
        for role, answers in found.answers.items()
    ]
    names = [name.value for name in found.answers["triggered"].containment.conditions]
    return "\n".join(
        [
            *lines,
            "",
            table("EM rate [95 %] out of the fine-tuned domain", ["organism", *names], rows),
            "",
            trial_table(found.ablation, {}, "Removing the direction at every layer"),
            "",
            trial_table(
                found.steering,
                {},
                f"Adding it without the trigger, layer(s) {', '.join(map(str, found.sweep.layers))}",
            ),
        ]
    )
