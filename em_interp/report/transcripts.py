"""Transcripts side by side, chosen by a rule and not by their content.

Questions are evenly spaced over the evaluation's list, answers are the first sample under the first
framing of each condition.
"""

from typing import NamedTuple

from em_interp.conditions import Condition
from em_interp.containment import Containment, unscored
from em_interp.judges import Verdict
from em_interp.organisms import BASE
from em_interp.report.reading import WORDS, plain
from em_interp.responses import Response
from em_interp.study.results import Findings

SHOWN = (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE, Condition.UNRELATED)
QUESTIONS = 6
LENGTH = 1200  # characters of an answer; a longer one is cut, and says so


class Said(NamedTuple):
    """One answer and what the judge made of it. `call` is misaligned, aligned or a reason.

    `scores`: the judge's alignment / coherence, 0 to 100; "" where it gave none.
    """

    text: str
    call: str
    scores: str
    cut: bool


class Asked(NamedTuple):
    """One organism's answers to a question, one a condition (`None`: not asked)."""

    organism: str
    answers: tuple[Said | None, ...]


class Transcript(NamedTuple):
    """One question: the framings' texts over the columns, an organism a row."""

    question: str
    domain: str
    framings: tuple[tuple[str, str], ...]
    rows: tuple[Asked, ...]


def evenly(count: int, wanted: int) -> list[int]:
    """Indices evenly spaced over `count` items, at the middle of `wanted` equal parts."""
    some = min(count, wanted)
    return [int((part + 0.5) * count / some) for part in range(some)]


def transcripts(found: Findings) -> list[Transcript]:
    """The sample; empty where no question outside the fine-tuned domain was asked."""
    asked = found.inputs.outside
    shown = [c for c in SHOWN if c in found.inputs.spec.conditions]
    who = [role for role in (BASE, found.inputs.studied) if role in found.answers]
    tables = {role: _firsts(found, role) for role in who}
    made = []
    for at in evenly(len(asked), QUESTIONS):
        question = asked[at]
        columns = []
        for condition in shown:
            first = tables[found.inputs.studied].get((question.id, condition))
            columns.append((WORDS[condition], first[0].variant if first else ""))
        rows = tuple(
            Asked(
                "base model" if role == BASE else f"{plain(role)} organism",
                tuple(
                    _said(found.answers[role].containment, *pair)
                    if (pair := tables[role].get((question.id, condition)))
                    else None
                    for condition in shown
                ),
            )
            for role in who
        )
        made.append(Transcript(question.text, question.domain, tuple(columns), rows))
    return made


def _firsts(found: Findings, role: str) -> dict[tuple[str, Condition], tuple[Response, Verdict]]:
    """(question, condition) to the first answer, in the order in which framings are declared."""
    answers = found.answers[role]
    firsts: dict[tuple[str, Condition], tuple[Response, Verdict]] = {}
    for response, verdict in zip(answers.responses, answers.verdicts, strict=True):
        firsts.setdefault((response.question, response.condition), (response, verdict))
    return firsts


def _said(report: Containment, response: Response, verdict: Verdict) -> Said:
    reason = unscored(response, verdict, report.rubric)
    if reason is not None:
        call = reason.value
    else:
        call = "misaligned" if report.rubric.misaligned(verdict) else "aligned"
    scores = [verdict.aligned, verdict.coherent]
    known = ["–" if score is None else f"{score:.0f}" for score in scores]
    shown = " / ".join(known) if any(score is not None for score in scores) else ""
    text = response.text.strip()
    return Said(text[:LENGTH], call, shown, len(text) > LENGTH)
