"""Many cells in one line: how many of how many transfer, median and range; never a pooled interval.

Cells of a grid share organisms, questions and maps, so an interval over them would claim more
independence than there is. Each cell keeps its own.
"""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from em_interp.report.numbers import minus, percent, points
from em_interp.report.transfers.grid import Shown
from em_interp.transferring import Verdict


class Spread(NamedTuple):
    """Median, least and greatest of some values."""

    middle: float
    low: float
    high: float


class Tally(NamedTuple):
    """Cells by verdict, and the spread of their effects and of their shares of the native effect.

    `cells` have a verdict; `unscored` have none, since nothing was scored. Broken ones stand in
    `cells` and never in `transfers`.
    """

    cells: int
    transfers: int
    broken: int
    nothing: int
    unscored: int
    change: Spread | None
    share: Spread | None

    @property
    def counted(self) -> str:
        """How many of how many: "5 of 24"."""
        return f"{self.transfers} of {self.cells}"


def tally(some: Sequence[Shown]) -> Tally:
    """Count and spread of some effects."""
    verdicts = [one.verdict for one in some if one.verdict is not None]
    return Tally(
        cells=len(verdicts),
        transfers=verdicts.count(Verdict.TRANSFERS),
        broken=verdicts.count(Verdict.BROKEN),
        nothing=verdicts.count(Verdict.NOTHING),
        unscored=len(some) - len(verdicts),
        change=changes(some),
        share=spread(one.effect.of_native.fraction for one in some if one.effect.of_native),
    )


def changes(some: Iterable[Shown]) -> Spread | None:
    """The spread of some changes of the EM rate."""
    return spread(one.change for one in some if one.change is not None)


def spread(values: Iterable[float]) -> Spread | None:
    """Median and range; `None` of nothing."""
    found = sorted(values)
    return Spread(median(found), found[0], found[-1]) if found else None


def in_points(one: Spread | None) -> str:
    """A spread of changes: "−10.0 (−30.1 to +2.0)"."""
    if one is None:
        return "nothing scored"
    if points(one.low) == points(one.high):
        return points(one.middle)
    return f"{points(one.middle)} ({points(one.low)} to {points(one.high)})"


def whole(value: float) -> str:
    """A change in whole points: 0.325 is "+32", and nothing is "0"."""
    text = minus(f"{100 * value:+z.0f}")
    return "0" if text == "+0" else text


def in_whole_points(one: Spread | None) -> str:
    """The same without decimals, for where room is short: "−10 (−30 to +2)"."""
    if one is None:
        return "nothing scored"
    middle, low, high = map(whole, one)
    return middle if low == high else f"{middle} ({low} to {high})"


def in_shares(one: Spread | None) -> str:
    """A spread of shares of the native effect: "12% (−5% to 40%)"."""
    if one is None:
        return "none"
    low, high = percent(one.low, 0), percent(one.high, 0)
    if low == high:
        return low
    return minus(f"{percent(one.middle, 0)} ({low} to {high})")
