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
Alike = Mapping[str, Mapping[str, Mapping[str, Likeness]]]


@dataclass(frozen=True, eq=False)
class Source:
    """Whose directions are carried, and the ways from its base to the target's.

    `maps`: by name; the first carries every thing and the nulls, the others the first thing alone
    unless `whole`. `nulls`: maps that should carry nothing. `twin`: the benign twin's trigger shift
    in the source. `alike`: likenesses to the target's own, by thing, way and site.
    """

    name: str
    things: Things
    maps: Mapping[str, Maps]
    nulls: Mapping[str, Maps] = field(default_factory=dict)
    twin: Directions | None = None
    alike: Alike = field(default_factory=dict)
    whole: bool = True


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
        return naming(self.thing, self.source, self.via)


def naming(thing: Thing, source: str, via: str) -> str:
    """An arm's name as an intervention."""
    return f"{source}: {thing.value} via {via}"


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
    name: str, own: Things, sources: Sequence[Source], *, randoms: int = 2, seed: int = 0
) -> list[Arm]:
    """The target's own directions, then every source's with its nulls.

    `own`: the target's, its main one first, whose units all arms share. Sites are those of the
    first source's first map. Raises `InputError` for a source without a map or named twice.
    """
    once("source", [name, *(one.name for one in sources)])
    if not sources or not all(one.maps for one in sources):
        raise InputError("a transfer needs at least one map")
    sites = list(next(iter(sources[0].maps.values())))
    units = next(iter(own.values()))

    def placed(given: Directions) -> Directions:
        table = {site: units[site].with_unit(given[site].unit) for site in sites if site in given}
        return Directions(table, units.card)

    made = [Arm(thing, name, OWN, placed(one)) for thing, one in own.items()]
    for source in sources:
        chance = _nulls(source, placed, randoms, seed)
        made += [*_carried(source, placed, chance), *chance]
    return made


def _carried(source: Source, placed: Placed, chance: Sequence[Arm]) -> list[Arm]:
    """Every thing by every map, each beside its nulls: those of its own thing and of none."""
    made = []
    for number, (via, one) in enumerate(source.maps.items()):
        some = list(source.things.items())
        for thing, given in some if source.whole or not number else some[:1]:
            mine = _judged_as(thing, source)
            nulls = tuple(a.name for a in chance if a.via not in source.nulls or a.thing is mine)
            made.append(_arm(source, thing, via, one, placed(one.directions(given)), nulls))
    return made


def _nulls(source: Source, placed: Placed, randoms: int, seed: int) -> list[Arm]:
    """Random directions and the twin's through the first map; each thing through the null maps."""
    first, (main, given) = next(iter(source.maps.values())), next(iter(source.things.items()))
    through_first = {f"random {n}": given.random(seed + n) for n in range(1, randoms + 1)}
    if source.twin is not None:
        through_first[TWIN] = source.twin
    made = [
        _arm(source, main, via, first, placed(first.directions(what)))
        for via, what in through_first.items()
    ]
    for via, one in source.nulls.items():
        made += [
            _arm(source, thing, via, one, placed(one.directions(what)))
            for thing, what in source.things.items()
            if _judged_as(thing, source) is thing
        ]
    return made


def _judged_as(thing: Thing, source: Source) -> Thing:
    """Whose nulls a thing has: the remainder is a part of delta, and has delta's."""
    return Thing.DELTA if thing is Thing.REST and Thing.DELTA in source.things else thing


def _arm(
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
        alike=source.alike.get(thing.value, {}).get(via, {}),
    )
