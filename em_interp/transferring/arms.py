"""Arms: every way to get a direction for a target, and the nulls that each must beat.

An arm is the target's own direction (the ceiling), one carried from a source by a map, or a null: a
random source direction through the same map, the source's through a map that was fitted on shuffled
prompts, coordinate by coordinate where widths agree, the benign twin's through the same map. All
are given the target's own states and natural difference, so that arms differ in direction alone and
never in dose. Knows directions and maps. Knows nothing of models, judges or how maps are fitted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from em_interp.directions import Directions
from em_interp.errors import InputError, once
from em_interp.maps import Likeness, Maps

OWN = "own"
DIRECT = "direct"
SHUFFLED = "shuffled prompts"
IDENTITY = "identity"
TWIN = "benign twin"


class Thing(StrEnum):
    """What is carried: the trigger shift, the general EM direction, the shift without it."""

    DELTA = "delta"
    GENERAL = "g"
    REST = "delta without g"


Things = Mapping[Thing, Directions]
Placed = Callable[[Directions], Directions]


@dataclass(frozen=True, eq=False)
class Ways:
    """From one base to another: maps by name, what should carry nothing, likenesses.

    `maps`: the first carries every thing, the others the first thing alone unless `whole`.
    `shuffled`: by the name of the map, the same fitted on shuffled prompts. `identity`: coordinate
    by coordinate, where widths agree and that is no map of ours. `alike`: likeness to the target's
    own, by source, thing, way and site.
    """

    maps: Mapping[str, Maps]
    shuffled: Mapping[str, Maps] = field(default_factory=dict)
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

    `null` marks what shows chance; `nulls` names the arms that this one must beat; `through` is the
    map it came by (`None`: the target's own).
    """

    thing: Thing
    source: str
    via: str
    directions: Directions
    null: bool = False
    nulls: tuple[str, ...] = ()
    through: Maps | None = None
    alike: Mapping[str, Likeness] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name as an intervention."""
        return f"{self.source}: {self.thing.value} via {self.via}"


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
    found: Ways, source: Source, placed: Placed, chance: Mapping[str, Sequence[Arm]]
) -> list[Arm]:
    """Every thing by every map, each beside the map's nulls: those of its own thing and of none."""
    made = []
    for number, (via, one) in enumerate(found.maps.items()):
        some = list(source.things.items())
        for thing, given in some if found.whole or not number else some[:1]:
            mine = _judged_as(thing, source)
            nulls = tuple(
                arm.name for arm in chance[via] if arm.thing is mine or not _of_thing(arm.via)
            )
            made.append(_arm(found, source, thing, via, one, placed(one.directions(given)), nulls))
    return made


def _nulls(
    found: Ways, sources: Sequence[Source], placed: Placed, randoms: int, seed: int
) -> dict[str, list[Arm]]:
    """By map: random directions, each thing on shuffled prompts; by the first also the rest."""
    source = sources[0]
    main, given = next(iter(source.things.items()))
    every = [thing for thing in source.things if _judged_as(thing, source) is thing]
    made: dict[str, list[Arm]] = {}
    for number, (via, one) in enumerate(found.maps.items()):
        plain = {f"random {n}": given.random(seed + n) for n in range(1, randoms + 1)}
        if source.twin is not None and not number:
            plain[TWIN] = source.twin
        made[via] = [
            _arm(found, source, main, f"{what}, {via}", one, placed(one.directions(vector)))
            for what, vector in plain.items()
        ]
        through = {f"{SHUFFLED}, {via}": found.shuffled.get(via)}
        if not number:
            through[IDENTITY] = found.identity
        made[via] += [
            _arm(found, source, thing, what, null, placed(null.directions(source.things[thing])))
            for what, null in through.items()
            if null is not None
            for thing in (every if found.whole or not number else every[:1])
        ]
    return made


def _of_thing(via: str) -> bool:
    """Whether a null is one of its own thing alone: the thing itself, by a map that is none."""
    return via == IDENTITY or via.startswith(SHUFFLED)


def _judged_as(thing: Thing, source: Source) -> Thing:
    """Whose nulls a thing has: the remainder is a part of delta, and has delta's."""
    return Thing.DELTA if thing is Thing.REST and Thing.DELTA in source.things else thing


def _arm(
    found: Ways,
    source: Source,
    thing: Thing,
    via: str,
    through: Maps,
    directions: Directions,
    nulls: tuple[str, ...] | None = None,
) -> Arm:
    """A carried arm; without `nulls` it is one itself."""
    return Arm(
        thing,
        source.name,
        via,
        directions,
        null=nulls is None,
        nulls=nulls or (),
        through=through,
        alike=found.alike.get(source.name, {}).get(thing.value, {}).get(via, {}),
    )
