"""A transfer study's records as a grid: who is carried into whom, by which map, beside which nulls.

Order is that of the declaration, never that of a file, so that a resumed run ends with the same
page. Whatever was not run or not scored is `None`, which is not zero. Knows records and names.
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from em_interp.labels import DIRECT, OWN, Passage, Way, by_map
from em_interp.report.reading import plain
from em_interp.sites import Site
from em_interp.study.spec import STUDIED
from em_interp.study.transfers.inputs import Group
from em_interp.study.transfers.records import Column
from em_interp.study.transfers.results import EFFECTS, Carried, Findings, discoveries, verdict
from em_interp.transferring import (
    Cell,
    Effect,
    Lack,
    ProbeCell,
    Thing,
    Verdict,
)
from em_interp.transferring.effects import LEVEL

ADDED, ABLATED = EFFECTS
BY_MAP = (Passage.RANDOM, Passage.TWIN)  # nulls of every thing that goes by their map
SYMBOLS = {Thing.DELTA: "δ", Thing.GENERAL: "g", Thing.REST: "δ without g"}
ACTS = {ABLATED: "ablating", ADDED: "adding"}


class Relation(StrEnum):
    """How a source and a target are related: what could have been shared without any transfer."""

    GROUP = "same group"
    BASE = "same base"
    OTHER = "other base"


class Shown(NamedTuple):
    """One effect of one arm in one target, with the verdict that the whole grid allows."""

    target: Column
    cell: Cell
    effect: Effect
    q: float | None
    verdict: Verdict | None

    @property
    def change(self) -> float | None:
        """Change of the EM rate as a share; `None` where nothing was scored."""
        return None if self.effect.change is None else self.effect.change.difference

    @property
    def transfers(self) -> bool:
        """Whether it counts as transfer."""
        return self.verdict is Verdict.TRANSFERS

    @property
    def acts(self) -> bool:
        """Whether likeness alone is lacking: more than every null does, over the whole grid."""
        lacks = self.effect.lacks if self.verdict is Verdict.NOT else ()
        return lacks == (Lack.LIKENESS,) and self.q is not None and self.q <= LEVEL


class Grid:
    """Lookups in a finished (or half-finished) study's records."""

    def __init__(self, found: Findings) -> None:
        self.found, self.spec, self.groups = found, found.inputs.spec, found.inputs.groups
        self.bases, self.methods = list(self.spec.bases), self.spec.methods

    @cached_property
    def q(self) -> dict[Carried, float]:
        """q-values, worked out once."""
        return discoveries(self.found)

    # --- names -----------------------------------------------------------------------------------

    def short(self, group: Group) -> str:
        """A group's name without what all groups share."""
        if len(self.bases) == 1:
            return group.variant
        return group.base if len(self.spec.variants) == 1 else group.name

    def relation(self, source: Group, target: Group) -> Relation:
        """Same group, another fine-tune of one base, or another base."""
        if source == target:
            return Relation.GROUP
        return Relation.BASE if source.base == target.base else Relation.OTHER

    def via(self, source: Group, target: Group) -> Way:
        """The way that carries everything: coordinate by coordinate, or the first method's map."""
        return DIRECT if source.base == target.base else by_map(self.methods[0])

    # --- cells -----------------------------------------------------------------------------------

    def column(self, target: Group, role: str) -> Column | None:
        """A target's record, where it was run."""
        return self.found.columns.get((target.name, role))

    @cached_property
    def _cells(self) -> dict[tuple[str, str], dict[tuple[Thing, str, Way], Cell]]:
        return {
            key: {(c.thing, c.source, c.way): c for c in column.transfer.cells}
            for key, column in self.found.columns.items()
        }

    def cell(self, target: Group, role: str, thing: Thing, source: str, via: Way) -> Cell | None:
        """One arm by name."""
        return self._cells.get((target.name, role), {}).get((thing, source, via))

    def own(self, target: Group, role: str, thing: Thing) -> Cell | None:
        """The target's own direction of a thing: the ceiling."""
        return self.cell(target, role, thing, f"{target.name}/{role}", OWN)

    def carried(
        self, source: Group, target: Group, role: str, thing: Thing, via: Way | None = None
    ) -> Cell | None:
        """What a source brings to a target, by `via` or by the way that carries everything."""
        return self.cell(target, role, thing, source.name, via or self.via(source, target))

    def nulls(self, base: str, target: Group, role: str, thing: Thing, via: Way) -> list[Cell]:
        """The nulls that a thing carried from a base by a map must beat, in the records' order."""
        column = self.column(target, role)
        mine = {group.name for group in self.groups if group.base == base}
        judged = Thing.DELTA if thing is Thing.REST else thing
        first = via in (DIRECT, by_map(self.methods[0]))
        return [
            one
            for one in (column.transfer.cells if column else ())
            if one.null
            and one.source in mine
            and (first if one.way.passage is Passage.IDENTITY else one.way.map == via.map)
            and (one.way.passage in BY_MAP or one.thing is judged)
        ]

    def shown(self, cell: Cell | None, target: Group, role: str, effect: str) -> Shown | None:
        """An effect with its verdict over the whole grid."""
        column = self.column(target, role)
        if cell is None or column is None:
            return None
        one: Effect = getattr(cell, effect)
        q = self.q.get((effect, column.transfer.target, cell.source, cell.thing.value, cell.way))
        return Shown(column, cell, one, q, verdict(one, q))

    def strongest(self, some: list[Cell], target: Group, role: str, effect: str) -> Shown | None:
        """The null that goes furthest: down where it is ablated, up where it is added."""
        made = [one for c in some if (one := self.shown(c, target, role, effect)) is not None]
        scored = [one for one in made if one.change is not None]
        sign = -1 if effect == ABLATED else 1
        return max(scored, key=lambda one: sign * (one.change or 0.0), default=None)

    def pairs(
        self, role: str, thing: Thing, relation: Relation, via: Way | None = None
    ) -> Iterator[tuple[Group, Group, Cell | None]]:
        """Source, target and cell of every place of the grid that can be filled.

        Within a group only what is not the target's own is carried.
        """
        for target in self.groups:
            for source in self.groups:
                if self.relation(source, target) is not relation:
                    continue
                if source == target and thing in things_of(role):
                    continue
                yield source, target, self.carried(source, target, role, thing, via)

    def effects(
        self, role: str, thing: Thing, relation: Relation, effect: str, via: Way | None = None
    ) -> list[Shown]:
        """Every effect there is of a thing, by relation."""
        return [
            one
            for _, target, cell in self.pairs(role, thing, relation, via)
            if (one := self.shown(cell, target, role, effect)) is not None
        ]

    def native(self, role: str, thing: Thing, effect: str) -> list[Shown]:
        """What the targets' own directions do."""
        return [
            one
            for group in self.groups
            if (one := self.shown(self.own(group, role, thing), group, role, effect)) is not None
        ]

    def probe(self, source: Group, target: Group, role: str, via: Way) -> ProbeCell | None:
        """A source's trigger-on probe in a target."""
        column = self.column(target, role)
        name = f"{target.name}/{role}" if via == OWN else source.name
        some = column.transfer.probes if column else ()
        return next((one for one in some if (one.source, one.way) == (name, via)), None)

    def relations(self, role: str, thing: Thing) -> list[Relation]:
        """The relations that this study has cells for."""
        return [one for one in Relation if next(self.pairs(role, thing, one), None) is not None]


def things_of(role: str) -> tuple[Thing, ...]:
    """What is a target's own: all three behind a gate, g alone without one. The first is main."""
    return tuple(Thing) if role == STUDIED else (Thing.GENERAL,)


def main_of(role: str) -> Thing:
    """The thing that a target lives by."""
    return things_of(role)[0]


def gate(role: str) -> str:
    """A kind of target in words."""
    return "gated" if role == STUDIED else plain(role)


def layer_of(site: str) -> int:
    """The block of a site's name."""
    return Site.named(site).layer


def spelled(sites: tuple[str, ...]) -> list[int]:
    """Layers of some sites, in their order through the network."""
    return sorted(map(layer_of, sites))
