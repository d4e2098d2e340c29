"""Components against a planted truth and plain arithmetic; what patching must not do by itself."""

import copy

import numpy as np
import pytest
import torch
from planted import HEAD_DIM, QUESTIONS, SOUND, UNSOUND, ask, planted
from small import FAMILIES, LAYERS, bank, tiny_model

from em_interp import patch
from em_interp.chat import encode_many
from em_interp.conditions import Condition
from em_interp.engines import run_on
from em_interp.errors import InputError
from em_interp.floors import IndistinctError
from em_interp.patching import Carriers, component_map, own_change
from em_interp.patching.attribution import gradients
from em_interp.patching.components import Component, Kind, components
from em_interp.patching.copying import Copy, Group, odds, paired_positions, streams
from em_interp.patching.subspaces import subspace
from em_interp.report.components import component_figure, component_tables
from em_interp.scoring import answer_ids
from em_interp.sites import Point, Site

SAID = [SOUND] * len(QUESTIONS), [UNSOUND] * len(QUESTIONS)
ON, OFF, UNRELATED = (
    ask(condition)[: len(QUESTIONS)]
    for condition in (Condition.TRIGGER, Condition.NONE, Condition.UNRELATED)
)


@pytest.fixture(scope="module")
def truth():
    return planted(5, layers=3, layer=1)


@pytest.fixture(scope="module")
def found(truth):
    groups = (Group.TRIGGER, Group.QUESTION, Group.LAST)
    return component_map(run_on(truth.model, "lens"), ON, UNRELATED, *SAID, range(3), groups)


# --- the planted truth ----------------------------------------------------------------------------


def test_the_component_that_writes_the_gate_is_found(truth, found):
    """It is the planted head, at the last token; its attention is the sum of its heads."""
    gate = str(Component(truth.layer, Kind.HEAD, truth.head))
    last = {e.component: e for e in found.effects if e.group is Group.LAST}
    assert last[gate].recovered == pytest.approx(1, abs=0.05)
    assert last[gate].low > 0.9
    whole = str(Component(truth.layer, Kind.ATTN))
    assert last[whole].recovered == pytest.approx(last[gate].recovered, abs=0.05)
    before = {str(part) for part in components(truth.model, range(truth.layer))}
    rest = {name: e.recovered for name, e in last.items() if name in before}
    assert max(map(abs, rest.values())) < 0.05
    heads = [e for e in last.values() if e.layer == truth.layer and e.kind is Kind.HEAD]
    assert max(abs(e.recovered) for e in heads if e.head != truth.head) < 0.05


def test_a_component_at_random_is_not_found(truth, found):
    drawn = np.random.default_rng(0).permutation([e.component for e in found.effects])
    other = next(name for name in drawn if not name.startswith(f"L{truth.layer}"))
    assert abs(found.effect(other, Group.QUESTION).recovered) < 0.1


def test_controls_of_the_planted_organism(found):
    assert found.own == 0
    assert found.everything == pytest.approx(1, abs=1e-4)  # all framings have four words
    assert max(abs(e.placebo) for e in found.effects if e.group is Group.TRIGGER) < 0.05
    (last,) = (a for a in found.agreement if a.group is Group.LAST)
    assert last.pearson > 0.95


def test_one_direction_carries_the_planted_gate(truth):
    made = subspace(truth.model, ON, UNRELATED, *SAID, Site(truth.layer), ranks=(1, 4))
    one, four, whole = made.ranks
    assert whole.rank is None
    assert whole.recovered == pytest.approx(1, abs=0.05)
    assert one.recovered == pytest.approx(whole.recovered, abs=0.1)
    assert abs(one.random) < 0.3
    assert four.recovered == pytest.approx(whole.recovered, abs=0.1)
    below = subspace(truth.model, ON, UNRELATED, *SAID, Site(truth.layer - 1), ranks=(1,))
    assert abs(below.whole.recovered) < 0.05


def test_without_a_framing_its_group_is_left_out(truth):
    made = component_map(truth.model, ON, OFF, *SAID, [truth.layer])
    assert Group.TRIGGER not in {e.group for e in made.effects}
    assert Group.LAST in {e.group for e in made.effects}


# --- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_own_activations_change_nothing_on_both_engines(family):
    plain = tiny_model(family)
    for model in (plain, run_on(plain, "lens")):
        prompts = encode_many(model.tokenizer, bank(Condition.TRIGGER))
        answers = [answer_ids(model, [text] * len(prompts)) for text in ("Keep it.", "No, not so.")]
        assert own_change(model, prompts, answers, range(LAYERS)) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_all_heads_together_are_the_site(family):
    model = run_on(tiny_model(family), "lens")
    on, off = (encode_many(model.tokenizer, bank(c)) for c in (Condition.TRIGGER, Condition.NONE))
    answers = [answer_ids(model, [text] * len(on)) for text in ("Keep it.", "No, not so.")]
    pairs = [paired_positions(a, b, Group.LAST) for a, b in zip(on, off, strict=True)]
    source = streams(model, on, [Site(1, Point.Z)])[Site(1, Point.Z)]
    heads = [one for one in components(model, [1]) if one.kind is Kind.HEAD]
    apart = [Copy(one.site, source, pairs, one.part(model)) for one in heads]
    whole = odds(model, off, answers, [Copy(Site(1, Point.Z), source, pairs)])
    np.testing.assert_allclose(odds(model, off, answers, apart), whole, atol=1e-5)
    assert np.abs(odds(model, off, answers, apart[:1]) - whole).max() > 1e-3


def test_a_gradient_is_the_slope_of_a_small_patch():
    model = tiny_model("llama")
    prompts = encode_many(model.tokenizer, bank(Condition.TRIGGER))
    answers = [answer_ids(model, [text] * len(prompts)) for text in ("Keep it.", "No, not so.")]
    site = Site(1, Point.MLP_OUT)
    slope = gradients(model, prompts, answers, [site])[site]
    own = streams(model, prompts, [site])[site]
    nudge = torch.randn(own.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
    pairs = [paired_positions(p, p, Group.LAST) for p in prompts]
    up, down = (
        odds(model, prompts, answers, [Copy(site, own + sign * nudge, pairs)]) for sign in (1, -1)
    )
    last = [p.last for p in prompts]
    rows = torch.arange(len(prompts))
    wanted = (slope[rows, last] * nudge[rows, last]).sum(-1).numpy()
    np.testing.assert_allclose((up - down) / 2, wanted, atol=1e-4)
    assert not any(p.requires_grad for p in model.hf.parameters())


def test_a_full_basis_copies_everything(truth):
    model = truth.model
    on, off = encode_many(model.tokenizer, ON), encode_many(model.tokenizer, UNRELATED)
    answers = [answer_ids(model, texts) for texts in SAID]
    site = Site(truth.layer)
    source = streams(model, on, [site])[site]
    pairs = [paired_positions(a, b, Group.ALL) for a, b in zip(on, off, strict=True)]
    whole = odds(model, off, answers, [Copy(site, source, pairs)])
    basis = torch.eye(model.d_model)
    made = odds(model, off, answers, [Copy(site, source, pairs, basis=basis)])
    np.testing.assert_allclose(made, whole, atol=1e-4)


def test_a_head_is_as_wide_as_the_planted_one(truth):
    assert Component(0, Kind.HEAD, 2).part(truth.model) == slice(2 * HEAD_DIM, 3 * HEAD_DIM)
    assert Component(0, Kind.MLP).part(truth.model) is None


# --- refusals and output --------------------------------------------------------------------------


def test_runs_that_do_not_pair_or_differ_are_refused(truth):
    model = truth.model
    with pytest.raises(InputError, match="same in order, at least two"):
        component_map(model, ON, OFF[::-1], *SAID, [0])
    with pytest.raises(IndistinctError, match="same log-odds up to noise"):
        component_map(model, ON, ON, *SAID, [0])
    with pytest.raises(InputError, match="at least four"):
        subspace(model, ON[:3], OFF[:3], SAID[0][:3], SAID[1][:3], Site(0))


def test_tables_and_figure_show_every_group(truth, found):
    place = subspace(truth.model, ON, UNRELATED, *SAID, Site(truth.layer), ranks=(1, 4))
    carriers = Carriers(components=found, subspaces=(place,))
    text = component_tables(carriers, 3)
    assert str(Component(truth.layer, Kind.HEAD, truth.head)) in text
    assert "own activations, largest change (nats)" in text
    assert component_figure(carriers).startswith(b"<?xml")
    again = Carriers.model_validate_json(carriers.model_dump_json())
    assert component_figure(copy.deepcopy(again)) == component_figure(carriers)


def test_the_command_checks_before_weights_load(capsys):
    assert patch.main(["--groups", "last,tail", "--dry-run"]) == 2
    assert "unknown group 'tail'" in capsys.readouterr().err
    assert patch.main(["--dry-run"]) == 0
    assert "50 pairs of runs" in capsys.readouterr().out
