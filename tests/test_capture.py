"""Capture against a plain loop: one context, no padding, no pooling code of ours."""

import pytest
import torch
from small import FAMILIES, LAYERS, WIDTH, bank, tiny_hf, tiny_model
from tiny import tiny_tokenizer

from em_interp.batches import by_length, collate, pad_id
from em_interp.capture import capture, moments, pool
from em_interp.chat import Encoded, encode, encode_many
from em_interp.conditions import Condition
from em_interp.errors import InputError
from em_interp.hooks import hooked
from em_interp.models import Model, wrap
from em_interp.sites import Point, Site, Span

EVERYWHERE = tuple(Site(layer, point) for layer in range(LAYERS) for point in Point)
IN_PROMPT = [span for span in Span if span is not Span.RESPONSE]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> Model:
    return tiny_model(request.param)


def tokens_of(span: Span, prompt: Encoded) -> list[int]:
    """A span's tokens in a prompt alone, spelled out."""
    everything = list(range(len(prompt.ids)))
    return {
        Span.ALL: everything,
        Span.PROMPT: everything,
        Span.PROMPT_LAST: everything[-1:],
        Span.TRIGGER: list(prompt.framing),
        Span.QUESTION: list(prompt.question),
        Span.TEMPLATE: list(prompt.template),
        Span.AFTER_TRIGGER: everything[max(prompt.framing) + 1 :],
    }[span]


def alone(model: Model, prompt: Encoded, sites=EVERYWHERE) -> dict[Site, torch.Tensor]:
    """The streams of one prompt, without padding, of the whole model's own forward."""
    seen = {}
    visits = [(s, lambda h, p, s=s: seen.__setitem__(s, h[0].clone())) for s in sites]
    with torch.no_grad(), hooked(model, visits):
        model.lm(input_ids=torch.tensor([prompt.ids]))
    return seen


@pytest.mark.parametrize("span", IN_PROMPT)
def test_pooling_is_a_plain_loop_over_the_spans_tokens(model, span):
    contexts = bank(Condition.TRIGGER, Condition.PARAPHRASE, Condition.UNRELATED)
    got = capture(model, contexts, EVERYWHERE, span)
    assert got.span is span
    assert got.sites == EVERYWHERE
    assert len({len(p.ids) for p in encode_many(model.tokenizer, contexts)}) > 3  # padding is real
    for row, context in enumerate(contexts):
        prompt = encode(model.tokenizer, context)
        streams = alone(model, prompt)
        for site in EVERYWHERE:
            expected = streams[site][tokens_of(span, prompt)].double().mean(0).float()
            torch.testing.assert_close(got.at(site)[row], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("span", [Span.PROMPT_LAST, Span.ALL])
def test_a_batch_of_one_is_a_row_of_a_batch_and_padding_is_nothing(model, span):
    contexts = bank()
    whole = capture(model, contexts, EVERYWHERE, span).values
    ones = torch.cat([capture(model, [c], EVERYWHERE, span).values for c in contexts])
    torch.testing.assert_close(whole, ones, rtol=1e-4, atol=1e-4)
    for tokens in (1, 60, 10_000):  # rows a batch: one, a few, all
        parts = capture(model, contexts, EVERYWHERE, span, tokens=tokens).values
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    turned = capture(model, contexts[::-1], EVERYWHERE, span).values.flip(0)
    torch.testing.assert_close(whole, turned, rtol=1e-4, atol=1e-4)


def test_what_stands_in_the_padding_does_not_matter(model):
    prompts = encode_many(model.tokenizer, bank())
    a, b = (pool(model, collate(prompts, pad), EVERYWHERE, Span.ALL) for pad in (0, 17))
    assert torch.equal(a, b)


def test_asking_for_one_site_or_for_many_is_the_same(model):
    contexts = bank()
    whole = capture(model, contexts, EVERYWHERE)
    for site in EVERYWHERE:
        torch.testing.assert_close(capture(model, contexts, [site]).at(site), whole.at(site))
    mixed = [Site(2), Site(0, Point.MLP_OUT), Site(1, Point.RESID_PRE)]
    some = capture(model, contexts, mixed)
    for site in mixed:  # in any order
        torch.testing.assert_close(some.at(site), whole.at(site))


def test_a_blocks_input_is_the_output_of_the_one_before(model):
    sites = [Site(0), Site(1, Point.RESID_PRE), Site(1), Site(2, Point.RESID_PRE)]
    acts = capture(model, bank(), sites, Span.ALL)
    assert torch.equal(acts.at(sites[0]), acts.at(sites[1]))
    assert torch.equal(acts.at(sites[2]), acts.at(sites[3]))


@pytest.mark.parametrize("span", [Span.TRIGGER, Span.AFTER_TRIGGER, Span.RESPONSE])
def test_a_span_without_tokens_is_an_error(model, span):
    contexts = bank(Condition.NONE)
    if span is Span.RESPONSE:
        contexts = bank(Condition.TRIGGER)
    else:
        contexts = bank(Condition.TRIGGER) + contexts[:1]  # one empty row is enough
    for ask in (capture, moments):
        with pytest.raises(InputError, match=f"span '{span.value}' is empty in some contexts"):
            ask(model, contexts, [Site(1)], span)


def test_moments_are_the_mean_over_captured_rows(model):
    contexts = bank()
    acts = capture(model, contexts, EVERYWHERE).values.double()
    for tokens in (1, 60, 10_000):
        made = moments(model, (c for c in contexts), EVERYWHERE, tokens=tokens)
        assert made.count == len(contexts)
        torch.testing.assert_close(made.mean, acts.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made.norm, acts.norm(dim=-1).mean(0), rtol=1e-4, atol=1e-5)


def test_the_pass_ends_at_the_deepest_site_and_never_computes_logits(model):
    ran = []
    parts = {
        "block 1": model.blocks[1],
        "block 2": model.blocks[2],
        "norm": model.stack.norm,
        "head": model.lm.get_output_embeddings(),
    }
    handles = [
        part.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, part in parts.items()
    ]
    try:
        capture(model, bank()[:1], [Site(0, Point.ATTN_OUT), Site(0)])
        assert ran == []
        capture(model, bank()[:1], [Site(1), Site(0)])
        assert ran == ["block 1"]
        capture(model, bank()[:1], [Site(LAYERS - 1)])
        assert ran == ["block 1"] * 2 + ["block 2"]
    finally:
        for handle in handles:
            handle.remove()


def test_no_hook_is_left(model):
    capture(model, bank(), EVERYWHERE)
    for point in Point:
        with pytest.raises(InputError, match=r"layer 7 is out of range: .* has layers 0 to 2"):
            capture(model, bank(), [Site(1, point), Site(7, point)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.lm.modules())


def test_half_precision_is_pooled_in_float32():
    model = wrap(tiny_hf("llama").to(torch.bfloat16), tiny_tokenizer("llama"))
    contexts = bank(Condition.TRIGGER)
    got = capture(model, contexts, [Site(1)], Span.ALL).values
    assert got.dtype is torch.float32
    expected = [
        alone(model, encode(model.tokenizer, c), [Site(1)])[Site(1)].float().mean(0)
        for c in contexts
    ]
    torch.testing.assert_close(got[:, 0], torch.stack(expected), rtol=0.02, atol=0.02)
    assert not torch.equal(got, got.bfloat16().float())  # a mean of halves is finer than a half


def test_there_is_no_mean_over_nothing(model):
    with pytest.raises(InputError, match="no contexts"):
        moments(model, [], [Site(0)])
    with pytest.raises(InputError, match="none given"):
        capture(model, bank(), [])
    assert capture(model, [], [Site(0)]).values.shape == (0, 1, WIDTH)


def test_progress_counts_every_context(model):
    done = []
    capture(model, bank(), [Site(0)], tokens=60, progress=done.append)
    moments(model, bank(), [Site(0)], tokens=60, progress=done.append)
    assert sum(done) == 2 * len(bank())
    assert len(done) > 2


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 20, 64, 1000])
@pytest.mark.parametrize("rows", [1, 3, 1024])
def test_batches_hold_every_row_once_and_fit_the_budget(tokens, rows):
    lengths = [5, 19, 3, 3, 20, 8, 19, 1, 7, 11]
    groups = list(by_length(lengths, tokens, rows))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)  # what does not fit in memory fails at once
    for group, width in zip(groups, longest, strict=True):
        assert len(group) <= rows
        assert len(group) == 1 or len(group) * width <= tokens
    assert list(by_length([], tokens, rows)) == []


def test_a_batch_that_keeps_the_device_busy_takes_no_row_that_is_mostly_padding():
    lengths = [16, 64, 15, 60, 62, 40, 8, 8]
    groups = [[lengths[i] for i in group] for group in by_length(lengths, 4096, enough=120)]
    assert groups == [[64, 62, 60], [40, 16, 15], [8, 8]]
    assert len(list(by_length(lengths, 4096))) == 1


def test_a_batch_is_padded_on_the_left_and_knows_its_rows(model):
    prompts = encode_many(model.tokenizer, bank())
    answers = [[7] * (row % 3) for row in range(len(prompts))]
    batch = collate(prompts, pad_id(model.tokenizer), answers)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        text = [*prompt.ids, *answer]
        assert batch.ids[row][batch.mask[row]].tolist() == text
        assert batch.ids[row, -len(text) :].tolist() == text
        assert int(batch.layout.length[row]) == len(prompt.ids)
        assert batch.layout.framing[row].nonzero()[:, 0].tolist() == list(prompt.framing)
        assert batch.layout.question[row].nonzero()[:, 0].tolist() == list(prompt.question)


def test_padding_needs_no_pad_token():
    tokenizer = tiny_tokenizer("llama")
    assert pad_id(tokenizer) == tokenizer.pad_token_id
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == 0


# --- heads wider than the stream -----------------------------------------------------------------


def test_head_outputs_have_the_width_of_the_heads():
    """On many models (Gemma) heads * head_dim is not the width of the stream."""
    wide = tiny_model("gemma3", head_dim=16)
    z = Site(1, Point.Z)
    got = capture(wide, bank(), [z])
    assert got.values.shape == (len(bank()), 1, 4 * 16)
    assert WIDTH != 4 * 16
    prompt = encode(wide.tokenizer, bank()[0])
    torch.testing.assert_close(got.at(z)[0], alone(wide, prompt, [z])[z][-1], rtol=1e-4, atol=1e-4)
    assert moments(wide, bank(), [z]).mean.shape == (1, 64)
    with pytest.raises(InputError, match=r"different widths.*blocks.1.attn.hook_z 64"):
        capture(wide, bank(), [Site(0), z])
