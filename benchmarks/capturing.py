"""Capture of every layer against the plain forward pass, beside the field's own ways, on one batch.

Every way ends with the same tensor, the residual stream after each block at the last token, and is
held to it before the clock starts. `output_hidden_states` cannot give the last block: its last
entry has passed the final norm. It is compared up to the block before.
"""

import nnsight
import torch
from torch import Tensor
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from benchmarks.material import half_billion, twin
from benchmarks.paired import Row, ratio, take_turns
from em_interp.batches import collate
from em_interp.capture import pool
from em_interp.chat import Encoded
from em_interp.sites import Site, Span

GROUP = "capture, Qwen2-0.5B shape, 4 x 64 tokens"
PLAIN, PLAIN_LAST = "plain forward", "plain forward, logits of the last token"
ALL, LOWER = "em_interp, all layers", "em_interp, lower half"


def rows(rounds: int) -> list[Row]:
    """Each way's seconds over the plain forward's, which computes logits at every position."""
    model = half_billion()
    hf = model.hf
    ids = torch.randint(
        0, model.config.vocab_size, (4, 64), generator=torch.Generator().manual_seed(1)
    )
    batch = collate([Encoded(tuple(row.tolist()), (), (), tuple(range(64))) for row in ids], 0)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    sites = [Site(layer) for layer in range(model.n_layers)]
    names = [str(site) for site in sites]
    traced = nnsight.NNsight(twin(hf))
    bridge = build_bridge_from_module(
        twin(hf), "Qwen2ForCausalLM", hf_config=hf.config, tokenizer=None
    )

    @torch.inference_mode()
    def plain() -> Tensor:
        logits: Tensor = hf(**inputs).logits
        return logits

    @torch.inference_mode()
    def plain_last() -> Tensor:
        logits: Tensor = hf(**inputs, logits_to_keep=1).logits
        return logits

    def ours() -> Tensor:
        return pool(model, batch, sites, Span.PROMPT_LAST)

    def ours_lower() -> Tensor:
        return pool(model, batch, sites[: model.n_layers // 2], Span.PROMPT_LAST)

    @torch.inference_mode()
    def hidden_states() -> Tensor:
        states = hf(**inputs, output_hidden_states=True).hidden_states[1:]
        return torch.stack([state[:, -1] for state in states], dim=1)

    @torch.inference_mode()
    def nnsight_trace() -> Tensor:
        with traced.trace(**inputs):
            saved = nnsight.save([block.output for block in traced.model.layers])
        return torch.stack([state[:, -1] for state in saved], dim=1)

    @torch.inference_mode()
    def lens_cache() -> Tensor:
        mask = inputs["attention_mask"]
        _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names.__contains__)
        return torch.stack([cache[name][:, -1] for name in names], dim=1)

    sides = {
        PLAIN: plain,
        ALL: ours,
        LOWER: ours_lower,
        "output_hidden_states": hidden_states,
        "nnsight trace, all blocks saved": nnsight_trace,
        "TransformerLens run_with_cache": lens_cache,
        PLAIN_LAST: plain_last,
    }
    targets = {ALL: "<= 0.80", LOWER: "<= 0.50"}
    times = take_turns(sides, rounds, _same)
    return [
        Row(GROUP, f"{name} / {PLAIN}", ratio(times, name, PLAIN), targets.get(name, ""))
        for name in sides
        if name != PLAIN
    ]


def _same(found: dict[str, Tensor]) -> None:
    blocks = found[ALL].shape[1]
    for name in found.keys() - {PLAIN, PLAIN_LAST}:
        shared = {LOWER: blocks // 2, "output_hidden_states": blocks - 1}.get(name, blocks)
        one, other = found[name][:, :shared], found[ALL][:, :shared]
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
