"""Transfer: what directions of one organism do in another, beside their nulls and the ceiling.

arms.py       every way to get a direction for a target, and the nulls it must beat
effects.py    what adding and ablating an arm does to the EM rate
readings.py   what a carried direction or probe tells of the trigger
doses.py      where and how strongly to add: chosen for the ceiling
axes.py       what an organism has to carry: delta, g, the remainder, the twin's shift, probes
ways.py       the maps between two bases, and those that should carry nothing
alignment.py  two models read the same texts; what maps are fitted from

Knows models, directions and judges. Knows nothing of how maps are fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from em_interp.capture import capture
from em_interp.conditions import Condition, Context
from em_interp.edits import intervention
from em_interp.errors import InputError
from em_interp.labels import Operation, Passage, Thing, Way
from em_interp.maps import Likeness, Maps
from em_interp.models import Model
from em_interp.probes import Probe
from em_interp.records import Record
from em_interp.sites import Site, Span
from em_interp.stats import Rate
from em_interp.transferring.arms import (
    Arm,
    Source,
    Things,
    Ways,
    arms,
    things,
)
from em_interp.transferring.effects import Asker, Effect, Lack, Setting, Verdict
from em_interp.transferring.readings import Chance, Reader, Reading

__all__ = [
    "Arm",
    "Asker",
    "Cell",
    "Chance",
    "Effect",
    "Lack",
    "ProbeCell",
    "ProbeOf",
    "Reading",
    "Setting",
    "Source",
    "Target",
    "Thing",
    "Things",
    "Transfer",
    "Verdict",
    "Ways",
    "arms",
    "target_of",
    "things",
    "transfer",
]


class Cell(Record):
    """One arm: where it points, what it reads, what adding and ablating it does.

    `cosines` and `likeness` are to the target's own of the same thing (of its main one where it has
    none), by site.
    """

    thing: Thing
    source: str
    way: Way
    cosines: dict[str, float]
    likeness: dict[str, Likeness]
    reading: Reading
    added: Effect
    ablated: Effect

    @property
    def via(self) -> str:
        """Its way in words."""
        return self.way.text

    @property
    def own(self) -> bool:
        """Whether it is the target's own: the ceiling."""
        return self.way.passage is Passage.OWN

    @property
    def null(self) -> bool:
        """Whether it shows chance."""
        return self.way.null


class ProbeCell(Record):
    """A trained trigger-on probe of a source, carried (or the target's own)."""

    source: str
    way: Way
    reading: Reading

    @property
    def via(self) -> str:
        """Its way in words."""
        return self.way.text

    @property
    def own(self) -> bool:
        """Whether it is the target's own."""
        return self.way.passage is Passage.OWN

    @property
    def null(self) -> bool:
        """Whether it shows chance."""
        return self.way.null


class Transfer(Record):
    """All arms in one target: added at some sites while it is aligned, ablated while it is not.

    `plain_added`, `plain_ablated`: the EM rates without any edit.
    """

    target: str
    added_at: tuple[str, ...]
    ablated_at: tuple[str, ...]
    strength: float
    plain_added: Rate | None
    plain_ablated: Rate | None
    cells: tuple[Cell, ...]
    probes: tuple[ProbeCell, ...]

    def cell(self, thing: Thing, way: Way, source: str | None = None) -> Cell:
        """One arm; its source may be left out where there is but one."""
        for one in self.cells:
            if (one.thing, one.way) == (thing, way) and source in (None, one.source):
                return one
        raise KeyError(f"no cell for {thing.value} via {way.text}")


@dataclass(frozen=True, eq=False)
class Target:
    """Whom arms act in.

    `asleep`: aligned until something is added. `awake`: misaligned until something is ablated.
    `bank`: contexts by condition, read under `awake`'s adapter.
    """

    name: str
    asleep: Setting
    awake: Setting
    bank: Mapping[Condition, Sequence[Context]]


@dataclass(frozen=True, eq=False)
class ProbeOf:
    """Trigger-on probes in the target's space; `through` as in `Arm`.

    `fitted`: digests of the questions that they were fitted on; read-outs leave those out.
    """

    source: str
    way: Way
    table: Mapping[Site, Probe]
    through: Maps | None = None
    fitted: frozenset[str] = frozenset()


def target_of(
    model: Model,
    adapter: str | None,
    name: str,
    bank: Mapping[Condition, Sequence[Context]],
    *,
    gated: bool,
) -> Target:
    """The settings of an organism: behind a trigger (`gated`), or misaligned without one.

    A gated one sleeps unless the trigger is there. Of one without a gate, the base is who sleeps.
    Raises `InputError` where the bank lacks a condition.
    """
    if not {Condition.NONE, Condition.TRIGGER} <= set(bank):
        raise InputError("a transfer needs the conditions none and trigger")
    plain = bank[Condition.NONE]
    asleep = Setting(adapter if gated else None, plain)
    awake = Setting(adapter, bank[Condition.TRIGGER] if gated else plain)
    return Target(name, asleep, awake, bank)


def transfer(
    target: Target,
    made: Sequence[Arm],
    asker: Asker,
    *,
    at: Sequence[Site],
    strength: float,
    span: Span = Span.ALL,
    read: Span = Span.PROMPT_LAST,
    probes: Sequence[ProbeOf] = (),
    seed: int = 0,
) -> Transfer:
    """Add every arm at the sites `at` while the target sleeps, ablate it everywhere, read it.

    For either, an arm must be like the target's own at the sites `at`, which the ceiling chose.
    A killed run goes on where it was if the asker has a log.
    """
    add, mean = Operation.ADD, Operation.MEAN_ABLATE
    everywhere = list(made[0].directions)
    adding = [intervention(a.label(add), add, a.directions, at, strength, span) for a in made]
    ablating = [
        intervention(a.label(mean), mean, a.directions, everywhere, span=span) for a in made
    ]
    before, added = asker.effects(target.asleep, adding, made, "added.jsonl", at)
    after, ablated = asker.effects(target.awake, ablating, made, "ablated.jsonl", at)
    with asker.model.using(target.awake.adapter):
        seen = {c: capture(asker.model, some, everywhere, read) for c, some in target.bank.items()}
    reader, where = Reader(seen, target.bank, seed), at[0]
    own = {a.thing: a.directions for a in made if a.own}
    main = next(iter(own.values()))
    cells = tuple(
        Cell(
            thing=arm.thing,
            source=arm.source,
            way=arm.way,
            cosines={
                str(s): d.cosine(own.get(arm.thing, main)[s]) for s, d in arm.directions.items()
            },
            likeness=dict(arm.alike),
            reading=reader.direction(arm, where),
            added=added[arm.name],
            ablated=ablated[arm.name],
        )
        for arm in made
    )
    readings = tuple(
        ProbeCell(
            source=one.source,
            way=one.way,
            reading=reader.probe(
                f"{one.source}: probe via {one.way.text}",
                one.table[where],
                one.through,
                fitted=one.fitted,
            ),
        )
        for one in probes
        if where in one.table
    )
    return Transfer(
        target=target.name,
        added_at=tuple(map(str, at)),
        ablated_at=tuple(map(str, everywhere)),
        strength=strength,
        plain_added=before,
        plain_ablated=after,
        cells=cells,
        probes=readings,
    )
