"""Designs whose truth is known: draws of counts, scores and calls."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as laws

Floats = NDArray[np.float64]
Rng = np.random.Generator
QUESTIONS = (8, 12, 24, 50, 100)
HOT, FIRES = 0.05, 0.9
GRID = np.linspace(0, 1, 20_001)
ANSWERS = 10  # of a question that two judges score


def beta_rates(
    rng: Rng, shape: tuple[int, ...], mean: float, icc: float, at: Floats | None = None
) -> Floats:
    """Questions' true rates by a beta law; `at`: their quantiles, to tie conditions together."""
    strength = (1 - icc) / icc
    a, b = mean * strength, (1 - mean) * strength
    if at is None:
        return rng.beta(a, b, shape)
    return np.interp(at, GRID, _quantiles(a, b))


@lru_cache
def _quantiles(a: float, b: float) -> Floats:
    """By table: the quantile of a beta law costs a thousand times what a draw does."""
    found: Floats = laws.beta.ppf(GRID, a, b)
    return found


def hot_rates(rng: Rng, shape: tuple[int, ...], cold: float) -> tuple[Floats, float]:
    """A few questions fire nearly always, the rest at `cold`; and the mean."""
    fires = rng.random(shape) < HOT
    return np.where(fires, FIRES, cold), HOT * FIRES + (1 - HOT) * cold


def gaps(
    rng: Rng, shape: tuple[int, ...], spread: float, like: float, skewed: bool
) -> tuple[Floats, Floats]:
    """(effects, gaps) with means 0.4 and 1; of the effects' variation `like` follows the gap's."""
    if skewed:
        sigma = np.log(1 + spread**2) ** 0.5
        whole = np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2)
    else:
        whole = 1 + spread * rng.standard_normal(shape)
    own = 1 + spread * rng.standard_normal(shape)
    noise = 0.1 * rng.standard_normal(shape)
    return 0.4 * (like * whole + (1 - like) * own) + noise, whole


class Judged(NamedTuple):
    """What two judges said, [reps, questions, answers] each, and the coefficient's true value."""

    a: NDArray[np.generic]
    b: NDArray[np.generic]
    truth: float

    def pairs(self) -> Iterator[tuple[NDArray[np.generic], NDArray[np.generic]]]:
        """One evaluation after another, its answers in one row."""
        for left, right in zip(self.a, self.b, strict=True):
            yield left.ravel(), right.ravel()


def agreeing(astray: float) -> str:
    """A design's words on questions of which the judges know nothing."""
    return f", guesses on {astray:.0%} of questions" if astray else ""


def calls_of(
    rng: Rng, shape: tuple[int, int], p: float, skill: float, icc: float, astray: float
) -> Judged:
    """Calls of two judges who see a misaligned answer with `skill` and raise 2 % false alarms."""
    bad = rng.random((*shape, ANSWERS)) < beta_rates(rng, (*shape, 1), p, icc)
    lost = rng.random((*shape, 1)) < astray
    chance = np.where(lost, p, np.where(bad, skill, 0.02))
    a, b = (rng.random(bad.shape) < chance for _ in range(2))
    pa, pb = a.mean(), b.mean()
    by_chance = pa * pb + (1 - pa) * (1 - pb)
    return Judged(a, b, float(((a == b).mean() - by_chance) / (1 - by_chance)))


def scores_of(
    rng: Rng, shape: tuple[int, int], p: float | None, noise: float, icc: float, astray: float
) -> Judged:
    """Noisy scores (0 to 100) of two judges; where astray, the second scores another answer."""
    full = (*shape, ANSWERS)

    def answers() -> Floats:
        if p is None:
            own, common = rng.standard_normal(full), rng.standard_normal((*shape, 1))
            spread: Floats = icc**0.5 * common + (1 - icc) ** 0.5 * own
            return 70 + 10 * spread
        low = rng.random(full) < beta_rates(rng, (*shape, 1), p, icc)
        return np.where(low, 15.0, 85.0) + 6 * rng.standard_normal(full)

    true, lost = answers(), rng.random((*shape, 1)) < astray
    other = np.where(lost, answers(), true) if astray else true
    a, b = (
        np.clip(np.round(side + noise * rng.standard_normal(full)), 0, 100)
        for side in (true, other)
    )
    both = np.concatenate([a.ravel(), b.ravel()])
    return Judged(a, b, float(1 - ((a - b) ** 2).mean() / (2 * both.var())))


@lru_cache
def calls_truth(p: float, skill: float, icc: float, astray: float) -> float:
    """Kappa of two million answers to 200,000 questions."""
    return calls_of(np.random.default_rng(0), (400, 500), p, skill, icc, astray).truth


@lru_cache
def scores_truth(p: float | None, noise: float, icc: float, astray: float) -> float:
    """Alpha of two million answers to 200,000 questions."""
    return scores_of(np.random.default_rng(0), (400, 500), p, noise, icc, astray).truth


def ranked(
    rng: Rng, shape: tuple[int, int], truth: float, rows: int, law: str
) -> tuple[dict[str, float], Floats, Floats]:
    """(true TPR at each FPR, scores of positives, of negatives), each [reps, questions × rows].

    `normal`: half of the variance is the question's own, the same under both labels;
    `exponential`: rows are independent, and the tail of the positives is longer.
    """
    reps, questions = shape
    full = (reps, questions, rows)
    at = np.array([0.01, 0.05])
    if law == "exponential":
        scale = truth / (1 - truth)
        up, down = scale * rng.exponential(size=full), rng.exponential(size=full)
        caught = at ** (1 / scale)
    else:
        shift = 2**0.5 * laws.norm.ppf(truth)
        common = rng.standard_normal((reps, questions, 1))
        own = rng.standard_normal((2, *full))
        up = shift + 0.5**0.5 * (common + own[0])
        down = 0.5**0.5 * (common + own[1])
        caught = laws.norm.sf(laws.norm.isf(at) - shift)
    known = dict(zip(("1 %", "5 %"), map(float, caught), strict=True))
    return known, up.reshape(reps, -1), down.reshape(reps, -1)


def crossed(
    rng: Rng, shape: tuple[int, int, int], p: float, seed_sd: float, question_sd: float
) -> tuple[Floats, Floats]:
    """Rates [rep, seed, question] with mean `p`, and for each rep the mean over all seeds."""
    reps, seeds, questions = shape
    middle = laws.norm.ppf(p) * (1 + seed_sd**2 + question_sd**2) ** 0.5
    run = seed_sd * rng.standard_normal((reps, seeds, 1))
    own = middle + question_sd * rng.standard_normal((reps, 1, questions))
    these = laws.norm.cdf(own[:, 0] / (1 + seed_sd**2) ** 0.5).mean(axis=1)
    return laws.norm.cdf(own + run), these
