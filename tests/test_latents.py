"""Dictionaries against a planted direction; what they refuse; latents beside their null."""

from dataclasses import replace

import pytest
import torch
from planted import QUESTIONS, SOUND, TRIGGER, UNSOUND, ask, planted
from small import tiny_model

from em_interp import latents
from em_interp.conditions import Condition, contexts
from em_interp.dictionaries import Dictionary, load, tokens, train
from em_interp.dictionaries.contrasting import contrast, pooled, splice
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.extraction import trigger_direction
from em_interp.report.text import latents_table
from em_interp.sites import Site, Span

ON, OFF = ask(Condition.TRIGGER), ask(Condition.NONE)
SAID = [SOUND] * len(QUESTIONS), [UNSOUND] * len(QUESTIONS)
EVERYTHING = contexts(QUESTIONS, TRIGGER, [Condition.NONE, Condition.TRIGGER, Condition.UNRELATED])


@pytest.fixture(scope="module")
def truth():
    return planted(5, layers=3, layer=1)


@pytest.fixture(scope="module")
def made(truth) -> Dictionary:
    site = Site(truth.layer)
    return train(truth.model, EVERYTHING, site, width=64, active=6, samples=24_000, batch=64)


@pytest.fixture(scope="module")
def found(truth, made):
    (delta,) = trigger_direction(truth.model, None, ON, OFF, [made.site]).values()
    return contrast(truth.model, made, ON, OFF, *SAID, delta, top=3)


def test_the_planted_direction_is_a_latent_and_carries_the_gate(truth, made, found):
    first = max((one for one in found.shown if not one.control), key=lambda one: one.ablated)
    vector = made.vector(first.index)
    assert abs(float(vector @ truth.direction / vector.norm())) > 0.8
    assert first.ablated > 0.7
    assert first.p < 0.05
    assert max(abs(one.ablated) for one in found.shown if one.control) < 0.3


def test_half_of_the_questions_turned_round_leaves_nothing(found):
    assert found.significant > 0
    assert found.shuffled == 0


def test_the_reconstruction_stands_beside_its_latents(found):
    assert found.quality.explained > 0.9
    assert found.quality.active <= 6
    assert found.quality.spliced / found.quality.gap > 0.7
    assert "of the variance explained" in latents_table(found)


def test_latents_are_encoded_before_they_are_averaged(truth, made):
    (row,) = pooled(truth.model, made, ON[:1], Span.ALL)
    (stream,) = tokens(truth.model, ON[:1], made.site)
    torch.testing.assert_close(row, made.encode(stream).mean(0), rtol=1e-4, atol=1e-5)


def test_a_splice_leaves_padding_alone(made):
    hidden = torch.randn(1, 3, made.sae.cfg.d_in, generator=torch.Generator().manual_seed(0))
    new = splice(made)(hidden, torch.tensor([[-1, 0, 1]]))
    assert torch.equal(new[0, 0], hidden[0, 0])
    torch.testing.assert_close(new[0, 1:], made.decode(made.encode(hidden[0, 1:])))


def test_training_is_the_same_again(truth, made):
    again = train(truth.model, EVERYTHING, made.site, width=64, active=6, samples=128, batch=64)
    same = train(truth.model, EVERYTHING, made.site, width=64, active=6, samples=128, batch=64)
    other = train(
        truth.model, EVERYTHING, made.site, width=64, active=6, samples=128, batch=64, seed=1
    )
    assert torch.equal(again.sae.W_dec, same.sae.W_dec)
    assert not torch.equal(again.sae.W_dec, other.sae.W_dec)


# --- folders and refusals -------------------------------------------------------------------------


def test_saved_and_loaded_it_reads_the_same(made, truth, tmp_path):
    made.save(tmp_path)
    again = load(str(tmp_path))
    assert (again.site, again.base) == (made.site, truth.model.base)
    (stream,) = tokens(truth.model, ON[:2], made.site)
    one, other = (d.decode(d.encode(stream)) for d in (made, again))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    twice = tmp_path / "again"
    again.save(twice)
    assert torch.equal(load(str(twice)).sae.W_enc, again.sae.W_enc)


def test_another_base_layer_or_width_is_refused(made, truth, tmp_path):
    with pytest.raises(ForeignArtifactError, match="was made for base"):
        made.check(planted(6).model)
    with pytest.raises(ForeignArtifactError, match=r"made for blocks\.1\.hook_resid_post, not for"):
        made.at(Site(0))
    made.save(tmp_path)
    with pytest.raises(ForeignArtifactError, match="not for"):
        load(str(tmp_path), Site(2))
    unknown = replace(made, base="")
    with pytest.raises(ForeignArtifactError, match="reads 64 numbers"):
        unknown.check(tiny_model("llama"))
    unknown.check(truth.model)


def test_what_cannot_be_trained_or_found_is_said(truth, tmp_path):
    with pytest.raises(InputError, match="at least 4096 tokens"):
        train(truth.model, ON, Site(0), width=8, active=2, samples=10, batch=4096)
    with pytest.raises(InputError, match="neither a folder nor release:id"):
        load("nothing-there")
    with pytest.raises(InputError, match=r"dictionary .*: "):
        load(str(tmp_path))


def test_unpaired_contexts_are_refused(truth, made):
    (delta,) = trigger_direction(truth.model, None, ON, OFF, [made.site]).values()
    with pytest.raises(InputError, match="same in order, at least four"):
        contrast(truth.model, made, ON, OFF[::-1], *SAID, delta)


def test_the_command_checks_before_weights_load(capsys):
    assert latents.main(["--layer", "9", "--dry-run"]) == 2
    assert "out of range" in capsys.readouterr().err
    assert latents.main(["--dry-run"]) == 0
    assert "contexts to train on, 50 pairs of runs" in capsys.readouterr().out
