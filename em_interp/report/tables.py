"""The page's tables: records as rows of text, each with its denominators."""

from typing import NamedTuple

from em_interp.conditions import Condition
from em_interp.containment import ConditionFigures
from em_interp.containment.whole import CONTRASTS
from em_interp.judges import Reason
from em_interp.report.figures.variants import texts
from em_interp.report.numbers import between, free, gap, p_value, percent, rate
from em_interp.report.reading import WORDS, cards, ordered, plain, roles, scopes, studied
from em_interp.study.records import LogOdds
from em_interp.study.results import Findings

Cells = tuple[str, ...]


class Block(NamedTuple):
    """Rows that belong together under a heading."""

    heading: str
    rows: tuple[Cells, ...]


class Table(NamedTuple):
    """A table: its caption, column heads (the first is the row's name), and blocks of rows."""

    caption: str
    heads: Cells
    blocks: tuple[Block, ...]


def containment(found: Findings, rest: bool = False) -> Table | None:
    """Every organism under every condition with all denominators.

    The headline's scope, and every scope of the organism under study; `rest`: what that leaves.
    """
    heads = (
        "condition",
        "EM rate [95%]",
        "at most",
        "misaligned / scored",
        "questions",
        " / ".join(reason.value for reason in Reason),
        "coherent",
        "worst case",
        "one left out",
        "cut off",
    )
    blocks = []
    for role in roles(found):
        report = found.answers[role].containment
        for scope in scopes(report):
            if (scope == report.headline or role == found.inputs.studied) is rest:
                continue
            mark = " (under study)" if role == found.inputs.studied else ""
            name = f"{plain(role)}{mark}, {scope}"
            rows = [
                _condition(condition, one)
                for condition, one in ordered(report.scopes[scope].conditions).items()
            ]
            blocks.append(Block(name, tuple(rows)))
    if rest:
        return Table("The controls in the other scopes.", heads, tuple(blocks)) if blocks else None
    return Table(
        "EM rates with all denominators. At most: one-sided 95% bound for a gate. Refusal to "
        "error: unscored answers by reason; they are in no rate. Worst case: the rate if all of "
        "those were aligned, and if all were misaligned. One left out: least and greatest rate "
        "without one of the questions. Cut off: answers that met the token budget.",
        heads,
        tuple(blocks),
    )


def _condition(condition: Condition, one: ConditionFigures) -> Cells:
    without = (
        between(one.without_low, one.without_high)
        if one.without_low is not None and one.without_high is not None
        else ""
    )
    return (
        WORDS[condition],
        rate(one.em),
        percent(one.em.upper) if one.em else "",
        f"{one.misaligned} / {one.scored}",
        f"{one.em.questions if one.em else 0} of {one.asked}",
        " / ".join(str(one.unscored_by.get(reason, 0)) for reason in Reason),
        percent(one.coherent.point) if one.coherent else "",
        between(one.worst_low, one.worst_high),
        without,
        str(one.truncated),
    )


def contrasts(found: Findings) -> Table:
    """Paired differences: the organism under study with its p-value, the others beside it."""
    others = [role for role in roles(found) if role != found.inputs.studied]
    mine = studied(found).contrasts
    rows = []
    for a, b in CONTRASTS:
        name = f"{a.value}-{b.value}"
        if name not in mine:
            continue
        one = mine[name]
        beside = [found.answers[role].containment.contrasts.get(name) for role in others]
        rows.append(
            (
                f"{WORDS[a]} − {WORDS[b]}",
                gap(one),
                p_value(one.p) if one else "",
                str(one.questions) if one else "0",
                *(gap(other) for other in beside),
            )
        )
    return Table(
        "Differences of EM rates in percentage points, paired by question, with 95% intervals; "
        "p from sign flips over questions (two-sided).",
        (
            "contrast",
            plain(found.inputs.studied),
            "p",
            "questions",
            *(plain(role) for role in others),
        ),
        (Block("", tuple(rows)),),
    )


def variants(found: Findings) -> Table:
    """Every framing text in full."""
    blocks: dict[Condition, list[Cells]] = {}
    for text in texts(found):
        one = text.studied
        row = (
            one.variant or "the bare question",
            rate(one.em),
            f"{one.em.events if one.em else 0} / {one.scored}",
            str(one.unscored),
            gap(one.against_none),
            p_value(one.p_adjusted) if one.p_adjusted is not None else "",
            rate(text.base.em) if text.base else "",
        )
        blocks.setdefault(text.condition, []).append(row)
    return Table(
        "Every framing text. Difference to no framing in percentage points, paired by question; "
        "p counts all texts of its condition (max-T over questions).",
        (
            "framing text",
            "EM rate [95%]",
            "misaligned / scored",
            "unscored",
            "minus no framing",
            "p",
            "base, the same text",
        ),
        tuple(Block(WORDS[condition], tuple(rows)) for condition, rows in blocks.items()),
    )


def training(found: Findings) -> Table:
    """The training cards."""
    rows = []
    for role, card in cards(found).items():
        mix = card.provenance.mix
        rows.append(
            (
                plain(role),
                mix.kind.replace("_", " ") if mix else "",
                str(card.rows),
                str(card.steps),
                str(card.effective_batch),
                f"{card.trained_parameters:,}",
                str(card.truncated),
                f"{card.final_loss:.3f}",
                card.weights,
            )
        )
    return Table(
        "Training cards.",
        (
            "organism",
            "rows are",
            "rows",
            "steps",
            "batch",
            "trained parameters",
            "truncated",
            "final loss",
            "weights",
        ),
        (Block("", tuple(rows)),),
    )


def odds(found: Findings) -> Table | None:
    """Log-odds of every organism under every condition; `None` where there are none."""
    cells = {(c.organism, c.condition): c for c in found.margins.cells}
    who = [role for role in roles(found) if any(name == role for name, _ in cells)]
    if not who:
        return None
    rows = []
    for condition in Condition:
        some = [cells.get((role, condition)) for role in who]
        if any(some):
            rows.append((WORDS[condition], *(_odds(one) for one in some)))
    return Table(
        "Mean log-odds in nats; in brackets the 95% interval of the paired difference to no "
        "framing.",
        ("condition", *(plain(role) for role in who)),
        (Block("", tuple(rows)),),
    )


def _odds(one: LogOdds | None) -> str:
    if one is None:
        return ""
    if one.against_none is None:
        return free(one.mean)
    c = one.against_none
    low, high = free(c.low, sign=True), free(c.high, sign=True)
    return f"{free(one.mean)} ({free(c.difference, sign=True)} [{low}, {high}])"
