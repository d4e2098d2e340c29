"""Quantiles and the Wilson interval: the arithmetic that every rule of this package shares.

Knows distributions. Knows nothing of questions, answers or models.
"""

import math
from statistics import NormalDist

from em_interp.errors import InputError


def normal_quantile(probability: float) -> float:
    """Standard normal quantile."""
    return NormalDist().inv_cdf(probability)


def student_quantile(probability: float, df: float) -> float:
    """Student-t quantile; infinite at zero degrees of freedom, where nothing is known of spread."""
    if df <= 0:
        return math.copysign(math.inf, probability - 0.5)
    from scipy.special import stdtrit  # a third of a second: only where a quantile is wanted

    return float(stdtrit(df, probability))


def wilson(point: float, n: float, z: float) -> tuple[float, float]:
    """Wilson score interval of a proportion; `n` may be an effective, non-integer sample size.

    No evidence (`n` = 0) gives the whole of [0, 1].
    """
    if n <= 0:
        return 0.0, 1.0
    shrink = 1 + z * z / n
    centre = (point + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(point * (1 - point) / n + (z / (2 * n)) ** 2)
    # Rounding must not push an end past the point or out of the unit interval.
    return min(point, max(0.0, centre - half)), max(point, min(1.0, centre + half))


def few_clusters(tail: float, df: float) -> float:
    """(z / t)², the factor that makes a normal-quantile interval pay for few clusters; 0 at df 0.

    `tail` is the upper probability on one side (0.025 for a two-sided 95 % interval).
    """
    t = student_quantile(1 - tail, df)
    return 0.0 if math.isinf(t) else (normal_quantile(1 - tail) / t) ** 2


def unseen(clusters: int, confidence: float) -> float:
    """Greatest share of clusters of one kind of which none need be among those drawn.

    A kind with this share is missed by all of them with probability 1 - confidence; about 3 / K at
    95 %, the rule of three. What such a kind would add or take away, no interval can know of.
    """
    return float(1 - (1 - confidence) ** (1 / clusters))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Quantile of a beta distribution: a Clopper-Pearson bound, of fractional counts too."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))


def check_confidence(confidence: float) -> float:
    """`confidence` itself, if it lies strictly between 0.5 and 1."""
    if not 0.5 < confidence < 1:
        raise InputError(f"confidence must lie between 0.5 and 1, not {confidence:g}")
    return confidence
