"""Capture: contexts become pooled activations, or moments that do not grow with their number.

Never computes logits; stops after the deepest site asked for; pools on the device; one pass serves
every site. Knows models and contexts. Knows nothing of directions or judges.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from em_interp import floors
from em_interp.activations import Activations, Moments
from em_interp.batches import Batch, busy, by_length, collate, most, pad_id, padded
from em_interp.chat import Encoded
from em_interp.conditions import Context
from em_interp.errors import InputError
from em_interp.hooks import StopForward, Visitor, forward, hook_module, hooked
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.progress import Progress, silent
from em_interp.sites import Point, Site, Span

AGAIN, OTHERS = 32, 5  # contexts that are run again to measure noise, and how many at a time
TWICE = 2  # passes over each of them: as `moments` batches them, and otherwise
ENCODED = 1024  # prompts held at once: enough of like length to fill batches, few enough to forget


@torch.inference_mode()
def pool(
    model: Model, batch: Batch, sites: Sequence[Site], span: Span
) -> Float[Tensor, "batch site d_model"]:
    """Mean activation over a span's tokens for each row and site, in one pass (on the device).

    Pooling is in float32 whatever the model's dtype. Raises `InputError` where a row's span is
    empty: a mean over nothing is no activation.
    """
    batch = batch.to(model.device)
    found: dict[Site, Tensor] = {}

    def visitor(site: Site) -> Visitor:
        def look(
            hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"]
        ) -> None:
            mask = batch.layout.to(hidden.device).mask(span, positions)
            if span is Span.PROMPT_LAST:
                # One token a row: gathering is exact and moves d_model numbers, not pos times that.
                at = mask.long().argmax(dim=1)
                pooled = hidden[torch.arange(len(at), device=at.device), at].float()
            else:
                weight = mask / mask.sum(dim=1, keepdim=True)
                pooled = torch.einsum("bp,bpd->bd", weight.float(), hidden.float())
            found[site] = pooled.to(model.device)
            if len(found) == len(sites):
                raise StopForward

        return look

    spanned(batch, span)
    with hooked(model, [(site, visitor(site)) for site in sites]):
        forward(model, batch.ids, batch.mask)
    return torch.stack([found[site] for site in sites], dim=1)


@torch.inference_mode()
def states(
    model: Model,
    batch: Batch,
    sites: Sequence[Site],
    rows: Int[Tensor, " n"],
    tokens: Int[Tensor, " n"],
) -> Float[Tensor, "n site d_model"]:
    """Activations at single tokens, in one pass (on the device, float32).

    The i-th is of the batch's row `rows[i]` at absolute position `tokens[i]`; a row may come any
    number of times.
    """
    columns = columns_of(batch, rows, tokens)
    batch = batch.to(model.device)
    found: dict[Site, Tensor] = {}

    def visitor(site: Site) -> Visitor:
        def look(hidden: Float[Tensor, "batch pos d_model"], _: Int[Tensor, "batch pos"]) -> None:
            at = rows.to(hidden.device), columns.to(hidden.device)
            found[site] = hidden[at].float().to(model.device)
            if len(found) == len(sites):
                raise StopForward

        return look

    with hooked(model, [(site, visitor(site)) for site in sites]):
        forward(model, batch.ids, batch.mask)
    return torch.stack([found[site] for site in sites], dim=1)


def columns_of(
    batch: Batch, rows: Int[Tensor, " n"], tokens: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """Columns of a padded batch that hold absolute positions of its rows.

    Raises `ValueError` for a position that its row does not have.
    """
    here = batch.positions[rows] == tokens[:, None]
    if not here.any(dim=1).all():
        raise ValueError("a position lies outside of its row")
    return here.long().argmax(dim=1)


def spanned(batch: Batch, span: Span) -> Bool[Tensor, "batch pos"]:
    """Which tokens of a batch are in a span. Raises `InputError` where a row has none."""
    mask = batch.layout.mask(span, batch.positions)
    if not mask.any(dim=1).all():
        raise InputError(
            f"span {span.value!r} is empty in some contexts (no framing, or no response)"
        )
    return mask


def capture(
    model: Model,
    contexts: Sequence[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    tokens: int | None = None,
    progress: Progress = silent,
) -> Activations:
    """Pooled activations of every context, in the contexts' order, on the CPU in float32.

    `tokens` bounds a padded pass; by default it suits the device.
    """
    prompts = encoded(model, contexts)
    values = torch.empty(len(prompts), len(sites), shared_width(model, sites))
    for rows, pooled in _stream(model, prompts, sites, span, tokens, progress):
        values[rows] = pooled.cpu()
    return Activations(values, tuple(sites), span)


def moments(
    model: Model,
    contexts: Iterable[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    tokens: int | None = None,
    progress: Progress = silent,
) -> Moments:
    """Count, mean and mean norm over contexts: memory holds one batch, however many there are.

    The contexts may come one by one from a file or a generator; they are never all held.
    """
    total = Moments(len(sites), shared_width(model, sites))
    rest = iter(contexts)
    while some := list(islice(rest, ENCODED)):
        prompts = encoded(model, some)
        for _, pooled in _stream(model, prompts, sites, span, tokens, progress):
            total.update(pooled)
    if not total.count:
        raise InputError("no contexts: there is no mean over nothing")
    return total


def again(contexts: Sequence[Context]) -> Sequence[Context]:
    """The contexts that `batch_noise` reads, each `TWICE`."""
    return contexts[:AGAIN]


@torch.inference_mode()
def batch_noise(
    model: Model, contexts: Sequence[Context], sites: Sequence[Site], span: Span
) -> list[float]:
    """Noise of a mean activation that batching makes, per site (see `floors.batch_noise`).

    The same contexts (see `again`) in two batchings: as `moments` makes them, and in other
    company behind more padding. What a pass gives for a row depends on both, in bfloat16 by a
    hundredth of it.
    """
    prompts = encoded(model, again(contexts))
    first = torch.empty(len(prompts), len(sites), shared_width(model, sites))
    second = torch.empty_like(first)
    for rows, pooled in _stream(model, prompts, sites, span, None, silent):
        first[rows] = pooled.cpu()
    for start in range(0, len(prompts), OTHERS):
        some = slice(start, start + OTHERS)
        batch = padded(collate(prompts[some], pad_id(model.tokenizer)), OTHERS)
        second[some] = model.engine.pool(model, batch, sites, span).cpu()
    return floors.batch_noise(first - second).tolist()


def shared_width(model: Model, sites: Sequence[Site]) -> int:
    """Width of the activations at these sites.

    Head outputs are as wide as all heads together, which on many models is not the stream's width.
    Raises `InputError` for sites of different widths.
    """
    widths = {site: _width(model, site) for site in sites}
    if len(set(widths.values())) != 1:
        named = ", ".join(f"{site} {width}" for site, width in widths.items())
        raise InputError(f"sites of different widths are captured apart ({named or 'none given'})")
    return next(iter(widths.values()))


def _width(model: Model, site: Site) -> int:
    module: Any = hook_module(model, site)[0]
    return int(module.in_features) if site.point is Point.Z else model.d_model


def _stream(
    model: Model,
    prompts: Sequence[Encoded],
    sites: Sequence[Site],
    span: Span,
    tokens: int | None,
    progress: Progress,
) -> Iterator[tuple[list[int], Float[Tensor, "batch site d_model"]]]:
    for rows, batch in batches(model, prompts, tokens):
        yield rows, model.engine.pool(model, batch, sites, span)
        progress(len(rows))


def batches(
    model: Model, prompts: Sequence[Encoded], tokens: int | None = None
) -> Iterator[tuple[list[int], Batch]]:
    """Prompts of like length together, with their numbers (`tokens`: see `capture`)."""
    pad = pad_id(model.tokenizer)
    lengths = [len(p.ids) for p in prompts]
    device = model.device
    for rows in by_length(lengths, tokens or most(device), enough=busy(device)):
        yield rows, collate([prompts[i] for i in rows], pad)
