"""A rate with its interval: the unit of inference is the question, not the answer.

Two claims are possible and have two intervals. "Questions like these" (the headline, estimand A)
takes the questions as a sample: Wilson on the effective number of answers, n / deff, shrunk by
(z / t)² for few questions. "Exactly these questions" (estimand B) takes them as fixed: Clopper
and Pearson on the answers. Source of the first: design-based score intervals on effective samples
(Korn and Graubard 1998; PMC6690503). It cannot know of questions of a kind that was not drawn:
where such could change the rate by more than itself, `caution` says so, and `upper` allows for
them. docs/coverage.md has the coverage of all three.
"""

from numpy.typing import ArrayLike

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats, answered, checked, design_effect, harmonic_trials, icc
from em_interp.stats.quantiles import (
    beta_quantile,
    check_confidence,
    few_clusters,
    normal_quantile,
    unseen,
    wilson,
)

ASSUMED_ICC = 0.1


class Rate(Record):
    """Mean over questions of their rates (each question weighs the same), with its denominators.

    `low`, `high`: interval for questions like these (headline). `fixed_low`, `fixed_high`: for
    exactly these questions. `upper`: one-sided bound for questions like these; it trusts no
    intra-class correlation below `assumed_icc` and allows for questions that fire always and were
    not drawn. It is the number for a gate, and the one to print where `caution` says that `low` and
    `high` may not hold. `questions` were answered, `empty` were asked and have no trial.
    `effective_n` is what the answers are worth if answers to one question resemble each other.
    """

    point: float
    low: float
    high: float
    fixed_low: float
    fixed_high: float
    upper: float
    questions: int
    empty: int
    events: int
    trials: int
    design_effect: float | None
    icc: float | None
    effective_n: float
    confidence: float
    assumed_icc: float

    @property
    def caution(self) -> str:
        """Why `low` and `high` may not hold for questions like these; empty where they do.

        The rate (or its distance from 1) is less than what questions that always fire (or never do)
        could add without one of them being among those asked.
        """
        return few_questions(self.questions, self.confidence, self.point)

    @property
    def brief(self) -> str:
        """Rate and interval, in per cent; where the interval may not hold, the bound for a gate."""
        bound = f", at most {self.upper:.1%}" if self.caution and self.point <= 0.5 else ""
        unsure = "\N{DAGGER}" if self.caution else ""
        return f"{self.point:.1%} [{self.low:.1%}, {self.high:.1%}]{unsure}{bound}"

    def __str__(self) -> str:
        """One line that never shows a rate without what it rests on."""
        plural = "" if self.questions == 1 else "s"
        counts = f"{self.events}/{self.trials} answers, {self.questions} question{plural}"
        return f"{self.brief} ({counts})"


def rate(
    events: ArrayLike,
    trials: ArrayLike,
    confidence: float = 0.95,
    assumed_icc: float = ASSUMED_ICC,
) -> Rate:
    """The `Rate` of events[K] out of trials[K], one entry a question.

    Questions without a trial are counted and left out. One question alone says nothing about
    others like it: its headline interval is [0, 1]. Raises `InputError` where no question has a
    trial, since a rate over nothing is not zero.
    """
    check_confidence(confidence)
    happened, asked = checked(events, trials)
    put = len(asked)
    happened, asked = answered(happened, asked)
    if not len(asked):
        raise InputError("no rate without answers: no question has a scored answer")
    point = float((happened / asked).mean())
    count, per_question = len(asked), harmonic_trials(asked)
    effect = design_effect(happened, asked)
    spread = max(effect or 1.0, 1.0)
    floored = max(spread, 1 + (per_question - 1) * assumed_icc)
    tail = (1 - confidence) / 2
    z, z_one = normal_quantile(1 - tail), normal_quantile(confidence)
    n = count * per_question
    low, high = wilson(point, n / spread * few_clusters(tail, count - 1), z)
    fixed_low = beta_quantile(tail, n * point, n * (1 - point) + 1) if point > 0 else 0.0
    fixed_high = beta_quantile(1 - tail, n * point + 1, n * (1 - point)) if point < 1 else 1.0
    upper = wilson(point, n / floored * few_clusters(1 - confidence, count - 1), z_one)[1]
    # Exact, were the questions all or nothing: no other law of their rates varies more. Of a rate
    # that is resolved only so much of it counts as kinds that were not drawn could hide.
    rare = count * (point if few_questions(count, confidence, point) else unseen(count, confidence))
    if rare < count:
        upper = max(upper, beta_quantile(confidence, rare + 1, count - rare))
    return Rate(
        point=point,
        low=low,
        high=high,
        fixed_low=fixed_low,
        fixed_high=fixed_high,
        upper=upper,
        questions=count,
        empty=put - count,
        events=int(happened.sum()),
        trials=int(asked.sum()),
        design_effect=effect,
        icc=icc(happened, asked),
        effective_n=n / spread,
        confidence=confidence,
        assumed_icc=assumed_icc,
    )


def few_questions(count: int, confidence: float, *rates: float) -> str:
    """What so many questions cannot rule out, if all `rates` lie nearer to 0 or 1 than that."""
    share = unseen(count, confidence)
    if any(min(one, 1 - one) >= share for one in rates):
        return ""
    many = f"{count} question{'' if count == 1 else 's'}"
    return f"{many} cannot show what up to {share:.0%} of questions like these would do"


def leave_one_out(rates: Floats) -> tuple[float, float, int] | None:
    """Least and greatest mean with one question left out, and the question that moves it most.

    `None` for fewer than two questions. A rate that lives on one question shows here.
    """
    count = len(rates)
    if count < 2:
        return None
    without = (rates.sum() - rates) / (count - 1)
    mover = int(abs(without - rates.mean()).argmax())
    return float(without.min()), float(without.max()), mover
