"""The cells of the coverage grid: what is drawn in each, and the intervals made from it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.designs import (
    QUESTIONS,
    agreeing,
    beta_rates,
    calls_of,
    calls_truth,
    crossed,
    gaps,
    hot_rates,
    ranked,
    scores_of,
    scores_truth,
)
from em_interp import stats
from em_interp.records import digest

ICC = (0.05, 0.3)
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Rng = np.random.Generator


class Shot(NamedTuple):
    """One simulated interval: the name, its ends (`None`: refused), the truth, the warning."""

    interval: str
    low: float | None
    high: float | None
    truth: float
    caution: str = ""


Draw = Callable[[Rng, int], Iterator[Shot]]


class Cell(NamedTuple):
    """A design at one number of questions, and what draws one evaluation of it after another."""

    design: str
    questions: int
    draw: Draw

    @property
    def seed(self) -> int:
        """Of its own draws: the same whatever else the grid holds."""
        return int(digest([self.design, self.questions]), 16)


def rates(p: float, icc: float, uneven: bool, questions: int) -> Draw:
    """Beta-binomial questions with 20 answers each, or with 1 to 40 of them."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        theta = beta_rates(rng, (reps, questions), p, icc)
        asked = rng.integers(1, 41, theta.shape) if uneven else np.full(theta.shape, 20)
        yield from _rates(rng.binomial(asked, theta), asked, theta, p)

    return draw


def hot(cold: float, questions: int) -> Draw:
    """5 % of questions fire at 90 %, the rest at `cold`."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        theta, truth = hot_rates(rng, (reps, questions), cold)
        asked = np.full(theta.shape, 20)
        yield from _rates(rng.binomial(asked, theta), asked, theta, truth)

    return draw


def _rates(events: Counts, asked: Counts, theta: Floats, truth: float) -> Iterator[Shot]:
    for happened, trials, own in zip(events, asked, theta, strict=True):
        found = stats.rate(happened, trials)
        yield Shot("rate", found.low, found.high, truth, found.caution)
        yield Shot("rate, upper bound", 0.0, found.upper, truth)
        yield Shot("rate of these questions", found.fixed_low, found.fixed_high, float(own.mean()))


def pairs(a: float, b: float, icc: float, questions: int) -> Draw:
    """Two conditions on the same questions, their rates correlated by about a half."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        shape = (reps, questions)
        common = rng.random(shape) < 0.5
        one = rng.random(shape)
        other = np.where(common, one, rng.random(shape))
        theta = [beta_rates(rng, shape, p, icc, at) for p, at in ((a, one), (b, other))]
        left, right = (rng.binomial(20, side) for side in theta)
        yield from _pairs(left, right, (a, b))

    return draw


def hot_pairs(cold: float, questions: int) -> Draw:
    """One condition with 5 % hot questions against one without."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        theta, truth = hot_rates(rng, (reps, questions), cold)
        left, right = rng.binomial(20, theta), rng.binomial(20, cold, theta.shape)
        yield from _pairs(left, right, (truth, cold))

    return draw


def _pairs(left: Counts, right: Counts, truth: tuple[float, float]) -> Iterator[Shot]:
    trials = np.full(left.shape[1], 20)
    for a, b in zip(left, right, strict=True):
        found = stats.paired(a / 20, b / 20, (trials, trials))
        yield Shot("contrast", found.low, found.high, truth[0] - truth[1], found.caution)
        if truth[1] > truth[0]:
            continue
        quotient = stats.ratio(stats.rate(b, trials), stats.rate(a, trials), floor=1e-6)
        truly = truth[1] / truth[0]
        yield Shot("ratio", quotient.low, quotient.high, truly, quotient.caution)


def fractions(none: float, edited: float, native: float, icc: float, questions: int) -> Draw:
    """An effect and the native one against the same baseline."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        at = rng.random((reps, questions))
        sides = [
            rng.binomial(20, beta_rates(rng, at.shape, p, icc, at)) / 20
            for p in (edited, native, none)
        ]
        truth = (edited - none) / (native - none)
        for low, high, base in zip(*sides, strict=True):
            found = stats.fraction(stats.paired(low, base), stats.paired(high, base))
            if found is None:
                yield Shot("fraction", None, None, truth)
            else:
                yield Shot("fraction", found.low, found.high, truth, found.caution)

    return draw


def shares(spread: float, like: float, skewed: bool, questions: int) -> Draw:
    """A patch brings 40 % of a log-odds gap that differs between questions by `spread`."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        for effects, whole in zip(*gaps(rng, (reps, questions), spread, like, skewed), strict=True):
            found = stats.share(effects, whole)
            low, high = (found.low, found.high) if found else (None, None)
            yield Shot("share", low, high, 0.4)

    return draw


def kappas(p: float, sensitivity: float, icc: float, astray: float, questions: int) -> Draw:
    """Two judges of equal skill on ten answers a question; on `astray` of these they guess."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        design = (p, sensitivity, icc, astray)
        truth = calls_truth(*design)
        drawn = calls_of(rng, (reps, questions), *design)
        names = np.repeat(np.arange(questions), 10).tolist()
        for a, b in drawn.pairs():
            found = stats.kappa(a.tolist(), b.tolist(), names)
            yield Shot("kappa", found.low, found.high, truth, found.caution)

    return draw


def alphas(p: float | None, noise: float, icc: float, astray: float, questions: int) -> Draw:
    """Scores of two judges; two kinds of answer (a share `p` of the low one), or one (`None`)."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        design = (p, noise, icc, astray)
        truth = scores_truth(*design)
        drawn = scores_of(rng, (reps, questions), *design)
        names = np.repeat(np.arange(questions), 10).tolist()
        for a, b in drawn.pairs():
            found = stats.alpha(a.tolist(), b.tolist(), names)
            yield Shot("alpha", found.low, found.high, truth, found.caution)

    return draw


def areas(truth: float, rows: int, law: str, questions: int) -> Draw:
    """Scores with and without the trigger, `rows` of each a question, in one order or apart."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        caught, up, down = ranked(rng, (reps, questions), truth, rows, law)
        labels = np.repeat([1, 0], questions * rows)
        names = np.tile(np.repeat(np.arange(questions), rows), 2)
        for row in np.concatenate([up, down], axis=1):
            found = stats.auroc(row, labels, names)
            yield Shot("AUROC", found.low, found.high, truth)
            for rate, low, high in (
                ("1 %", found.tpr_01_low, found.tpr_01_high),
                ("5 %", found.tpr_05_low, found.tpr_05_high),
            ):
                yield Shot(f"TPR at {rate} FPR", low, high, caught[rate])

    return draw


def runs(p: float, seed_sd: float, question_sd: float, seeds: int, questions: int) -> Draw:
    """Organisms of several seeds: probit-normal effects of seeds and of questions."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        theta, these = crossed(rng, (reps, seeds, questions), p, seed_sd, question_sd)
        asked = np.full(theta.shape[1:], 20)
        for happened, own in zip(rng.binomial(20, theta), these, strict=True):
            found = stats.seeds(happened, asked)
            warned = found.caution
            yield Shot("seeds", found.low, found.high, p, warned)
            yield Shot("seeds, these questions", found.these_low, found.these_high, own, warned)

    return draw


def corrected(p: float, tested: int, icc: float, questions: int) -> Draw:
    """A judge with sensitivity 0.8 and specificity 0.95, tested on `tested` answers of each."""

    def draw(rng: Rng, reps: int) -> Iterator[Shot]:
        theta = beta_rates(rng, (reps, questions), p, icc)
        called = rng.binomial(20, theta * 0.8 + (1 - theta) * 0.05)
        right = rng.binomial(tested, 0.8, reps), rng.binomial(tested, 0.95, reps)
        for row, hits, passes in zip(called, *right, strict=True):
            known = stats.Validation(
                hits=int(hits), misaligned=tested, passes=int(passes), aligned=tested
            )
            found = stats.judge_corrected(row, np.full(questions, 20), known)
            warned = found.caution
            yield Shot("rate corrected for the judge", found.low, found.high, p, warned)

    return draw


def grid() -> Iterator[Cell]:
    """All cells: those of every number of questions, then those of scores."""
    for k in QUESTIONS:
        for icc in ICC:
            yield from _of_rates(k, icc)
            yield from _of_judges(k, icc)
        for cold in (0.001, 0.01):
            yield Cell(f"5 % of questions at 0.9, the rest at {cold:g}", k, hot(cold, k))
            yield Cell(f"5 % of questions at 0.9 against {cold:g}", k, hot_pairs(cold, k))
        for spread, like, skewed in ((0.5, 1, False), (1, 0, False), (1, 1, False), (1, 0.5, True)):
            name = f"gaps that vary by {spread:g}, effects {like:.0%} alike"
            yield Cell(name + (", skewed" if skewed else ""), k, shares(spread, like, skewed, k))
        for seeds in (3, 5, 10):
            for p, sd, own in ((0.3, 0.3, 0.5), (0.6, 0.1, 0.8), (0.6, 0.6, 0.3), (0.15, 0.3, 0.8)):
                name = f"rate {p:g}, {seeds} seeds, spread {sd:g} of seeds, {own:g} of questions"
                yield Cell(name, k, runs(p, sd, own, seeds, k))
    for k in (12, 25, 50, 100, 500):
        for law, rows in (("normal", 1), ("normal", 4), ("exponential", 1))[:: 1 + k // 500]:
            for truth in (0.5, 0.7, 0.85, 0.96, 0.99):
                name = f"AUROC {truth:g}, {rows} row{'s' if rows > 1 else ''} a question, {law}"
                yield Cell(name, k, areas(truth, rows, law, k))


def _of_rates(k: int, icc: float) -> Iterator[Cell]:
    for p in (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        yield Cell(f"rate {p:g}, ICC {icc:g}", k, rates(p, icc, False, k))
    for p in (0.05, 0.3, 0.9, 0.99):
        yield Cell(f"rate {p:g}, ICC {icc:g}, 1 to 40 answers", k, rates(p, icc, True, k))
    for a, b in ((0.01, 0.01), (0.3, 0.05), (0.6, 0.01), (0.6, 0.45), (0.9, 0.05), (0.99, 0.9)):
        yield Cell(f"{a:g} against {b:g}, ICC {icc:g}", k, pairs(a, b, icc, k))
    for three in ((0.02, 0.3, 0.6), (0.6, 0.2, 0.1)):
        name = "{:g} to {:g} of {:g}".format(*three) + f", ICC {icc:g}"
        yield Cell(name, k, fractions(*three, icc, k))


def _of_judges(k: int, icc: float) -> Iterator[Cell]:
    for astray in (0.0, 0.05):
        for p, skill in ((0.05, 0.8), (0.2, 0.95), (0.5, 0.8)):
            name = f"{p:.0%} misaligned, {skill:.0%} of them seen, ICC {icc:g}"
            yield Cell(name + agreeing(astray), k, kappas(p, skill, icc, astray, k))
        for kind, noise in ((0.05, 4), (0.2, 12), (0.5, 25), (None, 12)):
            name = "one kind of answer" if kind is None else f"{kind:.0%} low scores"
            name += f", noise {noise}, ICC {icc:g}" + agreeing(astray)
            yield Cell(name, k, alphas(kind, noise, icc, astray, k))
    for p, tested in ((0.05, 50), (0.2, 50)):
        name = f"rate {p:g}, ICC {icc:g}, judge tested on {tested} of each"
        yield Cell(name, k, corrected(p, tested, icc, k))
