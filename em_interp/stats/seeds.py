"""Training seeds as a second level: a rate over seeds × questions, never over pooled samples.

Another training run gives another organism. Three runs with a hundred answers each are three
organisms, not three hundred draws of one, so both levels enter the interval.
"""

import numpy as np
from numpy.typing import ArrayLike

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats, checked, harmonic_trials
from em_interp.stats.quantiles import (
    check_confidence,
    few_clusters,
    normal_quantile,
    student_quantile,
    wilson,
)
from em_interp.stats.rates import few_questions

LEAST_SEEDS = 3


class SeedRate(Record):
    """Mean over training seeds and questions, for seeds and questions like these.

    `per_seed`: each run's mean over questions. `seed_sd`, `question_sd`: estimated standard
    deviations of the true seed and question effects (0 where the data show none). `df`:
    Satterthwaite's degrees of freedom of the whole. `these_low`, `these_high`: interval over seeds
    alone, for exactly these questions. `dropped` questions lack an answer under some seed and are
    left out.
    """

    point: float
    low: float
    high: float
    these_low: float
    these_high: float
    per_seed: tuple[float, ...]
    seed_sd: float
    question_sd: float
    df: float
    seeds: int
    questions: int
    dropped: int
    events: int
    trials: int
    confidence: float

    @property
    def caution(self) -> str:
        """Why the intervals may not hold for questions like these; see `Rate.caution`."""
        return few_questions(self.questions, self.confidence, self.point)

    def __str__(self) -> str:
        """One line with the interval and the range over runs."""
        return (
            f"{self.point:.1%} [{self.low:.1%}, {self.high:.1%}] over {self.seeds} training seeds "
            f"({min(self.per_seed):.1%} to {max(self.per_seed):.1%}) and {self.questions} questions"
        )


def seeds(events: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> SeedRate:
    """The `SeedRate` of events[seed, question] out of trials[seed, question].

    Crossed random effects by analysis of variance: Var(mean) = (MS_seed + MS_question − MS_rest) /
    (S K), no less than either level alone says nor than independent answers would give. Each level
    is multiplied by the square of its own t (Howe 1974): three runs may look alike by luck, and
    degrees of freedom pooled over both levels would forget how few they are. From that a Wilson
    interval on effective answers, as for one organism. Raises `InputError` for one dimension
    (pooled samples), for fewer than three seeds and for fewer than two questions.
    """
    check_confidence(confidence)
    if np.ndim(events) != 2:
        raise InputError(
            "training seeds are a second level: give events[seed, question], not pooled samples"
        )
    happened, asked = checked(events, trials, dims=2)
    complete = (asked > 0).all(axis=0)
    happened, asked = happened[:, complete], asked[:, complete]
    runs, count = asked.shape
    if runs < LEAST_SEEDS:
        raise InputError(
            f"needs at least {LEAST_SEEDS} training seeds, not {runs}: show each one's rate instead"
        )
    if count < 2:
        raise InputError("needs at least 2 questions that are answered under every seed")
    rates = happened / asked
    point = float(rates.mean())
    tail = (1 - confidence) / 2
    half, df, seed_sd, question_sd = _components(rates, tail)
    n = rates.size * harmonic_trials(asked.ravel())
    z = normal_quantile(1 - tail)
    binomial = point * (1 - point) / n
    least = 1 / few_clusters(tail, count - 1)
    effect = max((half / z) ** 2 / binomial, least) if binomial > 0 else least
    low, high = _no_narrower(wilson(point, n / effect, z), point, half)
    own = rates.mean(axis=1)
    alone = max(float(own.var(ddof=1)) / runs / binomial, 1.0) if binomial > 0 else 1.0
    own_half = student_quantile(1 - tail, runs - 1) * float(own.std(ddof=1)) / runs**0.5
    these = wilson(point, n / alone * few_clusters(tail, runs - 1), z)
    these = _no_narrower(these, point, own_half)
    return SeedRate(
        point=point,
        low=low,
        high=high,
        these_low=these[0],
        these_high=these[1],
        per_seed=tuple(float(value) for value in own),
        seed_sd=seed_sd,
        question_sd=question_sd,
        df=df,
        seeds=runs,
        questions=count,
        dropped=int((~complete).sum()),
        events=int(happened.sum()),
        trials=int(asked.sum()),
        confidence=confidence,
    )


def _no_narrower(ends: tuple[float, float], point: float, half: float) -> tuple[float, float]:
    """Ends at least `half` from the point: Wilson's draw in where t of two degrees reaches far."""
    return max(min(ends[0], point - half), 0.0), min(max(ends[1], point + half), 1.0)


def _components(rates: Floats, tail: float) -> tuple[float, float, float, float]:
    """Half-width of the mean's interval, its degrees of freedom, and both effects' deviations."""
    runs, count = rates.shape
    by_seed, by_question = rates.mean(axis=1), rates.mean(axis=0)
    rest = rates - by_seed[:, None] - by_question[None] + rates.mean()
    ms_seed = count * float(by_seed.var(ddof=1))
    ms_question = runs * float(by_question.var(ddof=1))
    ms_rest = float((rest**2).sum()) / ((runs - 1) * (count - 1))
    total = max(ms_seed + ms_question - ms_rest, ms_seed, ms_question)
    t_seed, t_question = (student_quantile(1 - tail, one - 1) for one in (runs, count))
    wide = t_seed**2 * ms_seed + t_question**2 * max(ms_question - ms_rest, 0.0)
    wide = max(wide, t_question**2 * ms_question)
    pieces = (
        (ms_seed, runs - 1),
        (ms_question, count - 1),
        (ms_rest, (runs - 1) * (count - 1)),
    )
    scatter = sum(mean_square**2 / df for mean_square, df in pieces)
    least = min(runs, count) - 1
    df = max(total**2 / scatter, float(least)) if scatter > 0 else float(least)
    seed_sd = (max(ms_seed - ms_rest, 0.0) / count) ** 0.5
    question_sd = (max(ms_question - ms_rest, 0.0) / runs) ** 0.5
    return (wide / rates.size) ** 0.5, df, seed_sd, question_sd
