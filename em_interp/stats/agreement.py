"""Agreement of two judges beyond chance, clustered by question."""

from collections.abc import Hashable, Sequence

import numpy as np

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.counts import Floats
from em_interp.stats.quantiles import check_confidence

RESAMPLES = 2000


class Kappa(Record):
    """Cohen's kappa of two judges' calls: 1 full agreement, 0 what chance gives, below 0 worse.

    `kappa` and its interval are `None` where both judges gave one and the same call to all items:
    chance alone would agree, so nothing can be said. `agreement` is the plain share of equal calls.
    """

    kappa: float | None
    low: float | None
    high: float | None
    agreement: float
    items: int
    clusters: int
    confidence: float


def kappa(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Kappa:
    """The `Kappa` of calls a[n] and b[n] on the same items; bootstrap over `clusters`[n]."""
    check_confidence(confidence)
    groups = list(clusters) if clusters is not None else list(range(len(a)))
    if not len(a) == len(b) == len(groups) or not a:
        raise InputError(
            f"two judges' calls and clusters must be lists of one length, at least 1, "
            f"not {len(a)}, {len(b)} and {len(groups)}"
        )
    calls = {call: index for index, call in enumerate(dict.fromkeys((*a, *b)))}
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    # One table of calls (a × b) per cluster: a resample is a weighted sum of tables.
    tables = np.zeros((len(names), len(calls), len(calls)))
    for left, right, group in zip(a, b, groups, strict=True):
        tables[names[group], calls[left], calls[right]] += 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    spread = _kappas(np.tensordot(draws.astype(float), tables, axes=1))
    seen = float(_kappas(tables.sum(axis=0)[None])[0])
    known = spread[np.isfinite(spread)]
    tail = (1 - confidence) / 2
    ends = np.quantile(known, (tail, 1 - tail)) if np.isfinite(seen) and len(known) else None
    return Kappa(
        kappa=seen if np.isfinite(seen) else None,
        low=None if ends is None else float(ends[0]),
        high=None if ends is None else float(ends[1]),
        agreement=sum(x == y for x, y in zip(a, b, strict=True)) / len(a),
        items=len(a),
        clusters=len(names),
        confidence=confidence,
    )


def _kappas(tables: Floats) -> Floats:
    """Kappa of each table [draw, a, b]; NaN where chance agreement is certain."""
    total = tables.sum(axis=(1, 2))
    shares = tables / total[:, None, None]
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = np.sum(shares.sum(axis=2) * shares.sum(axis=1), axis=1)
    certain = chance >= 1 - 1e-12
    return np.where(certain, np.nan, (observed - chance) / np.where(certain, 1.0, 1 - chance))
