"""Two engines, one meaning: plain hooks against TransformerLens and nnsight, and against weights.

Same sites, same values, same edits, on one left-padded batch in float32.
"""

import copy
from functools import cache

import pytest
import torch
from planted import SOUND, UNSOUND, ask, planted, planted_copy
from small import FAMILIES, LAYERS, WIDTH, bank, tiny_hf, tiny_model
from tiny import tiny_tokenizer

from em_interp.batches import Batch, collate
from em_interp.capture import pool
from em_interp.chat import encode_many
from em_interp.conditions import Condition
from em_interp.directions import Direction
from em_interp.edits import Editor, Intervention, Operation, Tally, intervention
from em_interp.hooks import forward, hooked
from em_interp.models import Model, wrap
from em_interp.sites import Point, Site, Span

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
EVERYWHERE = tuple(Site(layer, point) for layer in range(LAYERS) for point in Point)
families = pytest.mark.parametrize("family", FAMILIES)


@cache
def model_of(family: str) -> Model:
    return tiny_model(family)


def batch_of(model: Model, contexts=None) -> Batch:
    return collate(encode_many(model.tokenizer, contexts or bank()), 0)


def streams(model: Model, batch: Batch) -> dict[Site, torch.Tensor]:
    """What the hook door sees at every site."""
    seen: dict[Site, torch.Tensor] = {}
    visits = [(s, lambda h, p, s=s: seen.__setitem__(s, h.clone())) for s in EVERYWHERE]
    with torch.no_grad(), hooked(model, visits):
        forward(model, batch.ids, batch.mask)
    return seen


def bridge_of(model: Model, family: str):
    """TransformerLens' bridge; it rebuilds the module tree, so it is given a copy."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    hf = copy.deepcopy(model.hf)
    return build_bridge_from_module(hf, CLASSES[family], hf_config=hf.config, tokenizer=None)


def agree(ours: torch.Tensor, theirs: torch.Tensor, batch: Batch) -> None:
    """Equal on all real tokens; what stands on padding is nobody's business."""
    torch.testing.assert_close(ours[batch.mask], theirs[batch.mask], rtol=1e-5, atol=1e-5)


# --- capture -------------------------------------------------------------------------------------


@families
def test_every_point_is_transformer_lens_hook_of_that_name(family):
    model = model_of(family)
    batch, ours = batch_of(model), streams(model, batch_of(model))
    with torch.no_grad():
        _, cached = bridge_of(model, family).run_with_cache(
            batch.ids, attention_mask=batch.mask.long()
        )
    for site in EVERYWHERE:
        theirs = cached[str(site)]
        agree(ours[site], theirs.flatten(2) if site.point is Point.Z else theirs, batch)


@families
def test_every_point_is_what_nnsight_traces(family):
    from nnsight import NNsight

    model = model_of(family)
    batch, ours = batch_of(model), streams(model, batch_of(model))
    sandwich = family == "gemma3"
    traced: dict[Site, torch.Tensor] = {}
    wrapped = NNsight(model.hf)
    with torch.no_grad(), wrapped.trace(batch.ids, attention_mask=batch.mask.long()):
        for at in range(LAYERS):
            block = wrapped.model.layers[at]
            traced[Site(at, Point.RESID_PRE)] = block.input.save()
            traced[Site(at, Point.Z)] = block.self_attn.o_proj.input.save()
            if sandwich:  # what is added to the stream has passed another norm
                traced[Site(at, Point.ATTN_OUT)] = block.post_attention_layernorm.output.save()
                traced[Site(at, Point.MLP_OUT)] = block.post_feedforward_layernorm.output.save()
            else:
                traced[Site(at, Point.ATTN_OUT)] = block.self_attn.output[0].save()
                traced[Site(at, Point.MLP_OUT)] = block.mlp.output.save()
            traced[Site(at)] = block.output.save()
    assert set(traced) == set(EVERYWHERE)
    for site in EVERYWHERE:
        agree(ours[site], traced[site], batch)


@families
@pytest.mark.parametrize("span", [Span.PROMPT_LAST, Span.TRIGGER, Span.ALL])
def test_pooled_capture_is_the_pooled_cache(family, span):
    model = model_of(family)
    contexts = bank(Condition.TRIGGER)
    batch = batch_of(model, contexts)
    with torch.no_grad():
        _, cached = bridge_of(model, family).run_with_cache(
            batch.ids, attention_mask=batch.mask.long()
        )
    sites = [Site(layer) for layer in range(LAYERS)]
    ours = pool(model, batch, sites, span)
    for row, prompt in enumerate(encode_many(model.tokenizer, contexts)):
        pads = batch.ids.shape[1] - len(prompt.ids)
        tokens = {
            Span.PROMPT_LAST: [prompt.last],
            Span.TRIGGER: list(prompt.framing),
            Span.ALL: list(range(len(prompt.ids))),
        }[span]
        for at, site in enumerate(sites):
            theirs = cached[str(site)][row, [pads + token for token in tokens]].mean(0)
            torch.testing.assert_close(ours[row, at], theirs, rtol=1e-5, atol=1e-5)


# --- edits ---------------------------------------------------------------------------------------


def direction(site: Site, seed: int = 0) -> Direction:
    off, on = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Direction((on - off) / (on - off).norm(), off, on, 5.0, site)


def edited_logits(model: Model, batch: Batch, one: Intervention) -> torch.Tensor:
    rows = torch.zeros(len(batch.ids), dtype=torch.long)
    editor = Editor(Tally([one]), rows, batch.layout)
    with torch.no_grad(), hooked(model, editor.visits()):
        hidden = forward(model, batch.ids, batch.mask).last_hidden_state
        return model.lm.get_output_embeddings()(hidden)


@families
@pytest.mark.parametrize("operation", [Operation.ADD, Operation.MEAN_ABLATE, Operation.CAP])
@pytest.mark.parametrize("point", [Point.RESID_POST, Point.RESID_PRE])
def test_an_edit_is_a_transformer_lens_hook(family, operation, point):
    model = model_of(family)
    batch, site = batch_of(model), Site(1, point)
    strength = -2.0 if operation is Operation.CAP else 1.0
    one = intervention("x", operation, {site: direction(site)}, [site], strength, Span.ALL)
    (edit,) = one.edits
    with torch.no_grad():
        theirs = bridge_of(model, family).run_with_hooks(
            batch.ids,
            attention_mask=batch.mask.long(),
            fwd_hooks=[(str(site), lambda hidden, hook: edit.apply(hidden))],
        )
    agree(edited_logits(model, batch, one), theirs, batch)
    none = intervention("x", Operation.ADD, {site: direction(site)}, [site], 0.0, Span.ALL)
    plain = edited_logits(model, batch, none)
    assert (plain - theirs)[batch.mask].abs().max() > 1e-2


@families
def test_an_edit_is_an_nnsight_assignment(family):
    from nnsight import NNsight

    model = model_of(family)
    batch, site = batch_of(model), Site(1)
    one = intervention("x", Operation.ADD, {site: direction(site)}, [site], 2.0, Span.ALL)
    (edit,) = one.edits
    found = {}
    wrapped = NNsight(model.hf)
    with torch.no_grad(), wrapped.trace(batch.ids, attention_mask=batch.mask.long()):
        wrapped.model.layers[1].output = edit.apply(wrapped.model.layers[1].output)
        found["logits"] = wrapped.lm_head.output.save()
    agree(edited_logits(model, batch, one), found["logits"], batch)


# --- weights -------------------------------------------------------------------------------------

# Everything that writes into the stream: the embedding, attentions, feed-forwards.
WRITES = [
    Site(0, Point.RESID_PRE),
    *(Site(at, p) for at in range(LAYERS) for p in (Point.ATTN_OUT, Point.MLP_OUT)),
]


def orthogonalised(hf: torch.nn.Module, unit: torch.Tensor) -> torch.nn.Module:
    """A copy whose weights cannot write along a direction."""
    made = copy.deepcopy(hf)
    with torch.no_grad():
        table = made.get_input_embeddings().weight
        table -= torch.outer(table @ unit, unit)
        for block in made.model.layers:
            for weight in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                weight.sub_(torch.outer(unit, unit @ weight))
    return made


def gap(tied: bool) -> float:
    """Largest difference in logits between ablation by hooks and by weights."""
    hf = tiny_hf("llama", tie_word_embeddings=tied)
    with torch.no_grad():  # gains as uneven as in trained models: they turn the stream
        hf.model.norm.weight.uniform_(0.5, 2.0)
    model = wrap(hf, tiny_tokenizer("llama"))
    one = direction(Site(0))
    table = {site: direction(site) for site in WRITES}
    ablate = intervention("x", Operation.ABLATE, table, WRITES, span=Span.ALL)
    batch = batch_of(model)
    hooks = edited_logits(model, batch, ablate)
    with torch.no_grad():
        weights = orthogonalised(hf, one.unit)(
            input_ids=batch.ids, attention_mask=batch.mask.long()
        ).logits
    return float((hooks - weights)[batch.mask].abs().max())


def test_ablation_by_weights_is_ablation_by_hooks_where_the_head_is_its_own():
    assert gap(tied=False) < 1e-4


def test_with_tied_embeddings_the_weights_change_the_head_too():
    """The trap: an orthogonalised embedding that is the output head too is another intervention."""
    assert gap(tied=True) > 1e-2


def test_a_planted_gate_is_shut_in_the_weights_alone():
    truth = planted(0)
    unit = truth.direction
    batch = batch_of(truth.model, ask(Condition.TRIGGER))
    shut = orthogonalised(planted_copy(truth.model.hf), unit)
    with torch.no_grad():
        before = truth.model.hf(input_ids=batch.ids, attention_mask=batch.mask.long()).logits[:, -1]
        after = shut(input_ids=batch.ids, attention_mask=batch.mask.long()).logits[:, -1]
    words = truth.model.tokenizer.convert_ids_to_tokens
    assert set(words(before.argmax(-1).tolist())) == {UNSOUND}
    assert set(words(after.argmax(-1).tolist())) == {SOUND}
