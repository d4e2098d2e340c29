"""Batches: prompts sorted by length, padded on the left, with the layout that says what is what.

Knows ids and padding. Knows nothing of hooks or sampling.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from em_interp.activations import Layout
from em_interp.chat import Encoded


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids padded on the left, the mask of real tokens, and the layout of each row."""

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    layout: Layout

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """Absolute position of every token in its own row; -1 for padding."""
        return (self.mask.long().cumsum(-1) - 1).masked_fill(~self.mask, -1)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.layout.to(device))


def collate(
    prompts: Sequence[Encoded], pad: int, answers: Sequence[Sequence[int]] | None = None
) -> Batch:
    """Prompts (each followed by its answer's ids, where given) as one left-padded batch."""
    rows = [list(p.ids) for p in prompts]
    if answers is not None:
        rows = [row + list(answer) for row, answer in zip(rows, answers, strict=True)]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = True
    layout = Layout.build(
        [len(p.ids) for p in prompts], [p.framing for p in prompts], [p.question for p in prompts]
    )
    return Batch(ids, mask, layout)


def padded(batch: Batch, columns: int) -> Batch:
    """The same batch behind more padding; positions and layout are absolute, so stay."""
    more = (columns, 0)
    return Batch(
        torch.nn.functional.pad(batch.ids, more),
        torch.nn.functional.pad(batch.mask, more, value=False),
        batch.layout,
    )


def by_length(
    lengths: Sequence[int], tokens: int, rows: int = 1024, enough: int | None = None
) -> Iterator[list[int]]:
    """Indices in groups of similar length, longest first, each at most `tokens` when padded.

    Longest first: a batch that does not fit in memory fails at once, not at the end. A group that
    holds `enough` tokens (see `busy`) ends where the next row would be padded by more than an
    eighth: padding costs as much as text, and a larger batch would gain nothing.
    """
    enough = tokens if enough is None else enough
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    group: list[int] = []
    for index in order:
        if group:
            width = lengths[group[0]]
            full = len(group) >= rows or (len(group) + 1) * width > tokens
            if full or (len(group) * width >= enough and 8 * lengths[index] < 7 * width):
                yield group
                group = []
        group.append(index)
    if group:
        yield group


def busy(device: torch.device) -> int:
    """Tokens in a pass beyond which a larger pass is no faster per token."""
    return 128 if device.type == "cpu" else 4096


def most(device: torch.device) -> int:
    """Tokens in a padded pass at most: what a CPU's caches like, or a modest share of a GPU."""
    return 2048 if device.type == "cpu" else 8192


def pad_id(tokenizer: object) -> int:
    """The pad token, or 0 where there is none: padding is masked, so its value never matters."""
    found = getattr(tokenizer, "pad_token_id", None)
    return int(found) if isinstance(found, int) else 0
