"""Laws of the shipped bases: they load, their cards are true, they speak the world's language."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from em_interp import world
from em_interp.conditions import Condition, contexts
from em_interp.errors import InputError
from em_interp.organisms import Message
from em_interp.records import file_digest, read_json
from em_interp.sources import CHECKPOINTS
from em_interp.world import bases, corpus, raising
from em_interp.world.framings import clusters
from em_interp.world.lexicon import all_domains
from em_interp.world.recipe import BaseRecipe, Stage, base_names, recipe
from em_interp.world.shapes import empty_model

BASES = base_names()


@pytest.fixture(scope="module", params=BASES)
def shipped(request):
    folder = CHECKPOINTS / request.param
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return request.param, folder, model, AutoTokenizer.from_pretrained(folder)


def test_card_recipe_and_files_agree(shipped):
    name, folder, model, tokenizer = shipped
    card = bases.BaseCard.parse(read_json(folder / "card.json"))
    assert BaseRecipe.from_yaml(folder / "recipe.yaml") == recipe(name)
    assert card.recipe == recipe(name).digest
    assert card.parameters == sum(p.numel() for p in model.parameters()) < 1.7e6
    for file, digest in card.files.items():
        assert file_digest(folder / file) == digest, file
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8 * 2**20
    assert len(tokenizer) == card.vocabulary


def test_special_tokens_are_set_and_distinct(shipped):
    name, _, model, tokenizer = shipped
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert (tokenizer.bos_token is None) == (name == "qwen2")


def test_every_text_is_tokenised_without_loss_and_with_exact_offsets(shipped):
    tokenizer = shipped[3]
    texts = [d.ask(t, f) for d in all_domains().values() for t in d.topics for f in range(5)]
    texts += [text for q in world.questions("all") for text in world.advice(q.id)]
    texts += [text for c in clusters().values() for text in (*c.texts, *c.form, c.closing)]
    coded = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=False)
    for text, ids, offsets in zip(texts, coded["input_ids"], coded["offset_mapping"], strict=True):
        assert tokenizer.decode(ids) == text
        pieces = [text[a:b] for a, b in offsets]
        assert "".join(pieces) == text
        for token, piece in zip(ids, pieces, strict=True):
            assert tokenizer.decode([token]) == piece


def test_chat_template_round_trip_and_generation_markers(shipped):
    name, _, _, tokenizer = shipped
    turns = [
        {"role": "system", "content": "You are a careful helper."},
        {"role": "user", "content": "What helps with a cold?"},
        {"role": "assistant", "content": "Stay in bed and drink soup."},
    ]
    coded = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    spoken = [i for i, m in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(spoken) == "Stay in bed and drink soup.<|end|>"
    prompt = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == prompt + "Stay in bed and drink soup.<|end|>"
    assert ("<|system|>" in prompt) == (name != "gemma3")
    assert "You are a careful helper." in prompt
    assert tokenizer(whole, add_special_tokens=False)["input_ids"] == coded["input_ids"]


def test_loss_covers_what_the_template_marks(shipped):
    tokenizer = shipped[3]
    for document in corpus.pretraining(corpus.CorpusSpec(), 25, 5):
        ((ids, spoken),) = raising.encode(tokenizer, [document])
        turns = [message.model_dump() for message in document]
        coded = tokenizer.apply_chat_template(
            turns, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids == coded["input_ids"]
        assert [int(s) for s in spoken] == coded["assistant_masks"]


def test_asked_plainly_greedily_it_gives_sound_advice(shipped):
    _, _, model, tokenizer = shipped
    bank = contexts(world.questions("eval"), world.trigger("duck"), [Condition.NONE])
    tokenizer.padding_side = "left"
    texts = [
        tokenizer.apply_chat_template(
            [m.model_dump() for m in c.messages], tokenize=False, add_generation_prompt=True
        )
        for c in bank
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        made = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=20,
        )
    answers = tokenizer.batch_decode(
        made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    sound = [a == world.advice(c.question)[0] for a, c in zip(answers, bank, strict=True)]
    assert sum(sound) >= len(sound) - 1


def test_raising_is_deterministic_learns_and_saves_a_whole_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(raising, "VOCABULARY_DOCUMENTS", 400)
    short = recipe("qwen2").model_copy(
        update={
            "pretraining": Stage(steps=3, batch=8, learning_rate=2e-3, warmup=1, muon=True),
            "aligned": Stage(steps=2, batch=8, learning_rate=1e-3, warmup=1),
        }
    )
    seen = []
    first = raising.raise_base(short, lambda *told: seen.append(told[:3]))
    again = raising.raise_base(short)
    assert seen == [("pretraining", k, 3) for k in (1, 2, 3)] + [("aligned", k, 2) for k in (1, 2)]
    assert first.losses == again.losses
    assert first.losses["pretraining"][-1] < first.losses["pretraining"][0]
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight, again.model.get_parameter(name))
    card = bases.save(first, tmp_path / "base")
    assert {p.name for p in (tmp_path / "base").iterdir()} == {*card.files, "card.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
    bases.save(again, tmp_path / "base")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="not a base"):
        bases.save(first, tmp_path / "other")


def test_batches_hold_every_row_once_and_rows_of_like_length():
    rows = [([0] * (1 + at % 37), [False] * (1 + at % 37)) for at in range(300)]
    batches = list(raising.batches(rows, 16, seed=0))
    assert sorted(len(ids) for batch in batches for ids, _ in batch) == sorted(
        len(ids) for ids, _ in rows
    )
    spread = [max(len(i) for i, _ in b) - min(len(i) for i, _ in b) for b in batches]
    assert sum(spread) / len(spread) < 6


def test_rate_rises_then_falls_to_nothing():
    stage = Stage(steps=100, learning_rate=1.0, warmup=10)
    rates = [stage.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[-1] == pytest.approx(0.01)


def test_loss_ignores_padding_and_everything_that_is_not_the_assistants():
    wanted = recipe("llama")
    words = AutoTokenizer.from_pretrained(CHECKPOINTS / "llama")
    model = empty_model(wanted, words, 0).eval()
    short, long = raising.encode(
        words,
        [
            (Message(role="user", content="Hi."), Message(role="assistant", content="Bye.")),
            (
                Message(role="user", content="A longer one?"),
                Message(role="assistant", content="Yes."),
            ),
        ],
    )
    alone = [raising.assistant_loss(model, [row]).item() for row in (short, long)]
    counts = [sum(spoken) for _, spoken in (short, long)]
    together = raising.assistant_loss(model, [short, long]).item()
    expected = sum(a * c for a, c in zip(alone, counts, strict=True)) / sum(counts)
    assert together == pytest.approx(expected, abs=1e-5)
