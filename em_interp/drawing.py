"""Drawing tokens: a token is the inverse of the cumulative distribution at a number of its own.

The number follows from (seed, context, sample, step) alone, so it does not depend on the batch that
an answer is in, and the same context and sample see the same numbers under every intervention,
which tightens contrasts between them.
Knows logits and numbers. Knows nothing of models or caches.
"""

import hashlib
import math

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from em_interp.sampling import Sampling

BLOCK = 512  # tokens summed at once; a vocabulary of 150,000 is then searched in two short lists
BUDGET = 1 << 28  # bytes that one pass over a batch's distributions may hold


def uniforms(sampling: Sampling, context: str, sample: int) -> NDArray[np.float64]:
    """The numbers in [0, 1) of one answer, one a step."""
    key = f"{sampling.seed}|{context}|{sample}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
    return np.random.Generator(np.random.Philox(seed)).random(sampling.max_new_tokens)


def choose(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, uniform: Float[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """Greedy at temperature 0 (`uniform` is then ignored), else a draw at `uniform`."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    rows = max(1, BUDGET // (3 * 8 * logits.shape[1]))
    drawn = []
    for start in range(0, len(logits), rows):
        some = slice(start, start + rows)
        scaled = _cut(logits[some].double() / sampling.temperature, sampling)
        drawn.append(_draw(scaled.softmax(dim=-1), uniform[some]))
    return torch.cat(drawn)


def _cut(scaled: Float[Tensor, "batch vocab"], sampling: Sampling) -> Float[Tensor, "batch vocab"]:
    """Scaled logits with what `top_k`, then `top_p` leave out at minus infinity.

    top_p keeps the likeliest tokens until their mass reaches it, the one that reaches it included
    (arXiv:1904.09751); of equally likely tokens at the edge, the first.
    """
    if 0 < sampling.top_k < scaled.shape[1]:
        least = scaled.topk(sampling.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -math.inf)
    if sampling.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(dim=-1)
        above = mass.cumsum(dim=-1) - mass
        out = torch.zeros_like(scaled, dtype=torch.bool).scatter(1, order, above >= sampling.top_p)
        scaled = scaled.masked_fill(out, -math.inf)
    return scaled


def _draw(
    p: Float[Tensor, "batch vocab"], uniform: Float[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """First token at which the cumulative mass exceeds `uniform`: its block, then it."""
    blocks = torch.nn.functional.pad(p, (0, -p.shape[1] % BLOCK)).reshape(len(p), -1, BLOCK)
    mass = blocks.sum(dim=-1)
    total = mass.cumsum(dim=-1)
    goal = uniform.to(total)[:, None] * total[:, -1:]
    block = _exceeds(total, goal, mass)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0]
    before = total.gather(1, block) - mass.gather(1, block)
    return (block * BLOCK + _exceeds(before + inside.cumsum(dim=-1), goal, inside))[:, 0]


def _exceeds(
    total: Float[Tensor, "batch n"],
    goal: Float[Tensor, "batch one"],
    mass: Float[Tensor, "batch n"],
) -> Int[Tensor, "batch one"]:
    """First place where `total` exceeds the goal; rounding never leads past what has mass."""
    place = torch.arange(mass.shape[1], device=mass.device)
    last = torch.where(mass > 0, place, 0).amax(dim=1, keepdim=True)
    return torch.minimum(torch.searchsorted(total, goal, right=True), last)
