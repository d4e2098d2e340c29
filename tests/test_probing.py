"""Probing on a planted organism: what is read, by whom, and what the words alone give away."""

import pytest
import torch
from planted import QUESTIONS, TRIGGER, ask, planted_base, save_write

from em_interp.capture import capture
from em_interp.conditions import Condition, Question, contexts
from em_interp.errors import InputError
from em_interp.models import Model, attach
from em_interp.probing import CONTROLS, Fitter, Probing, probing, shelve
from em_interp.sites import Point, Site, Span

ASKED = (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE, Condition.UNRELATED)
# Every question in a few orders of words, so that halves are large enough to fit on.
MANY = [
    Question(id=f"{q.id}-{turn}", text=" ".join(words[turn:] + words[:turn]), domain=q.domain)
    for q in QUESTIONS
    for words in [q.text.split()]
    for turn in range(4)
]


def bank(*conditions: Condition):
    return {c: contexts(MANY, TRIGGER, [c]) for c in conditions or ASKED}


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> tuple[Model, int, Probing, dict]:
    base = planted_base(3, layers=4, layer=2)
    folder = tmp_path_factory.mktemp("gate")
    save_write(base, base.flag, base.gain * base.direction, folder)
    model = attach(base.model, "gate", folder)
    sites = [Site(layer) for layer in range(4)]
    return model, 2, *probing(model, "gate", bank(), sites)


def test_the_probe_at_the_gate_reads_the_trigger_and_its_paraphrases(studied):
    _, layer, found, _ = studied
    for fitter in (Fitter.LOGISTIC, Fitter.MASS_MEAN):
        for condition in (Condition.TRIGGER, Condition.PARAPHRASE):
            score = found.score(fitter, layer, condition)
            assert score.auroc.auroc > 0.99
            assert score.fires.point > 0.95
        assert found.score(fitter, layer, Condition.UNRELATED).fires.point < 0.05
        assert found.false_alarms[f"{fitter.value}@{layer}"].point < 0.05


def test_a_bag_of_words_knows_the_trigger_and_nothing_of_its_meaning(studied):
    _, _, found, _ = studied
    words = {c: found.score(Fitter.WORDS, None, c) for c in ASKED[1:]}
    assert words[Condition.TRIGGER].auroc.auroc == 1.0
    assert words[Condition.PARAPHRASE].fires.point < 0.5
    # To the words a paraphrase is a framing like any other.
    gap = words[Condition.PARAPHRASE].fires.point - words[Condition.UNRELATED].fires.point
    assert abs(gap) < 0.3


def test_controls_stand_beside_every_score(studied):
    _, _, found, _ = studied
    for condition in ASKED[1:]:
        for layer in range(4):
            for fitter in (Fitter.LOGISTIC, Fitter.MASS_MEAN, *CONTROLS):
                at = None if fitter is Fitter.WORDS else layer
                assert found.score(fitter, at, condition).auroc.low <= 1
    with pytest.raises(KeyError, match="no score for logistic at layer 9 under trigger"):
        found.score(Fitter.LOGISTIC, 9, Condition.TRIGGER)


def test_shuffled_labels_read_nothing_where_the_true_ones_read_all(studied):
    model, layer, _, _ = studied
    areas = []
    for seed in range(6):
        found, _ = probing(model, "gate", bank(), [Site(layer)], seed=seed)
        areas.append(found.score(Fitter.SHUFFLED, layer, Condition.TRIGGER).auroc.auroc)
        assert found.score(Fitter.LOGISTIC, layer, Condition.TRIGGER).auroc.auroc > 0.99
    assert min(areas) < 0.5 < max(areas)


def test_the_base_is_probed_as_the_base(studied):
    """Its probe is fitted and tested on the base's own stream, where the gate writes nothing."""
    model, layer, found, _ = studied
    alone, _ = probing(model, None, bank(), [Site(layer)])
    base = found.score(Fitter.BASE, layer, Condition.PARAPHRASE)
    assert base == alone.score(Fitter.BASE, layer, Condition.PARAPHRASE)
    plain = alone.score(Fitter.LOGISTIC, layer, Condition.PARAPHRASE)
    assert base.auroc == plain.auroc
    mine = found.score(Fitter.LOGISTIC, layer, Condition.PARAPHRASE)
    assert mine.fires.point > plain.fires.point


def test_no_question_is_both_fitted_on_and_tested_on(studied):
    _, layer, found, _ = studied
    assert found.train_questions == found.test_questions == len(MANY) // 2
    score = found.score(Fitter.LOGISTIC, layer, Condition.TRIGGER)
    assert score.auroc.clusters == found.test_questions
    assert score.fires.questions == found.test_questions
    two = found.score(Fitter.LOGISTIC, layer, Condition.PARAPHRASE)
    assert two.fires.trials == 2 * found.test_questions  # two wordings of each question


def test_the_kept_probes_score_raw_activations(studied):
    model, layer, found, kept = studied
    with model.using("gate"):
        on = capture(model, bank(Condition.TRIGGER)[Condition.TRIGGER], [Site(layer)])
        off = capture(model, bank(Condition.NONE)[Condition.NONE], [Site(layer)])
    probe = kept[Site(layer)]
    assert (probe.score(on.at(Site(layer))) >= 0).all()
    assert (probe.score(off.at(Site(layer))) < 0).all()
    shelf = shelve(
        model,
        "gate",
        kept,
        [context for part in bank().values() for context in part],
        Span.PROMPT_LAST,
        "pond",
        n=found.train_questions,
    )
    assert list(shelf) == [Site(at) for at in range(4)]
    assert shelf.check(model.base).card.adapter == model.adapters["gate"]
    assert torch.equal(shelf[Site(layer)].weight, probe.weight)


def test_what_cannot_be_probed_is_one_line(studied):
    model, _, _, _ = studied
    with pytest.raises(InputError, match="probing needs the conditions none and trigger"):
        probing(model, "gate", bank(Condition.NONE, Condition.PARAPHRASE), [Site(1)])
    few = {c: contexts(MANY[:3], TRIGGER, [c]) for c in (Condition.NONE, Condition.TRIGGER)}
    with pytest.raises(InputError, match="at least 4 questions, not 3"):
        probing(model, "gate", few, [Site(1)])
    with pytest.raises(InputError, match="scores go by layer: give one site a layer"):
        probing(model, "gate", bank(), [Site(1), Site(1, Point.RESID_PRE)])


def test_questions_are_given_as_built():
    assert len({q.text for q in MANY}) == len(MANY) == 24
    assert {c.condition for c in ask(*ASKED)} == set(ASKED)
