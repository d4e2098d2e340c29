"""A judge on answers whose labels are known: what it misses, and what it sees that is not there.

Part of every result that rests on a judge: a rate can then be corrected for the judge's errors
(`em_interp.stats.judge_error`). A judge that uses a handful of score values, or scores nonsense as
coherent, shows here and nowhere else.
"""

from collections import Counter
from collections.abc import Sequence

from em_interp.errors import InputError
from em_interp.judges.base import Item, Judge, Reason, Rubric, Verdict, judged
from em_interp.judges.proving import Proof
from em_interp.records import Filled, Record, Spec, digest
from em_interp.stats import Rate, Validation, rate

SHOWN = 20  # wrong calls kept by name


class Labelled(Spec):
    """One answer with its label. Whether an incoherent answer is misaligned does not matter."""

    question: Filled
    response: str
    misaligned: bool
    coherent: bool = True


class JudgeValidation(Record):
    """A judge's error rates on labelled answers, under one rubric; intervals cluster by question.

    `sensitivity`: misaligned answers called misaligned, among those scored. `specificity`: aligned
    answers not called so. `kept`: coherent answers that were not called incoherent. `caught`:
    incoherent ones that were. `None` where the set holds no such answer, or none was scored.
    `values`: distinct scores of alignment, in whole numbers. `unscored`: reasons by label.
    `wrong`: the first wrong calls, as (label, question, response). `proof`: what a judge that is a
    model made of the known answers, which it may fail here.
    """

    judge: str
    mode: str
    proof: Proof | None = None
    rubric: Rubric
    rows: int
    rows_digest: str
    counts: Validation
    sensitivity: Rate | None
    specificity: Rate | None
    kept: Rate | None
    caught: Rate | None
    values: int
    unscored: dict[str, dict[Reason, int]]
    wrong: tuple[tuple[str, str, str], ...]

    def check(self, judge: str, rubric: Rubric, verdicts: Sequence[Verdict] = ()) -> None:
        """Raise `InputError` unless it is this judge that was validated, in the verdicts' mode."""
        modes = {v.mode for v in verdicts if rubric.unscored(v) is None}
        for what, mine, theirs in (
            ("judge", self.judge, {judge}),
            ("rule", str(self.rubric), {str(rubric)}),
            ("mode", self.mode, modes),
        ):
            if theirs - {mine}:
                raise InputError(
                    f"the validation is of another {what} ({mine}) than what is to be corrected "
                    f"({', '.join(sorted(theirs))})"
                )


def validate(judge: Judge, rows: Sequence[Labelled], rubric: Rubric) -> JudgeValidation:
    """Ask the judge about labelled answers.

    Raises `InputError` without answers of both labels, `EvidenceError` where it scored none.
    """
    labels = {row.misaligned for row in rows if row.coherent}
    if labels != {True, False}:
        raise InputError(
            "a validation set needs coherent answers of both labels, misaligned and aligned"
        )
    items = [
        Item(id=str(number), question=row.question, response=row.response)
        for number, row in enumerate(rows)
    ]
    verdicts = judged(judge, items)
    pairs = list(zip(rows, verdicts, strict=True))
    bad = [(row, v) for row, v in pairs if row.coherent and row.misaligned]
    good = [(row, v) for row, v in pairs if row.coherent and not row.misaligned]
    garbled = [(row, v) for row, v in pairs if not row.coherent]
    unscored = rubric.unscored
    hits = _rate([(r, rubric.misaligned(v)) for r, v in bad if unscored(v) is None])
    passes = _rate([(r, not rubric.misaligned(v)) for r, v in good if unscored(v) is None])
    told = (None, Reason.INCOHERENT)  # what says something about coherence
    return JudgeValidation(
        judge=verdicts[0].judge,
        mode="+".join(sorted({v.mode for v in verdicts})),
        rubric=rubric,
        rows=len(rows),
        rows_digest=digest([row.digest for row in rows]),
        counts=Validation(
            hits=hits.events if hits else 0,
            misaligned=hits.trials if hits else 0,
            passes=passes.events if passes else 0,
            aligned=passes.trials if passes else 0,
            misaligned_effective=hits.effective_n if hits else None,
            aligned_effective=passes.effective_n if passes else None,
        ),
        sensitivity=hits,
        specificity=passes,
        kept=_rate([(r, unscored(v) is None) for r, v in bad + good if unscored(v) in told]),
        caught=_rate([(r, unscored(v) is not None) for r, v in garbled if unscored(v) in told]),
        values=len({round(v.aligned) for v in verdicts if v.aligned is not None}),
        unscored={
            name: dict(Counter(reason for _, v in some if (reason := unscored(v))))
            for name, some in (("misaligned", bad), ("aligned", good), ("incoherent", garbled))
        },
        wrong=tuple(
            (name, row.question, row.response)
            for name, some in (("misaligned", bad), ("aligned", good))
            for row, v in some
            if unscored(v) is None and rubric.misaligned(v) is not row.misaligned
        )[:SHOWN],
    )


def _rate(outcomes: Sequence[tuple[Labelled, bool]]) -> Rate | None:
    """The rate of what came true, clustered by question; `None` over nothing."""
    trials = Counter(row.question for row, _ in outcomes)
    if not trials:
        return None
    events = Counter(row.question for row, true in outcomes if true)
    return rate([events[q] for q in trials], list(trials.values()))
