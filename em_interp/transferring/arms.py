"""Arms: every way to get a direction for a target, and the nulls that each must beat.

An arm is the target's own direction (the ceiling), one carried from a source by a map, or a null: a
random source direction through the same map, the source's through a map that was fitted on shuffled
prompts, coordinate by coordinate where widths agree, the benign twin's through the same map. All
are given the target's own states and natural difference, so that arms differ in direction alone and
never in dose. Knows directions and maps. Knows nothing of models, judges or how maps are fitted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from em_interp.directions import Directions
from em_interp.errors import InputError, once
from em_interp.labels import IDENTITY, OWN, Label, Operation, Passage, Thing, Way
from em_interp.maps import Likeness, Maps

Things = Mapping[Thing, Directions]
Placed = Callable[[Directions], Directions]


@dataclass(frozen=True, eq=False)
class Ways:
    """From one base to another: maps, what should carry nothing, likenesses.

    `maps`: the first carries every thing, the others the first thing alone unless `whole`.
    `shuffled`: by the way of the map, the same fitted on shuffled prompts. `identity`: coordinate
    by coordinate, where widths agree and that is no map of ours. `alike`: likeness to the target's
    own, by source, thing, way (its text) and site.
    """

    maps: Mapping[Way, Maps]
    shuffled: Mapping[Way, Maps] = field(default_factory=dict)
    identity: Maps | None = None
    alike: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Likeness]]]] = field(
        default_factory=dict
    )
    whole: bool = True


@dataclass(frozen=True, eq=False)
class Source:
    """Whose directions are carried; `twin` is the benign twin's trigger shift."""

    name: str
    things: Things
    twin: Directions | None = None


@dataclass(frozen=True, eq=False)
class Arm:
    """One direction for the target, in the target's own units.

    `nulls` names the arms that this one must beat; `through` is the map it came by (`None`: the
    target's own).
    """

    thing: Thing
    source: str
    way: Way
    directions: Directions
    nulls: tuple[str, ...] = ()
    through: Maps | None = None
    alike: Mapping[str, Likeness] = field(default_factory=dict)

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

    def label(self, operation: Operation) -> Label:
        """What it is as an intervention."""
        return Label(operation=operation, thing=self.thing, source=self.source, way=self.way)

    @property
    def name(self) -> str:
        """Its name as an intervention: adding and ablating are two grids."""
        return self.label(Operation.ADD).text


def things(delta: Directions, general: Directions) -> dict[Thing, Directions]:
    """The three things at every site that both directions have. Raises for another base's g."""
    general.check(delta.card.base)
    shared = [site for site in delta if site in general]
    rest = {site: delta[site].without(general[site]) for site in shared}
    return {
        Thing.DELTA: delta,
        Thing.GENERAL: general,
        Thing.REST: Directions(rest, delta.card),
    }


def arms(
    name: str,
    own: Things,
    bases: Sequence[tuple[Ways, Sequence[Source]]],
    *,
    randoms: int = 2,
    seed: int = 0,
) -> list[Arm]:
    """The target's own directions, then every source's beside the nulls of its base.

    `own`: the target's, its main one first, whose units all arms share. `bases`: the ways from each
    base, and its sources; the first of them lends the nulls their directions, since what shows
    chance depends on the two bases and the map. Sites are those of the first map. Raises
    `InputError` for ways without a map or a source named twice.
    """
    once("source", [name, *(one.name for _, sources in bases for one in sources)])
    if not bases or not all(found.maps for found, _ in bases):
        raise InputError("a transfer needs at least one map")
    sites = list(next(iter(bases[0][0].maps.values())))
    units = next(iter(own.values()))

    def placed(given: Directions) -> Directions:
        table = {site: units[site].with_unit(given[site].unit) for site in sites if site in given}
        return Directions(table, units.card)

    made = [Arm(thing, name, OWN, placed(one)) for thing, one in own.items()]
    for found, sources in bases:
        chance = _nulls(found, sources, placed, randoms, seed)
        made += [arm for one in sources for arm in _carried(found, one, placed, chance)]
        made += [arm for some in chance.values() for arm in some]
    return made


def _carried(
    found: Ways, source: Source, placed: Placed, chance: Mapping[Way, Sequence[Arm]]
) -> list[Arm]:
    """Every thing by every map, each beside the map's nulls: those of its own thing and of none."""
    made = []
    for number, (way, one) in enumerate(found.maps.items()):
        some = list(source.things.items())
        for thing, given in some if found.whole or not number else some[:1]:
            mine = _judged_as(thing, source)
            nulls = tuple(
                arm.name for arm in chance[way] if arm.thing is mine or not _of_thing(arm.way)
            )
            made.append(_arm(found, source, thing, way, one, placed(one.directions(given)), nulls))
    return made


def _nulls(
    found: Ways, sources: Sequence[Source], placed: Placed, randoms: int, seed: int
) -> dict[Way, list[Arm]]:
    """By map: random directions, each thing on shuffled prompts; by the first also the rest."""
    source = sources[0]
    main, given = next(iter(source.things.items()))
    every = [thing for thing in source.things if _judged_as(thing, source) is thing]
    made: dict[Way, list[Arm]] = {}
    for number, (way, one) in enumerate(found.maps.items()):
        plain = {_by(way, Passage.RANDOM, n): given.random(seed + n) for n in range(1, randoms + 1)}
        if source.twin is not None and not number:
            plain[_by(way, Passage.TWIN)] = source.twin
        made[way] = [
            _arm(found, source, main, what, one, placed(one.directions(vector)))
            for what, vector in plain.items()
        ]
        through = {_by(way, Passage.SHUFFLED): found.shuffled.get(way)}
        if not number:
            through[IDENTITY] = found.identity
        made[way] += [
            _arm(found, source, thing, what, null, placed(null.directions(source.things[thing])))
            for what, null in through.items()
            if null is not None
            for thing in (every if found.whole or not number else every[:1])
        ]
    return made


def _by(way: Way, passage: Passage, draw: int = 0) -> Way:
    """A null of a way: through its map, or within one base coordinate by coordinate."""
    return Way(passage=passage, map=way.map, draw=draw)


def _of_thing(way: Way) -> bool:
    """Whether a null is one of its own thing alone: the thing itself, by a map that is none."""
    return way.passage in (Passage.IDENTITY, Passage.SHUFFLED)


def _judged_as(thing: Thing, source: Source) -> Thing:
    """Whose nulls a thing has: the remainder is a part of delta, and has delta's."""
    return Thing.DELTA if thing is Thing.REST and Thing.DELTA in source.things else thing


def _arm(
    found: Ways,
    source: Source,
    thing: Thing,
    way: Way,
    through: Maps,
    directions: Directions,
    nulls: tuple[str, ...] = (),
) -> Arm:
    """A carried arm, or a null, which has no `nulls` of its own."""
    return Arm(
        thing,
        source.name,
        way,
        directions,
        nulls=nulls,
        through=through,
        alike=found.alike.get(source.name, {}).get(thing.value, {}).get(way.text, {}),
    )
