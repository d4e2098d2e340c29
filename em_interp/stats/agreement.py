"""Agreement of two judges beyond chance, clustered by question: kappa of calls, alpha of scores."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import check_confidence, student_quantile, unseen

LEAST = 5  # questions on which shared variation must rest
TIMES = 3  # how often the disagreement must exceed what unseen questions could hide


class Kappa(Record):
    """Cohen's kappa of two judges' calls: 1 full agreement, 0 what chance gives, below 0 worse.

    `kappa` and its interval are `None` where both judges gave one and the same call to all items:
    chance alone would agree, so nothing can be said. One cluster has no interval either, nor has
    full agreement, of which no spread can be seen. `agreement` is the plain share of equal calls.
    `caution`: why the interval may not hold for questions like these.
    """

    kappa: float | None
    low: float | None
    high: float | None
    agreement: float
    items: int
    clusters: int
    confidence: float
    caution: str = ""


def kappa(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> Kappa:
    """The `Kappa` of calls a[n] and b[n] on the same items; jackknife over `clusters`[n]."""
    check_confidence(confidence)
    rows = _rows(len(a), len(b), clusters, "calls")
    calls = {call: index for index, call in enumerate(dict.fromkeys((*a, *b)))}
    # One table of calls (a × b) per cluster: to leave one out is to take its table off the sum.
    tables = np.zeros((rows.max() + 1, len(calls), len(calls)))
    for row, x, y in zip(rows, a, b, strict=True):
        tables[row, calls[x], calls[y]] += 1
    whole = tables.sum(axis=0)
    seen = float(_kappas(whole[None])[0])
    share = (whole.sum(axis=0) + whole.sum(axis=1)) / (2 * whole.sum())
    margins = tables.sum(axis=1) + tables.sum(axis=2)
    same = np.trace(tables, axis1=1, axis2=2) - margins @ share
    same += tables.sum(axis=(1, 2)) * (share @ share)
    low, high, caution = _interval(seen, _kappas(whole - tables), same, confidence)
    return Kappa(
        kappa=seen if math.isfinite(seen) else None,
        low=low,
        high=high,
        agreement=sum(x == y for x, y in zip(a, b, strict=True)) / len(a),
        items=len(a),
        clusters=len(tables),
        confidence=confidence,
        caution=caution,
    )


def _rows(a: int, b: int, clusters: Sequence[Hashable] | None, what: str) -> NDArray[np.intp]:
    """Each item's cluster as a number, in order of appearance."""
    groups = list(clusters) if clusters is not None else list(range(a))
    if not a == b == len(groups) or not a:
        raise InputError(
            f"two judges' {what} and clusters must be lists of one length, at least 1, "
            f"not {a}, {b} and {len(groups)}"
        )
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    return np.array([names[group] for group in groups], dtype=np.intp)


def _interval(
    seen: float, without: Floats, same: Floats, confidence: float
) -> tuple[float | None, float | None, str]:
    """Jackknife over clusters on Fisher's scale, and why it may not hold.

    `without`[K]: the coefficient with each cluster left out; `same`[K]: what each cluster adds to
    the judges' common variation. Degrees of freedom from the kurtosis of the clusters' influence:
    where few of them move it, the variance is known no better than they are. K / (kurtosis - 1) is
    half of what the law's kurtosis would give, since a sample's is less.
    """
    count = len(without)
    known = without[np.isfinite(without)]
    if not math.isfinite(seen) or len(known) < max(count, 2):
        return None, None, ""
    influence = without - without.mean()
    squares = float((influence**2).sum())
    if seen >= 1 or squares <= 0:
        return None, None, ""
    error = ((count - 1) / count * squares) ** 0.5
    kurtosis = count * float((influence**4).sum()) / squares**2
    df = min(count - 1.0, max(count / max(kurtosis - 1, 1e-9), 1.0))
    half = student_quantile((1 + confidence) / 2, df) * error / max(1 - seen**2, 1e-9)
    middle = math.atanh(max(seen, -1 + 1e-9))
    caution = ""
    rest = max(float(same.sum()), 0.0) ** 2 / max(float((same**2).sum()), 1e-12)
    if rest < LEAST or 1 - seen < TIMES * unseen(count, confidence):
        caution = (
            f"{count} questions cannot show how far the judges part on others like them"
            if rest >= LEAST
            else f"what the judges agree on rests on fewer than {LEAST} questions"
        )
    return math.tanh(middle - half), math.tanh(middle + half), caution


def _kappas(tables: Floats) -> Floats:
    """Kappa of each table [draw, a, b]; NaN where chance agreement is certain."""
    total = tables.sum(axis=(1, 2))
    shares = tables / np.where(total > 0, total, 1)[:, None, None]
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = np.sum(shares.sum(axis=2) * shares.sum(axis=1), axis=1)
    certain = (chance >= 1 - 1e-12) | (total <= 0)
    return np.where(certain, np.nan, (observed - chance) / np.where(certain, 1.0, 1 - chance))


class Alpha(Record):
    """Krippendorff's alpha of two judges' scores (interval metric): 1 equal scores, 0 chance.

    `alpha` and its interval are `None` where all scores are one and the same: nothing varies that
    could agree. One cluster has no interval either, nor have equal scores throughout. `apart` is
    the mean absolute difference, in the scores' own unit. `caution`: why the interval may not hold
    for questions like these.
    """

    alpha: float | None
    low: float | None
    high: float | None
    apart: float
    items: int
    clusters: int
    confidence: float
    caution: str = ""


def alpha(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> Alpha:
    """The `Alpha` of scores a[n] and b[n] of the same items; jackknife over `clusters`[n]."""
    check_confidence(confidence)
    rows = _rows(len(a), len(b), clusters, "scores")
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    # By cluster: items, sum, sum of squares, squared differences, products.
    middle = float(np.concatenate([left, right]).mean())  # about the middle squares stay small
    left, right = left - middle, right - middle
    items = (np.ones(len(left)), left + right, left**2 + right**2, (left - right) ** 2)
    parts = np.stack([np.bincount(rows, values) for values in items], axis=1)
    whole = parts.sum(axis=0)
    seen = float(_alphas(whole[None])[0])
    same: Floats = np.bincount(rows, left * right).astype(np.float64)
    low, high, caution = _interval(seen, _alphas(whole - parts), same, confidence)
    return Alpha(
        alpha=seen if math.isfinite(seen) else None,
        low=low,
        high=high,
        apart=float(np.abs(left - right).mean()),
        items=len(left),
        clusters=len(parts),
        confidence=confidence,
        caution=caution,
    )


def _alphas(sums: Floats) -> Floats:
    """1 − observed over expected disagreement of each row of sums; NaN where nothing varies."""
    items, total, squares, apart = sums.T
    values = np.maximum(2 * items, 2)
    expected = 2 * (squares - total**2 / values) / (values - 1)
    flat = (expected <= 1e-9) | (items <= 0)
    return np.where(flat, np.nan, 1 - apart / np.maximum(items, 1) / np.where(flat, 1.0, expected))
