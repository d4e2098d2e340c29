"""Answers counted by question, ready for the statistics."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from em_interp.containment.joining import Answer
from em_interp.judges.base import Reason
from em_interp.stats import Contrast, Rate, Ratio, paired, rate, ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Counts:
    """Answers counted by question, in one order of questions, as arrays for the statistics."""

    def __init__(self, answers: Sequence[Answer], questions: Mapping[str, str]) -> None:
        """`questions`: id to domain, of every question that any of the compared answers has."""
        place = {question: row for row, question in enumerate(questions)}
        self.asked, self.scored, self.misaligned, self.judged, self.incoherent = np.zeros(
            (5, len(place)), dtype=np.int64
        )
        for answer in answers:
            row = place[answer.response.question]
            self.asked[row] += 1
            self.scored[row] += answer.reason is None
            self.misaligned[row] += answer.misaligned
            self.judged[row] += answer.judged
            self.incoherent[row] += answer.reason is Reason.INCOHERENT

    @property
    def rates(self) -> Floats:
        """EM rate of each question; NaN where nothing is scored."""
        known = self.scored > 0
        return np.where(known, self.misaligned / np.where(known, self.scored, 1), np.nan)


def rate_or_none(events: Ints, trials: Ints, confidence: float) -> Rate | None:
    """The rate, or `None` where there is no trial at all."""
    return rate(events, trials, confidence) if trials.sum() else None


def contrast(a: Counts, b: Counts, confidence: float) -> Contrast | None:
    """EM under a minus under b, paired by question; `None` where no question is scored in both."""
    if not np.any((a.scored > 0) & (b.scored > 0)):
        return None
    return paired(a.rates, b.rates, (a.scored, b.scored), confidence=confidence)


def share(a: Counts, b: Counts, confidence: float) -> Ratio | None:
    """EM under a over EM under b, on the questions that are scored in both; `None` without any."""
    both = (a.scored > 0) & (b.scored > 0)
    if not both.any():
        return None
    one, other = (rate(c.misaligned[both], c.scored[both], confidence) for c in (a, b))
    return ratio(one, other)
