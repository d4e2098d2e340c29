"""Counts by question: events out of trials, checked once, and how far they cluster.

The notation of this package: K questions; question k has m_k trials, of which x_k were events, and
the rate q_k = x_k / m_k. The mean of the q_k is the estimate, each question weighing the same.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from em_interp.errors import InputError

Floats = NDArray[np.float64]


def checked(events: ArrayLike, trials: ArrayLike, dims: int = 1) -> tuple[Floats, Floats]:
    """Both as float arrays of `dims` axes; `InputError` where they are not counts of one design."""
    counts = [_whole(events, "events"), _whole(trials, "trials")]
    happened, asked = counts
    if happened.ndim != dims or happened.shape != asked.shape:
        raise InputError(
            f"events and trials must be {dims}-dimensional and of equal shape, "
            f"not {happened.shape} and {asked.shape}"
        )
    if np.any(happened > asked):
        raise InputError("more events than trials: a question cannot have more hits than answers")
    return happened, asked


def _whole(values: ArrayLike, what: str) -> Floats:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise InputError(f"{what} must be numbers, not {array.dtype}")
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)) or np.any(array < 0) or np.any(array != np.round(array)):
        raise InputError(f"{what} must be whole counts, 0 or more (rates are not counts)")
    return array


def harmonic_trials(trials: Floats) -> float:
    """Harmonic mean of the trials per question: what unequal trials are worth under equal weights.

    With no question effect at all, Var(mean q_k) = p (1 − p) Σ 1/m_k / K² = p (1 − p) / (K m_h).
    """
    return float(len(trials) / np.sum(1.0 / trials))


def design_effect(events: ArrayLike, trials: ArrayLike) -> float | None:
    """Variance of the mean as it clusters by question, over what independent answers would give.

    1 means that questions do not matter, more that answers to a question resemble each other;
    sampling may bring it below 1. `None` where it cannot be told: one question, or no variation
    (every answer an event, or none).
    """
    happened, asked = answered(*checked(events, trials))
    rates = happened / asked
    point = float(rates.mean()) if len(rates) else 0.0
    if len(rates) < 2 or not 0 < point < 1:
        return None
    clustered = float(rates.var(ddof=1)) / len(rates)
    return clustered / (point * (1 - point) / (len(rates) * harmonic_trials(asked)))


def icc(events: ArrayLike, trials: ArrayLike) -> float | None:
    """Intra-class correlation of answers to one question, from deff = 1 + (m_h − 1) ICC.

    May come out slightly negative by chance. `None` where the design effect is unknown, or where
    every question has one trial, which cannot show a correlation.
    """
    effect = design_effect(events, trials)
    _, asked = answered(*checked(events, trials))
    if effect is None or harmonic_trials(asked) <= 1:
        return None
    return (effect - 1) / (harmonic_trials(asked) - 1)


def answered(happened: Floats, asked: Floats) -> tuple[Floats, Floats]:
    """The questions that have at least one trial."""
    keep = asked > 0
    return happened[keep], asked[keep]
