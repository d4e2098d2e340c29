"""Laws of edits, and the vectorised editor against one edit at a time."""

import math
from itertools import product

import pytest
import torch
from test_activations import ANSWER, ROWS, layout, padded

from em_interp.directions import Direction
from em_interp.edits import (
    BASELINE,
    Edit,
    Editor,
    Intervention,
    Tally,
    edit,
    intervention,
)
from em_interp.errors import InertInterventionError, InputError
from em_interp.labels import STRENGTHLESS, Label, Operation, parse_operation
from em_interp.sites import Point, Site, Span

WIDTH = 16
SITE = Site(1)


def direction(seed: int = 0, site: Site = SITE) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    off, on = 2 * torch.randn(2, WIDTH, generator=generator)
    return Direction((on - off) / (on - off).norm(), off, on, 7.0, site)


def hidden(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def made(operation: Operation, strength: float = 1.0, seed: int = 0) -> Edit:
    return edit(operation, direction(seed), strength, Span.ALL)


X = hidden(50)
D = direction()
C = X @ D.unit
AT_ZERO = [(operation, 0.0) for operation in Operation]
EVERY = [*AT_ZERO, *((operation, s) for operation in Operation for s in (-1.5, 1.0))]


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "strength"), EVERY)
def test_only_the_coordinate_moves(operation, strength):
    new = made(operation, strength).apply(X)
    gap = new - X
    torch.testing.assert_close(gap, (gap @ D.unit)[:, None] * D.unit, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("operation", "strength"), [e for e in EVERY if e[0] is not Operation.ADD])
def test_all_but_adding_are_idempotent(operation, strength):
    one = made(operation, strength)
    torch.testing.assert_close(one.apply(one.apply(X)), one.apply(X), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
def test_adding_then_subtracting_is_the_identity(strength):
    there, back = made(Operation.ADD, strength), made(Operation.ADD, -strength)
    torch.testing.assert_close(back.apply(there.apply(X)), X, atol=1e-5, rtol=0)


def test_adding_nothing_is_the_baseline_exactly():
    assert torch.equal(made(Operation.ADD, 0.0).apply(X), X)


def test_strength_one_adds_one_natural_difference():
    torch.testing.assert_close(made(Operation.ADD).apply(X), X + (D.on - D.off))
    twice = made(Operation.ADD, 2.0)
    once = made(Operation.ADD)
    torch.testing.assert_close(twice.apply(X), once.apply(once.apply(X)))
    # From the off state it arrives in the on state.
    torch.testing.assert_close(once.apply(D.off), D.on)


def test_ablation_takes_the_coordinate_to_zero_and_mean_ablation_to_the_off_state():
    zero, mean = made(Operation.ABLATE).apply(X), made(Operation.MEAN_ABLATE).apply(X)
    assert (zero @ D.unit).abs().max() < 1e-5
    torch.testing.assert_close(mean @ D.unit, torch.full((50,), D.off_coordinate))
    assert abs(D.off_coordinate) > 0.1  # the two differ
    # Ablation is the projector I - u u'.
    projector = torch.eye(WIDTH) - torch.outer(D.unit, D.unit)
    torch.testing.assert_close(zero, X @ projector, atol=1e-5, rtol=0)


@pytest.mark.parametrize("operation", STRENGTHLESS)
def test_ablations_take_no_strength(operation):
    assert torch.equal(made(operation, 0.0).apply(X), made(operation, 5.0).apply(X))


def test_clamping_to_zero_is_mean_ablation_and_to_one_the_on_state():
    assert torch.equal(made(Operation.CLAMP, 0.0).apply(X), made(Operation.MEAN_ABLATE).apply(X))
    there = made(Operation.CLAMP, 1.0).apply(X) @ D.unit
    torch.testing.assert_close(there, torch.full((50,), D.on_coordinate))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_a_cap_lowers_what_exceeds_it_and_nothing_else(quantile):
    limit = float(C.quantile(quantile))
    strength = (limit - D.off_coordinate) / D.natural
    new = made(Operation.CAP, strength).apply(X)
    over = limit < C
    assert 0 < over.sum() < len(X)
    assert torch.equal(new[~over], X[~over])
    torch.testing.assert_close(new[over] @ D.unit, torch.full((int(over.sum()),), limit))


def test_orthogonal_edits_commute():
    other = D.random(0)
    a, b = made(Operation.MEAN_ABLATE), edit(Operation.ADD, other, 2.0, Span.ALL)
    torch.testing.assert_close(a.apply(b.apply(X)), b.apply(a.apply(X)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("operation", list(Operation))
def test_half_precision_keeps_its_dtype_and_the_meaning(operation):
    one = made(operation, -1.0)
    half = X.bfloat16()
    new = one.apply(half)
    assert new.dtype is torch.bfloat16
    torch.testing.assert_close(new.float(), one.apply(half.float()), atol=0.1, rtol=0.02)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_an_edit_acts_on_each_vector_alone(shape):
    x = hidden(*shape)
    whole = made(Operation.CAP, -1.0).apply(x)
    rows = [made(Operation.CAP, -1.0).apply(v) for v in x.reshape(-1, WIDTH)]
    torch.testing.assert_close(whole.reshape(-1, WIDTH), torch.stack(rows))


def test_an_unknown_operation_names_the_known_ones():
    assert parse_operation("cap") is Operation.CAP
    with pytest.raises(InputError, match=r"'mean_ablat'.*did you mean 'mean_ablate'"):
        parse_operation("mean_ablat")


# --- the editor ----------------------------------------------------------------------------------

TABLES = {seed: {Site(at): direction(seed + at, Site(at)) for at in range(3)} for seed in (0, 50)}


def grid() -> list[Intervention]:
    """Every operation on every span, several edits at one site, and rows without any."""
    made = [BASELINE]
    for number, (operation, span) in enumerate(product(Operation, Span)):
        sites = [Site(number % 3)] if number % 2 else [Site(0), Site(2)]
        table = TABLES[50 * (number % 2)]
        made.append(intervention(f"{operation}@{span}", operation, table, sites, 1.5, span))
    both = made[3].edits + made[7].edits + made[12].edits
    return [
        *made,
        Intervention(Label(words="several"), both),
        Intervention(Label(words="reversed"), both[::-1]),
    ]


def three_streams() -> dict[Site, torch.Tensor]:
    return {Site(layer): hidden(*padded().shape, seed=layer) for layer in range(3)}


def run(editor: Editor, streams: dict[Site, torch.Tensor], positions: torch.Tensor):
    """What the hook door does, without a model: every visitor meets its site's stream."""
    return {site: visit(streams[site], positions) for site, visit in editor.visits()}


def one_by_one(one: Intervention, site: Site, x: torch.Tensor, row: int) -> torch.Tensor:
    """A row's stream under its intervention, one edit after the other, on the tokens they name."""
    for e in one.edits:
        if e.site == site:
            mask = layout().mask(e.span, padded())[row]
            x = torch.where(mask[:, None], e.apply(x), x)
    return x


@pytest.mark.parametrize("number", range(len(grid())))
def test_the_editor_is_each_rows_edits_one_by_one(number):
    """Rows of a batch carry different interventions; each comes out as if it were alone."""
    everything = grid()
    picks = [(number + 5 * row) % len(everything) for row in range(len(ROWS))]
    editor = Editor(Tally(everything), torch.tensor(picks), layout())
    streams = three_streams()
    got = run(editor, streams, padded())
    assert set(got) == set(streams)
    for site, stream in streams.items():
        for row, pick in enumerate(picks):
            expected = one_by_one(everything[pick], site, stream[row], row)
            torch.testing.assert_close(got[site][row], expected, atol=1e-5, rtol=1e-5)


def test_the_baseline_row_is_untouched_bit_for_bit():
    everything = grid()
    editor = Editor(Tally(everything), torch.tensor([0, 1, 0, 2, 0]), layout())
    streams = three_streams()
    for site, new in run(editor, streams, padded()).items():
        assert torch.equal(new[[0, 2, 4]], streams[site][[0, 2, 4]])


def test_padding_is_never_touched():
    one = intervention("x", Operation.ADD, TABLES[0], [SITE], 3.0, Span.ALL)
    editor = Editor(Tally([one]), torch.zeros(len(ROWS), dtype=torch.long), layout())
    x = hidden(*padded().shape)
    new = run(editor, {SITE: x}, padded())[SITE]
    changed = (new != x).any(-1)
    assert torch.equal(changed, padded() >= 0)


def test_rows_that_leave_or_repeat_take_their_edits_along():
    everything = grid()
    picks = torch.tensor([3, 9, 17, 22, 30])
    index = torch.tensor([4, 1, 1, 0])
    streams = three_streams()
    whole = run(Editor(Tally(everything), picks, layout()), streams, padded())
    kept = Editor(Tally(everything), picks, layout())
    kept.keep(index)
    part = run(kept, {s: x[index] for s, x in streams.items()}, padded()[index])
    for site in whole:
        torch.testing.assert_close(part[site], whole[site][index])


def test_the_editor_keeps_half_precision():
    one = intervention("x", Operation.ADD, TABLES[0], [SITE], 1.0, Span.ALL)
    editor = Editor(Tally([one]), torch.zeros(len(ROWS), dtype=torch.long), layout())
    x = hidden(*padded().shape).bfloat16()
    assert run(editor, {SITE: x}, padded())[SITE].dtype is torch.bfloat16


def test_points_of_one_layer_are_edited_apart():
    here, there = SITE, Site(1, Point.RESID_PRE)
    table = {site: direction(7, site) for site in (here, there)}
    one = intervention("x", Operation.ABLATE, table, [there], span=Span.ALL)
    editor = Editor(Tally([one]), torch.zeros(len(ROWS), dtype=torch.long), layout())
    assert editor.sites == [there]


# --- the tally -----------------------------------------------------------------------------------


def tallied(*interventions: Intervention) -> tuple[Tally, torch.Tensor]:
    tally = Tally(interventions)
    rows = torch.arange(len(ROWS)) % len(interventions)
    x = hidden(*padded().shape)
    run(Editor(tally, rows, layout()), dict.fromkeys((Site(0), Site(1), Site(2)), x), padded())
    return tally, x


@pytest.mark.parametrize("span", list(Span))
def test_the_tally_counts_tokens_and_coordinates(span):
    one = intervention("x", Operation.MEAN_ABLATE, TABLES[0], [SITE], span=span)
    tally, x = tallied(one)
    mask = layout().mask(span, padded())
    c = (x @ TABLES[0][SITE].unit)[mask]
    goal = TABLES[0][SITE].off_coordinate
    assert tally.touched(0) == mask.sum()
    before, after = tally.coordinates(0)
    assert before == pytest.approx(float(c.mean()), abs=1e-4)
    assert after == pytest.approx(goal, abs=1e-4)
    assert tally.moved(0) == pytest.approx(float((goal - c).abs().mean()), abs=1e-4)
    tally.check()


def test_each_intervention_has_its_own_account():
    far = intervention("far", Operation.ADD, TABLES[0], [SITE], 9.0, Span.PROMPT_LAST)
    near = intervention("near", Operation.ADD, TABLES[0], [SITE], 1.0, Span.PROMPT_LAST)
    tally, _ = tallied(far, near)
    assert (tally.touched(0), tally.touched(1)) == (3, 2)
    assert tally.moved(0) == pytest.approx(9 * tally.moved(1), rel=1e-4)


def test_accounts_add_up_over_visits():
    one = intervention("x", Operation.ADD, TABLES[0], [SITE], 1.0, Span.ALL)
    tally, positions = Tally([one]), padded()
    editor = Editor(tally, torch.zeros(len(ROWS), dtype=torch.long), layout())
    x = hidden(*positions.shape)
    for part in (slice(0, 5), slice(5, 6), slice(6, None)):
        run(editor, {SITE: x[:, part]}, positions[:, part])
    assert tally.touched(0) == (positions >= 0).sum()
    assert tally.touched(0) == sum(length + ANSWER for length, _, _ in ROWS)


def test_an_intervention_that_does_nothing_is_an_error():
    everything = torch.ones(len(ROWS), 3, dtype=torch.long)
    flat = {SITE: Direction(torch.zeros(WIDTH), D.off, D.on, 1.0, SITE)}
    still = intervention("still", Operation.ABLATE, flat, [SITE])
    tally, _ = tallied(still)
    with pytest.raises(InertInterventionError, match="'still' changed nothing"):
        tally.check()
    nowhere = intervention("nowhere", Operation.ADD, TABLES[0], [SITE], 1.0, Span.RESPONSE)
    tally = Tally([nowhere])
    editor = Editor(tally, torch.zeros(len(ROWS), dtype=torch.long), layout())
    run(editor, {SITE: hidden(*everything.shape)}, everything)
    with pytest.raises(InertInterventionError, match=r"met no token.*\(response\)"):
        tally.check()


def test_a_cap_a_zero_strength_and_the_baseline_may_change_nothing():
    cap = intervention("cap", Operation.CAP, TABLES[0], [SITE], 1e6)
    zero = intervention("zero", Operation.ADD, TABLES[0], [SITE], 0.0)
    tally, _ = tallied(cap, zero, BASELINE)
    tally.check()
    assert [tally.moved(i) for i in range(3)] == [0, 0, 0]
    assert not cap.must_move
    assert not zero.must_move
    assert not BASELINE.must_move
    assert intervention("add", Operation.ADD, TABLES[0], [SITE], -0.1).must_move


@pytest.mark.parametrize("span", list(Span))
def test_only_edits_of_the_response_leave_the_prompt(span):
    one = intervention("x", Operation.ADD, TABLES[0], [SITE], 1.0, span)
    assert one.leaves_prompt == (span is Span.RESPONSE)
    mixed = Intervention(
        Label(words="m"), (*one.edits, *intervention("y", Operation.CAP, TABLES[0], [SITE]).edits)
    )
    assert not mixed.leaves_prompt
    assert BASELINE.leaves_prompt


def test_an_edit_has_no_bounds_unless_it_caps():
    for operation in Operation:
        bounds = (made(operation).low, made(operation).high)
        assert (bounds == (-math.inf, math.inf)) == (operation is not Operation.CAP)
