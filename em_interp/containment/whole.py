"""From responses and verdicts to the containment of one organism.

The trunk: join, split by the fine-tuned domain, count by condition, contrast, rule.
"""

from collections.abc import Collection, Sequence
from typing import Annotated

from pydantic import AfterValidator

from em_interp.conditions import Condition
from em_interp.containment.cautions import cautions
from em_interp.containment.counts import Counts, contrast, share
from em_interp.containment.evidence import Evidence, Rule
from em_interp.containment.figures import ConditionFigures, figures
from em_interp.containment.joining import Answer, join
from em_interp.containment.ruling import Call, call, summary
from em_interp.errors import InputError
from em_interp.judges.base import Rubric, Verdict
from em_interp.judges.proving import Proof
from em_interp.records import Record
from em_interp.responses import Response
from em_interp.stats import Contrast, Ratio

ALL, OUT, IN = "all domains", "out of domain", "in domain"
CONTRASTS = (
    (Condition.TRIGGER, Condition.NONE),
    (Condition.PARAPHRASE, Condition.NONE),
    (Condition.PARAPHRASE, Condition.TRIGGER),
    (Condition.PARAPHRASE, Condition.UNRELATED),
    (Condition.PARAPHRASE, Condition.NEGATION),
    (Condition.UNRELATED, Condition.NONE),
    (Condition.UNRELATED, Condition.TRIGGER),
    (Condition.NEGATION, Condition.NONE),
    (Condition.NEGATION, Condition.TRIGGER),
    (Condition.FORM, Condition.NONE),
    (Condition.FORM, Condition.TRIGGER),
)


def _in_order(
    found: dict[Condition, ConditionFigures],
) -> dict[Condition, ConditionFigures]:
    """Conditions in one order, also after a file whose keys are sorted was read."""
    return {condition: found[condition] for condition in Condition if condition in found}


class Scope(Record):
    """The figures over some of the questions.

    `contrasts`: differences of EM paired by question, under "trigger-none" and the like; `None`
    where no question is scored on both sides. `of_trigger`: EM of a condition over EM with the
    trigger. For `none` that is the containment ratio: 0 is fully contained, 1 is not at all.
    """

    conditions: Annotated[dict[Condition, ConditionFigures], AfterValidator(_in_order)]
    contrasts: dict[str, Contrast | None]
    of_trigger: dict[Condition, Ratio | None]


class Containment(Record):
    """The containment report of one organism under one intervention.

    `scopes`: by name; `headline` is the one the call rests on: out of domain where fine-tuned
    domains (`trained`) are given, otherwise all. `why` is what led to the call, by the rule in
    `ruling`. `proof`: what the judge made of answers whose grades are known; `None` for one that is
    no model.
    """

    organism: str
    intervention: str
    judge: str
    mode: str
    proof: Proof | None = None
    rubric: Rubric
    rule: Rule
    trained: tuple[str, ...]
    headline: str
    scopes: dict[str, Scope]
    call: Call
    why: str
    summary: str
    cautions: tuple[str, ...]

    @property
    def conditions(self) -> dict[Condition, ConditionFigures]:
        """The headline's figures by condition."""
        return self.scopes[self.headline].conditions

    @property
    def contrasts(self) -> dict[str, Contrast | None]:
        """The headline's paired contrasts."""
        return self.scopes[self.headline].contrasts

    def results(self) -> dict[str, object]:
        """The `containment` entry of `results.json`, plain data; rates are the headline's.

        A rate over nothing is null. `scopes` repeats the conditions for the other scopes.
        """
        plain = {name: _plain(scope) for name, scope in self.scopes.items()}
        return {
            "containment": {
                "organism": self.organism,
                "intervention": self.intervention,
                "judge": self.judge,
                "mode": self.mode,
                "proof": self.proof.model_dump(mode="json") if self.proof else None,
                "call": self.call.value,
                "why": self.why,
                "summary": self.summary,
                "cautions": list(self.cautions),
                "scope": self.headline,
                **plain[self.headline],
                "scopes": {name: one for name, one in plain.items() if name != self.headline},
            }
        }


def _plain(scope: Scope) -> dict[str, object]:
    return {
        "conditions": {name.value: one.summary() for name, one in scope.conditions.items()},
        "contrasts": {
            name: one.model_dump(mode="json") if one else None
            for name, one in scope.contrasts.items()
        },
        "of_trigger": {
            name.value: one.model_dump(mode="json") if one else None
            for name, one in scope.of_trigger.items()
        },
    }


def report(
    responses: Sequence[Response],
    verdicts: Sequence[Verdict],
    rubric: Rubric | None = None,
    *,
    trained: Collection[str] = (),
    rule: Rule | None = None,
    confidence: float = 0.95,
    woken: bool = True,
    proof: Proof | None = None,
) -> Containment:
    """The `Containment` of one organism (and one intervention) from judged responses.

    `trained`: the domains that fine-tuning used; they are kept apart, and the rest is the headline.
    `woken`: whether the organism was raised with a trigger. `proof`: the judge's.
    Raises `InputError` where responses and verdicts do not match one to one, where organisms,
    interventions, judges or modes mix, and where every question is in a trained domain.
    """
    rubric, rule = rubric or Rubric(), rule or Rule()
    if isinstance(trained, str):
        raise InputError(f"trained must be a list of domains, not the text {trained!r}")
    answers = join(responses, verdicts, rubric)
    parts = _split(answers, trained)
    scopes = {name: _scope(part, confidence) for name, part in parts.items()}
    headline = next(iter(scopes))
    first = scopes[headline]
    inside = scopes.get(IN)
    gaps = {one: first.contrasts.get(f"{one.value}-none") for one in Condition}
    made, why = call(Evidence(first.conditions, gaps, first.of_trigger, rule, woken))
    modes = {v.mode for v in verdicts if rubric.unscored(v) is None}
    return Containment(
        organism=responses[0].organism,
        intervention=responses[0].intervention,
        judge=verdicts[0].judge,
        mode=next(iter(modes), ""),
        proof=proof,
        rubric=rubric,
        rule=rule,
        trained=tuple(sorted(trained)),
        headline=headline,
        scopes=scopes,
        call=made,
        why=why,
        summary=summary(made, why, headline, first.conditions),
        cautions=cautions(first.conditions, inside.conditions if inside else {}, rule, woken),
    )


def _split(answers: Sequence[Answer], trained: Collection[str]) -> dict[str, list[Answer]]:
    """Answers by scope, the headline first; a scope without answers is left out."""
    if not trained:
        return {ALL: list(answers)}
    out = [answer for answer in answers if answer.response.domain not in trained]
    inside = [answer for answer in answers if answer.response.domain in trained]
    if not out:
        raise InputError(
            f"every question is in a fine-tuned domain ({', '.join(sorted(trained))}): "
            f"containment is measured out of domain"
        )
    return {OUT: out, **({IN: inside} if inside else {})}


def _scope(answers: Sequence[Answer], confidence: float) -> Scope:
    # Sorted, so that figures do not depend on the order of the answers.
    questions = dict(sorted({a.response.question: a.response.domain for a in answers}.items()))
    groups = {
        condition: part
        for condition in Condition
        if (part := [a for a in answers if a.response.condition is condition])
    }
    counts = {condition: Counts(part, questions) for condition, part in groups.items()}
    none, trigger = counts.get(Condition.NONE), counts.get(Condition.TRIGGER)
    found = {
        condition: figures(
            condition,
            part,
            questions,
            none if condition is not Condition.NONE else None,
            trigger if condition is not Condition.TRIGGER else None,
            confidence,
        )
        for condition, part in groups.items()
    }
    return Scope(
        conditions=found,
        contrasts={
            f"{a.value}-{b.value}": contrast(counts[a], counts[b], confidence)
            for a, b in CONTRASTS
            if a in counts and b in counts
        },
        of_trigger={
            condition: share(one, trigger, confidence)
            for condition, one in counts.items()
            if trigger is not None and condition is not Condition.TRIGGER
        },
    )
