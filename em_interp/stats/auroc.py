"""How well scores tell two labels apart: AUROC and true-positive rates, clustered by question.

AUROC alone hides what a monitor would live by, so the share caught at 1 % and at 5 % false alarms
travels with it (the operating points that membership and backdoor detectors are compared at),
where there are negatives enough to place such a threshold.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import (
    beta_quantile,
    check_confidence,
    few_clusters,
    normal_quantile,
    student_quantile,
    wilson,
)

BEYOND = 5  # negatives' clusters to be expected beyond a threshold, or it cannot be placed
FEW = 3  # clusters' worth of misordering below which its spread is no measure of ignorance
Flags = NDArray[np.bool_]
Ids = NDArray[np.intp]


class Auroc(Record):
    """P(score of a positive > score of a negative), ties half; 1/2 is chance, 1 is perfect.

    Interval: variance of the placements, summed by cluster (DeLong 1988; Obuchowski 1997), on the
    logit scale with t on the clusters of the smaller class; where too little is misordered to
    show its spread (perfect separation), Wilson on no more than two observations a cluster, what
    exponential scores would be worth (Hanley and McNeil 1982). One cluster of a class gives [0, 1].
    `tpr_01`, `tpr_05`: share of positives above a threshold that at most 1 % or 5 % of the
    negatives exceed; their intervals count the threshold's own doubt. `None` where so few negatives
    cannot place it: below 500 (1 %) or 100 (5 %) clusters of them.
    """

    auroc: float
    low: float
    high: float
    tpr_01: float | None
    tpr_01_low: float | None
    tpr_01_high: float | None
    tpr_05: float | None
    tpr_05_low: float | None
    tpr_05_high: float | None
    positives: int
    negatives: int
    clusters: int
    confidence: float

    def __str__(self) -> str:
        """One line with the interval, the operating points that are known, and the denominators."""
        known = ((self.tpr_01, "1 %"), (self.tpr_05, "5 %"))
        points = "".join(f", TPR {tpr:.2f} at {at} FPR" for tpr, at in known if tpr is not None)
        return (
            f"AUROC {self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}]{points} "
            f"({self.positives} + {self.negatives} rows, {self.clusters} clusters)"
        )


def auroc(
    scores: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> Auroc:
    """The `Auroc` of scores[n] for labels[n] (true or 1: positive); higher means more positive.

    `clusters`[n] names each row's question. `None` takes every row as its own cluster, which is
    right only for one row a question.
    """
    check_confidence(confidence)
    values, positive, group = _checked(scores, labels, clusters)
    up, down = np.sort(values[positive]), np.sort(values[~positive])
    area = np.where(positive, _below(down, values), 1 - _below(up, values))  # each row's placement
    point = float(area[positive].mean())
    low, high = _interval(area - point, positive, group, point, confidence)
    tpr = [_caught(values, positive, group, rate, confidence) for rate in (0.01, 0.05)]
    (at_01, low_01, high_01), (at_05, low_05, high_05) = tpr
    return Auroc(
        auroc=point,
        low=low,
        high=high,
        tpr_01=at_01,
        tpr_01_low=low_01,
        tpr_01_high=high_01,
        tpr_05=at_05,
        tpr_05_low=low_05,
        tpr_05_high=high_05,
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        clusters=int(group.max()) + 1,
        confidence=confidence,
    )


def _checked(
    scores: ArrayLike, labels: ArrayLike, clusters: ArrayLike | None
) -> tuple[Floats, Flags, Ids]:
    values, marks = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    names = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    if values.ndim != 1 or values.shape != marks.shape or values.shape != names.shape:
        raise InputError(
            f"scores, labels and clusters must be lists of one length, "
            f"not {values.shape}, {marks.shape} and {names.shape}"
        )
    if not np.all(np.isfinite(values)):
        raise InputError("scores must be finite numbers")
    if not np.all((marks == 0) | (marks == 1)):
        raise InputError("labels must be 0 or 1 (false or true)")
    positive = marks.astype(bool)
    if positive.all() or not positive.any():
        raise InputError("AUROC needs rows of both labels")
    return values, positive, np.unique(names, return_inverse=True)[1]


def _below(ordered: Floats, values: Floats) -> Floats:
    """Share of `ordered` that lies below each value, ties half."""
    first, last = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (first + last) / (2 * len(ordered))


def _interval(
    apart: Floats, positive: Flags, group: Ids, point: float, confidence: float
) -> tuple[float, float]:
    """`apart`[n]: each row's placement minus the AUROC."""
    count = min(len(set(group[positive])), len(set(group[~positive])))
    if count < 2:
        return 0.0, 1.0
    weight = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum())
    moved = np.bincount(group, weight * apart)
    variance = float((moved**2).sum()) * count / (count - 1)
    tail, spread = (1 - confidence) / 2, point * (1 - point)
    if count * min(point, 1 - point) < FEW or variance <= 0:
        n = min(spread / variance, 2.0 * count) if variance > 0 else 2.0 * count
        n *= few_clusters(tail, count - 1)
        return wilson(point, n, normal_quantile(1 - tail))
    half = student_quantile(1 - tail, count - 1) * variance**0.5 / spread
    middle = math.log(point / (1 - point))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def _caught(
    values: Floats, positive: Flags, group: Ids, rate: float, confidence: float
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Share of positives beyond a threshold that `rate` of the negatives exceed, with its interval.

    The threshold lies between those that the negatives (counted in clusters) cannot tell from it;
    what is caught there and the positives' own noise are added as squares (as Newcombe does).
    """
    tail = (1 - confidence) / 2
    negatives, count = len(set(group[~positive])), len(set(group[positive]))
    if rate * negatives < BEYOND - 1e-9 or count < 2:
        return None, None, None
    down = -np.sort(-values[~positive])  # the highest alarms first
    caught = []
    # Beyond the true threshold lie few or many of these negatives: Clopper-Pearson of their share.
    seen = rate * negatives
    few = beta_quantile(tail, seen, negatives - seen + 1)
    many = beta_quantile(1 - tail, seen + 1, negatives - seen)
    for share in (few, rate, many):
        at = min(int(share * len(down) + 1e-9), len(down) - 1)
        caught.append(values[positive] > down[at])
    least, here, most = (float(one.mean()) for one in caught)
    moved = np.bincount(group[positive], (caught[1] - here) / positive.sum())
    variance = float((moved**2).sum()) * count / (count - 1)
    n = min(here * (1 - here) / variance, positive.sum()) if variance > 0 else count
    n *= few_clusters(tail, count - 1)
    low, high = wilson(here, float(n), normal_quantile(1 - tail))
    return (
        here,
        max(here - math.hypot(here - least, here - low), 0.0),
        min(here + math.hypot(most - here, high - here), 1.0),
    )
