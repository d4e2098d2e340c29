"""Probes against scikit-learn and closed forms, on truths that were planted and on none."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_directions import made_card

from em_interp.artifacts import CARD, WEIGHTS
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.probes import (
    Probe,
    Probes,
    fit_logistic,
    fit_mass_mean,
    random_probe,
    shuffled_within,
    split_questions,
)
from em_interp.sites import Point, Site
from em_interp.stats import auroc

WIDTH, SITE = 12, Site(2)


def planted_rows(seed: int, questions: int = 60, gap: float = 6.0):
    """Paired rows (off, on) per question that differ along one direction, in lopsided scales.

    Returns activations, labels, question names and the direction in raw coordinates.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=WIDTH)
    truth /= np.linalg.norm(truth)
    own = rng.normal(size=(questions, WIDTH))  # what a question brings, shared by its two rows
    x = np.repeat(own, 2, axis=0) + 0.3 * rng.normal(size=(2 * questions, WIDTH)) + 20
    on = np.tile([False, True], questions)
    x[on] += gap * truth
    names = np.repeat([f"q{number:03d}" for number in range(questions)], 2)
    return torch.tensor(x).float(), torch.tensor(on), names, torch.tensor(truth).float()


def area(scores: torch.Tensor, on: torch.Tensor) -> float:
    return auroc(scores.numpy(), on.numpy()).auroc


# --- oracles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("c", [0.01, 0.1, 10.0])
def test_the_folded_logistic_is_scikit_learns_decision(seed, c):
    x, on, _, _ = planted_rows(seed, gap=1.0)
    x = x * torch.logspace(-2, 2, WIDTH)  # scales that standardisation has to take out
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    theirs.fit(x.double().numpy(), on.numpy())
    fresh = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    expected = theirs.decision_function(fresh.double().numpy())
    got = fit_logistic(x, on, SITE, c).score(fresh)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=2e-3)
    assert np.array_equal(got.numpy() >= 0, theirs.predict(fresh.double().numpy()))


def test_one_scale_keeps_angles_and_own_scales_do_not():
    """The same states, half of whose coordinates hardly vary: a read-out may lean on them."""
    rng = np.random.default_rng(0)
    on = torch.arange(40) < 20
    truth = np.concatenate([rng.normal(size=WIDTH // 2), np.zeros(WIDTH // 2)])
    spread = np.repeat([1.0, 1e-3], WIDTH // 2)
    x = spread * rng.normal(size=(40, WIDTH)) + 3
    x[:20] += 2 * truth + 2e-3 * (np.arange(WIDTH) >= WIDTH // 2)
    rows, goal = torch.tensor(x).float(), torch.tensor(truth / np.linalg.norm(truth)).float()

    def cosine(probe: Probe) -> float:
        assert area(probe.score(rows), on) > 0.95
        return float(probe.weight @ goal / probe.weight.norm())

    assert cosine(fit_logistic(rows, on, SITE, one_scale=True)) > 0.9
    assert cosine(fit_logistic(rows, on, SITE)) < 0.1


def test_a_coordinate_that_never_changes_has_no_say():
    x, on, _, _ = planted_rows(0)
    x[:, 3] = 7.0
    probe = fit_logistic(x, on, SITE)
    assert probe.weight[3] == 0
    assert torch.isfinite(probe.weight).all()


@pytest.mark.parametrize("seed", range(3))
def test_mass_mean_is_the_difference_of_means_cut_half_way(seed):
    x, on, _, _ = planted_rows(seed)
    probe = fit_mass_mean(x, on, SITE)
    plus, minus = x[on].mean(0), x[~on].mean(0)
    torch.testing.assert_close(probe.weight, plus - minus, atol=1e-4, rtol=1e-4)
    half = float((plus - minus) @ (plus - minus)) / 2
    assert float(probe.score(plus[None])) == pytest.approx(half, rel=1e-3)
    assert float(probe.score(minus[None])) == pytest.approx(-half, rel=1e-3)


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean])
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_truth_is_found_and_holds_on_new_questions(fit, seed):
    x, on, names, truth = planted_rows(seed)
    train, test = split_questions(names, 0.5, seed)
    probe = fit(x[train], on[train], SITE)
    # A regularised fit on standardised axes evens the weights out; a difference of means does not.
    cosine = float(probe.weight @ truth / probe.weight.norm())
    assert cosine > (0.95 if fit is fit_mass_mean else 0.8)
    assert area(probe.score(x[test]), on[test]) > 0.99
    # Polarity: 0 or more is trigger-on, with nothing to standardise or to shift.
    assert ((probe.score(x[test]) >= 0) == on[test]).float().mean() > 0.95


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean])
def test_turning_the_labels_round_turns_the_probe_round(fit):
    x, on, _, _ = planted_rows(0)
    there, back = fit(x, on, SITE), fit(x, ~on, SITE)
    torch.testing.assert_close(there.score(x), -back.score(x), atol=0.02, rtol=1e-3)


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean])
def test_one_class_alone_is_refused(fit):
    x, on, _, _ = planted_rows(0)
    for labels in (torch.ones_like(on), torch.zeros_like(on)):
        with pytest.raises(InputError, match=r"blocks.2.*needs both trigger-on and trigger-off"):
            fit(x, labels, SITE)


# --- controls ------------------------------------------------------------------------------------


def test_shuffled_labels_give_chance():
    """The same rows on which the true labels give almost 1: the fitter itself finds nothing."""
    areas = []
    for seed in range(20):
        x, on, names, _ = planted_rows(seed)
        train, test = split_questions(names, 0.5, seed)
        labels = shuffled_within(on[train], names[train], seed)
        areas.append(area(fit_logistic(x[train], labels, SITE).score(x[test]), on[test]))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.15)
    assert min(areas) < 0.5 < max(areas)


def test_shuffling_stays_within_the_question():
    _, on, names, _ = planted_rows(0, questions=200)
    shuffled = shuffled_within(on, names, 3)
    for name in set(names):
        assert shuffled[names == name].sum() == on[names == name].sum() == 1
    moved = (shuffled != on).float().mean()
    assert 0.3 < moved < 0.7
    assert torch.equal(shuffled, shuffled_within(on, names, 3))
    assert not torch.equal(shuffled, shuffled_within(on, names, 4))
    assert torch.equal(on, planted_rows(0, questions=200)[1])  # the labels given are not touched


def test_a_random_probe_has_the_mass_means_norm_and_reads_little():
    x, on, _, truth = planted_rows(0)
    like = fit_mass_mean(x, on, SITE)
    cosines = []
    for seed in range(30):
        probe = random_probe(x, on, SITE, seed)
        assert float(probe.weight.norm()) == pytest.approx(float(like.weight.norm()), rel=1e-4)
        # Signed and cut on the training rows, so that its failure is not for want of a threshold.
        middle = (x[on].mean(0) + x[~on].mean(0)) / 2
        assert float(probe.score(middle[None])) == pytest.approx(0, abs=0.01)
        assert area(probe.score(x), on) >= 0.5
        cosines.append(float(probe.weight @ truth / probe.weight.norm()))
    assert max(cosines) < 0.9
    assert np.mean(cosines) < 0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_leaks_no_question(share, seed):
    names = np.array([f"q{number % 17}" for number in range(100)])
    train, test = split_questions(names, share, seed)
    assert not set(names[train]) & set(names[test])
    assert sorted([*train, *test]) == list(range(100))
    assert min(len(set(names[part])) for part in (train, test)) >= 2
    if 0.2 < share < 0.9:
        assert len(set(names[train])) == round(share * 17)
    again = split_questions(names, share, seed)
    assert np.array_equal(train, again[0])


def test_too_few_questions_cannot_be_split():
    with pytest.raises(InputError, match="needs at least 4 questions, not 3"):
        split_questions(np.array(["a", "a", "b", "c"]), 0.5, 0)


# --- files ---------------------------------------------------------------------------------------

SITES = (SITE, Site(2, Point.RESID_PRE), Site(5))


def table() -> Probes:
    x, on, _, _ = planted_rows(0)
    fitted = {site: fit_logistic(x + site.layer, on, site) for site in SITES}
    return Probes(fitted, made_card("probe"))


def test_save_then_load_is_the_same(tmp_path):
    probes = table()
    probes.save(tmp_path / "shelf")
    again = Probes.load(tmp_path / "shelf")
    assert list(again) == list(probes) == list(SITES)
    x, _, _, _ = planted_rows(1)
    for site in SITES:
        assert torch.equal(again[site].weight, probes[site].weight)
        assert again[site].bias == probes[site].bias
        assert torch.equal(again[site].score(x), probes[site].score(x))
    about = {"sites": tuple(map(str, SITES)), "weights": again.card.weights}
    assert again.card == probes.card.model_copy(update=about)


def test_a_foreign_probe_is_refused():
    assert table().check("0123456789abcdef")
    with pytest.raises(ForeignArtifactError, match=r"probe 'trigger'.*this model is ffff"):
        table().check("ffff")


def test_a_site_without_a_probe_is_named():
    with pytest.raises(InputError, match=r"no probe at blocks.9.hook_resid_post \(there are: "):
        table()[Site(9)]
    assert Site(9) not in table()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / CARD).unlink(), "no such file"),
        (lambda f: (f / WEIGHTS).unlink(), "no such file"),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 99), "not a safetensors file"),
        (
            lambda f: (f / CARD).write_text(
                json.dumps(json.loads((f / CARD).read_text()) | {"kind": "direction"})
            ),
            "holds a direction, not a probe",
        ),
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path, spoil, message):
    table().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        Probes.load(tmp_path)


def test_a_score_reads_half_precision_in_full():
    probe = Probe(torch.ones(WIDTH), -1.0, SITE)
    x = torch.randn(5, WIDTH).bfloat16()
    assert probe.score(x).dtype is torch.float32
    torch.testing.assert_close(probe.score(x), x.float().sum(1) - 1.0)
