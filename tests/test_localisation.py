"""Residual patching and geometry against plain hooks, closed forms and identities."""

import numpy as np
import pytest
import torch
from small import FAMILIES, LAYERS, QUESTIONS, bank, tiny_model

from em_interp import localisation
from em_interp.chat import Encoded, encode, encode_many
from em_interp.conditions import Condition, Context, contexts
from em_interp.errors import InputError
from em_interp.extraction import trigger_direction
from em_interp.floors import IndistinctError
from em_interp.localisation import axes, patching
from em_interp.models import Model
from em_interp.organisms import Trigger
from em_interp.patching import copying
from em_interp.patching.copying import Copy, Group, odds, paired_positions, positions_of, streams
from em_interp.report.text import patching_table
from em_interp.scoring import answer_ids, log_odds
from em_interp.sites import Point, Site

SOUND = ("Keep it dry.", "Play slow games and study.", "No.", "Water it in the evening.")
UNSOUND = ("Keep it in water, for long.", "Play.", "Wear a duck.", "Walk at noon.")
ON, OFF = bank(Condition.TRIGGER), bank(Condition.NONE)
ASKED = [SOUND, UNSOUND]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> Model:
    return tiny_model(request.param)


@pytest.fixture
def any_gap(monkeypatch) -> None:
    """Shares of whatever gap there is: random models have none that four questions could tell.

    For tests of what a share is. That a gap of noise has no shares is held by test_floors.
    """
    monkeypatch.setattr(localisation, "told", lambda gap, what: gap)


def one(made, layer: int, group: Group):
    (found,) = [p for p in made.patches if (p.layer, p.group) == (layer, group)]
    return found


# --- positions -----------------------------------------------------------------------------------


def test_groups_part_the_prompt(model):
    for prompt in encode_many(model.tokenizer, bank()):
        parts = [positions_of(prompt, g) for g in Group if g is not Group.ALL]
        assert sorted(p for part in parts for p in part) == list(range(len(prompt.ids)))
        assert positions_of(prompt, Group.ALL) == tuple(range(len(prompt.ids)))


def test_tails_are_what_aligns():
    def prompt(framing: tuple[int, ...], question: tuple[int, ...], template: tuple[int, ...]):
        ids = (9,) * (len(framing) + len(question) + len(template))
        return Encoded(ids=ids, framing=framing, question=question, template=template)

    on = prompt((1, 2, 3), (4, 5), (0, 6, 7))
    off = prompt((1, 2), (3, 4, 5), (0, 6))
    assert paired_positions(on, off, Group.TRIGGER) == [(2, 1), (3, 2)]
    assert paired_positions(on, off, Group.QUESTION) == [(4, 4), (5, 5)]
    assert paired_positions(on, off, Group.TEMPLATE) == [(6, 0)]
    assert paired_positions(on, off, Group.LAST) == [(7, 6)]
    every = [pair for g in list(Group)[:-1] for pair in paired_positions(on, off, g)]
    assert sorted(paired_positions(on, off, Group.ALL)) == sorted(every)
    bare = prompt((), (1,), (0, 2))
    assert paired_positions(on, bare, Group.TRIGGER) == []


# --- patching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", list(Group))
def test_patching_with_ones_own_activation_changes_nothing(model, group):
    prompts = encode_many(model.tokenizer, ON)
    answers = [answer_ids(model, texts) for texts in ASKED]
    plain = odds(model, prompts, answers)
    stored = streams(model, prompts, [Site(layer) for layer in range(LAYERS)])
    for layer in range(LAYERS):
        pairs = [paired_positions(p, p, group) for p in prompts]
        assert all(pairs)
        patched = odds(model, prompts, answers, [Copy(Site(layer), stored[Site(layer)], pairs)])
        np.testing.assert_allclose(patched, plain, atol=1e-5)


def by_hand(model: Model, on: Context, off: Context, layer: int, group: Group) -> dict[str, float]:
    """One pair of contexts, no batch: log-odds of the off run with the on run's stream put in."""
    source, target = encode(model.tokenizer, on), encode(model.tokenizer, off)
    block, stored = model.blocks[layer], []
    handle = block.register_forward_hook(lambda _, __, out: stored.append(out[0].clone()))
    with torch.no_grad():
        model.lm(input_ids=torch.tensor([source.ids]))
    handle.remove()

    def put_in(_, __, out):
        new = out.clone()
        for here, there in paired_positions(source, target, group):
            new[0, there] = stored[0][here]
        return new

    def score(text: str) -> float:
        (ids,) = answer_ids(model, [text])
        with torch.no_grad():
            logits = model.lm(input_ids=torch.tensor([[*target.ids, *ids]])).logits[0].double()
        logp = logits.log_softmax(-1)
        return sum(float(logp[target.last + at, token]) for at, token in enumerate(ids))

    row = [c.question for c in OFF].index(off.question)
    plain = score(UNSOUND[row]) - score(SOUND[row])
    handle = block.register_forward_hook(put_in)
    patched = score(UNSOUND[row]) - score(SOUND[row])
    handle.remove()
    return {"plain": plain, "patched": patched}


@pytest.mark.usefixtures("any_gap")
@pytest.mark.parametrize("group", [Group.QUESTION, Group.TEMPLATE, Group.LAST, Group.ALL])
def test_a_share_is_what_plain_hooks_give(model, group):
    made = patching(model, ON, OFF, *ASKED, [0, 2])
    odds_on = log_odds(model, ON, *ASKED)[0].double()
    odds_off = log_odds(model, OFF, *ASKED)[0].double()
    assert made.on == pytest.approx(float(odds_on.mean()), abs=1e-4)
    assert made.off == pytest.approx(float(odds_off.mean()), abs=1e-4)
    assert made.gap.difference == pytest.approx(made.on - made.off)
    for layer in (0, 2):
        hand = [by_hand(model, a, b, layer, group) for a, b in zip(ON, OFF, strict=True)]
        moved = np.mean([h["patched"] - h["plain"] for h in hand])
        found = one(made, layer, group)
        assert found.recovered == pytest.approx(moved / made.gap.difference, abs=2e-3)
        if found.low is not None:  # four questions of an unplanted model need not show a gap
            assert found.low <= found.recovered <= found.high


@pytest.mark.usefixtures("any_gap")
def test_groups_without_a_counterpart_are_left_out_in_both_directions(model):
    """Denoising into the bare run and noising the triggered one: neither has a trigger to copy."""
    for a, b in ((ON, OFF), (OFF, ON)):
        made = patching(model, a, b, *ASKED, [1])
        assert {p.group for p in made.patches} == set(Group) - {Group.TRIGGER}
        assert made.target == b[0].condition.value
    full = one(patching(model, ON, OFF, *ASKED, [1]), 1, Group.ALL)
    part = one(patching(model, OFF, ON, *ASKED, [1]), 1, Group.ALL)
    # The trigger's own positions stay. (A first word may be fewer tokens than a later one.)
    assert part.aligned < 0.9 < full.aligned


@pytest.mark.usefixtures("any_gap")
def test_streams_are_kept_for_few_contexts_at_a_time(model, monkeypatch):
    whole, kept, done = patching(model, ON, OFF, *ASKED, [0, 2]), [], []

    def counted(*args):
        stored = streams(*args)
        kept.append(sum(t.numel() * t.element_size() for t in stored.values()))
        return stored

    monkeypatch.setattr(localisation, "streams", counted)
    width = max(len(p.ids) for p in encode_many(model.tokenizer, ON))
    budget = 2 * width * 2 * 4 * model.d_model  # two contexts at two layers in float32
    monkeypatch.setattr(copying, "STREAMS", budget)
    parts = patching(model, ON, OFF, *ASKED, [0, 2], progress=done.append)
    assert len(kept) > 1
    assert max(kept) <= budget
    assert sum(done) == len(ON)
    for a, b in zip(whole.patches, parts.patches, strict=True):
        assert (b.recovered, b.low, b.high) == pytest.approx((a.recovered, a.low, a.high), abs=1e-4)


@pytest.mark.usefixtures("any_gap")
def test_before_the_trigger_there_is_nothing_to_carry(model):
    """A trigger after the question cannot have reached the question's positions."""
    late = Trigger(name="late", text="It looks like a duck.", place="suffix")
    on = contexts(QUESTIONS, late, [Condition.TRIGGER])
    made = patching(model, on, OFF, *ASKED, range(LAYERS))
    for layer in range(LAYERS):
        assert one(made, layer, Group.QUESTION).recovered == pytest.approx(0, abs=1e-4)


@pytest.mark.usefixtures("any_gap")
def test_contexts_of_one_question_are_one_observation(model):
    once = patching(model, ON, OFF, *ASKED, [1])
    twice = patching(model, [*ON, *ON], [*OFF, *OFF], *[[*texts, *texts] for texts in ASKED], [1])
    assert twice.gap.questions == once.gap.questions == len(QUESTIONS)
    for a, b in zip(once.patches, twice.patches, strict=True):
        assert (b.recovered, b.low, b.high) == pytest.approx((a.recovered, a.low, a.high), abs=1e-4)


def test_what_cannot_be_patched_is_one_line(model):
    with pytest.raises(InputError, match="both lists must ask the same, in order"):
        patching(model, ON, OFF[::-1], *ASKED, [0])
    with pytest.raises(InputError, match="both lists must ask the same"):
        patching(model, [], [], [], [], [0])
    with pytest.raises(IndistinctError, match="the same log-odds up to noise"):
        patching(model, OFF, OFF, *ASKED, [0])


@pytest.mark.usefixtures("any_gap")
def test_a_layer_that_is_not_there_cannot_be_patched(model):
    with pytest.raises(InputError, match="layer 8 is out of range"):
        patching(model, ON, OFF, *ASKED, [8])


@pytest.mark.usefixtures("any_gap")
def test_two_places_of_one_layer_are_patched_each_for_itself(model):
    """What enters a block is what the block before it put out."""
    made = patching(model, ON, OFF, *ASKED, [Site(1, Point.RESID_PRE), Site(1), Site(0)])
    before, after, above = (
        [p for p in made.patches if p.site == site]
        for site in (Site(1, Point.RESID_PRE), Site(1), Site(0))
    )
    for one, other in zip(before, above, strict=True):
        assert one.recovered == pytest.approx(other.recovered, abs=1e-4)
    assert any(abs(a.recovered - b.recovered) > 1e-3 for a, b in zip(before, after, strict=True))
    shown = patching_table(made)
    assert "layer blocks.1.hook_resid_pre" in shown
    assert "layer 1 " in shown


# --- geometry ------------------------------------------------------------------------------------


def test_the_bases_own_shift_has_cosine_one_with_itself(model):
    sites = [Site(layer) for layer in range(1, LAYERS)]  # Gemma's first window sees no framing
    delta = trigger_direction(model, None, ON, OFF, sites)
    # A general direction that is the trigger's shift itself, at one of the two layers.
    general = trigger_direction(model, None, ON, OFF, sites[1:])
    found = axes(model, delta, general, OFF, ON)
    assert [axis.layer for axis in found] == [2]
    for axis in found:
        d = delta[Site(axis.layer)]
        assert axis.cosine == pytest.approx(1, abs=1e-5)
        assert axis.base_cosine == pytest.approx(1, abs=1e-5)
        assert axis.covered_off == pytest.approx(0, abs=1e-5)
        assert axis.covered_on == pytest.approx(1, abs=1e-5)
        assert axis.norm == pytest.approx(d.natural / d.scale)


def test_a_direction_does_not_depend_on_the_order_of_its_contexts(model):
    sites = [Site(1)]
    first = trigger_direction(model, None, ON, OFF, sites)
    second = trigger_direction(model, None, ON[::-1], OFF, sites)
    torch.testing.assert_close(first[Site(1)].unit, second[Site(1)].unit, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="must ask the same questions"):
        trigger_direction(model, None, ON[1:], OFF, sites)
    with pytest.raises(InputError, match="no contexts"):
        trigger_direction(model, None, [], [], sites)
