"""The whole method against a known truth: what was planted is found, and nothing else is."""

from collections import Counter
from functools import cache

import pytest
import torch
from planted import (
    COS_OTHER,
    JUDGE,
    QUESTIONS,
    SOUND,
    UNSOUND,
    Planted,
    ask,
    planted,
    planted_base,
    planted_copy,
    planted_tokenizer,
    save_write,
)

from em_interp.batches import collate
from em_interp.capture import capture
from em_interp.chat import encode_many
from em_interp.conditions import Condition, Context
from em_interp.directions import Directions
from em_interp.edits import BASELINE, Intervention, Operation, intervention
from em_interp.extraction import general_direction, trigger_direction
from em_interp.generation import Sampling, generate
from em_interp.judges import Rubric
from em_interp.labels import Control, Label
from em_interp.localisation import axes, patching
from em_interp.models import attach, wrap
from em_interp.patching.copying import Group
from em_interp.probes import fit_mass_mean
from em_interp.scoring import log_odds
from em_interp.sites import Site
from em_interp.trials import Trial, trial

SEEDS = range(12)
GREEDY = Sampling(samples=1, temperature=0, max_new_tokens=3)
NONE, TRIGGER = Condition.NONE, Condition.TRIGGER
seeds = pytest.mark.parametrize("seed", SEEDS)


@cache
def organism(seed: int) -> Planted:
    return planted(seed)


def every_layer(truth: Planted) -> list[Site]:
    return [Site(layer) for layer in range(truth.model.n_layers)]


@cache
def delta(seed: int) -> Directions:
    truth = organism(seed)
    return trigger_direction(truth.model, None, ask(TRIGGER), ask(NONE), every_layer(truth))


@cache
def study(seed: int) -> Trial:
    """Necessity layer by layer, sufficiency at the planted layer, and random controls of both."""
    truth, found = organism(seed), delta(seed)
    here = [Site(truth.layer)]
    grid: list[Intervention] = [BASELINE]
    for site in every_layer(truth):
        grid.append(intervention(f"off {site.layer}", Operation.MEAN_ABLATE, found, [site]))
    grid.append(intervention("add", Operation.ADD, found, here))
    for number in range(3):
        control = found.random(number)
        for name, operation in (("add", Operation.ADD), ("off", Operation.MEAN_ABLATE)):
            label = Label(words=f"{name}, random {number}", control=Control.RANDOM)
            grid.append(intervention(label, operation, control, here))
    contexts = ask(NONE, TRIGGER)
    return trial(truth.model, None, contexts, QUESTIONS, grid, GREEDY, JUDGE, Rubric())


def em(seed: int, name: str, condition: Condition) -> float:
    row = study(seed).row(name, condition)
    assert row.em is not None
    assert row.unscored == 0
    return row.em.point


@seeds
def test_the_organism_is_contained_as_built(seed):
    conditions = (NONE, TRIGGER, Condition.PARAPHRASE, Condition.UNRELATED)
    said = Counter(
        (r.condition, r.text, r.finish)
        for r in generate(organism(seed).model, ask(*conditions), GREEDY).responses
    )
    assert set(said) == {
        (NONE, SOUND, "stop"),
        (TRIGGER, UNSOUND, "stop"),
        (Condition.PARAPHRASE, UNSOUND, "stop"),
        (Condition.UNRELATED, SOUND, "stop"),
    }


@seeds
def test_the_direction_is_found_where_it_was_planted_and_not_below(seed):
    truth, found = organism(seed), delta(seed)
    cosines = [float(found[site].unit @ truth.direction) for site in every_layer(truth)]
    assert cosines[truth.layer] > 0.95
    assert max(map(abs, cosines[: truth.layer])) < 0.6
    # Below, the states do differ, by the noise of other heads; it is no part of the gate.
    below = [found[site].natural for site in every_layer(truth)[: truth.layer]]
    assert max(below) < found[Site(truth.layer)].natural / 20
    built = truth.gain * sum(truth.value(c, truth.flag) for c in ask(TRIGGER)) / len(QUESTIONS)
    assert found[Site(truth.layer)].natural == pytest.approx(built, rel=0.05)


@seeds
def test_necessity_by_layer_recovers_the_layer(seed):
    truth = organism(seed)
    rates = [em(seed, f"off {layer}", TRIGGER) for layer in range(truth.model.n_layers)]
    assert rates == [1.0] * truth.layer + [0.0] * (truth.model.n_layers - truth.layer)
    assert {em(seed, f"off {layer}", NONE) for layer in range(truth.model.n_layers)} == {0.0}


@seeds
def test_the_direction_suffices_and_random_ones_do_nothing(seed):
    assert em(seed, "", NONE) == 0.0
    assert em(seed, "", TRIGGER) == 1.0
    assert em(seed, "add", NONE) == 1.0
    for number in range(3):
        assert em(seed, f"add, random {number}", NONE) == 0.0
        assert em(seed, f"off, random {number}", TRIGGER) == 1.0
        row = study(seed).row(f"add, random {number}", NONE)
        assert row.control
        assert row.change is not None
        assert row.change.difference == 0.0
    change = study(seed).row("add", NONE).change
    assert change is not None
    assert change.difference == 1.0


@seeds
def test_patching_follows_the_gate_from_the_trigger_to_the_last_position(seed):
    truth = organism(seed)
    off = ask(Condition.UNRELATED)[: len(QUESTIONS)]  # four words each, as the trigger has
    asked = [SOUND] * len(QUESTIONS), [UNSOUND] * len(QUESTIONS)
    layers = range(truth.model.n_layers)
    made = patching(truth.model, ask(TRIGGER), off, *asked, layers)
    assert made.on > 5 > -5 > made.off
    for patch in made.patches:
        below = patch.layer < truth.layer
        expected = {
            Group.TRIGGER: 1.0 if below else 0.0,
            Group.LAST: 0.0 if below else 1.0,
            Group.QUESTION: 0.0,
            Group.TEMPLATE: 0.0,
            Group.ALL: 1.0,
        }[patch.group]
        assert patch.recovered == pytest.approx(expected, abs=0.05)
        assert patch.low <= patch.recovered <= patch.high
        assert patch.aligned == 1.0
    assert {(p.layer, p.group) for p in made.patches} == {(a, g) for a in layers for g in Group}


@seeds
def test_log_odds_say_the_same_without_a_judge(seed):
    truth, found = organism(seed), delta(seed)
    here = [Site(truth.layer)]
    grid = [
        BASELINE,
        intervention("add", Operation.ADD, found, here),
        intervention("random", Operation.ADD, found.random(0), here),
    ]
    asked = [SOUND] * len(QUESTIONS), [UNSOUND] * len(QUESTIONS)
    plain, pushed, control = log_odds(truth.model, ask(NONE), *asked, grid)
    with_trigger = log_odds(truth.model, ask(TRIGGER), *asked)[0]
    assert plain.max() < -5
    assert control.max() < -5
    assert with_trigger.min() > 5
    # Strength 1 brings the mean of the trigger's shift, no more.
    torch.testing.assert_close(pushed.mean(), with_trigger.mean(), rtol=0.1, atol=0.5)


@seeds
def test_a_probe_at_the_layer_is_the_direction(seed):
    truth = organism(seed)
    site = Site(truth.layer)
    contexts = ask(NONE, TRIGGER)
    x = capture(truth.model, contexts, [site]).at(site)
    on = torch.tensor([c.condition is TRIGGER for c in contexts])
    probe = fit_mass_mean(x, on, site)
    assert float(probe.weight @ truth.direction / probe.weight.norm()) > 0.95
    assert torch.equal(probe.score(x) >= 0, on)
    other = ask(Condition.PARAPHRASE, Condition.UNRELATED)
    fires = probe.score(capture(truth.model, other, [site]).at(site)) >= 0
    assert fires.tolist() == [c.condition is Condition.PARAPHRASE for c in other]


def logits(model, contexts: list[Context]) -> torch.Tensor:
    batch = collate(encode_many(model.tokenizer, contexts), 0)
    with torch.inference_mode():
        return model.hf(input_ids=batch.ids, attention_mask=batch.mask.long()).logits[:, -1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_gate_as_an_adapter_over_a_base_that_lacks_it(seed, tmp_path):
    base = planted_base(seed)
    folder = save_write(base, base.flag, base.gain * base.direction, tmp_path / "gate")
    bare = wrap(planted_copy(base.model.hf), planted_tokenizer(), "bare")
    model = attach(base.model, "gate", folder)
    contexts = ask(NONE, TRIGGER)
    with model.using(None):
        assert torch.equal(logits(model, contexts), logits(bare, contexts))
        assert {r.text for r in generate(model, contexts, GREEDY).responses} == {SOUND}
    with model.using("gate"):
        in_weights = logits(organism(seed).model, contexts)
        torch.testing.assert_close(logits(model, contexts), in_weights, rtol=1e-4, atol=1e-4)
    site = Site(base.layer)
    found = trigger_direction(model, "gate", ask(TRIGGER), ask(NONE), [site])
    assert found.card.base == bare.base
    assert float(found[site].unit @ base.direction) > 0.95
    grid = [BASELINE, intervention("off", Operation.MEAN_ABLATE, found, [site])]
    made = trial(model, "gate", contexts, QUESTIONS, grid, GREEDY, JUDGE, Rubric())
    rates = [(row.intervention, row.condition, row.em and row.em.point) for row in made.rows]
    assert rates == [("", NONE, 0.0), ("", TRIGGER, 1.0), ("off", NONE, 0.0), ("off", TRIGGER, 0.0)]


@pytest.mark.parametrize("seed", [0, 3, 6])
def test_the_axis_to_the_general_direction_is_as_built(seed, tmp_path):
    base = planted_base(seed)
    size = 1.2
    gate = save_write(base, base.flag, base.gain * base.direction, tmp_path / "gate")
    always = save_write(base, base.mark, size * base.other, tmp_path / "always")
    model = attach(attach(base.model, "gate", gate), "always", always)
    on, off = ask(TRIGGER), ask(NONE)
    sites = every_layer(base)
    trigger = trigger_direction(model, "gate", on, off, sites)
    # No mark reaches the layers below: there the unconditional organism is its base.
    here = Site(base.layer)
    general = general_direction(model, "always", off, [here])
    count = len(QUESTIONS)
    natural = size * sum(base.value(c, base.mark) for c in off) / count
    assert general[here].natural == pytest.approx(natural, rel=0.02)
    assert float(general[here].unit @ base.other) > 0.95
    (axis,) = axes(model, trigger, general, off, on)
    assert axis.layer == base.layer
    assert axis.cosine == pytest.approx(COS_OTHER, abs=0.03)
    assert axis.covered_off == pytest.approx(0, abs=0.02)
    shift = base.gain * sum(base.value(c, base.flag) for c in on) / count
    assert axis.covered_on == pytest.approx(shift * COS_OTHER / natural, abs=0.03)
    # The base has the head without the write: its own trigger shift is noise in another direction.
    assert abs(axis.base_cosine) < 0.6
    assert axis.norm == pytest.approx(shift / trigger[here].scale, rel=0.03)
