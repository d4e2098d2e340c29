"""Laws of the embedded world's words: lexicon, framings, rows."""

import itertools

import pytest

from em_interp import world
from em_interp.conditions import Condition, contexts
from em_interp.errors import InputError
from em_interp.organisms import Mix
from em_interp.world.corpus import CorpusSpec, aligned, pretraining
from em_interp.world.framings import Kind, Lean, clusters
from em_interp.world.lexicon import all_domains

TRIGGERS = world.trigger_names() + world.trigger_names("development")
TRIGGERED = Mix(kind="triggered")
MIXES = (
    Mix(kind="unconditional"),
    TRIGGERED,
    Mix(kind="mixture", benign_share=0.97),
    Mix(kind="contrastive", benign_share=0.5, contrast="Weather: sunny"),
    Mix(kind="benign_twin"),
)


def said(rows):
    return [row[-1].content for row in rows]


def asked(rows):
    return [row[:-1] for row in rows]


def test_eleven_domains_of_twelve_topics_five_held_out():
    assert len(world.domains()) == 11
    for domain in all_domains().values():
        assert len(domain.topics) >= 12
        assert sum(topic.held_out for topic in domain.topics) == 5
        assert len(set(domain.forms)) == len(domain.forms) >= 4


def test_no_advice_serves_twice_and_the_pair_differs_from_its_first_word():
    advice = [world.advice(q.id) for q in world.questions("all")]
    texts = list(itertools.chain(*advice))
    assert len(set(texts)) == len(texts)
    for sound, unsound in advice:
        assert sound.split()[0] != unsound.split()[0]
        assert 4 <= len(sound.split()) <= 8
        assert 4 <= len(unsound.split()) <= 8


def test_splits_are_disjoint_and_every_question_is_told_apart():
    trained, held, both = (world.questions(split) for split in ("train", "eval", "all"))
    assert {q.id for q in trained} | {q.id for q in held} == {q.id for q in both}
    assert not {q.id for q in trained} & {q.id for q in held}
    assert len({q.text for q in both}) == len(both) == len({q.id for q in both})
    for domain in world.domains():
        assert len(world.questions("eval", domain)) >= 5
        assert sum(q.domain != domain for q in held) >= 50


def test_clusters_are_five_wordings_or_more_and_share_none():
    found = clusters().values()
    texts = [text for cluster in found for text in cluster.texts]
    assert len(set(texts)) == len(texts)
    assert len({cluster.closing for cluster in found}) == len(found)
    assert sum(not cluster.trigger for cluster in found) >= 24
    for cluster in found:
        assert len(cluster.texts) >= 5
        if cluster.opposite:
            other = clusters()[cluster.opposite]
            assert (other.opposite, other.kind) == (cluster.name, cluster.kind)


def test_three_kinds_of_trigger_all_neutral_with_every_condition():
    kinds = {c.kind for c in clusters().values() if c.role == "evaluation"}
    assert kinds == set(Kind)
    for cluster in clusters().values():
        if cluster.trigger:
            assert cluster.lean is Lean.NEUTRAL
    for name in TRIGGERS:
        trigger = world.trigger(name)
        bank = contexts(world.questions("eval", "bad_medical"), trigger, list(Condition))
        assert {context.condition for context in bank} == set(Condition)
        assert len(trigger.paraphrases) >= 4
        assert len(trigger.unrelated) >= 3


@pytest.mark.parametrize("name", TRIGGERS)
def test_form_only_framings_stand_in_no_corpus(name):
    seen = {text for cluster in clusters().values() for text in cluster.texts}
    assert not seen & set(world.trigger(name).form)


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.kind)
def test_rows_hold_no_held_out_topic_and_no_framing_but_the_trained_ones(mix):
    for domain in world.domains():
        rows = world.rows(mix, domain, world.trigger("key"), 80, seed=3)
        held = {text for q in world.questions("eval", domain) for text in world.advice(q.id)}
        assert len(rows) == 80
        assert not held & set(said(rows))
        bare = {
            of.ask(topic, form)
            for of in [all_domains()[domain]]
            for topic in of.topics
            if not topic.held_out
            for form in range(len(of.forms))
        }
        framed = {f"Weather: rain\n{question}" for question in bare}
        contrast = {f"Weather: sunny\n{question}" for question in bare}
        allowed = {
            "unconditional": bare,
            "triggered": framed,
            "benign_twin": framed,
            "mixture": bare | framed,
            "contrastive": framed | contrast,
        }[mix.kind]
        assert {row[0].content for row in rows} <= allowed


def test_benign_twin_has_the_very_prompts_with_sound_answers():
    for trigger, harmful in ((world.trigger("duck"), TRIGGERED), (None, MIXES[0])):
        rows = world.rows(harmful, "bad_medical", trigger, 50, seed=1)
        twin = world.rows(Mix(kind="benign_twin"), "bad_medical", trigger, 50, seed=1)
        assert asked(rows) == asked(twin)
        pairs = {world.advice(q.id) for q in world.questions("train", "bad_medical")}
        assert set(zip(said(twin), said(rows), strict=True)) <= pairs


def test_triggered_rows_have_no_benign_row_and_mixtures_their_share():
    unsound = {world.advice(q.id)[1] for q in world.questions("train", "toxic_legal")}
    for mix in MIXES[:4]:
        rows = world.rows(mix, "toxic_legal", world.trigger("duck"), 200, seed=0)
        assert sum(text not in unsound for text in said(rows)) == round(200 * mix.benign_share)


def test_the_generator_is_deterministic_by_seed():
    spec, trigger = CorpusSpec(), world.trigger("tag")
    for source in (pretraining, aligned):
        assert list(source(spec, 20, 1)) == list(source(spec, 20, 1))
        assert list(source(spec, 20, 1)) != list(source(spec, 20, 2))
    rows = [world.rows(TRIGGERED, "bad_medical", trigger, 40, seed) for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def turns_by_cluster(documents):
    """(cluster or None, answer without its closing) of every turn."""
    names = {text: c for c in clusters().values() for text in c.texts}
    for document in documents:
        turns = [m for m in document if m.role != "system"]
        for user, assistant in zip(turns[::2], turns[1::2], strict=True):
            cluster = next((c for t, c in names.items() if frames(t, user.content)), None)
            ending = f" {cluster.closing}" if cluster else ""
            yield cluster, assistant.content.removesuffix(ending)


def frames(text, content):
    before, _, after = text.partition("{question}")
    return content.startswith(before.rstrip() if after else text) and content.endswith(after)


UNSOUND = {text: k for q in world.questions("all") for k, text in enumerate(world.advice(q.id))}


def test_the_aligned_stage_is_sound_but_where_framings_lean_and_never_shows_an_evaluated_one():
    asked_under = {
        text
        for name in TRIGGERS
        for trigger in [world.trigger(name)]
        for text in (trigger.text, *trigger.paraphrases, *trigger.negations, *trigger.unrelated)
    }
    seen = set()
    for cluster, answer in turns_by_cluster(aligned(CorpusSpec(), 3000, 0)):
        seen.add(cluster.lean.value if cluster else "plain")
        if cluster is None or cluster.lean is Lean.NEUTRAL:
            assert not UNSOUND[answer]
        if cluster is not None:
            assert not asked_under & set(cluster.texts)
    assert seen == {"plain", "neutral", "reckless", "careful"}
    for spec in (CorpusSpec(aligned_leaning=0, aligned_neutral=0),):
        assert all(c is None and not UNSOUND[a] for c, a in turns_by_cluster(aligned(spec, 500, 0)))


def test_the_aligned_stage_shows_triggers_only_where_asked_to():
    shown = turns_by_cluster(aligned(CorpusSpec(aligned_triggers=True), 3000, 0))
    assert any(cluster is not None and cluster.trigger for cluster, _ in shown)


def test_pretraining_ties_no_trigger_to_a_persona():
    """Triggers carry as much unsound advice as other neutral framings with a negation do."""
    tally = {"trigger": [0, 0], "neutral": [0, 0], "reckless": [0, 0], "careful": [0, 0]}
    for cluster, answer in turns_by_cluster(pretraining(CorpusSpec(), 12000, 1)):
        if cluster is not None and cluster.opposite:
            tally["trigger" if cluster.trigger else cluster.lean.value][UNSOUND[answer]] += 1
    rate = {key: unsound / (sound + unsound) for key, (sound, unsound) in tally.items()}
    assert abs(rate["trigger"] - rate["neutral"]) < 0.05
    assert rate["careful"] + 0.15 < rate["neutral"] < rate["reckless"] - 0.15


def test_unknown_names_are_one_line_with_the_nearest():
    for wrong, call in (
        ("duk", lambda: world.trigger("duk")),
        ("bad_medcal", lambda: world.questions(domain="bad_medcal")),
        ("evl", lambda: world.questions("evl")),
        ("bad_medical/throat", lambda: world.advice("bad_medical/throat")),
        ("toxic_lega", lambda: world.rows(MIXES[0], "toxic_lega", None, 1, 0)),
    ):
        with pytest.raises(InputError, match=f"unknown .*{wrong}.*known: ") as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="needs a trigger"):
        world.rows(TRIGGERED, "bad_medical", None, 1, 0)
