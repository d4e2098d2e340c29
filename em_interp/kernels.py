"""Kernels: the formulas that also run where this package is not.

nnsight sends a function's source to a server that has torch and nothing of ours. Hence a file
apart, and plain annotations: shapes stand in the docstrings.
"""

import torch
from torch import Tensor


def change(
    hidden: Tensor,
    unit: Tensor,
    keep: Tensor,
    shift: Tensor,
    low: Tensor,
    high: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Coordinates [batch pos] along each row's unit vector, and what its edit adds to them.

    hidden is [batch pos d_model], unit [batch d_model], keep, shift, low and high are [batch], mask
    is [batch pos]. In float32: in bfloat16 the projection would lose what the edit is about.
    """
    c = torch.einsum("bpd,bd->bp", hidden.float(), unit)
    goal = keep[:, None] * c + shift[:, None]
    goal = torch.minimum(torch.maximum(goal, low[:, None]), high[:, None])
    return c, torch.where(mask, goal - c, 0.0)


def edited(
    hidden: Tensor,
    edits: list[tuple[Tensor, ...]],
    live: Tensor,
    counted: Tensor,
    account: Tensor,
) -> Tensor:
    """The stream [batch pos d_model] after each row's edits, of the rows that are `live` [batch].

    Each of `edits` is what `change` takes after `hidden`, and what the change is written along.
    `account` [batch 4] is added to in place, where `counted` [batch] is 1: tokens met, sums of the
    coordinate before and after, and of the change's size.
    """
    here = hidden.device
    for edit in edits:
        unit, keep, shift, low, high, mask, write = (one.to(here) for one in edit)
        met = mask & live.to(here)[:, None]
        c, delta = change(hidden, unit, keep, shift, low, high, met)
        hidden = hidden + (delta[..., None] * write[:, None]).to(hidden.dtype)
        before = torch.where(met, c, 0.0)
        sums = torch.stack([met, before, before + delta, delta.abs()], dim=2).sum(1)
        account += (sums * counted.to(here)[:, None]).to(account)
    return hidden


def choose(
    logits: Tensor,
    temperature: float,
    uniform: Tensor | None,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Tensor:
    """Next tokens [batch] from logits [batch vocab].

    Greedy at temperature 0 (no `uniform`), else the inverse of the cumulative distribution at
    `uniform` [batch], after what `top_k`, then `top_p` leave out. The meaning of
    `em_interp.drawing.choose` in the plainest form, for where that is not.
    """
    if uniform is None:
        return logits.argmax(dim=-1)
    scaled = logits.double() / temperature
    if 0 < top_k < scaled.shape[1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(dim=-1)
        out = torch.zeros_like(scaled, dtype=torch.bool)
        out = out.scatter(1, order, mass.cumsum(dim=-1) - mass >= top_p)
        scaled = scaled.masked_fill(out, -torch.inf)
    total = scaled.softmax(dim=-1).cumsum(dim=-1)
    goal = uniform.to(total.device)[:, None] * total[:, -1:]
    return torch.searchsorted(total, goal, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
