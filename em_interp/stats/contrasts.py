"""Contrasts and ratios of conditions that asked the same questions.

Pairing by question takes out what makes a question easy or hard to fall for; what remains is the
effect of the condition. Several contrasts read together are adjusted (`maxima`).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats, harmonic_trials
from em_interp.stats.quantiles import (
    check_confidence,
    few_clusters,
    normal_quantile,
    student_quantile,
    wilson,
)
from em_interp.stats.rates import Rate, few_questions

EXACT_UP_TO = 18
DRAWS = 20_000
Interval = tuple[float, float, float]


class Contrast(Record):
    """Mean over questions of a − b, with a t interval on K − 1 degrees of freedom.

    `p`: two-sided sign-flip permutation test over questions, `exact` where all flips were counted.
    `questions` stand on both sides; `dropped` have no answer on one of them and are left out.
    `caution`: why the interval may not hold for questions like these; of two rates where both lie
    so near to 0 or 1 that questions which differ most need not be among those asked.
    """

    difference: float
    low: float
    high: float
    p: float
    exact: bool
    a: float
    b: float
    questions: int
    dropped: int
    confidence: float
    caution: str = ""

    def __str__(self) -> str:
        """One line with the interval, the test and the number of questions."""
        return (
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], "
            f"p = {self.p:.3g} ({self.questions} questions)"
        )


def paired(
    a: ArrayLike,
    b: ArrayLike,
    trials: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    rates: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> Contrast:
    """The `Contrast` of a[K] and b[K], per-question values in the same order; NaN where unanswered.

    `rates=True`: both are rates in [0, 1], and the interval stays in [−1, 1]. Where all differences
    are equal (no event on either side, or saturation) their spread is no measure of ignorance; the
    interval is then built from the sampling noise of the two rates (Newcombe's square-and-add) with
    `trials` = (a's [K], b's [K]) answers, or one answer a question where they are not given. One
    question gives [−1, 1]. `rates=False` is for other quantities (log-odds, projections): none of
    this, and at least two questions.
    """
    check_confidence(confidence)
    left, right, kept = _pairs(a, b, rates)
    gaps = left - right
    count, mean = len(gaps), float(gaps.mean())
    if count < 2 and not rates:
        raise InputError("one question has no interval: a contrast of free values needs two")
    spread = float(gaps.std(ddof=1)) if count > 1 else 0.0
    if count < 2:
        low, high = -1.0, 1.0
    elif rates and spread <= 1e-12:
        asked = trials or (np.ones(len(kept)), np.ones(len(kept)))
        low, high = _square_and_add(
            _noise_alone(float(left.mean()), np.asarray(asked[0])[kept], confidence),
            _noise_alone(float(right.mean()), np.asarray(asked[1])[kept], confidence),
        )
    else:
        half = student_quantile((1 + confidence) / 2, count - 1) * spread / count**0.5
        low, high = mean - half, mean + half
    if rates:
        low, high = max(low, -1.0), min(high, 1.0)
    p, exact = sign_flip(gaps, seed)
    sides = float(left.mean()), float(right.mean())
    return Contrast(
        difference=mean,
        low=low,
        high=high,
        p=p,
        exact=exact,
        a=sides[0],
        b=sides[1],
        questions=count,
        dropped=int(len(kept) - kept.sum()),
        confidence=confidence,
        caution=few_questions(count, confidence, *sides) if rates else "",
    )


def _pairs(a: ArrayLike, b: ArrayLike, rates: bool) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise InputError(
            f"paired values must be two lists over the same questions, "
            f"not {left.shape} and {right.shape}"
        )
    kept = np.isfinite(left) & np.isfinite(right)
    if not kept.any():
        raise InputError("no contrast without pairs: no question is answered on both sides")
    left, right = left[kept], right[kept]
    if rates and (min(left.min(), right.min()) < 0 or max(left.max(), right.max()) > 1):
        raise InputError("rates must lie in [0, 1]; pass rates=False for other quantities")
    return left, right, kept


def _square_and_add(a: Interval, b: Interval) -> tuple[float, float]:
    """Interval of a difference from the intervals of its two rates (Newcombe 1998)."""
    gap = a[0] - b[0]
    low = gap - math.hypot(a[0] - a[1], b[2] - b[0])
    high = gap + math.hypot(a[2] - a[0], b[0] - b[1])
    return low, high


def _noise_alone(mean: float, trials: ArrayLike, confidence: float) -> Interval:
    """(point, low, high) of a mean rate with sampling noise only: no spread between questions."""
    asked = np.asarray(trials, dtype=np.float64)
    tail = (1 - confidence) / 2
    n = len(asked) * harmonic_trials(asked) * few_clusters(tail, len(asked) - 1)
    return mean, *wilson(mean, n, normal_quantile(1 - tail))


def sign_flip(gaps: ArrayLike, seed: int = 0) -> tuple[float, bool]:
    """Two-sided permutation p of "the mean is 0", and whether it is exact.

    Under the null each question's difference could as well have had the other sign. All 2^K flips
    are counted up to K = 18; beyond, 20,000 seeded draws, the observed one counted among them.
    """
    values = np.asarray(gaps, dtype=np.float64)
    seen = abs(float(values.sum()))
    slack = 1e-9 * max(1.0, float(np.abs(values).sum()))
    if len(values) <= EXACT_UP_TO:
        # The first sign is held: |sum| is the same when all signs turn round.
        sums = values[:1]
        for value in values[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= seen - slack)), True
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, size=(DRAWS, len(values)), dtype=np.int8) * 2 - 1
    hits = int(np.sum(np.abs(signs @ values) >= seen - slack))
    return (hits + 1) / (DRAWS + 1), False


class Ratio(Record):
    """a / max(b, floor) of two rates. `floored`: b lies below the floor, so the ratio is a bound.

    Negative values do not occur; above 1 means that a exceeds b. `caution`: that of either rate.
    """

    ratio: float
    low: float
    high: float
    floor: float
    floored: bool
    confidence: float
    caution: str = ""

    def __str__(self) -> str:
        """One line; a floored denominator is marked."""
        mark = f" (denominator floored at {self.floor:g})" if self.floored else ""
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]{mark}"


def ratio(a: Rate, b: Rate, floor: float = 0.05) -> Ratio:
    """The ratio of two rates, its interval built from theirs (Donner and Zou 2012, MOVER-R).

    The floor keeps the ratio finite where the denominator is near zero. A bootstrap over questions
    was measured and rejected: with a rare numerator, the case that matters for containment, it
    covers 26 to 79 % where 95 is meant (docs/decisions/ratio-interval.md). Pairing by question is
    not used, which makes this interval a little wide where both rates move together.
    """
    if not 0 < floor <= 1:
        raise InputError(f"the floor of a ratio must lie in (0, 1], not {floor:g}")
    if a.confidence != b.confidence:
        raise InputError("both rates of a ratio must have the same confidence")
    below, least, most = (max(value, floor) for value in (b.point, b.low, b.high))
    cross = a.point * below
    # Rationalised form of the lower limit: no division by 2b − high, which may vanish.
    top = a.low * (2 * a.point - a.low)
    rest = max(cross**2 - top * most * (2 * below - most), 0.0) ** 0.5
    low = top / (cross + rest) if cross + rest > 0 else 0.0
    under = least * (2 * below - least)
    high = (cross + max(cross**2 - a.high * (2 * a.point - a.high) * under, 0.0) ** 0.5) / under
    quotient = a.point / below
    return Ratio(
        ratio=quotient,
        low=min(max(low, 0.0), quotient),  # rounding must not push an end past the ratio
        high=max(high, quotient),
        floor=floor,
        floored=b.point < floor,
        confidence=a.confidence,
        caution=a.caution or b.caution,
    )
