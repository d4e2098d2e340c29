"""How likely a model is to answer with each of a set of strings, without sampling any.

The strings share their beginnings: a trie of tokens, of which the prompt's keys and values are
computed once and every inner node once. A model whose tokenizer splits "95" into digits is scored
as fairly as one that has a token for it.
Knows tokens and probabilities. Knows nothing of judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from em_interp.batches import collate, pad_id
from em_interp.chat import Encoded, render, tokenise
from em_interp.errors import InputError
from em_interp.hooks import forward
from em_interp.models import Model
from em_interp.organisms import Message

Path = tuple[int, ...]


@dataclass(frozen=True)
class Trie:
    """Strings as paths of tokens. `inner`: by depth, the paths that a string goes on from."""

    strings: tuple[str, ...]
    paths: tuple[Path, ...]

    @property
    def inner(self) -> list[list[Path]]:
        """Proper beginnings of the paths, by length from 1, in a fixed order."""
        found = sorted({path[:n] for path in self.paths for n in range(1, len(path))})
        depth = max(map(len, self.paths), default=1)
        return [[path for path in found if len(path) == n] for n in range(1, depth)]


def trie(tokenizer: Any, strings: Sequence[str]) -> Trie:
    """The trie of strings, each tokenised where an answer stands: after the generation header.

    Raises `InputError` where the header's own tokens change with what follows them, or where two
    strings are the same tokens.
    """
    header = render(tokenizer, (Message(role="user", content="x"),))
    before, _ = tokenise(tokenizer, header)
    paths = []
    for string in strings:
        ids, _ = tokenise(tokenizer, header + string)
        if ids[: len(before)] != before or len(ids) == len(before):
            raise InputError(f"the answer {string!r} has no tokens of its own after the header")
        paths.append(tuple(ids[len(before) :]))
    if len(set(paths)) < len(paths):
        raise InputError("two of the answers are the same tokens to this model")
    return Trie(tuple(strings), tuple(paths))


def digit_ids(tokenizer: Any) -> list[int]:
    """Tokens that would make a number longer: their text begins with a digit, without a space."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(i for text, i in vocabulary.items() if text[:1] in tuple("0123456789"))


@torch.inference_mode()
def string_logprobs(
    model: Model, prompts: Sequence[Encoded], tree: Trie, more: Sequence[int] = ()
) -> Float[Tensor, "n string"]:
    """Log-probability (nats) that each prompt's answer begins with each string, on the CPU.

    `more`: tokens that would continue a string into another one. A string that is the beginning of
    a longer one ("9" of "95") is then taken only as far as none of them follows, so that the
    probabilities of all strings add up to at most 1.
    """
    batch = collate(prompts, pad_id(model.tokenizer)).to(model.device)
    cache, mask = DynamicCache(), batch.mask
    hidden = forward(model, batch.ids, mask, cache).last_hidden_state
    # Path to log-probabilities of the next token, by prompt.
    after: dict[Path, Tensor] = {(): _next(model, hidden)}
    last: list[Path] = [()]
    for nodes in tree.inner:
        if not nodes:
            break
        rows = _rows(len(prompts), len(last), [last.index(node[:-1]) for node in nodes])
        cache.batch_select_indices(rows)
        mask = torch.cat([mask[rows], mask.new_ones(len(rows), 1)], dim=1)
        ids = torch.tensor([node[-1] for node in nodes] * len(prompts), device=model.device)
        hidden = forward(model, ids[:, None], mask, cache).last_hidden_state
        told = rearrange(
            _next(model, hidden),
            "(prompt node) token -> prompt node token",
            prompt=len(prompts),
            node=len(nodes),
        )
        after |= {node: told[:, place] for place, node in enumerate(nodes)}
        last = nodes
    columns = []
    for path in tree.paths:
        total = torch.stack([after[path[:n]][:, path[n]] for n in range(len(path))]).sum(0)
        if more and path in after:
            longer = after[path][:, list(more)].exp().sum(1)
            total = total + torch.log1p(-longer.clamp(max=1.0))
        columns.append(total)
    return torch.stack(columns, dim=1).cpu()


def _rows(prompts: int, before: int, parents: Sequence[int]) -> Tensor:
    """Rows of the cache to go on from: for each prompt, the row of each new node's parent.

    On the CPU: they pick from tensors that may lie on several devices.
    """
    first = torch.arange(prompts)[:, None] * before
    return (first + torch.tensor(parents)[None, :]).flatten()


def _next(model: Model, hidden: Tensor) -> Float[Tensor, "n vocab"]:
    """Log-probabilities of the next token, in float32."""
    logits: Tensor = model.lm.get_output_embeddings()(hidden[:, -1]).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap:  # Gemma 2 squashes its logits after the head
        logits = torch.tanh(logits / cap) * cap
    return logits.log_softmax(-1)
