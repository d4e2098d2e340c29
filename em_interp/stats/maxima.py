"""The best of many: tests and intervals that count all that was searched (max-T).

Of M effects of the same K questions the largest is large by choice. Whole questions change sign in
all M effects at once, which keeps how the effects move together, and each effect is compared with
the largest that such flips give anywhere (Westfall and Young 1993, step-down). No p-value is
multiplied, so the number of effects costs no resolution: an effect that holds in every question is
found among ten thousand others. What K questions can tell at all is said: `floor`.
Knows numbers by question. Knows nothing of layers, components or latents.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from em_interp.errors import InputError
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import check_confidence, student_quantile

LEVEL = 0.05
EXACT_UP_TO = 12  # questions: all 4,096 flips are counted
DRAWS = 9_999
COARSE = 200  # flips, below which their quantile is too coarse: eight questions
CELLS = 1 << 23  # numbers of flipped effects at a time


class Maxima(NamedTuple):
    """M effects: means over questions with what was searched counted, in the order given.

    `low` and `high` hold all M truths together with the confidence asked for (two-sided). `p`:
    two-sided, adjusted over the M (step-down). `floor` is the smallest p that the flips can give:
    2 / 2^K where all are counted, 1 / (draws + 1) beyond. A column without two questions has p 1
    and no interval (infinite).
    """

    mean: Floats
    low: Floats
    high: Floats
    p: Floats
    floor: float


def maxima(
    values: ArrayLike, confidence: float = 0.95, *, draws: int = DRAWS, seed: int = 0
) -> Maxima:
    """Of values[K, M], effects by question (NaN where a question has none).

    The statistic is the t of the mean over questions, so effects of different spread are compared
    on one scale. The intervals' critical value is the quantile of the largest t of the residuals
    under the same flips (a wild bootstrap). Raises `InputError` for what is no table.
    """
    table = _table(values)
    flips, floor = signs(len(table), draws, seed)
    known = np.isfinite(table)
    count = known.sum(axis=0)
    held = np.where(known, table, 0.0)
    mean = held.sum(axis=0) / np.maximum(count, 1)
    spread = np.where(known, table - mean, 0.0)
    error = np.sqrt((spread**2).sum(axis=0) / np.maximum(count - 1, 1) / np.maximum(count, 1))
    reach = critical(spread, count, flips, confidence) * error
    reach[count < 2] = np.inf
    return Maxima(mean, mean - reach, mean + reach, stepped(held, flips), floor)


class Shares(NamedTuple):
    """M effects as shares of one measured whole; the fields of `Maxima`, of the shares.

    `p` is of the effects: that they are not 0. Where the whole cannot be told from 0 at the level
    of all M together an end is infinite.
    """

    share: Floats
    low: Floats
    high: Floats
    p: Floats
    floor: float

    def columns(
        self,
    ) -> tuple[list[float], list[float | None], list[float | None], list[float]]:
        """Plain values for records: `share`, `low`, `high` and `p`, an infinite end as `None`."""
        ends = [
            [one if np.isfinite(one) else None for one in end.tolist()]
            for end in (self.low, self.high)
        ]
        return self.share.tolist(), ends[0], ends[1], self.p.tolist()


def shares(
    effects: ArrayLike,
    whole: ArrayLike,
    confidence: float = 0.95,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Shares:
    """mean(effects[K, M]) / mean(whole[K]), the intervals (Fieller 1954) holding together.

    An interval has every r for which effects - r whole is not told from 0, so noise of the whole
    counts and what both have in common does not. Questions without a `whole` are left out.
    """
    table, one = _table(effects), np.asarray(whole, dtype=np.float64)
    if one.shape != (len(table),):
        raise InputError(f"the whole must have one number a question, not {one.shape}")
    table, one = table[np.isfinite(one)], one[np.isfinite(one)]
    flips, floor = signs(len(table), draws, seed)
    known = np.isfinite(table)
    count = np.maximum(known.sum(axis=0), 1)
    x, g = np.where(known, table, 0.0), np.where(known, one[:, None], 0.0)
    top, below = x.sum(axis=0) / count, g.sum(axis=0) / count
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(below != 0, top / below, np.nan)
    rest = np.where(known, x - np.nan_to_num(share) * g, 0.0)
    t = critical(rest, count, flips, confidence)
    low, high = _fieller(x - top * known, g - below * known, top, below, count, t)
    return Shares(share, low, high, stepped(x, flips), floor)


def _fieller(
    x: Floats, g: Floats, top: Floats, below: Floats, count: NDArray[np.int64], t: float
) -> tuple[Floats, Floats]:
    """Ends of {r: |top - r below| <= t error(x - r g)}; infinite where that is no interval."""
    scale = np.maximum(count - 1, 1) * count
    xx, xg, gg = ((a * b).sum(axis=0) / scale for a, b in ((x, x), (x, g), (g, g)))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        square, half, rest = below**2 - t**2 * gg, top * below - t**2 * xg, top**2 - t**2 * xx
        width = np.sqrt(np.maximum(half**2 - square * rest, 0.0))
        closed = (square > 1e-9 * below**2) & (count > 1) & np.isfinite(t)
        low = np.where(closed, (half - width) / square, -np.inf)
        high = np.where(closed, (half + width) / square, np.inf)
    return low, high


def outdone(
    one: ArrayLike, other: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Whether the best of one[K, M] is larger than the best of other[K, M]: (p, floor).

    Both are searched: their best columns may differ. Under the null the two might have changed
    places in any question, in all columns at once; one-sided. A question that either lacks is left
    out of that column. p is 1 where no column has a question.
    """
    a, b = _table(one), _table(other)
    if a.shape != b.shape:
        raise InputError(f"both must have the same questions and columns: {a.shape}, {b.shape}")
    known = np.isfinite(a) & np.isfinite(b)
    there = known.any(axis=0)
    a, b, known = a[:, there], b[:, there], known[:, there]
    if not known.size:
        return 1.0, 1.0
    count = known.sum(axis=0)
    middle = np.where(known, (a + b) / 2, 0.0).sum(axis=0) / count
    half = np.where(known, (a - b) / 2, 0.0) / count
    flips, floor = signs(len(a), draws, seed, two_sided=False)

    def lead(moved: Floats) -> Floats:
        found: Floats = (middle + moved).max(axis=-1) - (middle - moved).max(axis=-1)
        return found

    seen = float(lead(half.sum(axis=0)))
    hits = 0
    for part in _parts(flips, half.shape[1]):
        hits += int((lead(part @ half) >= seen - 1e-12).sum())
    return hits / len(flips), floor


def held_out(values: ArrayLike) -> float:
    """Mean of the best of values[K, M] on questions that did not choose it: no luck of the choice.

    The best column on every second question is read on the others, and the other way round. NaN
    where a half has no question.
    """
    table = _table(values)
    halves = [table[start::2] for start in (0, 1)]
    sums = [np.where(np.isfinite(half), half, 0.0).sum(axis=0) for half in halves]
    counts = [np.isfinite(half).sum(axis=0) for half in halves]
    if table.shape[1] == 0 or not all(count.any() for count in counts):
        return float("nan")
    means = [
        np.where(count > 0, total / np.maximum(count, 1), -np.inf)
        for total, count in zip(sums, counts, strict=True)
    ]
    read = [means[1][int(means[0].argmax())], means[0][int(means[1].argmax())]]
    return float(np.mean([one for one in read if np.isfinite(one)] or [np.nan]))


def signs(
    count: int, draws: int = DRAWS, seed: int = 0, *, two_sided: bool = True
) -> tuple[NDArray[np.float64], float]:
    """Flips [n, K] of K questions, the observed one first, and the smallest p that they can give.

    All 2^K up to K = 12, for a two-sided test half of them (the other half is its mirror image);
    beyond, `draws` seeded ones besides the observed.
    """
    if count <= EXACT_UP_TO:
        free = max(count - 1, 0) if two_sided else count
        bits = np.arange(1 << free)[:, None] >> np.arange(free)
        made = 1.0 - 2.0 * (bits & 1)
        held = np.ones((len(made), count - free))
        return np.concatenate((held, made), axis=1), 1 / len(made)
    drawn = np.random.default_rng(seed).integers(0, 2, size=(draws, count)) * 2.0 - 1
    return np.concatenate((np.ones((1, count)), drawn)), 1 / (draws + 1)


def stepped(values: Floats, flips: Floats) -> Floats:
    """Step-down p of each column's mean, from the largest t; 0 where a question has none."""
    length = np.sqrt((values**2).sum(axis=0))
    unit = values / np.where(length > 0, length, 1.0)
    # |sum| / length grows with |t|, and stays finite where all questions agree.
    seen = np.abs(unit.sum(axis=0))
    order = np.argsort(seen, kind="stable")
    unit, least = unit[:, order], seen[order] - 1e-9
    hits = np.zeros(len(order), dtype=np.int64)
    for part in _parts(flips, len(order)):
        flipped = np.abs(part @ unit)
        np.maximum.accumulate(flipped, axis=1, out=flipped)
        hits += (flipped >= least).sum(axis=0)
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate((hits / len(flips))[::-1])[::-1]
    return p


def critical(
    residuals: Floats, counts: NDArray[np.int64], flips: Floats, confidence: float
) -> float:
    """What the largest |t| of flipped residuals[K, M] stays under.

    No more than Student's quantile shared among all M (Bonferroni), which holds however the effects
    move together; that quantile itself where flips of few questions make a coarse one.
    """
    check_confidence(confidence)
    length = np.sqrt((residuals**2).sum(axis=0))
    moves = (length > 0) & (counts > 1)
    unit, n = residuals[:, moves] / length[moves], counts[moves]
    if not n.size:
        return 0.0
    largest = []
    for part in _parts(flips, len(n)):
        square = (part @ unit) ** 2
        left = n - square
        left[left < 1e-9] = 1e-300  # all residuals on one side: a t beyond all others
        largest.append(np.sqrt((square * (n - 1) / left).max(axis=1)))
    # The observed flip gives exactly 0: no draw of the bootstrap.
    most = np.sort(np.concatenate(largest)[1:])
    at = min(int(np.ceil(confidence * (len(most) + 1))), len(most)) - 1
    tail = (1 - confidence) / 2 / len(n)
    bound = student_quantile(1 - tail, int(n.min()) - 1)
    return min(float(most[at]), bound) if len(most) >= COARSE else bound


def _parts(flips: Floats, columns: int) -> list[Floats]:
    at_once = max(1, CELLS // max(columns, 1))
    return [flips[start : start + at_once] for start in range(0, len(flips), at_once)]


def _table(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"effects must be a table, questions by what was searched: {table.shape}")
    return table
