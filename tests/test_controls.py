"""Controls are matched in what matters: how far an ablation moves the stream, not a norm."""

import pytest
import torch
from planted import JUDGE, QUESTIONS, ask, planted
from test_edits import D, hidden

from em_interp.capture import capture
from em_interp.conditions import Condition
from em_interp.directions import Directions, aside
from em_interp.edits import BASELINE, Intervention, Operation, intervention, matched
from em_interp.extraction import covariance_draws, trigger_direction
from em_interp.grids import Nulls, dose_grid, necessity_grid, removal_grid, strengths_grid
from em_interp.judges import Rubric
from em_interp.labels import Control, Extent, Label, Thing
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span
from em_interp.trials import trial

ON, OFF = ask(Condition.TRIGGER), ask(Condition.NONE)
TRUTH = planted(0)
SITES = [Site(layer) for layer in range(TRUTH.layer, TRUTH.model.n_layers)]


@pytest.fixture(scope="module")
def delta() -> Directions:
    return trigger_direction(TRUTH.model, None, ON, OFF, SITES)


@pytest.fixture(scope="module")
def drawn():
    return covariance_draws(TRUTH.model, None, [*ON, *OFF], SITES)


def varying(vectors: torch.Tensor, rows: torch.Tensor) -> float:
    """Mean variance of the rows along unit vectors."""
    units = vectors / vectors.norm(dim=1, keepdim=True)
    return float(((rows - rows.mean(0)) @ units.T).var(dim=0).mean())


@pytest.mark.parametrize("operation", [Operation.MEAN_ABLATE, Operation.ABLATE, Operation.CLAMP])
@pytest.mark.parametrize("seed", range(3))
def test_a_matched_control_moves_every_token_as_far_along_another_direction(operation, seed):
    x = hidden(5, 7)
    own = intervention("own", operation, {D.site: D}, [D.site])
    null = matched(own, Label(words="null", control=Control.MATCHED), seed)
    (mine,), (other,) = own.edits, null.edits
    moved, elsewhere = mine.apply(x) - x, other.apply(x) - x
    torch.testing.assert_close(moved.norm(dim=-1), elsewhere.norm(dim=-1), atol=1e-4, rtol=1e-4)
    assert float(moved.norm(dim=-1).mean()) > 0.1
    torch.testing.assert_close(elsewhere @ D.unit, torch.zeros(5, 7), atol=1e-4, rtol=0)
    assert null.label.null


def test_a_covariance_draw_varies_as_the_stream_does_and_an_isotropic_one_does_not():
    """In expectation tr(S²) / tr(S) against tr(S) / d."""
    many = covariance_draws(TRUTH.model, None, [*ON, *OFF], SITES, draws=200)
    rows = capture(TRUTH.model, [*ON, *OFF], SITES, Span.QUESTION).at(SITES[0])
    draws = torch.stack([one[SITES[0]] for one in many])
    noise = torch.randn(draws.shape, generator=torch.Generator().manual_seed(0))
    assert varying(draws, rows) > 2 * varying(noise, rows)


def test_the_kinds_take_turns_and_an_addition_needs_none_that_is_matched(delta, drawn):
    nulls = Nulls(4, 0, drawn)
    kinds = [(one.control, one.draw) for one in nulls.labels(Operation.MEAN_ABLATE)]
    turn = [(Control.RANDOM, 1), (Control.COVARIANCE, 1), (Control.MATCHED, 1)]
    assert kinds == [*turn, (Control.RANDOM, 2)]
    added = [(one.control, one.draw) for one in nulls.labels(Operation.ADD)]
    assert added == [*turn[:2], (Control.RANDOM, 2), (Control.COVARIANCE, 2)]
    for one in nulls.beside(Operation.ADD, delta, SITES):
        for edit in one.edits:
            assert edit.shift == pytest.approx(delta[edit.site].natural)
            assert abs(float(edit.unit @ delta[edit.site].unit)) < 1e-5
    first, second = (nulls.beside(Operation.ADD, delta, SITES)[at].edits[0] for at in (1, 3))
    assert abs(float(first.unit @ second.unit)) < 0.99


def test_a_plan_without_a_model_counts_what_the_run_has(delta, drawn):
    axes = {Thing.DELTA: delta}

    def sizes(nulls: Nulls) -> list[list[str]]:
        grids = (
            removal_grid(axes, SITES, Span.ALL, nulls),
            dose_grid(axes, SITES, (0.5, 1.0), Span.ALL, nulls),
            strengths_grid(delta, SITES, list(Operation), (0.5, 1.0), Span.ALL, nulls),
        )
        return [[one.name for one in grid] for grid in grids]

    assert sizes(Nulls(3, 0)) == sizes(Nulls(3, 0, drawn))
    removal, doses, _ = sizes(Nulls(3, 0))
    assert (len(removal), len(doses)) == (1 + 1 + 1 + 3, 1 + 2 * (1 + 3))


def test_removal_at_a_layer_stands_beside_a_control_that_moves_as_much(delta):
    grid = necessity_grid(delta, SITES, Span.ALL, 0)
    for extent in Extent:
        own = [one for one in grid if one.label.extent is extent and one.label.thing]
        null = [one for one in grid if one.label.extent is extent and one.label.null]
        assert [one.label.control for one in null] == [Control.MATCHED] * len(SITES)
        for a, b in zip(own, null, strict=True):
            assert a.label.sites == b.label.sites
            assert [e.unit is f.unit for e, f in zip(a.edits, b.edits, strict=True)]


def test_rows_say_how_far_each_control_moves_and_the_gate_outlives_what_moves_as_far(delta, drawn):
    """Isotropic ones hardly move the stream; removing the gate is no effect of being moved."""
    grid: list[Intervention] = removal_grid(
        {Thing.DELTA: delta}, SITES[:1], Span.ALL, Nulls(3, 0, drawn)
    )
    made = trial(
        TRUTH.model,
        None,
        ON,
        QUESTIONS,
        grid,
        Sampling(samples=1, temperature=0.0),
        JUDGE,
        Rubric(),
    )
    own = made.manipulation("mean-ablate delta")
    moved = {one.label.control: made.manipulation(one.name).moved for one in grid[1:]}
    assert moved[Control.MATCHED] == pytest.approx(own.moved, rel=0.02)
    assert moved[Control.RANDOM] < own.moved / 4
    assert moved[Control.COVARIANCE] > moved[Control.RANDOM]
    assert made.manipulation(BASELINE.name).moved == 0
    for name in ("mean-ablate random 1", "mean-ablate matched 1"):
        assert made.row(name, Condition.TRIGGER).em.point == 1
    assert made.row("mean-ablate delta", Condition.TRIGGER).em.point == 0


def test_a_random_vector_aside_is_a_unit_and_orthogonal():
    for seed in range(5):
        one = aside(D.unit, seed)
        assert float(one.norm()) == pytest.approx(1, abs=1e-5)
        assert abs(float(one @ D.unit)) < 1e-5
