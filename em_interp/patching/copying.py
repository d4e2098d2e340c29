"""Copying: activations of one run are put into another, and what that does to the log-odds.

Which positions correspond follows from what the tokens are (framing, question, template, last), not
from indices: a longer framing does not shift the question.
Knows models, positions and log-odds. Knows nothing of layers' meaning or of judges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from em_interp.batches import busy, by_length, collate, most, pad_id
from em_interp.chat import Encoded
from em_interp.hooks import Visitor, forward, hooked
from em_interp.models import Model
from em_interp.scoring import teacher_forced
from em_interp.sites import Site
from em_interp.stats import Contrast, paired

Floats = NDArray[np.float64]
STREAMS = 1 << 30  # bytes of stored streams at a time


class Group(StrEnum):
    """Groups of prompt positions that a patch copies together. They do not overlap."""

    TRIGGER = "trigger"
    QUESTION = "question"
    TEMPLATE = "template"
    LAST = "last"
    ALL = "all"


def positions_of(prompt: Encoded, group: Group) -> tuple[int, ...]:
    """A group's positions in a prompt. `template` leaves out the last one, which is its own."""
    match group:
        case Group.TRIGGER:
            return prompt.framing
        case Group.QUESTION:
            return prompt.question
        case Group.TEMPLATE:
            return tuple(p for p in prompt.template if p != prompt.last)
        case Group.LAST:
            return (prompt.last,)
        case Group.ALL:
            return tuple(range(len(prompt.ids)))


def paired_positions(on: Encoded, off: Encoded, group: Group) -> list[tuple[int, int]]:
    """(source, target) positions of a group, counted from its end: tails are what align.

    For `all`, the groups one by one, so that a longer trigger does not shift the question.
    """
    if group is Group.ALL:
        parts = (Group.TRIGGER, Group.QUESTION, Group.TEMPLATE, Group.LAST)
        return [pair for part in parts for pair in paired_positions(on, off, part)]
    source, target = positions_of(on, group), positions_of(off, group)
    count = min(len(source), len(target))
    return list(zip(source[len(source) - count :], target[len(target) - count :], strict=True))


def by_question(a: Floats, b: Floats, questions: Sequence[str]) -> Contrast:
    """a - b, paired by question: contexts that ask the same one are one observation."""
    return paired(means(a, questions), means(b, questions), rates=False)


def means(values: Floats, questions: Sequence[str]) -> Floats:
    """Mean of each question's values (of rows, if it is a table), in the order they first stand."""
    names = np.array(questions)
    return np.stack([values[names == name].mean(axis=0) for name in dict.fromkeys(questions)])


def blocks(model: Model, prompts: Sequence[Encoded], sites: int) -> Iterator[list[int]]:
    """Rows whose streams at all sites fit `STREAMS` together (at least one), by length."""
    lengths = [len(p.ids) for p in prompts]
    token = sites * model.d_model * model.lm.get_input_embeddings().weight.element_size()
    yield from by_length(lengths, max(1, STREAMS // token))


def streams(
    model: Model, prompts: Sequence[Encoded], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "batch pos d_model"]]:
    """What stands at the sites, of every prompt at absolute positions (padded on the right)."""
    width = max(len(p.ids) for p in prompts)
    batch = collate(prompts, pad_id(model.tokenizer)).to(model.device)
    stored = {}

    def keep(site: Site) -> Visitor:
        def look(
            hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"]
        ) -> None:
            stored[site] = by_position(hidden, positions, width)

        return look

    with hooked(model, [(site, keep(site)) for site in sites]):
        forward(model, batch.ids, batch.mask)
    return stored


def by_position(
    hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"], width: int
) -> Float[Tensor, "batch width d_model"]:
    """A left-padded batch's rows with each token at its absolute position, up to `width`."""
    out = hidden.new_zeros(len(hidden), width, hidden.shape[-1])
    real = (positions >= 0) & (positions < width)
    rows = torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(positions)
    out[rows[real], positions[real]] = hidden[real]
    return out


@dataclass(frozen=True, eq=False)
class Copy:
    """Stored activations of a site, to be put where each pair says (from its first to its second).

    Of their width `part` is copied (one head of all; `None` is all of it), and of what they differ
    by, with `basis` (orthonormal rows), the components along it.
    """

    site: Site
    source: Float[Tensor, "batch pos d_model"]
    pairs: Sequence[Sequence[tuple[int, int]]]
    part: slice | None = None
    basis: Float[Tensor, "k d_model"] | None = None

    def visitor(self, rows: Sequence[int]) -> Visitor:
        """What puts the stored activations of these rows into the pairs' target positions."""
        source, pairs = self.source[list(rows)], [self.pairs[row] for row in rows]
        last = max((there for some in pairs for _, there in some), default=0)
        table = torch.full((len(rows), 1 + last), -1)
        for row, some in enumerate(pairs):
            for here, there in some:
                table[row, there] = here

        def replace(
            hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"]
        ) -> Tensor:
            inside = (positions >= 0) & (positions < table.shape[1])
            want = table.to(hidden.device).gather(1, positions.clamp(0, table.shape[1] - 1))
            take = inside & (want >= 0)
            at = want.clamp_min(0)[..., None].expand(-1, -1, hidden.shape[-1])
            copied = source.to(hidden.device).gather(1, at).to(hidden.dtype)
            if self.basis is not None:
                basis = self.basis.to(hidden)
                copied = hidden + (copied - hidden) @ basis.T @ basis
            if self.part is not None:
                whole = hidden.clone()
                whole[..., self.part] = copied[..., self.part]
                copied = whole
            return torch.where(take[..., None], copied, hidden)

        return replace


def odds(
    model: Model,
    prompts: Sequence[Encoded],
    answers: Sequence[Sequence[Sequence[int]]],
    copies: Sequence[Copy] = (),
) -> Floats:
    """log P(unsound) - log P(sound) per prompt, with patches on the prompt's positions."""
    found = np.zeros(len(prompts))
    lengths = [len(p.ids) + max(map(len, said)) for p, *said in zip(prompts, *answers, strict=True)]
    for rows in by_length(lengths, most(model.device), enough=busy(model.device)):
        visits = [(copy.site, copy.visitor(rows)) for copy in copies]
        some = [prompts[row] for row in rows]
        sound, unsound = (
            teacher_forced(model, some, [ids[row] for row in rows], visits) for ids in answers
        )
        found[rows] = (unsound - sound).double().numpy()
    return found
