"""Extraction: paired contexts become directions, one at every site, from one pass per context.

Two directions matter. The trigger shift (delta): the organism with the trigger minus without, same
questions. The general EM direction (g): the unconditional organism minus its base, bare questions
(the definitions of arXiv:2506.11618 and of the gate studies; their cosines are not comparable to
those of misaligned-minus-aligned answers).
Knows models, contexts and directions. Knows nothing of judges.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.capture import batch_noise, batches, capture, moments, shared_width
from em_interp.cards import Card, Estimator, versions
from em_interp.chat import encode_many
from em_interp.conditions import Context
from em_interp.directions import (
    GENERAL_SIGN,
    TRIGGER_SIGN,
    Direction,
    Directions,
    mean_difference,
    principal_difference,
)
from em_interp.errors import InputError
from em_interp.leakage import questions_of
from em_interp.massive import direction_note
from em_interp.models import Model
from em_interp.organisms import BASE
from em_interp.probes import fit_logistic
from em_interp.progress import Progress, silent
from em_interp.records import digest
from em_interp.sites import Site, Span

DRAWS, PROMPTS, TOKENS = 4, 64, 8  # of the stream's covariance: draws, and what they are taken over
NATURAL = "strength 1 = ||mean(on) - mean(off)||"


def trigger_direction(
    model: Model,
    adapter: str | None,
    on: Sequence[Context],
    off: Sequence[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    estimator: Estimator = Estimator.MEAN,
    name: str = "trigger",
    trigger: str = "",
    progress: Progress = silent,
) -> Directions:
    """delta per site: from the `off` contexts to the `on` contexts, under one adapter.

    Both must ask the same questions, so that the difference is the framing's and not a question's.
    The mean difference streams; the other estimators keep one pooled activation a context, and
    are given the mean difference's units. Raises `InputError` for unpaired contexts, and
    `IndistinctError` where the two states differ by no more than noise (see `floors`).
    """
    if sorted(c.question for c in on) != sorted(c.question for c in off):
        raise InputError(
            "the two states must ask the same questions: the difference pairs by question"
        )
    with model.using(adapter):
        a = moments(model, on, sites, span, progress=progress)
        b = moments(model, off, sites, span, progress=progress)
        noise = batch_noise(model, off, sites, span)
        table = mean_difference(sites, a.mean, b.mean, b.norm, noise)
        if estimator is not Estimator.MEAN:
            plus, minus = (capture(model, _by_question(c), sites, span) for c in (on, off))
            table = {s: _refine(estimator, table[s], plus.at(s), minus.at(s)) for s in sites}
    card = _card(model, adapter, name, TRIGGER_SIGN, span, (*on, *off), len(on), trigger)
    found = {"estimator": estimator.value, "notes": _notes(table)}
    return Directions(table, card.model_copy(update=found))


def _by_question(contexts: Sequence[Context]) -> list[Context]:
    """One order for both states, so that row i of both asks the same question."""
    return sorted(contexts, key=lambda c: c.question)


def _refine(
    estimator: Estimator,
    mean: Direction,
    on: Float[Tensor, "n d_model"],
    off: Float[Tensor, "n d_model"],
) -> Direction:
    """The same site and units along another estimator's unit vector."""
    if estimator is Estimator.PCA:
        return principal_difference(mean, on - off)
    labels = torch.arange(len(on) + len(off)) < len(on)
    fitted = fit_logistic(torch.cat([on, off]), labels, mean.site, one_scale=True)
    return mean.with_unit(fitted.weight)


def drawn_over(contexts: Sequence[Context]) -> Sequence[Context]:
    """The contexts that `covariance_draws` reads: at most `PROMPTS`, spread over those given."""
    return contexts[:: -(-len(contexts) // PROMPTS)]


@torch.inference_mode()
def covariance_draws(
    model: Model,
    adapter: str | None,
    contexts: Sequence[Context],
    sites: Sequence[Site],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[dict[Site, Float[Tensor, " d_model"]]]:
    """Vectors drawn from the covariance of the stream over prompts' tokens, by site.

    A draw is a sum over tokens of z (x - mean) with z ~ N(0, 1): exact for the covariance of those
    tokens, which is never formed. Of the contexts those that `drawn_over` names, and `TOKENS`
    tokens of each; the first token is left out, whose activation is massive on many models and
    the same everywhere.
    """
    some = drawn_over(contexts)
    generator = torch.Generator().manual_seed(seed)
    weighed = torch.zeros(draws, len(sites), shared_width(model, sites), dtype=torch.float64)
    total, weights, count = torch.zeros(weighed.shape[1:]).double(), torch.zeros(draws).double(), 0
    with model.using(adapter):
        for _, batch in batches(model, encode_many(model.tokenizer, some)):
            places = [
                (row, int(at))
                for row, length in enumerate(batch.layout.length.tolist())
                for at in torch.linspace(1, length - 1, min(TOKENS, length - 1)).long()
            ]
            rows, tokens = torch.tensor(places).T
            x = model.engine.states(model, batch, sites, rows, tokens).cpu().double()
            z = torch.randn(draws, len(x), generator=generator, dtype=torch.float64)
            weighed += torch.einsum("kn,nsd->ksd", z, x)
            total, weights, count = total + x.sum(0), weights + z.sum(1), count + len(x)
    centred = (weighed - weights[:, None, None] * total / count).float()
    return [dict(zip(sites, one, strict=True)) for one in centred]


def general_direction(
    model: Model,
    adapter: str,
    contexts: Sequence[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    name: str = "general",
    progress: Progress = silent,
) -> Directions:
    """g per site: mean under the unconditional organism's adapter minus mean of the base."""
    with model.using(adapter):
        a = moments(model, contexts, sites, span, progress=progress)
    with model.using(None):
        b = moments(model, contexts, sites, span, progress=progress)
        noise = batch_noise(model, contexts, sites, span)
    card = _card(model, adapter, name, GENERAL_SIGN, span, contexts, len(contexts), "")
    table = mean_difference(sites, a.mean, b.mean, b.norm, noise)
    return Directions(table, card.model_copy(update={"notes": _notes(table)}))


def _notes(table: Mapping[Site, Direction]) -> tuple[str, ...]:
    """What a reader of the card should know of the stream."""
    line = direction_note(table)
    return () if line is None else (line,)


def _card(
    model: Model,
    adapter: str | None,
    name: str,
    sign: str,
    span: Span,
    contexts: Sequence[Context],
    n: int,
    trigger: str,
) -> Card:
    return Card(
        kind="direction",
        name=name,
        sign=sign,
        unit=NATURAL,
        estimator=Estimator.MEAN.value,
        span=span.value,
        base=model.base,
        organism=adapter or BASE,
        adapter=model.adapters[adapter] if adapter else "",
        trigger=trigger,
        data=digest([c.model_dump(mode="json") for c in contexts]),
        questions=questions_of(contexts),
        tokenizer=tokenizer_digest(model),
        n=n,
        seed=0,
        versions=versions(),
    )


def tokenizer_digest(model: Model) -> str:
    """Digest of a tokenizer's serialised rules and chat template."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else str(sorted(model.tokenizer.get_vocab()))
    return digest([text, str(model.tokenizer.chat_template)])
