"""Two models read the same texts: what is counted up, and that no token index crosses over."""

import json
from functools import cache

import pytest
import torch
from small import LAYERS, WIDTH, bank, tiny_hf, tiny_model
from tiny import tiny_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from em_interp.capture import capture
from em_interp.chat import encode_many
from em_interp.conditions import Condition
from em_interp.errors import InputError
from em_interp.maps import Method
from em_interp.models import wrap
from em_interp.sites import Site, Span
from em_interp.transferring import rows
from em_interp.transferring.alignment import Alignment, Side, fold_of, similarity
from em_interp.world.prompts import harmless

PROMPTS = [p for p in harmless(150) if len(p.messages) == 1][:40]  # short ones
PAIRS = [(Site(layer), Site(layer)) for layer in range(2)]


@cache
def side(family: str, seed: int = 0, **changes: int) -> Side:
    return Side(tiny_model(family, seed, **changes))


@cache
def selves() -> Alignment:
    return Alignment(side("llama"), side("llama"), PAIRS).read(PROMPTS)


def test_a_model_aligned_with_itself_gives_the_identity():
    for method in (Method.PROCRUSTES, Method.RIDGE, Method.CCA):
        for one in selves().fit(method).values():
            assert one.fit.held_in > 0.999
            assert one.fit.rank == WIDTH
            torch.testing.assert_close(one.matrix, torch.eye(WIDTH), rtol=0.02, atol=0.02)
    for one in selves().identity().values():
        assert torch.equal(one.matrix, torch.eye(WIDTH))
        assert one.explained(selves().moments[0].whole) > 0.999 or one.target.site != Site(0)


def without_merges(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same vocabulary, cutting every word into letters."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules["model"]["merges"] = []
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(rules))
    return tokenizer


def test_rows_are_means_over_the_same_text_whatever_the_tokens():
    ours, prompts = side("llama"), bank(Condition.NONE)
    letters = without_merges(tiny_tokenizer("llama"))
    theirs = Side(wrap(tiny_hf("llama"), letters, "letters"))
    cut = [
        [len(p.question) for p in encode_many(s.model.tokenizer, prompts)] for s in (ours, theirs)
    ]
    assert all(a < b for a, b in zip(*cut, strict=True))
    made = Alignment(ours, theirs, PAIRS[:1], (Span.QUESTION,)).read(prompts)
    x, y = (capture(s.model, prompts, [Site(0)], Span.QUESTION).at(Site(0)) for s in (ours, theirs))
    whole = made.moments[0].whole
    a, b = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    torch.testing.assert_close(whole.sxy, a.T @ b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.y, y.double().mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(x, y, atol=1e-2)


def test_prompts_come_from_a_generator_in_any_chunks(monkeypatch):
    monkeypatch.setattr(rows, "CONTEXTS", 15)
    made = Alignment(side("llama"), side("llama"), PAIRS).read(p for p in PROMPTS)
    assert (made.prompts, made.data) == (40, selves().data)
    for one, whole in zip(made.moments, selves().moments, strict=True):
        torch.testing.assert_close(one.whole.sxy, whole.whole.sxy, rtol=1e-4, atol=1e-4)
    assert made.moments[0].whole.count == 80


def test_prompts_about_one_question_share_a_fold():
    folds = {p.question: fold_of(p.question, 4, 0) for p in PROMPTS}
    assert set(folds.values()) == {0, 1, 2, 3}
    counts = [sum(folds[p.question] == f for p in PROMPTS) for f in range(4)]
    made = Alignment(side("llama"), side("llama"), PAIRS[:1], (Span.PROMPT_LAST,)).read(PROMPTS)
    assert [part[0].count for part in made.moments[0].parts] == counts


def test_the_null_keeps_both_spaces_and_loses_what_they_share():
    made = selves()
    for method in (Method.PROCRUSTES, Method.RIDGE, Method.CCA, Method.RELATIVE):
        real = made.fit(method)
        null = made.fit(method, null=real)
        for number, site in enumerate(real):
            assert null[site].fit.rank == real[site].fit.rank
            moments, shuffled = made.moments[number].whole, made.shuffled[number].whole
            torch.testing.assert_close(shuffled.sxx, moments.sxx)
            torch.testing.assert_close(shuffled.syy, moments.syy, rtol=1e-3, atol=1e-3)
            assert null[site].explained(moments) < real[site].explained(moments) - 0.1


def test_similarity_of_a_model_with_itself_peaks_on_the_diagonal():
    found = similarity(side("llama"), side("llama"), PROMPTS)
    assert found.shape == (LAYERS, LAYERS)
    torch.testing.assert_close(found.diagonal(), torch.ones(LAYERS), rtol=1e-4, atol=1e-4)
    other = similarity(side("llama"), side("qwen2"), PROMPTS)
    assert float(other.max()) < 0.99


def test_models_of_other_widths_and_depths_align():
    wide = side("llama", 1, hidden_size=48, num_hidden_layers=5)
    pairs = [(Site(0), Site(1)), (Site(2), Site(4))]
    maps = Alignment(side("qwen2"), wide, pairs, folds=2).read(PROMPTS).fit(Method.RIDGE)
    assert [one.matrix.shape for one in maps.values()] == [(48, WIDTH)] * 2
    assert [(str(s), str(one.source.site)) for s, one in maps.items()] == [
        ("blocks.1.hook_resid_post", "blocks.0.hook_resid_post"),
        ("blocks.4.hook_resid_post", "blocks.2.hook_resid_post"),
    ]
    card = maps.card
    assert (card.source, card.target) == (side("qwen2").model.base, wide.model.base)
    assert (card.prompts, card.spans) == (40, ("question", "prompt_last"))


def test_nothing_to_read_or_to_pair_is_refused():
    one = side("llama")
    with pytest.raises(InputError, match="no prompts"):
        Alignment(one, one, PAIRS).read([])
    with pytest.raises(InputError, match="no prompts"):
        similarity(one, one, [])
    with pytest.raises(InputError, match="at least one pair"):
        Alignment(one, one, [])
