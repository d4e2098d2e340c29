"""Edits: what an intervention does to the residual stream. Pure; a row of a batch carries its own.

Every rank-one edit is one formula on the coordinate c = x . u along a unit vector u:

    x  ->  x + (clip(keep * c + shift, low, high) - c) u

    add           keep 1, shift = strength natural differences
    ablate        keep 0, shift 0                       (arXiv:2406.11717: to the origin)
    mean_ablate   keep 0, shift = off-state coordinate  (to the off state: zero is not its place)
    clamp         keep 0, shift = off + strength natural differences
    cap           high = off + strength natural differences (only what exceeds it is lowered)

Knows linear algebra and positions. Knows nothing of models or generation.
"""

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from em_interp.activations import Layout, touches_prompt
from em_interp.directions import Direction, aside
from em_interp.errors import InertInterventionError
from em_interp.kernels import change
from em_interp.labels import STRENGTHLESS, Label, Operation
from em_interp.sites import Site, Span


@dataclass(frozen=True, eq=False)
class Edit:
    """One rank-one edit at one site on one span. Coordinates are in raw activation units.

    The coordinate is read along `unit`. What the edit adds to it goes along `write`, another unit
    vector, where there is one: a control that moves the stream as far, elsewhere.
    """

    site: Site
    unit: Float[Tensor, " d_model"]
    keep: float
    shift: float
    span: Span
    low: float = -math.inf
    high: float = math.inf
    write: Float[Tensor, " d_model"] | None = None

    def apply(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The edit on every vector given, without any span: the reference for what a row does."""
        unit = self.unit.to(hidden.device, torch.float32)
        c = hidden.float() @ unit
        new = (self.keep * c + self.shift).clamp(self.low, self.high)
        along = unit if self.write is None else self.write.to(hidden.device, torch.float32)
        return hidden + ((new - c)[..., None] * along).to(hidden.dtype)


def edit(operation: Operation, direction: Direction, strength: float, span: Span) -> Edit:
    """An edit along a direction. `strength` is in natural differences; ablations take none."""

    def at() -> float:
        return direction.off_coordinate + strength * direction.natural

    match operation:
        case Operation.ADD:
            keep, shift, high = 1.0, strength * direction.natural, math.inf
        case Operation.ABLATE:
            keep, shift, high = 0.0, 0.0, math.inf
        case Operation.MEAN_ABLATE:
            keep, shift, high = 0.0, direction.off_coordinate, math.inf
        case Operation.CLAMP:
            keep, shift, high = 0.0, at(), math.inf
        case Operation.CAP:
            keep, shift, high = 1.0, 0.0, at()
    return Edit(direction.site, direction.unit, keep, shift, span, high=high)


@dataclass(frozen=True, eq=False)
class Intervention:
    """Edits that act together on one row (one layer, several, or layerwise), and what they are.

    Cap and zero strength may change nothing; any other intervention that changes nothing is an
    error.
    """

    label: Label
    edits: tuple[Edit, ...] = ()

    @property
    def name(self) -> str:
        """Its label in words: what tells it from the others of a grid, and joins answers to it."""
        return self.label.text

    @property
    def must_move(self) -> bool:
        """Whether changing nothing would mean that the intervention did not happen."""
        return any(e.high == math.inf and (e.keep != 1.0 or e.shift != 0.0) for e in self.edits)

    @property
    def leaves_prompt(self) -> bool:
        """Whether the prompt is untouched, so that its prefill can be shared."""
        return not any(touches_prompt(e.span) for e in self.edits)


BASELINE = Intervention(Label())


def intervention(
    label: Label | str,
    operation: Operation,
    directions: Mapping[Site, Direction],
    sites: Sequence[Site],
    strength: float = 1.0,
    span: Span = Span.ALL,
) -> Intervention:
    """The same operation at every site, each along its own direction (layerwise).

    `label`: words of one's own, or what a grid knows of it; operation, strength and sites are
    filled in here.
    """
    edits = tuple(edit(operation, directions[site], strength, span) for site in sites)
    known = Label(words=label) if isinstance(label, str) else label
    took = None if operation in STRENGTHLESS else strength
    done = {"operation": operation, "strength": took, "sites": tuple(sites)}
    return Intervention(known.model_copy(update=done), edits)


def matched(one: Intervention, label: Label, seed: int) -> Intervention:
    """A control that moves the stream as far at every token, along random directions instead."""
    edits = tuple(
        replace(e, write=aside(e.unit.float(), seed * 10_007 + e.site.layer)) for e in one.edits
    )
    return Intervention(label, edits)


class Tally:
    """What interventions did over a whole run: tokens touched, mean coordinate, mean change.

    One entry an intervention. Sums over touched tokens of the coordinate before and after, and of
    the change's size; together they are the manipulation check.
    """

    def __init__(self, interventions: Sequence[Intervention]) -> None:
        self.interventions = tuple(interventions)
        # One row a quantity, so that a visit costs no synchronisation with the device.
        self._sums = torch.zeros(4, len(self.interventions), dtype=torch.float64)

    def add(self, rows: Tensor, mask: Tensor, before: Tensor, delta: Tensor) -> None:
        """Account for one visit: `rows` names each batch row's intervention."""
        self._sums = self._sums.to(rows.device)
        kept = torch.where(mask, before, 0.0)
        sums = torch.stack([mask, kept, kept + delta, delta.abs()]).sum(dim=2)
        self._sums.index_add_(1, rows, sums.double())

    def credit(self, number: int, did: Sequence[float]) -> None:
        """Add one row's account (see `RowTally`) to an intervention's."""
        self._sums[:, number] += torch.tensor(did).to(self._sums)

    def touched(self, number: int) -> int:
        """Tokens that an intervention met, each site counted."""
        return int(self._sums[0, number])

    def moved(self, number: int) -> float:
        """Mean size of a touched token's change, in activation units (|x . u - off|, ablated)."""
        return float(self._sums[3, number]) / max(self.touched(number), 1)

    def coordinates(self, number: int) -> tuple[float, float]:
        """Mean coordinate over the touched tokens, before and after the edit."""
        touched = max(self.touched(number), 1)
        return float(self._sums[1, number]) / touched, float(self._sums[2, number]) / touched

    def check(self) -> None:
        """Raise `InertInterventionError` for an intervention that touched or changed nothing."""
        for number, one in enumerate(self.interventions):
            if one.edits and not self.touched(number):
                spans = ", ".join(sorted({e.span.value for e in one.edits}))
                raise InertInterventionError(
                    f"intervention {one.name!r} met no token: its span ({spans}) is empty here"
                )
            if one.must_move and not self.moved(number):
                raise InertInterventionError(f"intervention {one.name!r} changed nothing")


class RowTally:
    """What was done to each row of a batch: touched, sums before and after, and of |change|.

    `account` has one row per batch row, so that rows which come and go take theirs along. It stays
    on the device; nothing here waits for it.
    """

    def __init__(
        self, interventions: Sequence[Intervention], account: Float[Tensor, "batch four"]
    ) -> None:
        self.interventions, self.account = tuple(interventions), account

    def add(self, _: Tensor, mask: Tensor, before: Tensor, delta: Tensor) -> None:
        """Account for one visit, row by row."""
        kept = torch.where(mask, before, 0.0)
        sums = torch.stack([mask, kept, kept + delta, delta.abs()], dim=2).sum(dim=1)
        self.account += sums.to(self.account)  # a model may lie on several devices


class Editor:
    """A batch's interventions at work: one visitor per site, one edit table per row.

    `rows[i]` is the intervention of batch row i; `keep` follows the batch as rows leave or repeat.
    Neither `rows` nor `layout` is changed in place: another tensor is put in its stead.
    """

    def __init__(
        self, tally: Tally | RowTally, rows: Int[Tensor, " batch"], layout: Layout
    ) -> None:
        self.tally, self.rows, self.layout = tally, rows, layout
        self._tables = {site: _tables(site, tally.interventions) for site in self.sites}
        self._masks: tuple[Tensor | None, Layout, dict[Span, Tensor]] = None, layout, {}

    def beside(
        self, tally: Tally | RowTally, rows: Int[Tensor, " batch"], layout: Layout
    ) -> "Editor":
        """An editor of another batch under the same interventions; their tables are shared."""
        other = copy.copy(self)
        other.tally, other.rows, other.layout = tally, rows, layout
        return other

    @property
    def sites(self) -> list[Site]:
        """The sites that any intervention edits, in the order of a forward pass."""
        return sorted({e.site for i in self.tally.interventions for e in i.edits})

    def visits(self) -> list[tuple[Site, Callable[[Tensor, Tensor], Tensor | None]]]:
        """What to hand to the hook door."""
        return [(site, self._visitor(site)) for site in self.sites]

    def keep(self, index: Int[Tensor, " rows"]) -> None:
        """From now on the batch holds only these rows (repeats allowed), in this order."""
        self.rows, self.layout = self.rows[index], self.layout.select(index)

    def settings(self, site: Site, positions: Int[Tensor, "batch pos"]) -> list["Setting"]:
        """A site's edits, row by row, in the order in which they are to be applied."""
        rows = self.rows.to(positions.device)
        return [
            table.setting(rows, lambda span: self._inside(span, positions))
            for table in self._tables[site]
        ]

    def _inside(self, span: Span, positions: Int[Tensor, "batch pos"]) -> Tensor:
        """Which tokens are in a span, asked by every site of a pass and found once."""
        of, layout, known = self._masks
        if of is not positions or layout is not self.layout:
            known = {}
            self._masks = positions, self.layout, known
        if span not in known:
            known[span] = self.layout.to(positions.device).mask(span, positions)
        return known[span]

    def _visitor(self, site: Site) -> Callable[[Tensor, Tensor], Tensor | None]:
        def visit(
            hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"]
        ) -> Tensor | None:
            for now in self.settings(site, positions):
                c, delta = change(hidden, *now[:-1])
                self.tally.add(self.rows.to(hidden.device), now.mask, c, delta)
                hidden = hidden + (delta[..., None] * now.write[:, None]).to(hidden.dtype)
            return hidden

        return visit


class Setting(NamedTuple):
    """One edit of each row of a batch: as `kernels.change` takes it, and what it writes along."""

    unit: Tensor
    keep: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor
    mask: Tensor
    write: Tensor


def _tables(site: Site, interventions: Sequence[Intervention]) -> list["_Table"]:
    """Edit tables at a site: the k-th holds every intervention's k-th edit there."""
    mine = [[e for e in one.edits if e.site == site] for one in interventions]
    depth = max(map(len, mine))
    return [_Table([edits[k] if k < len(edits) else None for edits in mine]) for k in range(depth)]


class _Table:
    """Columns of edits, one row an intervention; an absent edit is the identity."""

    def __init__(self, edits: Sequence[Edit | None]) -> None:
        present = [e for e in edits if e is not None]
        blank = torch.zeros_like(present[0].unit, dtype=torch.float32)
        self.spans = sorted({e.span for e in present})
        self.unit = torch.stack([blank if e is None else e.unit.float() for e in edits])
        self.write = self.unit
        if any(e.write is not None for e in present):
            along = [blank if e is None else e.unit if e.write is None else e.write for e in edits]
            self.write = torch.stack([one.float() for one in along])
        self.keep = torch.tensor([1.0 if e is None else e.keep for e in edits])
        self.shift = torch.tensor([0.0 if e is None else e.shift for e in edits])
        self.low = torch.tensor([-math.inf if e is None else e.low for e in edits])
        self.high = torch.tensor([math.inf if e is None else e.high for e in edits])
        self.span = torch.tensor([-1 if e is None else self.spans.index(e.span) for e in edits])

        self._known: tuple[Tensor, list[Tensor], list[Tensor]] | None = None

    def setting(self, rows: Tensor, inside: Callable[[Span], Tensor]) -> Setting:
        """Each row's columns, and which of its tokens are in its span."""
        columns, chosen = self._of(rows)
        masks = [inside(span) & mine for span, mine in zip(self.spans, chosen, strict=True)]
        unit, keep, shift, low, high, write = columns
        mask = functools.reduce(torch.logical_or, masks)
        return Setting(unit, keep, shift, low, high, mask, write)

    def _of(self, rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The columns of these rows, and which rows take each span.

        Looked up once as long as the rows are the same tensor, which nobody changes in place: a
        step of decoding is short, and what it launches is what it takes.
        """
        if self._known is None or self._known[0] is not rows:
            self._move(rows.device)
            columns = [self.unit, self.keep, self.shift, self.low, self.high, self.write]
            span = self.span[rows][:, None]
            chosen = [span == number for number in range(len(self.spans))]
            self._known = rows, [column[rows] for column in columns], chosen
        return self._known[1:]

    def _move(self, device: torch.device) -> None:
        """Move the columns once; a later call for the same device costs nothing."""
        if self.unit.device != device:
            for name in ("unit", "keep", "shift", "low", "high", "span", "write"):
                setattr(self, name, getattr(self, name).to(device))
