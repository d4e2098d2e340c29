"""How well scores tell two labels apart: AUROC and true-positive rates, clustered by question.

AUROC alone hides what a monitor would live by, so the share caught at 1 % and at 5 % false alarms
travels with it (the operating points that membership and backdoor detectors are compared at).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import check_confidence, normal_quantile, wilson

RESAMPLES = 1000
MEASURES = 3  # AUROC, TPR at 1 %, TPR at 5 %


class Auroc(Record):
    """P(score of a positive > score of a negative), ties half; 1/2 is chance, 1 is perfect.

    Intervals: percentiles of a bootstrap over clusters; where no resample differs (perfect
    separation), Wilson on the number of clusters in the smaller class, since
    Var(AUROC) ≤ A (1 − A) / min(n). `tpr_01`, `tpr_05`: share of positives above a threshold that
    at most 1 % or 5 % of the negatives exceed; below 100 (20) negatives that means none of them.
    """

    auroc: float
    low: float
    high: float
    tpr_01: float
    tpr_01_low: float
    tpr_01_high: float
    tpr_05: float
    tpr_05_low: float
    tpr_05_high: float
    positives: int
    negatives: int
    clusters: int
    confidence: float

    def __str__(self) -> str:
        """One line with the interval, both operating points and the denominators."""
        return (
            f"AUROC {self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}], TPR "
            f"{self.tpr_01:.2f} at 1 % FPR, {self.tpr_05:.2f} at 5 % "
            f"({self.positives} + {self.negatives} rows, {self.clusters} clusters)"
        )


def auroc(
    scores: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Auroc:
    """The `Auroc` of scores[n] for labels[n] (true or 1: positive); higher means more positive.

    `clusters`[n] names each row's question; rows of a question are drawn together. `None` takes
    every row as its own cluster, which is right only for one row a question.
    """
    check_confidence(confidence)
    values, positive, group = _checked(scores, labels, clusters)
    order = np.argsort(values, kind="stable")
    values, positive, group = values[order], positive[order], group[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # last row of each tie
    count = int(group.max()) + 1
    seen = _measures(positive.astype(float)[None], (~positive).astype(float)[None], ends)[0]
    rng = np.random.default_rng(seed)
    rows = []
    # In blocks, so that memory stays bounded however many rows there are.
    block = max(1, 4_000_000 // len(values))
    for start in range(0, resamples, block):
        draws = rng.multinomial(
            count, np.full(count, 1 / count), size=min(block, resamples - start)
        )
        weights = draws[:, group].astype(float)
        rows.append(_measures(weights * positive, weights * ~positive, ends))
    spread = np.concatenate(rows)
    smaller = min(len(set(group[positive])), len(set(group[~positive])))
    ranges = [_range(seen[i], spread[:, i], smaller, confidence) for i in range(MEASURES)]
    return Auroc(
        auroc=float(seen[0]),
        low=ranges[0][0],
        high=ranges[0][1],
        tpr_01=float(seen[1]),
        tpr_01_low=ranges[1][0],
        tpr_01_high=ranges[1][1],
        tpr_05=float(seen[2]),
        tpr_05_low=ranges[2][0],
        tpr_05_high=ranges[2][1],
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        clusters=count,
        confidence=confidence,
    )


def _checked(
    scores: ArrayLike, labels: ArrayLike, clusters: ArrayLike | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.intp]]:
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


def _measures(plus: Floats, minus: Floats, ends: NDArray[np.intp]) -> Floats:
    """[resamples, 3] of AUROC and both TPRs from row weights in ascending order of score.

    NaN for a resample that drew no row of one of the labels.
    """
    up, down = np.cumsum(plus, axis=1)[:, ends], np.cumsum(minus, axis=1)[:, ends]
    n_up, n_down = up[:, -1:], down[:, -1:]
    usable = (n_up > 0) & (n_down > 0)
    n_up, n_down = np.where(usable, n_up, 1), np.where(usable, n_down, 1)
    at_tie = np.diff(up, axis=1, prepend=0)
    below = down - np.diff(down, axis=1, prepend=0)
    area = np.sum(at_tie * (below + down) / 2, axis=1, keepdims=True) / (n_up * n_down)
    columns = [area]
    for allowed in (0.01, 0.05):
        # A threshold just above a tie alarms on all that lies beyond; the first one is the lowest.
        quiet = (n_down - down) <= allowed * n_down + 1e-9
        threshold = np.argmax(quiet, axis=1)[:, None]
        caught = (n_up - np.take_along_axis(up, threshold, axis=1)) / n_up
        columns.append(caught)
    return np.where(usable, np.concatenate(columns, axis=1), np.nan)


def _range(point: float, draws: Floats, smaller: int, confidence: float) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    tail = (1 - confidence) / 2
    if len(draws) == 0 or np.ptp(draws) < 1e-12:
        return wilson(float(point), smaller, normal_quantile(1 - tail))
    low, high = np.quantile(draws, (tail, 1 - tail))
    return min(float(low), float(point)), max(float(high), float(point))
