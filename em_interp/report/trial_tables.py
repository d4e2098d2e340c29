"""Tables of interventions: a grid's rows with their checks, and the search that chose a setting."""

from typing import NamedTuple

from em_interp.conditions import Condition
from em_interp.labels import Label, exact, spelled
from em_interp.report.numbers import free, gap, percent, rate
from em_interp.report.reading import SYMBOLS, WORDS, swept
from em_interp.report.tables import Block, Cells, Table
from em_interp.study.results import Findings
from em_interp.trials import Trial


def trial(made: Trial, caption: str) -> Table:
    """A grid's rows: EM, the paired change, coherence, scored, and the manipulation check."""
    blocks = []
    for condition in Condition:
        rows = []
        for row in made.rows:
            if row.condition is not condition:
                continue
            check = made.manipulation(row.intervention)
            moved = f"{free(check.before, sign=True)} → {free(check.after, sign=True)}"
            far = "" if check.moved is None else free(check.moved)
            rows.append(
                (
                    intervention(row.label),
                    rate(row.em),
                    gap(row.change),
                    rate(row.coherent),
                    f"{row.scored} of {row.scored + row.unscored}",
                    moved if check.touched else "",
                    far if check.touched else "",
                    f"{check.touched:,}" if check.touched else "",
                )
            )
        if rows:
            blocks.append(Block(WORDS[condition], tuple(rows)))
    return Table(
        caption,
        (
            "intervention",
            "EM rate [95%]",
            "change, points [95%]",
            "coherent [95%]",
            "scored",
            "x·u before → after",
            "moved by",
            "tokens edited",
        ),
        tuple(blocks),
    )


def intervention(label: Label) -> str:
    """An intervention as tables name it."""
    return "untouched" if label.baseline else label.said(SYMBOLS)


class Sweep(NamedTuple):
    """The search on development questions: rows of layers, columns of strengths."""

    strengths: Cells
    rows: tuple[tuple[str, tuple[tuple[str, bool, bool], ...]], ...]


def sweep(found: Findings) -> Sweep | None:
    """Each cell: "EM / coherent", whether it was chosen, whether coherence is too low."""
    cells = swept(found.sweep.trial)
    if not cells:
        return None
    strengths = sorted({strength for _, strength in cells})
    chosen = found.sweep.layers, found.sweep.strength
    least = found.inputs.spec.steering.coherence
    rows = []
    for sites in dict.fromkeys(some for some, _ in cells):
        row = []
        for strength in strengths:
            one = cells.get((sites, strength))
            if one is None:
                row.append(("", False, False))
                continue
            coherent = one.coherent.point if one.coherent else 0.0
            em = percent(one.em.point) if one.em else "—"
            text = f"{em} / {percent(coherent, 0)}"
            here = tuple(site.layer for site in sites), strength
            row.append((text, here == chosen, coherent < least))
        rows.append((spelled(sites).replace("-", "–"), tuple(row)))
    return Sweep(tuple(map(exact, strengths)), tuple(rows))
