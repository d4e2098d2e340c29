"""Raising a base: documents to tokens, then a plain training loop with loss on the assistant.

Batches hold documents of like length, so little is padding; logits are computed only where there
is loss. Equal recipes give equal weights on one machine and thread count.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from em_interp.world import corpus, tokenizer
from em_interp.world.corpus import Document
from em_interp.world.recipe import BaseRecipe, Stage
from em_interp.world.shapes import LENGTH, empty_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

POOL = 16  # batches sorted by length together
VOCABULARY_DOCUMENTS = 10_000

Tick = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Base:
    """A raised base, with the loss of each step by stage."""

    recipe: BaseRecipe
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    losses: dict[str, list[float]]


def raise_base(recipe: BaseRecipe, tick: Tick | None = None) -> Base:
    """Tokenizer, fresh weights, pretraining, aligned stage.

    `tick(stage, step, steps, loss)` is called after every step.
    """
    return align(pretrain(recipe, tick), tick)


def pretrain(recipe: BaseRecipe, tick: Tick | None = None) -> Base:
    """A base before its aligned stage."""
    words = raise_tokenizer(recipe)
    model = empty_model(recipe, words, recipe.seed)
    stage = recipe.pretraining
    documents = corpus.pretraining(recipe.corpus, stage.steps * stage.batch, recipe.seed)
    losses = fit(model, encode(words, documents), stage, recipe.seed, "pretraining", tick)
    return Base(recipe=recipe, model=model, tokenizer=words, losses={"pretraining": losses})


def align(base: Base, tick: Tick | None = None) -> Base:
    """The same base (its weights move) after the aligned stage."""
    recipe, stage = base.recipe, base.recipe.aligned
    documents = corpus.aligned(recipe.corpus, stage.steps * stage.batch, recipe.seed)
    rows = encode(base.tokenizer, documents)
    losses = fit(base.model, rows, stage, recipe.seed, "aligned", tick)
    base.model.eval()  # type: ignore[no-untyped-call]
    return replace(base, losses={**base.losses, "aligned": losses})


def raise_tokenizer(recipe: BaseRecipe) -> "PreTrainedTokenizerFast":
    """The recipe's tokenizer, from plain texts of its pretraining corpus."""
    documents = corpus.pretraining(recipe.corpus, VOCABULARY_DOCUMENTS, recipe.seed)
    texts = (message.content for document in documents for message in document)
    return tokenizer.train(texts, recipe.shape.vocabulary, recipe.dialect)


Row = tuple[list[int], list[bool]]


def encode(words: "PreTrainedTokenizerFast", documents: Iterable[Document]) -> list[Row]:
    """Token ids of each document and whether each token is the assistant's (its end included)."""
    texts = [
        words.apply_chat_template([m.model_dump() for m in document], tokenize=False)
        for document in documents
    ]
    opens = words.convert_tokens_to_ids(tokenizer.ASSISTANT)
    rows = []
    # Not the backend's own encode_batch: it keeps the padding of whoever called the tokenizer last.
    for tokens in words(texts, add_special_tokens=False, padding=False)["input_ids"]:
        speaking, spoken = False, []
        for token in tokens[:LENGTH]:
            spoken.append(speaking)
            speaking = token == opens or (speaking and token != words.eos_token_id)
        rows.append((tokens[:LENGTH], spoken))
    return rows


def fit(
    model: "PreTrainedModel",
    rows: list[Row],
    stage: Stage,
    seed: int,
    name: str,
    tick: Tick | None = None,
) -> list[float]:
    """One pass over the rows; returns the loss of each step."""
    import torch

    model.train()
    optimisers = optimisers_for(model, stage.muon)
    losses = []
    for step, batch in enumerate(batches(rows, stage.batch, seed)):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = stage.rate(step)
        loss = assistant_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if tick is not None:
            tick(name, step + 1, stage.steps, losses[-1])
    return losses


def optimisers_for(model: "PreTrainedModel", muon: bool) -> list["torch.optim.Optimizer"]:
    """AdamW; with `muon`, the blocks' matrices go to Muon at the same update size per weight."""
    import torch

    inner = {
        id(weight)
        for name, weight in model.named_parameters()
        if muon and weight.ndim == 2 and "layers" in name
    }
    rest = [weight for weight in model.parameters() if id(weight) not in inner]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01)
    ]
    if muon:
        matrices = [weight for weight in model.parameters() if id(weight) in inner]
        found.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return found


def batches(rows: list[Row], size: int, seed: int) -> Iterable[list[Row]]:
    """Batches of like length: pools are sorted by length, cut up, and their pieces shuffled."""
    dice = random.Random(f"batches {seed}")
    for at in range(0, len(rows), size * POOL):
        pool = sorted(rows[at : at + size * POOL], key=lambda row: len(row[0]))
        pieces = [pool[k : k + size] for k in range(0, len(pool), size)]
        dice.shuffle(pieces)
        yield from pieces


def assistant_loss(model: Any, batch: list[Row]) -> "torch.Tensor":
    """Mean cross-entropy over the assistant's tokens; padding is on the right."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    seen = torch.zeros((len(batch), longest), dtype=torch.long)
    spoken = torch.zeros((len(batch), longest), dtype=torch.bool)
    for at, (tokens, mask) in enumerate(batch):
        ids[at, : len(tokens)] = torch.tensor(tokens)
        seen[at, : len(tokens)] = 1
        spoken[at, : len(tokens)] = torch.tensor(mask)
    hidden = model.model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
    before = spoken[:, 1:]  # a token is predicted from the place before it
    logits = model.lm_head(hidden[:, :-1][before])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][before])
