"""Activations and where their tokens are: layouts, pooled activations, streaming moments.

Knows positions, means and files. Knows nothing of models or tokenizers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from em_interp.errors import InputError
from em_interp.sites import Site, Span


@dataclass(frozen=True, eq=False)
class Layout:
    """Which tokens of each row are what, in absolute positions (0 is the row's first real token).

    `length` is the prompt's length with the generation header; whatever comes after is response.
    `framing` and `question` mark tokens of the prompt; their width is the longest prompt's.
    """

    length: Int[Tensor, " batch"]
    framing: Bool[Tensor, "batch prompt"]
    question: Bool[Tensor, "batch prompt"]

    @classmethod
    def build(
        cls,
        lengths: Sequence[int],
        framings: Sequence[Sequence[int]],
        questions: Sequence[Sequence[int]],
    ) -> "Layout":
        """A layout from token positions per row."""

        def mark(rows: Sequence[Sequence[int]]) -> Tensor:
            marks = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
            for row, tokens in enumerate(rows):
                marks[row, list(tokens)] = True
            return marks

        return cls(torch.tensor(lengths), mark(framings), mark(questions))

    def select(self, rows: Int[Tensor, " rows"]) -> "Layout":
        """The layout of some rows, possibly repeated."""
        return Layout(self.length[rows], self.framing[rows], self.question[rows])

    def to(self, device: torch.device) -> "Layout":
        """The layout on a device."""
        return Layout(self.length.to(device), self.framing.to(device), self.question.to(device))

    def mask(self, span: Span, positions: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Which of the running tokens are in a span. Padding (position -1) never is."""
        length = self.length[:, None]
        real = positions >= 0
        match span:
            case Span.ALL:
                return real
            case Span.PROMPT:
                return real & (positions < length)
            case Span.PROMPT_LAST:
                return positions == length - 1
            case Span.RESPONSE:
                return positions >= length
            case Span.TRIGGER:
                return self._marked(self.framing, positions)
            case Span.QUESTION:
                return self._marked(self.question, positions)
            case Span.TEMPLATE:
                marked = self._marked(self.framing | self.question, positions)
                return real & (positions < length) & ~marked
            case Span.AFTER_TRIGGER:
                width = self.framing.shape[1]
                order = torch.arange(width, device=positions.device)
                last = torch.where(self.framing, order, -1).amax(dim=1, keepdim=True)
                return real & (positions > last) & (last >= 0)

    def _marked(
        self, marks: Bool[Tensor, "batch prompt"], positions: Int[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch pos"]:
        inside = (positions >= 0) & (positions < marks.shape[1])
        return inside & marks.gather(1, positions.clamp(0, marks.shape[1] - 1))


def touches_prompt(span: Span) -> bool:
    """Whether a span can hold prompt tokens; one that cannot leaves the prefill shareable."""
    return span is not Span.RESPONSE


@dataclass(frozen=True, eq=False)
class Activations:
    """Pooled activations of n contexts at several sites, one span; row order is the contexts'."""

    values: Float[Tensor, "n site d_model"]
    sites: tuple[Site, ...]
    span: Span

    def at(self, site: Site) -> Float[Tensor, "n d_model"]:
        """The rows of one site. Raises `InputError` where it was not captured."""
        if site not in self.sites:
            raise InputError(
                f"{site} was not captured (captured: {', '.join(map(str, self.sites))})"
            )
        return self.values[:, self.sites.index(site)]


class Moments:
    """Streaming count and mean per site, and the mean norm: memory is independent of n.

    float64 accumulation; merging batches in any split gives the same result to rounding.
    """

    def __init__(self, n_sites: int, d_model: int) -> None:
        self.count = 0
        self._sum = torch.zeros(n_sites, d_model, dtype=torch.float64)
        self._norm = torch.zeros(n_sites, dtype=torch.float64)

    def update(self, batch: Float[Tensor, "batch site d_model"]) -> None:
        """Add a batch of pooled activations."""
        wide = batch.detach().to("cpu", torch.float64)
        self.count += len(wide)
        self._sum += wide.sum(dim=0)
        self._norm += wide.norm(dim=-1).sum(dim=0)

    @property
    def mean(self) -> Float[Tensor, "site d_model"]:
        """Mean activation per site (float64)."""
        return self._sum / self.count

    @property
    def norm(self) -> Float[Tensor, " site"]:
        """Mean of the activations' norms per site (not the norm of the mean)."""
        return self._norm / self.count
