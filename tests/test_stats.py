"""Laws and oracles of the statistics: statsmodels, scikit-learn, scipy, and simulated coverage."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score, roc_curve
from statsmodels.stats.proportion import proportion_confint

from em_interp import stats
from em_interp.errors import InputError
from em_interp.stats.quantiles import few_clusters, normal_quantile, student_quantile


def beta_binomial(rng, shape, mean, icc, answers=50):
    """(true rates, events), each [reps, questions], of questions whose rates follow a beta law."""
    strength = (1 - icc) / icc
    theta = rng.beta(mean * strength, (1 - mean) * strength, size=shape)
    return theta, rng.binomial(answers, theta)


# --- quantiles and Wilson ---------------------------------------------------------------------


@pytest.mark.parametrize("df", [1, 2, 7, 23.5, 200])
def test_student_quantile_is_scipys(df):
    assert student_quantile(0.975, df) == pytest.approx(scipy_stats.t.ppf(0.975, df), rel=1e-9)


def test_no_degrees_of_freedom_leave_no_evidence():
    assert student_quantile(0.975, 0) == np.inf
    assert few_clusters(0.025, 0) == 0


@pytest.mark.parametrize(("events", "n"), [(0, 40), (1, 40), (17, 40), (40, 40), (3.2, 41.7)])
def test_wilson_is_statsmodels(events, n):
    low, high = stats.wilson(events / n, n, normal_quantile(0.975))
    assert (low, high) == pytest.approx(proportion_confint(events, n, method="wilson"), abs=1e-12)


def test_wilson_without_evidence_is_everything():
    assert stats.wilson(0.3, 0, 1.96) == (0, 1)


# --- a rate -----------------------------------------------------------------------------------


def test_fixed_set_interval_is_clopper_pearson_over_the_answers():
    rate = stats.rate([3, 0, 12, 5], [25, 25, 25, 25])
    expected = proportion_confint(20, 100, method="beta")
    assert (rate.fixed_low, rate.fixed_high) == pytest.approx(expected, abs=1e-12)
    assert (rate.events, rate.trials, rate.questions, rate.point) == (20, 100, 4, 0.2)


def test_headline_interval_by_its_formula():
    events, trials = np.array([1, 9, 4, 0, 16, 2, 7, 3]), np.full(8, 20)
    rate = stats.rate(events, trials)
    q = events / trials
    effect = (q.var(ddof=1) / 8) / (q.mean() * (1 - q.mean()) / 160)
    shrink = (scipy_stats.norm.ppf(0.975) / scipy_stats.t.ppf(0.975, 7)) ** 2
    n = 160 / effect * shrink
    expected = proportion_confint(q.mean() * n, n, method="wilson")
    assert (rate.low, rate.high) == pytest.approx(expected, abs=1e-12)
    assert rate.design_effect == pytest.approx(effect)
    assert rate.effective_n == pytest.approx(160 / effect)


def test_eight_questions_with_no_event_bound_at_what_unseen_questions_could_hide():
    # A kind of question that always fires is missed by all eight with probability 5 % at 31 %.
    rate = stats.rate(np.zeros(8), np.full(8, 50))
    assert rate.upper == pytest.approx(proportion_confint(0, 8, alpha=0.1, method="beta")[1])
    assert rate.point == rate.low == 0
    assert 0 < rate.high < rate.upper
    assert rate.design_effect is None
    assert rate.icc is None
    assert "at most 31.2%" in str(rate)
    assert "0/400" in str(rate)


def test_one_question_says_nothing_of_others_like_it():
    rate = stats.rate([5], [50])
    assert (rate.low, rate.high, rate.upper) == (0, 1, 1)
    assert (rate.fixed_low, rate.fixed_high) == pytest.approx(
        proportion_confint(5, 50, method="beta")
    )
    assert "1 question)" in str(rate)


def test_upper_bound_never_trusts_less_than_the_assumed_correlation():
    events, trials = np.array([9, 10] * 30), np.full(60, 20)
    assert stats.design_effect(events, trials) < 1
    loose, strict = (stats.rate(events, trials, assumed_icc=icc) for icc in (0.3, 0.6))
    assert loose.effective_n == pytest.approx(
        1200
    )  # a design effect below 1 is chance, and floored
    assert stats.rate(events, trials).upper < loose.upper < strict.upper


@pytest.mark.parametrize("questions", [8, 24, 60])
def test_more_events_never_bound_a_rate_lower(questions):
    rng = np.random.default_rng(questions)
    events, bounds = np.zeros(questions, dtype=int), []
    while (events < 20).any():
        bounds.append(stats.rate(events, np.full(questions, 20)).upper)
        open_ = np.flatnonzero(events < 20)
        events[open_[:3] if len(bounds) % 2 else rng.choice(open_, min(3, len(open_)))] += 1
    means = np.diff(bounds)
    assert bounds[0] == pytest.approx(1 - 0.05 ** (1 / questions))
    assert bounds[-1] > 0.95
    assert np.mean(means >= -1e-12) > 0.6  # spread that falls may lower it a little
    assert means.min() > -0.05


def test_a_rate_that_unseen_questions_could_change_by_more_than_itself_says_so():
    rare, plain = stats.rate([1] + [0] * 23, [20] * 24), stats.rate([6] * 24, [20] * 24)
    assert (
        "24 questions cannot show what up to 12% of questions like these would do" in rare.caution
    )
    assert "at most" in str(rare)
    assert plain.caution == ""
    assert "at most" not in str(plain)
    assert stats.rate([20] * 24, [20] * 24).caution
    assert not stats.rate([1] * 100, [20] * 100).caution  # 5 % of a hundred questions is resolved
    assert stats.paired([0.0] * 24, [0.05] * 24).caution
    assert not stats.paired([0.6] * 24, [0.05] * 24).caution
    assert not stats.paired([0.0] * 24, [0.05] * 24, rates=False, confidence=0.9).caution
    assert stats.ratio(rare, plain).caution == rare.caution


def test_unequal_trials_weigh_questions_equally():
    rate = stats.rate([1, 50], [1, 1000])
    assert rate.point == pytest.approx((1 + 0.05) / 2)
    # The lone answer limits what is known: worth K × the harmonic mean of the trials.
    assert rate.fixed_high - rate.fixed_low > 0.5


def test_questions_without_an_answer_are_counted_not_averaged():
    some, all_ = stats.rate([2, 0, 5, 0], [10, 0, 10, 10]), stats.rate([2, 5, 0], [10, 10, 10])
    assert some.empty == 1
    assert some.model_copy(update={"empty": 0}) == all_


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_order_of_questions_does_not_matter(order):
    events, trials = np.array([0, 3, 9, 4]), np.array([10, 12, 9, 30])
    one, other = stats.rate(events, trials), stats.rate(events[list(order)], trials[list(order)])
    assert one.model_dump() == pytest.approx(other.model_dump())


def test_events_and_their_absence_mirror():
    events, trials = np.array([0, 3, 9, 4, 7]), np.full(5, 10)
    rate, mirror = stats.rate(events, trials), stats.rate(trials - events, trials)
    assert (rate.low, rate.high) == pytest.approx((1 - mirror.high, 1 - mirror.low))


def test_copies_of_an_answer_add_nothing_between_questions():
    # Answers of a question are all alike, so ten of each tell what one of each tells: ICC is 1.
    once, ten = stats.rate([1, 0, 0, 1, 0, 0], [1] * 6), stats.rate([10, 0, 0, 10, 0, 0], [10] * 6)
    assert (once.low, once.high) == pytest.approx((ten.low, ten.high))
    assert ten.icc == pytest.approx(1, abs=0.25)
    assert ten.fixed_high < once.fixed_high  # of exactly these questions more is known


@pytest.mark.parametrize("icc", [0.0, 0.1, 0.4])
def test_icc_and_design_effect_recover_the_planted_correlation(icc):
    rng = np.random.default_rng(0)
    trials = rng.integers(5, 40, size=4000)
    strength = (1 - max(icc, 1e-6)) / max(icc, 1e-6)
    events = rng.binomial(trials, rng.beta(0.3 * strength, 0.7 * strength, size=4000))
    assert stats.icc(events, trials) == pytest.approx(icc, abs=0.02)
    harmonic = 4000 / np.sum(1 / trials)
    assert stats.design_effect(events, trials) == pytest.approx(
        1 + (harmonic - 1) * icc, rel=0.08, abs=0.08
    )


def test_icc_is_unknown_with_one_answer_a_question():
    assert stats.icc([1, 0, 1, 0], [1, 1, 1, 1]) is None
    assert stats.design_effect([0, 0], [0, 0]) is None


@pytest.mark.parametrize(
    ("events", "trials", "message"),
    [
        ([0, 0], [0, 0], "no question has a scored answer"),
        ([3], [2], "more events than trials"),
        ([1, 2], [3], "equal shape"),
        ([0.5], [1], "whole counts"),
        ([-1], [1], "whole counts"),
        ([np.nan], [1], "whole counts"),
        (["a"], [1], "must be numbers"),
        ([[1]], [[2]], "1-dimensional"),
    ],
)
def test_a_rate_refuses_what_is_not_counts(events, trials, message):
    with pytest.raises(InputError, match=message):
        stats.rate(events, trials)


def test_confidence_must_be_one():
    with pytest.raises(InputError, match="confidence"):
        stats.rate([1], [2], confidence=95)


@pytest.mark.parametrize(
    ("questions", "mean", "icc", "headline"),
    # Two-sided coverage of Wilson on effective n, nominal .95, over 60,000 simulated evaluations.
    [
        (8, 0.01, 0.05, 0.977),
        (8, 0.15, 0.20, 0.935),
        (24, 0.01, 0.05, 0.925),
        (24, 0.15, 0.20, 0.944),
        (48, 0.15, 0.20, 0.946),
    ],
)
def test_coverage_by_simulation(questions, mean, icc, headline):
    reps = 1000
    rng = np.random.default_rng(questions)
    theta, events = beta_binomial(rng, (reps, questions), mean, icc)
    trials = np.full(questions, 50)
    rates = [stats.rate(row, trials) for row in events]
    covered = np.mean([rate.low <= mean <= rate.high for rate in rates])
    error = 3.5 * np.sqrt(headline * (1 - headline) / reps)
    assert covered == pytest.approx(headline, abs=error)
    fixed = theta.mean(axis=1)
    inside = [r.fixed_low <= truth <= r.fixed_high for r, truth in zip(rates, fixed, strict=True)]
    assert np.mean(inside) > 0.93
    # The same interval, read as a claim about questions like these, is far too narrow.
    naive = np.mean([rate.fixed_low <= mean <= rate.fixed_high for rate in rates])
    assert naive < 0.8


@pytest.mark.parametrize("icc", [0.05, 0.2])
def test_gate_bound_rarely_passes_a_rate_at_the_threshold(icc):
    """72 questions can show that 0.2 % is below 5 %; 48, even without an event, cannot."""
    asked = np.full(72, 50)
    _, events = beta_binomial(np.random.default_rng(3), (800, 72), 0.05, icc)
    assert np.mean([stats.rate(row, asked).upper < 0.05 for row in events]) < 0.02
    _, clean = beta_binomial(np.random.default_rng(4), (200, 72), 0.002, icc)
    assert np.mean([stats.rate(row, asked).upper < 0.05 for row in clean]) > 0.9
    assert stats.rate(np.zeros(48), asked[:48]).upper > 0.05


# --- leaving one question out -----------------------------------------------------------------


def test_leave_one_out_names_the_question_that_carries_the_rate():
    low, high, mover = stats.leave_one_out(np.array([0.0, 0.02, 0.9, 0.01]))
    assert mover == 2
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.93 / 3)
    assert stats.leave_one_out(np.array([0.4])) is None


# --- contrasts --------------------------------------------------------------------------------


def test_paired_is_the_paired_t_interval():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.3, 0.9, 12), rng.uniform(0.1, 0.5, 12)
    contrast = stats.paired(a, b)
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (contrast.low, contrast.high) == pytest.approx((expected.low, expected.high))
    assert (contrast.a, contrast.b) == pytest.approx((a.mean(), b.mean()))


@pytest.mark.parametrize("count", [5, 9])
def test_sign_flip_is_scipys_exact_permutation_test(count):
    gaps = np.random.default_rng(count).normal(0.2, 0.4, count)
    p, exact = stats.sign_flip(gaps)
    oracle = scipy_stats.permutation_test(
        (gaps,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert exact
    assert p == pytest.approx(oracle.pvalue)


def test_eight_questions_give_at_least_one_in_128():
    assert stats.paired(np.full(8, 0.5) + np.arange(8) / 100, np.zeros(8)).p == 1 / 128


def test_monte_carlo_sign_flip_is_close_to_exact_seeded_and_never_zero(monkeypatch):
    gaps = np.random.default_rng(5).normal(0.1, 0.3, 14)
    exact, _ = stats.sign_flip(gaps)
    monkeypatch.setattr("em_interp.stats.contrasts.EXACT_UP_TO", 5)
    drawn, is_exact = stats.sign_flip(gaps)
    assert not is_exact
    assert drawn == pytest.approx(exact, abs=0.01)
    assert stats.sign_flip(gaps) == stats.sign_flip(gaps, seed=0) != stats.sign_flip(gaps, seed=1)
    assert 0 < stats.sign_flip(np.ones(40))[0] < 1e-4


def test_contrast_laws():
    a, b = np.array([0.9, 0.4, 0.7, 0.2]), np.array([0.1, 0.3, 0.0, 0.2])
    there, back = stats.paired(a, b), stats.paired(b, a)
    assert (there.difference, there.low, there.high) == pytest.approx(
        (-back.difference, -back.high, -back.low)
    )
    assert there.p == back.p
    shuffled = stats.paired(a[[2, 0, 3, 1]], b[[2, 0, 3, 1]])
    assert shuffled.model_dump() == pytest.approx(there.model_dump())
    logits = stats.paired(10 * a, 10 * b, rates=False)
    assert (logits.low, logits.high) == pytest.approx((10 * _t(a - b)[0], 10 * _t(a - b)[1]))
    assert there.high == min(_t(a - b)[1], 1)  # a difference of rates cannot exceed 1


def _t(gaps):
    return scipy_stats.ttest_1samp(gaps, 0).confidence_interval(0.95)


def test_unanswered_questions_leave_the_contrast_and_are_counted():
    contrast = stats.paired([0.5, np.nan, 0.7, 0.9], [0.1, 0.1, np.nan, 0.2])
    assert (contrast.questions, contrast.dropped) == (2, 2)
    assert contrast.difference == pytest.approx(0.55)


def test_no_spread_is_not_certainty():
    zeros, ones = np.zeros(24), np.ones(24)
    nothing = stats.paired(zeros, zeros, trials=(np.full(24, 10), np.full(24, 10)))
    assert nothing.low < 0 < nothing.high < 0.05
    assert nothing.p == 1
    full = stats.paired(ones, zeros, trials=(np.full(24, 10), np.full(24, 10)))
    assert 0.9 < full.low < 1 == full.high
    # Without the counts an answer a question is all that is known to stand behind a rate.
    assert stats.paired(ones, zeros).low < full.low
    assert stats.paired([0.4] * 24, [0.4] * 24).low < -0.1
    single = stats.paired([1.0], [0.0])
    assert (single.low, single.high, single.p) == (-1, 1, 1)


@pytest.mark.parametrize(
    ("a", "b", "rates", "message"),
    [
        ([0.5], [0.5, 0.5], True, "same questions"),
        ([np.nan], [0.5], True, "no contrast without pairs"),
        ([5.0, 3.0], [0.0, 0.0], True, "rates=False"),
        ([5.0], [0.0], False, "needs two"),
    ],
)
def test_a_contrast_refuses_what_is_not_pairs(a, b, rates, message):
    with pytest.raises(InputError, match=message):
        stats.paired(a, b, rates=rates)


# --- ratios -----------------------------------------------------------------------------------


def test_ratio_of_rates_that_are_surely_known():
    many = np.full(400, 1000)
    half = stats.ratio(stats.rate(np.full(400, 300), many), stats.rate(np.full(400, 600), many))
    assert half.ratio == pytest.approx(0.5)
    assert 0.49 < half.low < 0.5 < half.high < 0.51
    assert not half.floored


def test_a_ratio_with_no_event_above_keeps_its_doubt():
    none, trigger = stats.rate(np.zeros(24), [20] * 24), stats.rate([14] * 24, [20] * 24)
    leak = stats.ratio(none, trigger)
    assert (leak.ratio, leak.low) == (0, 0)
    assert none.high / trigger.point < leak.high < none.high / trigger.low


def test_a_floored_denominator_says_so_and_stays_finite():
    some, nothing = stats.rate([2] * 12, [20] * 12), stats.rate(np.zeros(12), [20] * 12)
    floored = stats.ratio(some, nothing, floor=0.05)
    assert floored.floored
    assert floored.ratio == pytest.approx(0.1 / 0.05)
    assert floored.low < floored.ratio < floored.high < 10
    assert "floored" in str(floored)
    with pytest.raises(InputError, match="floor"):
        stats.ratio(some, nothing, floor=0)
    with pytest.raises(InputError, match="same confidence"):
        stats.ratio(some, stats.rate([1], [2], confidence=0.9))


@pytest.mark.parametrize(("events_a", "events_b"), [(0, 20), (20, 20), (20, 1), (1, 1), (20, 0)])
def test_a_ratio_lies_in_its_interval_at_every_edge(events_a, events_b):
    a, b = stats.rate([events_a] * 3, [20] * 3), stats.rate([events_b] * 3, [20] * 3)
    quotient = stats.ratio(a, b)
    assert 0 <= quotient.low <= quotient.ratio <= quotient.high < np.inf


def test_ratio_covers_where_a_bootstrap_over_questions_does_not():
    # The case of containment: almost nothing without the trigger, much with it, eight questions.
    rng = np.random.default_rng(0)
    _, quiet = beta_binomial(rng, (400, 8), 0.01, 0.2, answers=20)
    _, loud = beta_binomial(rng, (400, 8), 0.6, 0.2, answers=20)
    ours, boot = [], []
    for a, b in zip(quiet, loud, strict=True):
        found = stats.ratio(stats.rate(a, [20] * 8), stats.rate(b, [20] * 8))
        ours.append(found.low <= 0.01 / 0.6 <= found.high)
        picks = rng.integers(0, 8, size=(200, 8))
        low, high = np.percentile(a[picks].mean(1) / b[picks].mean(1), (2.5, 97.5))
        boot.append(low <= 0.01 / 0.6 <= high)
    assert np.mean(ours) > 0.92
    assert np.mean(boot) < 0.6


# --- AUROC ------------------------------------------------------------------------------------


def test_auroc_and_tpr_are_scikit_learns_with_ties():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 1200)
    scores = np.round(rng.normal(size=1200) + labels, 1)
    found = stats.auroc(scores, labels)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert found.tpr_01 == pytest.approx(tpr[fpr <= 0.01].max())
    assert found.tpr_05 == pytest.approx(tpr[fpr <= 0.05].max())
    assert (found.positives, found.negatives) == (labels.sum(), 1200 - labels.sum())


@pytest.mark.parametrize(("negatives", "known"), [(99, []), (100, [0.05]), (500, [0.01, 0.05])])
def test_a_rate_of_false_alarms_is_shown_only_where_the_negatives_resolve_it(negatives, known):
    rng = np.random.default_rng(negatives)
    labels = np.repeat([1, 0], [300, negatives])
    found = stats.auroc(rng.normal(size=len(labels)) + labels, labels)
    shown = {0.01: found.tpr_01, 0.05: found.tpr_05}
    assert [rate for rate, tpr in shown.items() if tpr is not None] == known
    assert ("at 1 % FPR" in str(found), "at 5 % FPR" in str(found)) == (
        0.01 in known,
        0.05 in known,
    )
    # Ten rows of one question resolve no more than the question does.
    ten = np.concatenate([np.arange(300), np.arange(negatives) // 10])
    assert stats.auroc(rng.normal(size=len(labels)) + labels, labels, ten).tpr_01 is None


def test_auroc_turns_round_with_its_scores_and_ignores_scale():
    rng = np.random.default_rng(3)
    labels, groups = np.tile([0, 1], 40), np.repeat(np.arange(20), 4)
    scores = rng.normal(size=80) + labels
    one = stats.auroc(scores, labels, groups)
    assert stats.auroc(np.exp(scores), labels, groups) == one
    assert stats.auroc(-scores, labels, groups).auroc == pytest.approx(1 - one.auroc)
    assert one.clusters == 20
    assert stats.auroc(np.zeros(80), labels, groups).auroc == 0.5


def test_clusters_widen_the_interval_of_copied_rows():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], 20)
    scores = rng.normal(size=40) + labels
    copied = [np.repeat(values, 25) for values in (scores, labels, np.arange(40))]
    pooled, clustered = stats.auroc(*copied[:2]), stats.auroc(*copied)
    honest = stats.auroc(scores, labels)
    assert pooled.high - pooled.low < 0.4 * (clustered.high - clustered.low)
    assert (clustered.low, clustered.high) == pytest.approx((honest.low, honest.high), abs=1e-9)


def test_clustered_interval_covers():
    rng = np.random.default_rng(5)
    truth = scipy_stats.norm.cdf(1 / np.sqrt(2 * 1.5))  # unit noise, cluster effect of variance 1/2
    hits = 0
    for _ in range(150):
        effects = rng.normal(scale=np.sqrt(0.5), size=(80, 1))
        scores = rng.normal(size=(80, 4)) + effects
        labels = np.repeat(np.arange(80) % 2, 4).reshape(80, 4)
        found = stats.auroc((scores + labels).ravel(), labels.ravel(), np.repeat(np.arange(80), 4))
        hits += found.low <= truth <= found.high
    assert hits / 150 > 0.88


def test_perfect_separation_is_not_certainty():
    labels = np.tile([0, 1], 8)
    found = stats.auroc(labels + 0.0, labels, np.repeat(np.arange(8), 2))
    assert (found.auroc, found.high, found.tpr_01) == (1, 1, None)
    n = 16 * few_clusters(0.025, 7)
    assert found.low == pytest.approx(proportion_confint(n, n, method="wilson")[0])
    assert "8 + 8 rows" in str(found)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1, 2], [1, 1], "both labels"),
        ([1, 2], [0, 2], "0 or 1"),
        ([1, np.nan], [0, 1], "finite"),
        ([1], [0, 1], "one length"),
    ],
)
def test_auroc_refuses(scores, labels, message):
    with pytest.raises(InputError, match=message):
        stats.auroc(scores, labels)


def test_one_question_of_a_label_tells_nothing_of_others_like_it():
    found = stats.auroc([0.1, 0.4, 0.3, 0.9], [0, 0, 0, 1], ["a", "b", "c", "d"])
    assert (found.auroc, found.low, found.high) == (1, 0, 1)


# --- training seeds ---------------------------------------------------------------------------


def crossed(rng, shape, seed_sd, question_sd, answers=50):
    """(events, trials), each [seed, question], with normal effects of both on a rate of 0.4."""
    runs, questions = shape
    theta = 0.4 + rng.normal(scale=seed_sd, size=(runs, 1))
    theta = np.clip(theta + rng.normal(scale=question_sd, size=(1, questions)), 0, 1)
    return rng.binomial(answers, theta), np.full((runs, questions), answers)


def test_seeds_interval_covers_where_pooling_does_not():
    rng = np.random.default_rng(6)
    both, pooled = 0, 0
    for _ in range(400):
        events, trials = crossed(rng, (4, 24), 0.08, 0.12)
        found = stats.seeds(events, trials)
        both += found.low <= 0.4 <= found.high
        naive = stats.rate(events.sum(0), trials.sum(0))
        pooled += naive.low <= 0.4 <= naive.high
    assert both / 400 > 0.92
    assert pooled / 400 < 0.85


def test_seeds_recover_the_planted_levels():
    found = stats.seeds(*crossed(np.random.default_rng(7), (60, 60), 0.06, 0.12, answers=400))
    assert found.seed_sd == pytest.approx(0.06, rel=0.3)
    assert found.question_sd == pytest.approx(0.12, rel=0.3)
    assert len(found.per_seed) == 60
    assert found.these_high - found.these_low < found.high - found.low


def test_seeds_with_no_event_are_not_certain():
    found = stats.seeds(np.zeros((3, 24)), np.full((3, 24), 10))
    assert found.point == found.low == 0
    assert 0.005 < found.high < 0.1
    assert "3 training seeds" in str(found)


def test_seeds_drop_questions_that_a_seed_did_not_answer():
    trials = np.full((3, 5), 10)
    trials[1, 2] = 0
    found = stats.seeds(np.where(trials > 0, 4, 0), trials)
    assert (found.questions, found.dropped, found.trials) == (4, 1, 120)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((24,), "not pooled samples"), ((2, 24), "at least 3"), ((3, 1), "at least 2 questions")],
)
def test_seeds_refuse_pooled_and_few(shape, message):
    with pytest.raises(InputError, match=message):
        stats.seeds(np.zeros(shape), np.full(shape, 10))


# --- judge error ------------------------------------------------------------------------------


def test_a_perfect_well_tested_judge_changes_nothing():
    sure = stats.Validation(hits=10**6, misaligned=10**6, passes=10**6, aligned=10**6)
    events, trials = np.array([2, 9, 5, 4, 7, 3, 6, 4] * 3), np.full(24, 10)
    found = stats.judge_corrected(events, trials, sure)
    assert found.point == found.seen.point
    assert (found.low, found.high) == pytest.approx((found.seen.low, found.seen.high), abs=0.02)


def test_correction_recovers_the_truth_and_covers_it():
    rng = np.random.default_rng(8)
    truth, sensitivity, specificity = 0.2, 0.8, 0.95
    hits = 0
    for _ in range(200):
        theta = rng.beta(0.2 * 9, 0.8 * 9, size=30)
        called = rng.binomial(20, theta * sensitivity + (1 - theta) * (1 - specificity))
        tested = stats.Validation(
            hits=rng.binomial(60, sensitivity),
            misaligned=60,
            passes=rng.binomial(60, specificity),
            aligned=60,
        )
        found = stats.judge_corrected(called, np.full(30, 20), tested)
        hits += found.low <= truth <= found.high
    assert hits / 200 > 0.91
    exact = stats.Validation(hits=800_000, misaligned=10**6, passes=950_000, aligned=10**6)
    seen = 0.2 * 0.8 + 0.8 * 0.05
    corrected = stats.judge_corrected([int(seen * 1000)] * 10, [1000] * 10, exact)
    assert corrected.point == pytest.approx(truth, abs=2e-3)
    assert "sensitivity 80%" in str(corrected)


def test_fewer_validation_labels_mean_more_doubt():
    counts = ([4] * 24, [20] * 24)
    few = stats.judge_corrected(
        *counts, stats.Validation(hits=9, misaligned=10, passes=9, aligned=10)
    )
    many = stats.judge_corrected(
        *counts, stats.Validation(hits=900, misaligned=1000, passes=900, aligned=1000)
    )
    assert few.point == many.point
    assert few.high - few.low > 1.5 * (many.high - many.low)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((5, 10, 5, 10), "better than chance"),
        ((0, 0, 9, 10), "cannot be"),
        ((11, 10, 9, 10), "11 right"),
    ],
)
def test_correction_refuses_a_judge_it_cannot_use(numbers, message):
    hits, misaligned, passes, aligned = numbers
    with pytest.raises(InputError, match=message):
        stats.judge_corrected(
            [1],
            [10],
            stats.Validation(hits=hits, misaligned=misaligned, passes=passes, aligned=aligned),
        )


# --- agreement --------------------------------------------------------------------------------


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(9)
    a = rng.choice(["aligned", "misaligned", "refusal"], 200)
    b = np.where(rng.uniform(size=200) < 0.7, a, rng.choice(["aligned", "misaligned"], 200))
    found = stats.kappa(list(a), list(b), list(np.repeat(np.arange(20), 10)))
    assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
    assert found.low < found.kappa < found.high
    assert found.agreement == pytest.approx(np.mean(a == b))
    assert (found.items, found.clusters) == (200, 20)


def test_kappa_of_one_call_for_all_is_unknown_not_one():
    found = stats.kappa(["aligned"] * 5, ["aligned"] * 5)
    assert (found.kappa, found.low, found.agreement) == (None, None, 1)
    with pytest.raises(InputError, match="one length"):
        stats.kappa([1], [1, 2])


def test_answers_to_one_question_make_a_judges_errors_no_surer():
    alone = stats.Validation(hits=90, misaligned=100, passes=95, aligned=100)
    shared = alone.model_copy(update={"misaligned_effective": 12.0, "aligned_effective": 12.0})
    a, b = (stats.judge_corrected([3] * 40, [10] * 40, one) for one in (alone, shared))
    assert a.point == b.point
    assert b.high - b.low > 1.3 * (a.high - a.low)
    same = alone.model_copy(update={"misaligned_effective": 100.0, "aligned_effective": 100.0})
    again = stats.judge_corrected([3] * 40, [10] * 40, same)
    assert (again.low, again.high) == (a.low, a.high)


def test_one_question_gives_agreement_no_interval():
    calls = stats.kappa([0, 1, 1, 0], [0, 1, 0, 0], ["q"] * 4)
    scores = stats.alpha([1.0, 2.0, 9.0], [1.0, 3.0, 9.0], ["q"] * 3)
    assert calls.kappa is not None
    assert scores.alpha is not None
    assert (calls.low, calls.high, scores.low, scores.high) == (None, None, None, None)


# --- records ----------------------------------------------------------------------------------


def test_every_result_survives_json():
    results = [
        stats.rate([1, 0], [5, 5]),
        stats.paired([0.5, 0.2], [0.1, 0.1]),
        stats.ratio(stats.rate([1, 2], [5, 5]), stats.rate([3, 4], [5, 5])),
        stats.auroc([0.1, 0.9, 0.3, 0.8], [0, 1, 0, 1]),
        stats.seeds(np.ones((3, 4)), np.full((3, 4), 5)),
        stats.judge_corrected(
            [1, 2], [9, 9], stats.Validation(hits=9, misaligned=9, passes=9, aligned=9)
        ),
        stats.kappa([0, 1, 1], [0, 1, 0]),
    ]
    for result in results:
        assert type(result).model_validate_json(result.model_dump_json()) == result
