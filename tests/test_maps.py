"""Maps: what they carry, how they are fitted, and what they refuse."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from em_interp.cards import Card
from em_interp.directions import Direction, Directions
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.maps import (
    Anchors,
    Fit,
    Folds,
    JointMoments,
    MapCard,
    Maps,
    Method,
    Space,
    SpaceMap,
    by_depth,
    by_similarity,
    canonical_correlations,
    cka,
    cka_matrix,
    fit,
    fitting,
    likeness,
    linear,
    merged,
    pooled,
    sketch,
)
from em_interp.probes import PROBE_SIGN, Probe, Probes
from em_interp.sites import Site

HERE, THERE = Site(1), Site(2)
FITTED = (Method.PROCRUSTES, Method.PROCRUSTES_SCALED, Method.RIDGE, Method.CCA)
EVERY = (*FITTED, Method.RELATIVE)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(width: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(draw(width, width, seed=seed)).Q


def pair(matrix: torch.Tensor, rows: int = 400, noise: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Anisotropic x with a mean, and y = matrix x + a constant (+ noise)."""
    to, of = matrix.shape
    x = draw(rows, of, seed=3) * torch.logspace(0.5, -1, of) + draw(of, seed=4)
    return x, x @ matrix.T + draw(to, seed=5) + noise * draw(rows, to, seed=6)


def folds(x: torch.Tensor, y: torch.Tensor, count: int = 4) -> Folds:
    made = Folds(x.shape[1], y.shape[1], count)
    made.update(x, y, torch.arange(len(x)) % count)
    return made


def spaces(of: int, to: int) -> tuple[Space, Space]:
    return Space("aaaa", HERE, of), Space("bbbb", THERE, to)


def fitted(method: Method, x: torch.Tensor, y: torch.Tensor, **more: object) -> SpaceMap:
    relative = method is Method.RELATIVE
    anchors = Anchors(x[:64], y[:64], torch.arange(64) % 4) if relative else None
    return fit(method, folds(x, y), *spaces(x.shape[1], y.shape[1]), anchors=anchors, **more)


def some_map(matrix: torch.Tensor, rank: int | None = None, seed: int = 8) -> SpaceMap:
    to, of = matrix.shape
    how = Fit(method=Method.RIDGE, rank=rank or min(of, to))
    means = draw(of, seed=seed), draw(to, seed=seed + 1)
    return SpaceMap(*spaces(of, to), matrix, *means, 3.0, how)


def probe(width: int, site: Site = HERE) -> Probe:
    return Probe(draw(width, seed=11), 0.7, site)


def direction(width: int, site: Site = HERE) -> Direction:
    on, off = draw(width, seed=12), draw(width, seed=13)
    return Direction((on - off) / (on - off).norm(), off, on, 4.0, site)


# --- the three words ----------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [rotation(12), draw(12, 12, seed=2)], ids=["turn", "linear"])
def test_a_carried_probe_scores_the_carried_point_as_the_probe_scores_the_point(matrix):
    one, x = some_map(matrix), draw(50, 12, seed=9)
    carried = one.probe(probe(12))
    assert carried.site == THERE
    expected = probe(12).score(x)
    torch.testing.assert_close(carried.score(one.point(x)), expected, rtol=1e-3, atol=1e-3)


def test_carrying_a_probe_as_a_direction_breaks_the_law_unless_the_map_is_a_rotation():
    x = draw(50, 12, seed=9)
    for matrix, alike in ((rotation(12), True), (draw(12, 12, seed=2), False)):
        one = some_map(matrix)
        weight = one.matrix @ probe(12).weight
        wrong = one.point(x) @ weight
        right = probe(12).score(x)
        assert torch.allclose(wrong - wrong.mean(), right - right.mean(), atol=1e-3) is alike


def test_where_widths_differ_the_law_holds_on_the_image():
    wide, narrow = some_map(draw(20, 12, seed=2)), some_map(draw(12, 20, seed=2))
    x = draw(50, 12, seed=9)
    torch.testing.assert_close(
        wide.probe(probe(12)).score(wide.point(x)), probe(12).score(x), rtol=1e-3, atol=1e-3
    )
    # A map to fewer dimensions forgets: the law holds with the forgotten part at its mean.
    z = draw(50, 20, seed=9)
    seen = torch.linalg.pinv(narrow.matrix) @ narrow.matrix
    kept = narrow.source_mean + (z - narrow.source_mean) @ seen.T
    mapped = narrow.probe(probe(20)).score(narrow.point(z))
    torch.testing.assert_close(mapped, probe(20).score(kept), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(mapped, probe(20).score(z), atol=0.1)


def test_a_probe_pulled_back_scores_the_mapped_point_exactly():
    one, there = some_map(draw(20, 12, seed=2)), probe(20, THERE)
    x = draw(50, 12, seed=9)
    torch.testing.assert_close(
        one.pulled(there).score(x), there.score(one.point(x)), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ForeignArtifactError, match="is not one of"):
        one.pulled(probe(20))


def test_a_direction_is_carried_by_the_matrix_and_its_states_as_points():
    one, d = some_map(draw(20, 12, seed=2)), direction(12)
    carried = one.direction(d)
    torch.testing.assert_close(carried.on, one.point(d.on))
    torch.testing.assert_close(carried.vector, one.matrix @ (d.on - d.off), rtol=1e-4, atol=1e-4)
    assert carried.natural == pytest.approx(float((one.matrix @ (d.on - d.off)).norm()), rel=1e-5)
    assert (carried.site, carried.scale) == (THERE, 3.0)
    # The sign goes along: what points the other way is carried the other way.
    turned = one.direction(d.with_unit(-d.unit))
    torch.testing.assert_close(turned.unit, -carried.unit)


def test_a_direction_that_the_map_forgets_is_refused():
    matrix = draw(12, 12, seed=2)
    matrix[:, 0] = 0
    lost = direction(12).with_unit(torch.eye(12)[0])
    with pytest.raises(InputError, match=r"keeps nothing of the direction.*rank 11"):
        some_map(matrix, rank=11).direction(lost)


def test_identity_is_identity():
    here, there = Space("aaaa", HERE, 12), Space("aaaa", HERE, 12)
    one = SpaceMap.identity(here, there)
    x, d = draw(5, 12), direction(12)
    assert torch.equal(one.point(x), x)
    assert torch.equal(one.inverse.point(x), x)
    for name in ("off", "on"):
        assert torch.equal(getattr(one.direction(d), name), getattr(d, name))
    torch.testing.assert_close(one.direction(d).unit, d.unit)
    carried = one.probe(probe(12))
    torch.testing.assert_close(carried.weight, probe(12).weight)
    assert carried.bias == pytest.approx(0.7)
    with pytest.raises(InputError, match="no identity between widths 12 and 13"):
        SpaceMap.identity(here, Space("aaaa", HERE, 13))


def test_maps_compose():
    first = some_map(draw(16, 12, seed=2))
    second = some_map(draw(20, 16, seed=3), seed=20)
    second = SpaceMap(
        first.target,
        Space("cccc", Site(3), 20),
        *(second.matrix, second.source_mean, second.target_mean, 5.0, second.fit),
    )
    both, x, d = first.then(second), draw(7, 12, seed=9), direction(12)
    assert (both.source, both.target, both.scale) == (first.source, second.target, 5.0)
    torch.testing.assert_close(both.point(x), second.point(first.point(x)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.direction(d).unit, second.direction(first.direction(d)).unit)
    one, two = both.probe(probe(12)), second.probe(first.probe(probe(12)))
    y = both.point(x)
    torch.testing.assert_close(one.score(y), two.score(y), rtol=1e-3, atol=1e-3)
    with pytest.raises(ForeignArtifactError, match="maps do not meet"):
        second.then(first)


def test_the_inverse_undoes_and_is_its_own_inverse():
    one, x = some_map(draw(12, 12, seed=2)), draw(9, 12, seed=9)
    assert one.invertible
    torch.testing.assert_close(one.inverse.point(one.point(x)), x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.inverse.inverse.matrix, one.matrix, rtol=1e-3, atol=1e-3)
    assert not some_map(draw(20, 12)).invertible


def test_another_site_or_width_is_refused():
    one = some_map(draw(12, 12, seed=2))
    with pytest.raises(ForeignArtifactError, match="is not the map's source"):
        one.direction(direction(12, THERE))
    with pytest.raises(ForeignArtifactError, match="is not the map's source"):
        one.probe(probe(13))


# --- moments ------------------------------------------------------------------------------------


def test_moments_are_those_of_numpy_however_the_rows_come():
    x, y = pair(draw(7, 5), rows=101)
    x = x + 1000  # a mean far from 0, where the textbook formula loses its digits
    whole, pieces = JointMoments(5, 7), JointMoments(5, 7)
    whole.update(x, y)
    for cut in (slice(0, 1), slice(1, 60), slice(60, 60), slice(60, 101)):
        pieces.update(x[cut], y[cut])
    joint = np.cov(torch.cat([x, y], 1).double().T.numpy(), bias=True) * 101
    for one in (whole, pieces, merged([whole])):
        assert one.count == 101
        np.testing.assert_allclose(one.sxx, joint[:5, :5], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.sxy, joint[:5, 5:], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.syy, joint[5:, 5:], rtol=1e-9, atol=1e-9)
        assert one.norm == pytest.approx(float(y.double().norm(dim=1).mean()))
    turned = whole.turned()
    assert torch.equal(turned.sxy, whole.sxy.T)
    assert torch.equal(turned.syy, whole.sxx)


def numbers(made: Folds) -> int:
    values = [value for part in made.parts for kind in part for value in vars(kind).values()]
    return sum(value.numel() for value in values if torch.is_tensor(value))


def test_memory_does_not_grow_with_rows():
    made = Folds(6, 4)
    before = numbers(made)
    for seed in range(20):
        x = draw(50, 6, seed=seed)
        made.update(x, x[:, :4], torch.arange(50) % 4)
    after = numbers(made)
    assert made.whole.count == 1000
    assert before == after


def test_each_kind_of_row_is_centred_by_itself():
    """What differs between kinds alone (a shared step of the mean) is nothing to fit on."""
    x, y = draw(80, 5, seed=1), draw(80, 4, seed=2)
    made, step = Folds(5, 4, 4, kinds=2), 50.0
    made.update(x[:40], y[:40], torch.arange(40) % 4, 0)
    made.update(x[40:] + step, y[40:] + step, torch.arange(40) % 4, 1)
    parts = [JointMoments(5, 4) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 40), slice(40, 80)), strict=True):
        part.update(x[rows], y[rows])
    spread = [float(part.syy.trace()) for part in parts]
    expected = pooled(parts, [min(1.0, spread[1] / spread[0]), 1.0])
    torch.testing.assert_close(made.whole.sxy, expected.sxy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.whole.x, parts[1].x + step, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(made.last.syy, parts[1].syy, rtol=1e-4, atol=1e-4)
    assert fit(Method.RIDGE, made, *spaces(5, 4)).fit.held_in < 0.05
    mixed = folds(torch.cat([x[:40], x[40:] + step]), torch.cat([y[:40], y[40:] + step]))
    assert fit(Method.RIDGE, mixed, *spaces(5, 4)).fit.held_in > 0.9


def test_a_fold_is_scored_about_the_means_of_the_others():
    x, y = pair(draw(4, 5), rows=40)
    made = folds(x, y)
    split = list(made.splits())[1]
    out = torch.arange(40) % 4 == 1
    assert split.out == 1
    torch.testing.assert_close(split.train.x, x[~out].double().mean(0))
    gap = x[out].double() - x[~out].double().mean(0)
    torch.testing.assert_close(split.home.sxx, gap.T @ gap)


def test_no_kind_weighs_more_than_the_last_and_scores_are_of_the_last():
    """More rows, or larger ones, of another kind: they have at most the last kind's variance."""
    x, y = pair(draw(4, 5), rows=40, noise=0.3)
    home = draw(40, 5, seed=8), draw(40, 4, seed=9)
    fold = torch.arange(40) % 4
    alone, often, faint = (Folds(5, 4, 4, kinds=k) for k in (1, 2, 2))
    alone.update(*home, fold)
    for _ in range(5):
        often.update(3 * x, 3 * y, fold, 0)
    faint.update(0.01 * x, 0.01 * y, fold, 0)
    for made in (often, faint):
        made.update(*home, fold, 1)
    own = float(alone.whole.syy.trace())
    assert float(often.whole.syy.trace()) == pytest.approx(2 * own)
    assert float(faint.whole.syy.trace()) == pytest.approx(own, rel=0.01)
    assert (often.whole.count, faint.whole.count) == (240, 80)
    for more, less in zip(often.splits(), alone.splits(), strict=True):
        torch.testing.assert_close(more.home.sxy, less.home.sxy)
    found = fit(Method.RIDGE, often, *spaces(5, 4)).fit
    assert fit(Method.RIDGE, folds(x, y), *spaces(5, 4)).fit.held_in > 0.9
    assert found.held_in < 0.1


def test_too_few_rows_or_folds_are_refused():
    alone = Folds(3, 3, 1)  # enough to pool, not to choose on
    alone.update(draw(9, 3), draw(9, 3), torch.zeros(9, dtype=torch.long))
    with pytest.raises(InputError, match="9 rows in 1 folds are too few"):
        fit(Method.RIDGE, alone, *spaces(3, 3))
    made = Folds(3, 3)
    made.update(draw(9, 3), draw(9, 3), torch.zeros(9, dtype=torch.long))
    with pytest.raises(InputError, match="9 rows in 1 folds are too few"):
        fit(Method.RIDGE, made, *spaces(3, 3))
    with pytest.raises(InputError, match="do not fit a map"):
        fit(Method.RIDGE, folds(*pair(draw(5, 5))), *spaces(5, 6))
    with pytest.raises(InputError, match="not fitted by 'identity'"):
        fit(Method.IDENTITY, folds(*pair(draw(5, 5))), *spaces(5, 5))
    with pytest.raises(InputError, match="needs anchors"):
        fit(Method.RELATIVE, folds(*pair(draw(5, 5))), *spaces(5, 5))
    with pytest.raises(InputError, match="do not vary"):
        fit(Method.RIDGE, folds(draw(40, 5), torch.ones(40, 5)), *spaces(5, 5))


# --- fitters ------------------------------------------------------------------------------------


def test_procrustes_is_scipys():
    x, y = pair(rotation(10), noise=0.3)
    turn, sum_of = scipy.linalg.orthogonal_procrustes(
        (x - x.mean(0)).double().numpy(), (y - y.mean(0)).double().numpy()
    )
    how = Fit(method=Method.PROCRUSTES, rank=10)
    found = fitted(Method.PROCRUSTES, x, y, like=how)
    np.testing.assert_allclose(found.matrix, turn.T, atol=1e-5)
    scaled = fitted(Method.PROCRUSTES_SCALED, x, y, like=how)
    size = sum_of / float((x - x.mean(0)).double().pow(2).sum())
    np.testing.assert_allclose(scaled.matrix, size * turn.T, atol=1e-5)


def test_ridge_is_sklearns():
    x, y = pair(draw(7, 10, seed=2), noise=0.5)
    unit = float((x - x.mean(0)).double().pow(2).sum()) / 10
    found = fitted(Method.RIDGE, x, y, like=Fit(method=Method.RIDGE, rank=10, penalty=0.01))
    oracle = Ridge(alpha=0.01 * unit).fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(found.matrix, oracle.coef_, atol=1e-5)
    np.testing.assert_allclose(found.offset, oracle.intercept_, atol=1e-5)
    moments = folds(x, y).whole
    expected = r2_score(y, oracle.predict(x), multioutput="variance_weighted")
    assert found.explained(moments) == pytest.approx(expected, abs=1e-6)


def test_canonical_correlations_are_sklearns():
    x, y = pair(draw(4, 6, seed=2), noise=1.0)
    u, v = CCA(n_components=4, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    expected = [abs(np.corrcoef(u[:, k], v[:, k])[0, 1]) for k in range(4)]
    found = canonical_correlations(folds(x, y).whole)
    np.testing.assert_allclose(found, sorted(expected, reverse=True), atol=1e-4)


def test_cca_keeps_the_targets_variance():
    x, y = pair(draw(6, 6, seed=2), noise=1.0)
    found = fitted(Method.CCA, x, y, like=Fit(method=Method.CCA, rank=6, penalty=0.0))
    mapped = found.point(x).double()
    np.testing.assert_allclose(np.cov(mapped.T), np.cov(y.double().T), atol=1e-3)
    shrunk = fitted(Method.RIDGE, x, y).point(x)
    assert float(shrunk.var(dim=0).sum()) < 0.95 * float(y.var(dim=0).sum())


@pytest.mark.parametrize("method", EVERY)
def test_every_method_finds_a_rotation(method):
    x, y = pair(rotation(16))
    found = fitted(method, x, y)
    assert found.fit.held_in > 0.999
    assert found.invertible
    cosines = torch.cosine_similarity(found.matrix, rotation(16), dim=0)
    assert float(cosines.min()) > 0.99
    assert found.explained(folds(x, y).whole) > 0.999


@pytest.mark.parametrize("method", [Method.RIDGE, Method.CCA])
def test_ridge_and_cca_find_a_linear_map_to_another_width(method):
    matrix = draw(24, 16, seed=2)
    x, y = pair(matrix)
    found = fitted(method, x, y)
    assert found.fit.rank == 16
    assert float(torch.cosine_similarity(found.matrix, matrix, dim=0).min()) > 0.99
    torch.testing.assert_close(found.point(x), y, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("method", EVERY)
def test_rank_follows_what_the_pair_shares(method):
    """Four shared axes in noise: a map of all axes would carry noise to unseen prompts."""
    shared = draw(120, 4, seed=2) * 3
    x = shared @ draw(4, 24, seed=3) + 0.8 * draw(120, 24, seed=4)
    y = shared @ draw(4, 20, seed=5) + 0.8 * draw(120, 20, seed=6)
    found = fitted(method, x, y)
    if method is not Method.RIDGE:  # its penalty may do what others need the rank for
        assert found.fit.rank == 4
    fresh = draw(400, 4, seed=7) * 3
    test = JointMoments(24, 20)
    test.update(
        fresh @ draw(4, 24, seed=3) + 0.8 * draw(400, 24, seed=8),
        fresh @ draw(4, 20, seed=5) + 0.8 * draw(400, 20, seed=9),
    )
    if method in (Method.RIDGE, Method.CCA):
        assert found.explained(test) == pytest.approx(found.fit.held_in, abs=0.1)
        assert found.explained(test) > 0.6


@pytest.mark.parametrize("method", FITTED)
def test_unrelated_spaces_explain_nothing(method):
    x, y = draw(200, 12, seed=1), draw(200, 12, seed=2)
    found = fitted(method, x, y)
    assert found.fit.held_in < 0.02


def test_the_penalty_grows_with_noise():
    clean, noisy = (fitted(Method.RIDGE, *pair(draw(20, 20, seed=2), 60, n)) for n in (0.0, 5.0))
    assert clean.fit.penalty < noisy.fit.penalty


def test_a_wide_pair_is_fitted_in_its_leading_axes(monkeypatch):
    """The cap, at a width that a test can afford: the same map as without it."""
    shared = draw(300, 6, seed=2)
    x, y = shared @ draw(6, 40, seed=3), shared @ draw(6, 30, seed=4)
    plain = {method: fitted(method, x, y) for method in EVERY}
    monkeypatch.setattr(fitting, "CAP", 12)
    for method in EVERY:
        capped = fitted(method, x, y)
        if method in (Method.RIDGE, Method.CCA):
            assert capped.explained(folds(x, y).whole) > 0.9999
        torch.testing.assert_close(capped.point(x), plain[method].point(x), rtol=1e-2, atol=5e-2)


def test_the_score_counts_what_the_cap_leaves_out(monkeypatch):
    """Half of the target's variance lies beyond the cap: no map in it can explain that half."""
    x = draw(400, 4, seed=2)
    y = torch.cat([x @ draw(4, 4, seed=3) * 3, draw(400, 40, seed=4) * 2], dim=1)
    plain = fitted(Method.RIDGE, x, y)
    monkeypatch.setattr(fitting, "CAP", 4)
    capped = fitted(Method.RIDGE, x, y)
    assert capped.fit.held_in == pytest.approx(plain.fit.held_in, abs=0.05)
    assert capped.fit.held_in < 0.9


def test_the_pseudo_inverse_of_low_rank_is_numpys():
    low = draw(60, 5).double() @ draw(5, 40, seed=1).double()
    np.testing.assert_allclose(linear.pseudo_inverse(low, 5), np.linalg.pinv(low), atol=1e-8)
    values, axes = linear.leading(low @ low.T, 5)
    exact = np.linalg.eigvalsh(low @ low.T)[::-1][:5]
    np.testing.assert_allclose(values, exact, rtol=1e-8)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-10)


def test_anchors_come_in_pairs():
    with pytest.raises(InputError, match="anchors come in pairs"):
        Anchors(draw(1, 4), draw(1, 5), torch.zeros(1, dtype=torch.long))


def test_a_fold_that_is_left_out_leaves_its_anchors_out():
    """Topics that two unrelated models each write somewhere: only a map that saw them knows."""
    topics = torch.arange(200) % 20
    x = (draw(20, 64, seed=1) * 5)[topics] + draw(200, 64, seed=2)
    y = (draw(20, 64, seed=3) * 5)[topics] + draw(200, 64, seed=4)
    made = Folds(64, 64)
    made.update(x, y, topics % 4)
    never = torch.full((20,), -1)  # a fold that is not left out
    for fold, high in ((never, True), (topics[:20] % 4, False)):
        anchors = Anchors(x[:20], y[:20], fold)
        score = fit(Method.RELATIVE, made, *spaces(64, 64), anchors=anchors).fit.held_in
        assert score > 0.3 if high else score < 0.02


# --- similarity ---------------------------------------------------------------------------------


def test_cka_is_the_kernel_formula_and_blind_to_rotation_and_scale():
    x, y = pair(draw(7, 5), rows=60, noise=1.0)
    k, ell = (z - z.mean(0) for z in (x.double(), y.double()))
    k, ell = k @ k.T, ell @ ell.T
    expected = float((k * ell).sum() / (k.norm() * ell.norm()))
    assert cka(folds(x, y).whole) == pytest.approx(expected, abs=1e-9)
    turned = folds(x, 3 * x @ rotation(5) + 1).whole
    assert cka(turned) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="without variance"):
        cka(folds(x, torch.ones(60, 3)).whole)


def test_the_matrix_of_cka_is_cka_of_each_pair():
    layers = [draw(80, 6, seed=s) for s in range(3)]
    others = [layers[2] @ rotation(6), layers[0] + 0.3 * draw(80, 6, seed=9)]
    x, y = torch.stack(layers, 1), torch.stack(others, 1)
    moments = folds(sketch(x, 0), sketch(y, 1)).whole
    found = cka_matrix(moments, (6, 6))
    for i, a in enumerate(layers):
        for j, b in enumerate(others):
            assert float(found[i, j]) == pytest.approx(cka(folds(a, b).whole), abs=1e-5)
    assert float(found[2, 0]) == pytest.approx(1.0, abs=1e-5)


def test_a_sketch_of_wide_layers_keeps_their_similarity():
    x = draw(60, 1, 1000) @ torch.diag(torch.logspace(0, -2, 1000))
    y = x + 0.05 * draw(60, 1, 1000, seed=3)
    exact = cka(folds(x[:, 0], y[:, 0]).whole)
    sketched = cka_matrix(folds(sketch(x, 0), sketch(y, 1)).whole, (1000, 1000))
    assert sketch(x, 0).shape == (60, 128)
    assert float(sketched[0, 0]) == pytest.approx(exact, abs=0.1)


def test_layers_match_by_depth():
    assert by_depth(4, 4) == [0, 1, 2, 3]
    assert by_depth(5, 3) == [0, 2, 4]
    assert by_depth(3, 5) == [0, 0, 1, 2, 2]
    assert by_depth(6, 1) == [0]


def test_layers_match_by_similarity_without_going_back():
    similarity = torch.tensor([[0.9, 0.1, 0.8], [0.2, 0.8, 0.1], [0.1, 0.2, 0.7]])
    assert similarity.argmax(0).tolist() == [0, 1, 0]
    assert by_similarity(similarity) == [0, 1, 2]
    every = [(a, b, c) for a in range(3) for b in range(a, 3) for c in range(b, 3)]
    for seed in range(20):
        drawn = draw(3, 3, seed=seed)
        best = max(every, key=lambda p: sum(float(drawn[s, t]) for t, s in enumerate(p)))
        assert by_similarity(drawn) == list(best)


# --- likeness -----------------------------------------------------------------------------------


def test_likeness_is_found_where_the_direction_was_carried_and_not_elsewhere():
    matrix = rotation(24)
    x, y = pair(matrix, noise=0.05)
    moments = folds(x, y)
    one = fit(Method.RIDGE, moments, *spaces(24, 24))
    d = direction(24)
    own = Direction(matrix @ d.unit, d.off, d.on, 1.0, THERE)
    found = likeness(one, d, own, moments.whole)
    assert found.cosine > 0.95
    assert found.p == pytest.approx(0.001)
    assert found.transfers
    assert "above chance" in str(found)
    turned = likeness(one, d, own.with_unit(-own.unit), moments.whole)
    assert not turned.transfers
    with pytest.raises(InputError, match="own direction is at"):
        likeness(one, d, d, moments.whole)


def test_an_axis_that_takes_everything_is_no_likeness():
    """One axis of the target varies far more than the rest; a map sends all onto it."""
    x = draw(300, 12, seed=1)
    y = 0.1 * draw(300, 12, seed=2)
    y[:, 0] += 5 * x @ draw(12, seed=3)
    moments = folds(x, y)
    one = fit(Method.RIDGE, moments, *spaces(12, 12))
    d = direction(12)
    axis = Direction(torch.eye(12)[0], torch.zeros(12), torch.ones(12), 1.0, THERE)
    signed = axis.with_unit(axis.unit * torch.sign(one.direction(d).unit[0]))
    found = likeness(one, d, signed, moments.whole)
    assert found.cosine > 0.99
    assert not found.transfers


# --- the shelf ----------------------------------------------------------------------------------


def shelved_maps() -> Maps:
    table = {}
    for number in range(2):
        one = some_map(draw(9, 6, seed=number))
        source = Space("aaaa", Site(number), 6)
        target = Space("bbbb", Site(number + 1), 9)
        table[target.site] = SpaceMap(
            source, target, one.matrix, one.source_mean, one.target_mean, 2.5, one.fit
        )
    card = MapCard(
        name="small",
        source="aaaa",
        source_name="a",
        target="bbbb",
        target_name="b",
        data="0123",
        spans=("question",),
        prompts=10,
        seed=0,
    )
    return Maps(table, card)


def artifact_card(kind: str, base: str) -> Card:
    empty = dict.fromkeys(
        ("unit", "estimator", "span", "organism", "adapter", "trigger", "data", "tokenizer"), ""
    )
    return Card(kind=kind, name="it", sign=PROBE_SIGN, base=base, n=1, seed=0, **empty)


def test_save_then_load_is_the_same(tmp_path):
    made = shelved_maps()
    made.save(tmp_path / "map")
    found = Maps.load(tmp_path / "map")
    assert list(found) == [Site(1), Site(2)]
    for site, one in made.items():
        again = found[site]
        assert (again.source, again.target, again.scale) == (one.source, one.target, one.scale)
        assert again.fit == one.fit
        for key in ("matrix", "source_mean", "target_mean"):
            assert torch.equal(getattr(again, key), getattr(one, key))
    assert found.check("aaaa", "bbbb") is found


def test_maps_carry_whole_tables_and_say_so_on_the_card():
    maps = shelved_maps()
    sites = [Site(0), Site(1)]
    given = Directions({s: direction(6, s) for s in sites}, artifact_card("direction", "aaaa"))
    carried = maps.directions(given)
    assert list(carried) == [Site(1), Site(2)]
    assert carried.card.base == "bbbb"
    assert carried.card.notes == ("carried from base aaaa by map small (ridge)",)
    assert "as carried" in carried.card.unit
    probes = Probes({s: probe(6, s) for s in sites}, artifact_card("probe", "aaaa"))
    x = draw(5, 6)
    torch.testing.assert_close(
        maps.probes(probes)[Site(2)].score(maps[Site(2)].point(x)),
        probes[Site(1)].score(x),
        rtol=1e-3,
        atol=1e-3,
    )
    foreign = Directions({s: direction(6, s) for s in sites}, artifact_card("direction", "cccc"))
    with pytest.raises(ForeignArtifactError, match="made for base cccc, but map 'small' begins at"):
        maps.directions(foreign)


def test_foreign_and_damaged_folders_are_refused(tmp_path):
    maps = shelved_maps()
    with pytest.raises(ForeignArtifactError, match="goes from base aaaa to bbbb, not from bbbb"):
        maps.check("bbbb", "aaaa", "folder")
    with pytest.raises(InputError, match="no map to"):
        maps[Site(7)]
    assert Site(7) not in maps
    maps.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"kind": "probe"}))
    with pytest.raises(InputError, match="holds a probe, not a map"):
        Maps.load(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(card | {"legs": card["legs"][:1]}))
    with pytest.raises(InputError, match=r"card\.json names 1 sites"):
        Maps.load(tmp_path)
    wide = some_map(draw(8, 6))
    with pytest.raises(InputError, match="different widths do not share a folder"):
        Maps({**maps.table, Site(3): wide}, maps.card).save(tmp_path)


def test_tables_of_maps_compose():
    maps = shelved_maps()
    back = {one.source.site: one.inverse for one in maps.values()}
    card = maps.card.model_copy(update={"name": "back", "source": "bbbb", "target": "aaaa"})
    there_and_back = maps.then(Maps(back, card))
    assert (there_and_back.card.source, there_and_back.card.target) == ("aaaa", "aaaa")
    assert there_and_back.card.name == "small then back"
    x = draw(5, 6)
    torch.testing.assert_close(there_and_back[Site(1)].point(x), x, rtol=1e-3, atol=1e-3)
