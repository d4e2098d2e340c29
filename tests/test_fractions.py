"""An effect as a fraction of the native one: the quotient's interval, and when there is none."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from em_interp.errors import InputError
from em_interp.stats import Contrast, fraction, rate, ratio, share


def contrast(difference: float, low: float, high: float) -> Contrast:
    return Contrast(
        difference=difference,
        low=low,
        high=high,
        p=0.5,
        exact=True,
        a=0.5,
        b=0.5,
        questions=10,
        dropped=0,
        confidence=0.95,
    )


def test_of_positive_numbers_it_is_the_ratio_of_rates():
    for a, b in ((rate([3, 4, 5], [20] * 3), rate([9, 12, 14], [20] * 3)),) * 2:
        expected = ratio(a, b)
        found = fraction(contrast(a.point, a.low, a.high), contrast(b.point, b.low, b.high))
        assert found is not None
        assert (found.fraction, found.low, found.high) == pytest.approx(
            (expected.ratio, expected.low, expected.high), abs=1e-9
        )


def test_an_ablation_is_a_fraction_too_and_the_sign_is_that_of_the_native_effect():
    up = fraction(contrast(0.2, 0.1, 0.3), contrast(0.8, 0.7, 0.9))
    down = fraction(contrast(-0.2, -0.3, -0.1), contrast(-0.8, -0.9, -0.7))
    against = fraction(contrast(0.2, 0.1, 0.3), contrast(-0.8, -0.9, -0.7))
    assert up == down
    assert up is not None
    assert against is not None
    assert (against.fraction, against.low, against.high) == pytest.approx(
        (-up.fraction, -up.high, -up.low)
    )


def test_without_a_native_effect_there_is_no_fraction():
    assert fraction(contrast(0.2, 0.1, 0.3), contrast(0.1, -0.1, 0.3)) is None
    assert fraction(contrast(0.2, 0.1, 0.3), contrast(0.1, 0.0, 0.3)) is None


def test_no_effect_is_a_fraction_whose_interval_holds_zero():
    found = fraction(contrast(0.0, -0.1, 0.1), contrast(0.8, 0.7, 0.9))
    assert found is not None
    assert found.low < 0 < found.high
    assert found.fraction == 0
    assert str(found) == "0.00 [-0.13, 0.13]"


def test_the_interval_covers():
    """Normal effects with known errors: the quotient lies inside about 95 times of 100."""
    rng = np.random.default_rng(0)
    hits, rounds = 0, 400
    for _ in range(rounds):
        a, b = 0.2 + 0.05 * rng.standard_normal(), 0.6 + 0.06 * rng.standard_normal()
        found = fraction(
            contrast(a, a - 1.96 * 0.05, a + 1.96 * 0.05),
            contrast(b, b - 1.96 * 0.06, b + 1.96 * 0.06),
        )
        assert found is not None
        hits += found.low <= 0.2 / 0.6 <= found.high
    assert 0.92 < hits / rounds < 0.98


@pytest.mark.parametrize("questions", [12, 24, 50])
def test_a_share_of_a_measured_gap_covers_where_a_share_of_its_mean_does_not(questions):
    """A patch brings 0.4 nats of every question, while the gap differs from one to the next."""
    rng = np.random.default_rng(questions)
    t = float(scipy_stats.t.ppf(0.975, questions - 1))
    inside, naive = [], []
    for _ in range(1000):
        gaps = 1 + 0.7 * rng.standard_normal(questions)
        effects = 0.4 + 0.15 * rng.standard_normal(questions)
        half = t * effects.std(ddof=1) / questions**0.5  # of the effects, over a gap held for sure
        naive.append(abs(effects.mean() / gaps.mean() - 0.4) <= half / gaps.mean())
        if (found := share(effects, gaps)) is not None:
            inside.append(found.low <= 0.4 <= found.high)
    assert len(inside) > 0.9 * len(naive)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    assert np.mean(naive) < 0.75


def test_a_share_has_no_interval_where_the_gap_is_noise():
    noise = np.random.default_rng(0).standard_normal((400, 12))
    found = [share(0.5 * gaps, gaps) for gaps in noise]
    assert np.mean([one is None for one in found]) == pytest.approx(0.95, abs=0.03)
    assert share([0.1], [0.4]) is None
    assert share([0.1, 0.2], [0.0, 0.0]) is None
    with pytest.raises(InputError, match="same questions"):
        share([0.1], [0.4, 0.5])


def test_a_share_that_is_the_same_of_every_gap_is_known_exactly():
    gaps = np.random.default_rng(1).uniform(1, 3, 12)
    found = share(0.3 * gaps, gaps)
    assert found is not None
    assert (found.fraction, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))
    turned, against = share(-0.3 * gaps, -gaps), share(-0.3 * gaps, gaps)
    assert turned == found
    assert against is not None
    assert against.fraction == pytest.approx(-0.3)
