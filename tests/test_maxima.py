"""The best of many: error rates by simulation, an effect among ten thousand, odd shapes."""

import numpy as np
import pytest

from em_interp import stats
from em_interp.errors import InputError
from em_interp.maps import Likeness, draws_for
from em_interp.stats import held_out, maxima, outdone, shares
from em_interp.stats.maxima import LEVEL

REPLICATIONS = 300
# 5 % and two standard errors of 300 replications.
AT_MOST = LEVEL + 2 * (LEVEL * (1 - LEVEL) / REPLICATIONS) ** 0.5


def noise(rng, questions, effects):
    """No effect anywhere: what a question does it does everywhere, spreads differ thirtyfold."""
    common = rng.normal(size=(questions, 1))
    return (0.7 * common + rng.normal(size=(questions, effects))) * rng.gamma(1, 1, size=effects)


@pytest.mark.parametrize("questions", [6, 24, 50])
@pytest.mark.parametrize("effects", [4, 48])
def test_of_many_effects_that_are_none_one_is_called_one_in_five_percent(questions, effects):
    rng = np.random.default_rng(questions)
    wrong = covered = 0
    for seed in range(REPLICATIONS):
        values = noise(rng, questions, effects)
        found = maxima(values, draws=299, seed=seed)
        wrong += bool((found.p <= LEVEL).any())
        covered += bool(((found.low <= 0) & (found.high >= 0)).all())
    assert wrong / REPLICATIONS <= AT_MOST
    assert covered / REPLICATIONS >= 1 - AT_MOST


@pytest.mark.parametrize("questions", [12, 24, 50])
def test_intervals_of_shares_hold_together_though_the_whole_is_measured_too(questions):
    rng = np.random.default_rng(1)
    truth, covered = rng.uniform(-0.2, 1, size=48), 0
    for seed in range(REPLICATIONS):
        whole = rng.normal(2, 1, size=questions)
        effects = whole[:, None] * truth + 0.5 * noise(rng, questions, 48)
        found = shares(effects, whole, draws=299, seed=seed)
        covered += bool(((found.low <= truth) & (truth <= found.high)).all())
    assert covered / REPLICATIONS >= 1 - AT_MOST


def test_the_best_of_one_search_exceeds_the_best_of_another_in_five_percent():
    """Both do something, as much as each other and at different places."""
    rng, wrong = np.random.default_rng(2), 0
    for seed in range(REPLICATIONS):
        shape = rng.uniform(0, 1, size=24)
        one = noise(rng, 24, 24) + shape
        other = noise(rng, 24, 24) + rng.permutation(shape)
        wrong += outdone(one, other, draws=299, seed=seed)[0] <= LEVEL
    assert wrong / REPLICATIONS <= AT_MOST
    assert outdone(noise(rng, 24, 24) + 4, noise(rng, 24, 24))[0] < 0.001


@pytest.mark.parametrize("questions", [24, 50])
def test_one_perfect_effect_among_ten_thousand_is_found_and_more_questions_do_no_harm(questions):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(questions, 10_080))
    values[:, 77] = 1.0
    found = maxima(values, draws=499)
    assert found.p[77] == found.floor == 1 / 500 < 0.01
    assert np.flatnonzero(found.p <= 0.01).tolist() == [77]
    # What stood here: Holm, which multiplies the smallest p of single tests by their number.
    assert 10_080 * stats.sign_flip(values[:, 77])[0] > 0.5


def test_twenty_framings_of_eight_questions_can_each_be_told():
    """Multiplied by twenty, the smallest p that eight questions give is 0.16."""
    values = np.linspace(0.3, 0.6, 20) + np.linspace(0, 0.1, 8)[:, None]
    assert (maxima(values).p == 1 / 128).all()


@pytest.mark.parametrize("sites", [1, 10, 11, 24, 48, 80])
def test_a_direction_that_beats_every_null_at_one_of_many_sites_is_more_like_than_chance(sites):
    """999 draws cannot be at 1 % shared among more than ten sites, whatever the cosine."""
    draws = draws_for(sites)
    least = dict.fromkeys(("random", "source", "target", "texts"), 1 / (draws + 1))
    found = Likeness(cosine=1, high=0.1, agreement=1, draws=draws, **least)
    assert found.beyond(sites)
    assert not found.beyond(11 * max(sites, 10))
    assert draws >= 999


def test_a_second_effect_is_tested_without_the_first():
    """Step-down: what is found does not stand in the way of the next."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(12, 30))
    values[:, 0], values[:, 1] = 2.0, 1.0 + 0.1 * rng.normal(size=12)
    found = maxima(values)
    assert found.floor == 2 / 2**12
    assert found.p[0] == found.floor
    assert found.p[1] < 0.01
    assert (found.p[2:] > 0.05).all()


def test_what_is_held_out_knows_no_luck_of_the_choice():
    rng = np.random.default_rng(5)
    lucky, honest = [], []
    for _ in range(REPLICATIONS):
        values = rng.normal(size=(24, 48))
        lucky.append(values.mean(axis=0).max())
        honest.append(held_out(values))
    assert np.mean(lucky) > 0.35
    assert abs(np.mean(honest)) < 3 * np.std(honest) / REPLICATIONS**0.5
    assert held_out(np.stack([np.full(6, 0.2), np.full(6, 0.8)], axis=1)) == pytest.approx(0.8)


def test_one_effect_alone_is_the_paired_contrast():
    rng = np.random.default_rng(6)
    values = rng.normal(0.4, 1, size=(12, 1))
    found = maxima(values)
    alone = stats.paired(values[:, 0], np.zeros(12), rates=False)
    assert found.mean[0] == pytest.approx(alone.difference)
    assert found.p[0] == pytest.approx(alone.p)
    assert found.high[0] - found.low[0] == pytest.approx(alone.high - alone.low, rel=0.1)


def test_too_few_questions_say_so_and_find_nothing():
    perfect = np.ones((4, 3)) + np.arange(4)[:, None] / 100
    found = maxima(perfect)
    assert found.floor == 1 / 8
    assert (found.p == 1 / 8).all()
    none = maxima(np.zeros((0, 3)))
    assert (none.p == 1).all()
    assert none.low.tolist() == [-np.inf] * 3


def test_questions_that_an_effect_lacks_are_left_out_of_it():
    rng = np.random.default_rng(7)
    values = rng.normal(0.5, 1, size=(10, 2))
    values[7:, 1] = np.nan
    found = maxima(values)
    assert found.mean.tolist() == pytest.approx([values[:, 0].mean(), values[:7, 1].mean()])
    assert shares(values, np.full(10, 2.0)).share.tolist() == pytest.approx(found.mean / 2)
    assert outdone(values, np.full((10, 2), np.nan)) == (1.0, 1.0)
    assert np.isnan(held_out(np.full((4, 2), np.nan)))


def test_a_share_of_noise_has_no_interval():
    rng = np.random.default_rng(8)
    found = shares(rng.normal(size=(12, 3)), rng.normal(0.01, 1, size=12))
    assert found.columns()[1:3] == ([None] * 3, [None] * 3)


def test_what_is_no_table_is_one_line():
    with pytest.raises(InputError, match="questions by what was searched"):
        maxima([1.0, 2.0])
    with pytest.raises(InputError, match="one number a question"):
        shares(np.ones((3, 2)), np.ones(2))
    with pytest.raises(InputError, match="the same questions and columns"):
        outdone(np.ones((3, 2)), np.ones((3, 1)))
