"""Directions from contexts: each estimator on a planted truth, and a card that says what it is."""

import pytest
import torch
from planted import ask, planted, planted_base, save_write

from em_interp.capture import capture
from em_interp.conditions import Condition
from em_interp.directions import GENERAL_SIGN, TRIGGER_SIGN
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.extraction import Estimator, general_direction, tokenizer_digest, trigger_direction
from em_interp.floors import IndistinctError
from em_interp.models import attach
from em_interp.sites import Site, Span

ON, OFF = ask(Condition.TRIGGER), ask(Condition.NONE)


@pytest.mark.parametrize("estimator", list(Estimator))
@pytest.mark.parametrize("seed", range(3))
def test_every_estimator_finds_what_was_planted(estimator, seed):
    truth = planted(seed)
    site = Site(truth.layer)
    found = trigger_direction(truth.model, None, ON, OFF, [site], estimator=estimator)
    assert float(found[site].unit @ truth.direction) > 0.95
    mean = trigger_direction(truth.model, None, ON, OFF, [site])[site]
    assert found[site].natural == mean.natural
    assert torch.equal(found[site].off, mean.off)
    assert found.card.estimator == estimator.value


@pytest.mark.parametrize("estimator", list(Estimator))
def test_the_order_of_contexts_does_not_matter(estimator):
    truth = planted(0)
    site = Site(truth.layer)
    first = trigger_direction(truth.model, None, ON, OFF, [site], estimator=estimator)[site]
    again = trigger_direction(truth.model, None, ON[::-1], OFF, [site], estimator=estimator)[site]
    torch.testing.assert_close(first.unit, again.unit, atol=1e-3, rtol=1e-3)


def test_states_and_scale_are_the_means_of_the_captured():
    truth = planted(1)
    sites = [Site(layer) for layer in range(truth.model.n_layers)]
    found = trigger_direction(truth.model, None, ON, OFF, sites, Span.QUESTION)
    on, off = (capture(truth.model, c, sites, Span.QUESTION) for c in (ON, OFF))
    for site in sites:
        torch.testing.assert_close(found[site].on, on.at(site).mean(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[site].off, off.at(site).mean(0), atol=1e-4, rtol=1e-4)
        scale = float(off.at(site).norm(dim=1).mean())
        assert found[site].scale == pytest.approx(scale, rel=1e-4)


def test_the_card_says_what_it_is_and_whose(tmp_path):
    base = planted_base(0)
    gate = save_write(base, base.flag, base.gain * base.direction, tmp_path / "gate")
    always = save_write(base, base.mark, base.other, tmp_path / "always")
    model = attach(attach(base.model, "gate", gate), "always", always)
    site = Site(base.layer)
    delta = trigger_direction(model, "gate", ON, OFF, [site], name="delta", trigger="pond").card
    assert (delta.kind, delta.name, delta.sign) == ("direction", "delta", TRIGGER_SIGN)
    assert (delta.organism, delta.adapter) == ("gate", model.adapters["gate"])
    assert (delta.base, delta.trigger, delta.n) == (model.base, "pond", len(ON))
    assert delta.tokenizer == tokenizer_digest(model)
    general = general_direction(model, "always", OFF, [site]).card
    assert (general.sign, general.organism) == (GENERAL_SIGN, "always")
    assert general.data != delta.data
    found = trigger_direction(model, None, ON, OFF[::-1], [Site(0)])
    assert (found.card.organism, found.card.adapter) == ("base", "")
    with pytest.raises(ForeignArtifactError, match="made for base"):
        found.check(planted_base(1).model.base)
    assert model.active == "gate"  # as it was before


def test_what_cannot_be_paired_is_one_line():
    model = planted(0).model
    with pytest.raises(InputError, match="must ask the same questions"):
        trigger_direction(model, None, ON, OFF[:-1], [Site(1)])
    with pytest.raises(InputError, match="unknown adapter 'gate'"):
        trigger_direction(model, "gate", ON, OFF, [Site(1)])
    with pytest.raises(InputError, match="span 'trigger' is empty"):
        trigger_direction(model, None, ON, OFF, [Site(1)], Span.TRIGGER)


def test_the_same_state_twice_has_no_direction():
    with pytest.raises(IndistinctError, match="the two states do not differ"):
        trigger_direction(planted(0).model, None, OFF, OFF, [Site(1)])
