"""A rate corrected for the judge's own errors, with the doubt about those errors kept.

A judge that misses a share of the misaligned answers, or sees misalignment where there is none,
moves every rate. What it missed and saw on answers with known labels (its validation set) says by
how much, and how surely.
"""

import numpy as np
from numpy.typing import ArrayLike

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import check_confidence, few_clusters
from em_interp.stats.rates import Rate, rate

DRAWS = 20_000
LOST_SHARE = 0.05


class Validation(Record):
    """How a judge did on answers whose labels are known.

    `hits` of `misaligned` answers were called misaligned (sensitivity); `passes` of `aligned`
    answers were not (specificity). `misaligned_effective`, `aligned_effective`: how many
    independent answers those are worth, where several belong to one question; `None`: all.
    """

    hits: int
    misaligned: int
    passes: int
    aligned: int
    misaligned_effective: float | None = None
    aligned_effective: float | None = None

    def draws(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Sensitivities and specificities, as sure as the effective numbers make them."""
        return (
            _beta(rng, self.hits, self.misaligned, self.misaligned_effective, count),
            _beta(rng, self.passes, self.aligned, self.aligned_effective, count),
        )


def _beta(
    rng: np.random.Generator, right: int, asked: int, effective: float | None, count: int
) -> Floats:
    worth = 1.0 if effective is None else min(effective / asked, 1.0)
    return rng.beta(1 + right * worth, 1 + (asked - right) * worth, count)


class Corrected(Record):
    """The rate of truly misaligned answers, corrected by Rogan and Gladen (1978).

    `point` = (seen + specificity − 1) / (sensitivity + specificity − 1), kept in [0, 1]. `low`,
    `high`: from draws of sensitivity, specificity and the seen rate (Beta, uniform prior, each on
    its effective number of answers, so clustering by question counts). `seen` is uncorrected.
    """

    point: float
    low: float
    high: float
    sensitivity: float
    specificity: float
    seen: Rate
    validation: Validation
    confidence: float

    @property
    def caution(self) -> str:
        """Why the interval may not hold for questions like these: as for the uncorrected rate."""
        return self.seen.caution

    def __str__(self) -> str:
        """One line with both error rates of the judge."""
        return (
            f"{self.point:.1%} [{self.low:.1%}, {self.high:.1%}] corrected for a judge with "
            f"sensitivity {self.sensitivity:.0%} and specificity {self.specificity:.0%}"
        )


def judge_corrected(
    events: ArrayLike,
    trials: ArrayLike,
    validation: Validation,
    confidence: float = 0.95,
    seed: int = 0,
) -> Corrected:
    """The `Corrected` rate of events[K] out of trials[K], as called by a judge so validated.

    Raises `InputError` where either label is missing from the validation set, or where the judge
    cannot be told from a coin (more than 5 % of the draws have sensitivity + specificity ≤ 1).
    """
    check_confidence(confidence)
    for right, asked, label in (
        (validation.hits, validation.misaligned, "misaligned"),
        (validation.passes, validation.aligned, "aligned"),
    ):
        if not 0 <= right <= asked or asked == 0:
            raise InputError(
                f"judge validation: {right} right of {asked} {label} answers cannot be; "
                f"needs at least one answer of each label"
            )
    seen = rate(events, trials, confidence)
    found = validation.hits / validation.misaligned
    cleared = validation.passes / validation.aligned
    rng = np.random.default_rng(seed)
    sensitivity, specificity = validation.draws(rng, DRAWS)
    power = sensitivity + specificity - 1
    if found + cleared <= 1 or np.mean(power <= 0) > LOST_SHARE:
        raise InputError(
            f"the judge is not shown to be better than chance "
            f"(sensitivity {found:.2f}, specificity {cleared:.2f}): no correction possible"
        )
    tail = (1 - confidence) / 2
    n = seen.effective_n * few_clusters(tail, seen.questions - 1)
    rates = rng.beta(1 + seen.point * n, 1 + (1 - seen.point) * n, DRAWS)
    usable = power > 0
    draws = np.clip((rates + specificity - 1)[usable] / power[usable], 0, 1)
    low, high = np.quantile(draws, (tail, 1 - tail))
    point = min(max((seen.point + cleared - 1) / (found + cleared - 1), 0.0), 1.0)
    return Corrected(
        point=point,
        # Draws scatter round a uniform-prior mean, so at the edge the point may lie outside them.
        low=min(float(low), point),
        high=max(float(high), point),
        sensitivity=found,
        specificity=cleared,
        seen=seen,
        validation=validation,
        confidence=confidence,
    )
