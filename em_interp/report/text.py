"""Tables for the terminal. No rate is printed without its interval and what it rests on."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from em_interp.containment import Containment
from em_interp.dictionaries.contrasting import Contrasted
from em_interp.directions import Direction, Directions
from em_interp.labels import exact
from em_interp.localisation import Axis, Localisation, Patching
from em_interp.probing import Fitter, Probing
from em_interp.report.numbers import bracket, free, mark, p_value
from em_interp.stats import Contrast, Rate
from em_interp.trials import Row, Trial

if TYPE_CHECKING:
    from em_interp.study.results import Findings

# Names and texts are shown as they are: no [tags], no :smileys:, no colours.
PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
WIDTH = 10_000  # of the page, not of a table: one that is too wide would be cut off


def percent(rate: Rate | None) -> str:
    """A rate with its interval, or a word where nothing was scored."""
    if rate is None:
        return "no scored answers"
    return f"{rate.point:6.1%} [{rate.low:.1%}, {rate.high:.1%}]{mark(rate)}"


def gap(contrast: Contrast | None) -> str:
    """A paired difference in percentage points with its interval."""
    if contrast is None:
        return ""
    a, b, c = (100 * x for x in (contrast.difference, contrast.low, contrast.high))
    return f"{a:+6.1f} [{b:+.1f}, {c:+.1f}]{mark(contrast)}"


def render(table: Table) -> str:
    """A rich table as plain text, as wide as it must be, on a terminal and in a file alike."""
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, legacy_windows=False, **PLAIN).print(table)
    return out.getvalue().rstrip()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a left-aligned first column and right-aligned others."""
    made = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return f"{title}\n{render(made)}" if title else render(made)  # rich would fold a long title


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
    columns = (
        "condition",
        "EM rate [95 %]",
        "at most",
        "coherent",
        "questions",
        "scored / unscored",
    )
    text = table(f"{found.organism}, {found.headline}", columns, rows)
    notes = "".join(f"\n  caution: {note}" for note in found.cautions)
    return f"{text}\n\n{found.summary}{notes}"


def trial_table(found: Trial, title: str) -> str:
    """Rows of a grid: EM, the paired change, coherence, and the manipulation check.

    "moved by": mean size of a token's change, in activation units: what a control is matched in.
    """
    rows = [_trial_row(found, row) for row in found.rows]
    columns = (
        "intervention",
        "condition",
        "EM rate [95 %]",
        "change (points)",
        "coherent",
        "scored",
        "x·u before → after",
        "moved by",
    )
    return table(title, columns, rows)


def _trial_row(found: Trial, row: Row) -> list[str]:
    check = found.manipulation(row.intervention)
    moved = f"{check.before:+.2f} → {check.after:+.2f}" if check.touched else ""
    return [
        row.intervention or "none (baseline)",
        row.condition.value,
        percent(row.em),
        gap(row.change),
        f"{row.coherent.point:.0%}" if row.coherent else "",
        f"{row.scored}/{row.scored + row.unscored}",
        moved,
        f"{check.moved:.2f}" if check.touched and check.moved is not None else "",
    ]


def _measured(direction: Direction) -> tuple[str, str]:
    """What only a measured direction has: its share of the stream, its off-state coordinate."""
    if direction.scale is None:
        return "not known", "not known"
    return f"{direction.fraction(1):.1%}", f"{direction.off_coordinate:+.3f}"


def directions_table(found: Directions) -> str:
    """A direction's size at every site, with its sign."""
    rows = [[str(site), f"{d.natural:.3f}", *_measured(d)] for site, d in found.items()]
    card = found.card
    title = f"{card.name}: {card.sign}, span {card.span}, n = {card.n} questions"
    columns = ("site", "natural difference", "of the mean stream norm", "off-state coordinate")
    return table(title, columns, rows)


def probing_table(found: Probing) -> str:
    """AUROC against no framing by fitter and layer, one column a condition; then firing shares."""
    conditions = list(dict.fromkeys(s.condition for s in found.scores))
    keys = list(dict.fromkeys((s.fitter, s.layer) for s in found.scores))
    rows = []
    for fitter, layer in keys:
        name = fitter.value if layer is None else f"{fitter.value}, layer {layer}"
        cells = [found.score(fitter, layer, c).auroc for c in conditions]
        rows.append([name, *(f"{a.auroc:.3f} [{a.low:.2f}, {a.high:.2f}]" for a in cells)])
    title = (
        f"AUROC against no framing [95 %], fitted on {found.train_questions} questions, "
        f"tested on {found.test_questions} others; 0.5 is chance"
    )
    text = table(title, ("probe", *(c.value for c in conditions)), rows)
    fires = [
        [
            f"{fitter.value}, layer {layer}",
            *(percent(found.score(fitter, layer, c).fires) for c in conditions),
            percent(found.false_alarms[f"{fitter.value}@{layer}"]),
        ]
        for fitter, layer in keys
        if fitter is Fitter.LOGISTIC
    ]
    columns = ("probe", *(c.value for c in conditions), "none (false alarms)")
    return f"{text}\n\n{table('Share of contexts that fire (score >= 0)', columns, fires)}"


def localisation_tables(found: Localisation, strength: float) -> str:
    """Necessity, sufficiency, the patching map and the geometry, one table each; and the place."""
    from em_interp.report.where import by_ablation, said

    parts = [
        trial_table(found.necessity, "Necessity: mean-ablation with the trigger, by layer"),
        trial_table(
            found.sufficiency, f"Sufficiency: adding {exact(strength)} without the trigger"
        ),
    ]
    if found.patching is not None:
        parts.append(patching_table(found.patching))
    if found.axes:
        parts.append(axes_table(found.axes))
    parts.append(said(by_ablation(found.necessity)))
    return "\n\n".join(parts)


def patching_table(found: Patching) -> str:
    """Layers down, groups of positions across."""
    groups = list(dict.fromkeys(p.group for p in found.patches))
    sites = list(dict.fromkeys(p.site for p in found.patches))
    cells = {
        (p.site, p.group): f"{free(p.recovered, sign=True)} {bracket(p.low, p.high, sign=True)}"
        for p in found.patches
    }
    rows = [[f"layer {site.short}", *(cells[site, group] for group in groups)] for site in sites]
    title = (
        f"Patching trigger-on into {found.target}: share of the log-odds gap recovered "
        f"({found.off:+.2f} to {found.on:+.2f} nats; 1 is all of it; "
        f"intervals hold for all {len(found.patches)} together)"
    )
    return table(title, ("", *(group.value for group in groups)), rows)


def axes_table(found: Sequence[Axis]) -> str:
    """delta against g, layer by layer."""
    rows = [
        [
            f"layer {a.site.short}",
            f"{a.cosine:+.2f}",
            "–" if a.base_cosine is None else f"{a.base_cosine:+.2f}",
            f"{a.covered_off:+.2f}",
            f"{a.covered_on:+.2f}",
            f"{a.norm:.1%}",
        ]
        for a in found
    ]
    columns = (
        "",
        "cos(delta, g)",
        "cos(delta, base shift)",
        "g covered, off",
        "g covered, on",
        "|delta|",
    )
    return table("Geometry: 0 is the base, 1 the unconditional organism, along g", columns, rows)


def latents_table(found: Contrasted) -> str:
    """Latents that differ, controls beside them, and what the dictionary is worth."""
    rows = [
        [
            f"{one.index}{' (control)' if one.control else ''}",
            f"{one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}]",
            p_value(one.p, found.floor),
            f"{one.off:.0%} to {one.on:.0%}",
            f"{one.cosine:+.2f}",
            _share(one.ablated, one.ablated_ends),
            _share(one.added, one.added_ends),
        ]
        for one in found.shown
    ]
    q = found.quality
    title = (
        f"Latents at {found.site}, {found.span}, trigger on minus off: {found.significant} of "
        f"{found.firing} that fire differ, {found.shuffled} with half the questions turned"
    )
    columns = ("latent", "difference [95 %]", "p", "fires", "cos(delta)", "ablated", "added")
    return table(title, columns, rows) + (
        f"\n\nintervals and p count all that fire (max-T over questions); no p can be smaller than "
        f"{found.floor:.1g}\n"
        f"ablated, added: share of the log-odds gap ({q.gap:.2f} nats) taken away, brought, on "
        f"{found.held} questions that did not choose the latents\n"
        f"dictionary: {q.explained:.1%} of the variance explained, {q.active:.1f} latents a token; "
        f"the gap is {q.spliced:.2f} nats where the reconstruction is read"
    )


def _share(share: float | None, ends: tuple[float, float] | None) -> str:
    if share is None:
        return ""
    low, high = ends or (None, None)
    return f"{free(share, sign=True)} {bracket(low, high, sign=True)}"


def headline(found: "Findings") -> str:
    """A study in a dozen lines: contained or not, by how much, what pushing and removing does."""
    studied = found.answers[found.inputs.studied].containment
    reports = {role: one.containment for role, one in found.answers.items()}
    rows = [
        [name.value, *(percent(one.conditions[name].em) for one in reports.values())]
        for name in studied.conditions
    ]
    names = [role.replace("_", " ") for role in reports]
    parts = [
        studied.summary,
        table(f"EM rate [95 %], {studied.headline}", ["condition", *names], rows),
    ]
    if found.ablation.rows:
        parts.append(trial_table(found.ablation, "Removing the direction at every layer"))
    if found.steering.rows:
        layers = ", ".join(map(str, found.sweep.layers))
        title = f"Adding it to the {found.steering.organism}, no trigger, layers {layers}"
        parts.append(trial_table(found.steering, title))
    return "\n\n".join([*parts, *(f"left out: {k} ({v})" for k, v in found.skipped.items())])
