"""How much of a native effect an effect is: a quotient of two differences, with its interval.

The denominator is measured too: its noise is in every interval here, and where it cannot be told
from 0 there is no quotient. `share` has both per question and uses how they move together;
`fraction` has only their intervals.
Knows differences. Knows nothing of where an effect came from.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from em_interp.errors import InputError
from em_interp.records import Record
from em_interp.stats.contrasts import Contrast
from em_interp.stats.quantiles import check_confidence, student_quantile

STEPS = 200


class Fraction(Record):
    """One difference over another, in the direction of the other.

    1: as large as the native effect; 0: nothing; negative: the other way. May exceed 1. `caution`:
    that of either difference.
    """

    fraction: float
    low: float
    high: float
    confidence: float
    caution: str = ""

    def __str__(self) -> str:
        """One line with the interval."""
        return f"{self.fraction:.2f} [{self.low:.2f}, {self.high:.2f}]"


def fraction(effect: Contrast, native: Contrast) -> Fraction | None:
    """effect / native, the interval from both intervals (Donner and Zou 2012, MOVER-R).

    `None` where the native effect's interval holds 0: there is nothing to be a fraction of. For
    negative effects (an ablation) both are turned round first. Pairing of the two by question is
    not used, which makes the interval wide where both move together (see
    docs/decisions/ratio-interval.md).
    """
    if native.low <= 0 <= native.high:
        return None
    a, b = (_turned(c) if native.difference < 0 else _plain(c) for c in (effect, native))
    point = a[0] / b[0]
    low = _root(lambda r: a[0] - r * b[0] - _spread(a[0] - a[1], r, b[2] - b[0], b[0] - b[1]))
    high = _root(lambda r: a[0] - r * b[0] + _spread(a[2] - a[0], r, b[0] - b[1], b[2] - b[0]))
    return Fraction(
        fraction=point,
        low=min(low, point),
        high=max(high, point),
        confidence=native.confidence,
        caution=effect.caution or native.caution,
    )


def share(effects: ArrayLike, gaps: ArrayLike, confidence: float = 0.95) -> Fraction | None:
    """mean(effects[K]) / mean(gaps[K]) of the same K questions in the same order (Fieller 1954).

    The interval holds every r for which mean(effects - r gaps) is not told from 0 by a t test on
    K - 1 degrees of freedom, so noise of the gap counts, and what effect and gap have in common
    does not. `None` where the gap itself is not told from 0 by that test (one question tells
    nothing): then no r is excluded, and there is nothing to be a share of.
    """
    check_confidence(confidence)
    top, below = np.asarray(effects, dtype=np.float64), np.asarray(gaps, dtype=np.float64)
    if top.ndim != 1 or top.shape != below.shape or not np.isfinite([top, below]).all():
        raise InputError(
            f"effects and gaps must be finite numbers of the same questions, "
            f"not {top.shape} and {below.shape}"
        )
    if len(top) < 2:
        return None
    a, b = float(top.mean()), float(below.mean())
    (var_a, both), (_, var_b) = np.cov(top, below) / len(top)
    t = student_quantile((1 + confidence) / 2, len(top) - 1)
    # r with (a - r b)² ≤ t² (var_a - 2 r both + r² var_b): a parabola in r, open where b is noise.
    square, half, rest = b**2 - t**2 * var_b, a * b - t**2 * both, a**2 - t**2 * var_a
    if square <= 1e-9 * b**2:
        return None
    width = max(half**2 - square * rest, 0.0) ** 0.5
    return Fraction(
        fraction=a / b,
        low=float(min((half - width) / square, a / b)),
        high=float(max((half + width) / square, a / b)),
        confidence=confidence,
    )


def _plain(c: Contrast) -> tuple[float, float, float]:
    return c.difference, c.low, c.high


def _turned(c: Contrast) -> tuple[float, float, float]:
    return -c.difference, -c.high, -c.low


def _spread(own: float, r: float, above: float, below: float) -> float:
    """Half-width of effect − r native on one side; which side of native counts follows r's sign."""
    other = above if r > 0 else below
    return float((own**2 + (r * other) ** 2) ** 0.5)


def _root(of: Callable[[float], float]) -> float:
    """Where a decreasing function crosses 0 (it does: the native interval is on one side of 0)."""
    low, high = -1.0, 1.0
    for _ in range(STEPS):
        low = 2 * low if of(low) < 0 else low
        high = 2 * high if of(high) > 0 else high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) > 0 else (low, middle)
    return (low + high) / 2
