"""Numbers in words: one way to print a rate, a difference and a p-value on the page.

Knows arithmetic. Knows nothing of figures or HTML.
"""

from collections.abc import Iterable

from em_interp.stats import Contrast, Fraction, Rate, Ratio

NOTHING = "nothing scored"
UNSURE = "\N{DAGGER}"  # beside an interval that may not hold; the cautions of a call say why


def percent(value: float, digits: int = 1) -> str:
    """A share as per cent: 0.331 is "33.1%". Never "-0.0%"."""
    return minus(f"{value:z.{digits}%}")


def rate(one: Rate | None) -> str:
    """A rate with its interval; a word where nothing was scored, which is not zero."""
    if one is None:
        return NOTHING
    return f"{percent(one.point)} [{percent(one.low)}, {percent(one.high)}]{mark(one)}"


def mark(one: Rate | Contrast | Fraction | Ratio) -> str:
    """A dagger where the interval may not hold for questions like these, else nothing."""
    return UNSURE if one.caution else ""


def points(value: float) -> str:
    """A difference of shares in percentage points, signed: 0.325 is "+32.5"."""
    return minus(f"{100 * value:+z.1f}")


def gap(contrast: Contrast | None) -> str:
    """A paired difference in percentage points with its interval; "" where there is none."""
    if contrast is None:
        return ""
    ends = f"[{points(contrast.low)}, {points(contrast.high)}]"
    return f"{points(contrast.difference)} {ends}{mark(contrast)}"


def free(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number that is no share (log-odds, cosines)."""
    return minus(f"{value:+z.{digits}f}" if sign else f"{value:z.{digits}f}")


def p_value(p: float, floor: float = 0.0) -> str:
    """A p-value to two digits; below 0.001 only the bound, since most come from random flips.

    One that is as small as the flips can give (`floor`) says so: with more of them, or more
    questions, it might be smaller.
    """
    if floor and p <= 1.001 * floor:
        return f"{p:.1g} (floor)"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def bracket(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval of a number that is no share of answers: "[0.12, 0.30]"."""
    if low is None or high is None:
        return "[not known]"
    return f"[{free(low, sign=sign)}, {free(high, sign=sign)}]"


def span(values: Iterable[float]) -> str:
    """Least and greatest of some shares: "29.2% to 33.0%"; one number where they print alike."""
    shown = sorted(values)
    low, high = percent(shown[0]), percent(shown[-1])
    return low if low == high else f"{low} to {high}"


def between(low: float, high: float) -> str:
    """Two ends of a range of shares, short: "26.2–43.0%"."""
    return f"{100 * low:z.1f}–{percent(high)}"


def layers(numbers: Iterable[int]) -> str:
    """Layers as text: "layer 5", "layers 1-3", "layers 1, 4"."""
    found = sorted(numbers)
    if len(found) == 1:
        return f"layer {found[0]}"
    if found == list(range(found[0], found[-1] + 1)):
        return f"layers {found[0]}–{found[-1]}"
    return "layers " + ", ".join(map(str, found))


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 question", "50 questions"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def minus(text: str) -> str:
    """A true minus sign, so that negative numbers are not read as hyphenated."""
    return text.replace("-", "\N{MINUS SIGN}")
