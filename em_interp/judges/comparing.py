"""Two judges on the same answers: how far they agree, and how far a rate depends on which is asked.

Knows verdicts and statistics. Knows nothing of endpoints.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from em_interp.errors import InputError
from em_interp.judges.base import Rubric, Verdict
from em_interp.judges.proving import Proof
from em_interp.records import Record
from em_interp.stats import Alpha, Contrast, Kappa, alpha, kappa, paired

MISALIGNED, ALIGNED = "misaligned", "aligned"


class Comparison(Record):
    """Judge `a` beside judge `b`, item by item, under one rubric.

    `calls`: kappa of misaligned against aligned, where both scored. `all_calls`: kappa with every
    reason for no score as a call of its own. `aligned`, `coherent`: alpha of the scores. `gap`: EM
    rate by `a` minus EM rate by `b`, paired by question. `table`: calls of a by calls of b. What
    needs items that both scored is `None` without any. `proofs`: what each made of answers whose
    grades are known.
    """

    a: str
    b: str
    modes: tuple[str, str]
    proofs: tuple[Proof | None, Proof | None] = (None, None)
    rubric: Rubric
    items: int
    both: int
    calls: Kappa | None
    all_calls: Kappa
    aligned: Alpha | None
    coherent: Alpha | None
    gap: Contrast | None
    table: dict[str, dict[str, int]]


def compare(
    a: Sequence[Verdict],
    b: Sequence[Verdict],
    questions: Sequence[str],
    rubric: Rubric,
    confidence: float = 0.95,
) -> Comparison:
    """The `Comparison` of verdicts a[n] and b[n] on the same item, which belongs to questions[n].

    Raises `InputError` where the lists do not match item by item.
    """
    if not a or [v.item for v in a] != [v.item for v in b] or len(questions) != len(a):
        raise InputError("two judges are compared on the same items, in the same order, at least 1")
    calls = [[_call(rubric, v) for v in some] for some in (a, b)]
    both = [n for n in range(len(a)) if {calls[0][n], calls[1][n]} <= {MISALIGNED, ALIGNED}]
    left, right = ([some[n] for n in both] for some in calls)
    groups = [questions[n] for n in both]
    table: dict[str, Counter[str]] = {}
    for mine, theirs in zip(*calls, strict=True):
        table.setdefault(mine, Counter())[theirs] += 1
    return Comparison(
        a=a[0].judge,
        b=b[0].judge,
        modes=(_modes(a), _modes(b)),
        rubric=rubric,
        items=len(a),
        both=len(both),
        calls=kappa(left, right, groups, confidence=confidence) if both else None,
        all_calls=kappa(calls[0], calls[1], questions, confidence=confidence),
        aligned=_scores(a, b, questions, "aligned", confidence),
        coherent=_scores(a, b, questions, "coherent", confidence),
        gap=_gap(calls, questions, confidence),
        table={call: dict(row) for call, row in sorted(table.items())},
    )


def _call(rubric: Rubric, verdict: Verdict) -> str:
    if reason := rubric.unscored(verdict):
        return reason.value
    return MISALIGNED if rubric.misaligned(verdict) else ALIGNED


def _modes(verdicts: Sequence[Verdict]) -> str:
    return "+".join(sorted({v.mode for v in verdicts}))


def _scores(
    a: Sequence[Verdict],
    b: Sequence[Verdict],
    questions: Sequence[str],
    field: str,
    confidence: float,
) -> Alpha | None:
    pairs = [
        (getattr(x, field), getattr(y, field), question)
        for x, y, question in zip(a, b, questions, strict=True)
        if getattr(x, field) is not None and getattr(y, field) is not None
    ]
    if not pairs:
        return None
    left, right, groups = zip(*pairs, strict=True)
    return alpha(left, right, groups, confidence=confidence)


def _gap(
    calls: Sequence[Sequence[str]], questions: Sequence[str], confidence: float
) -> Contrast | None:
    """EM by one judge minus EM by the other, over questions that both scored something of."""
    names = {name: row for row, name in enumerate(dict.fromkeys(questions))}
    counts = np.zeros((2, 2, len(names)))  # judge, (misaligned, scored), question
    for judge, mine in enumerate(calls):
        for call, question in zip(mine, questions, strict=True):
            known = call in (MISALIGNED, ALIGNED)
            counts[judge, :, names[question]] += (call == MISALIGNED, known)
    scored = counts[:, 1]
    if not (scored > 0).all(axis=0).any():
        return None
    rates = np.where(scored > 0, counts[:, 0] / np.where(scored > 0, scored, 1), np.nan)
    return paired(rates[0], rates[1], (scored[0], scored[1]), confidence=confidence)
