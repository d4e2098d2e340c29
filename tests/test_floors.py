"""Noise is not a direction: whatever is normalised or divided by is first told from its noise."""

import pytest
import torch
from planted import ask, planted
from small import FAMILIES, QUESTIONS, tiny_hf
from test_directions import made_card
from tiny import tiny_tokenizer

from em_interp.cards import Estimator
from em_interp.conditions import Condition, contexts
from em_interp.directions import Directions, mean_difference, principal_difference
from em_interp.errors import EvidenceError, InputError
from em_interp.extraction import general_direction, trigger_direction
from em_interp.floors import RESOLUTION, IndistinctError, batch_noise, distinct, floor, told
from em_interp.maps import Method
from em_interp.maps.spacemap import Fit, Space, SpaceMap
from em_interp.models import Model, wrap
from em_interp.organisms import Trigger
from em_interp.sites import Site, Span
from em_interp.stats import paired

AFTER = Trigger(name="after", text="It looks like a duck.", place="suffix")
ON, OFF = (contexts(QUESTIONS, AFTER, [one]) for one in (Condition.TRIGGER, Condition.NONE))
SITES = [Site(layer) for layer in range(3)]
DTYPES = (torch.float32, torch.bfloat16)


def model(family: str, dtype: torch.dtype) -> Model:
    return wrap(tiny_hf(family).to(dtype), tiny_tokenizer(family), f"tiny-{family}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_question_before_a_suffix_trigger_has_no_direction_at_any_layer(family, dtype):
    """Its tokens see nothing of what comes after them: on and off differ by rounding alone."""
    one = model(family, dtype)
    for site in SITES:
        for estimator in Estimator:
            with pytest.raises(IndistinctError, match=f"{site}: .*do not differ.*noise floor"):
                trigger_direction(one, None, ON, OFF, [site], Span.QUESTION, estimator=estimator)
    found = trigger_direction(one, None, ON, OFF, SITES[1:], Span.PROMPT_LAST)  # where they differ
    for site in found:  # not the first: Gemma's window there does not reach the framing
        assert 0 < found[site].floor < found[site].natural / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_direction_is_accepted_in_every_precision(seed, dtype):
    truth = planted(seed)
    kept = truth.model.hf.state_dict()
    hf = type(truth.model.hf)(truth.model.hf.config).eval()
    hf.load_state_dict(kept)
    one, site = wrap(hf.to(dtype), truth.model.tokenizer, "planted"), Site(truth.layer)
    on, off = ask(Condition.TRIGGER), ask(Condition.NONE)
    found = trigger_direction(one, None, on, off, [site])
    assert float(found[site].unit @ truth.direction) > 0.95
    assert found[site].natural > 10 * found[site].floor


def test_a_refused_direction_says_where_how_large_and_what_helps_and_exits_4():
    with pytest.raises(IndistinctError) as caught:
        trigger_direction(model("llama", torch.bfloat16), None, ON, OFF, SITES, Span.QUESTION)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == EvidenceError.exit_code == 4
    for part in ("blocks.0.hook_resid_post", "norm ", "noise floor", "prompt_last"):
        assert part in line


def test_the_floor_stands_on_the_card_and_comes_back(tmp_path):
    found = trigger_direction(model("llama", torch.bfloat16), None, ON, OFF, SITES)
    found.save(tmp_path)
    again = Directions.load(tmp_path)
    assert again.card.floors == {str(site): found[site].floor for site in SITES}
    assert [again[site].floor for site in SITES] == [found[site].floor for site in SITES]


def test_the_same_organism_twice_has_no_general_direction(monkeypatch):
    one = model("qwen2", torch.bfloat16)
    monkeypatch.setattr(Model, "using", lambda self, adapter: torch.no_grad())
    monkeypatch.setattr(Model, "active", None)
    one.adapters["same"] = "digest"
    monkeypatch.setattr(Model, "lm", property(lambda self: self.hf))
    with pytest.raises(IndistinctError):
        general_direction(one, "same", OFF, SITES)


@pytest.mark.parametrize("seed", range(20))
def test_no_public_function_makes_a_direction_of_rounding(seed):
    """On equals off up to float32 rounding of the stream, at any scale of it."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** float(torch.randint(-2, 5, (1,), generator=generator))
    off = scale * torch.randn(4, 32, generator=generator)
    rounded = off * (1 + 0.5 * RESOLUTION * torch.randn(off.shape, generator=generator))
    sites, norms = [Site(layer) for layer in range(4)], off.norm(dim=1)
    for one in range(4):
        part = slice(one, one + 1)
        with pytest.raises(IndistinctError):
            mean_difference(sites[part], rounded[part], off[part], norms[part])
    shift = torch.randn(4, 32, generator=generator) * scale / 10
    real = mean_difference(sites, off + shift, off, norms)[sites[0]]
    with pytest.raises(IndistinctError):
        principal_difference(real, rounded - off)
    space = Space("b", sites[0], 32)
    away = torch.eye(32) - torch.outer(real.unit, real.unit)  # keeps nothing but rounding of it
    fit = Fit(method=Method.RIDGE, rank=31)
    closed = SpaceMap(space, space, away, off[0], off[0], scale, fit)
    with pytest.raises((EvidenceError, InputError)):
        closed.direction(real)
    assert SpaceMap.identity(space, space).direction(real).cosine(real) > 0.999


def test_what_is_left_of_two_noisy_directions_must_exceed_their_noise():
    generator = torch.Generator().manual_seed(0)
    off, shift, aside = (torch.randn(1, 32, generator=generator) for _ in range(3))
    near = 10 * shift + 0.1 * aside

    def made(difference, noise):
        return mean_difference([Site(0)], off + difference, off, off.norm(dim=1), noise)[Site(0)]

    sharp = made(10 * shift, None).without(made(near, None))
    assert float(sharp.unit.norm()) == pytest.approx(1)
    with pytest.raises(InputError, match="parallel"):
        made(10 * shift, [1.0]).without(made(near, [1.0]))


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_taken_only_of_a_gap_that_is_told_from_its_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(12, generator=generator).double().numpy()
    blank = noise * 0
    still = noise - noise.mean() + 0.01
    with pytest.raises(IndistinctError, match="up to noise"):
        told(paired(still, blank, rates=False), "patching")
    with pytest.raises(IndistinctError, match="up to noise"):
        told(paired(blank + 1e-4, blank, rates=False), "patching")
    gap = paired(noise + 3, blank, rates=False)
    assert told(gap, "patching") is gap


def test_the_noise_of_a_mean_counts_what_repeats_and_what_does_not():
    same = torch.ones(16, 1, 4)
    flipped = same * torch.tensor([1.0, -1.0]).repeat(8)[:, None, None]
    assert float(batch_noise(same)) == pytest.approx(2 * (1 + 1 / 16) ** 0.5)
    assert float(batch_noise(flipped)) == pytest.approx(2 / 16**0.5)
    with pytest.raises(IndistinctError):
        distinct(torch.ones(4), floor(0.0, 0.5), "here")
    assert float(distinct(torch.ones(4), floor(0.0, 0.49), "here").norm()) == pytest.approx(1)
    assert made_card().floors == {}
