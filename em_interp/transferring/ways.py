"""Ways: the maps from one base to another, and those that should carry nothing.

Within one base a direction goes directly, coordinate by coordinate. Between bases it goes by fitted
maps; the first of them also carries the nulls. Knows alignments and maps. Knows nothing of answers.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from em_interp.errors import InputError
from em_interp.labels import DIRECT, IDENTITY, Passage, Way, by_map
from em_interp.maps import Agreement, Likeness, Maps, Method, Nulls, draws_for
from em_interp.records import Record, read_json, write_json
from em_interp.transferring.alignment import Alignment
from em_interp.transferring.arms import Things, Ways

UNFITTED = (Method.IDENTITY, Method.COMPOSED)
Alike = dict[str, dict[str, dict[str, Likeness]]]  # by thing, way's text and site
INDEX = "ways.json"


def ways(read: Alignment, methods: Sequence[str], given: Mapping[str, Maps] | None = None) -> Ways:
    """The ways that an alignment gives: `given` maps, else one fitted by each method.

    Raises `InputError` where nothing is given between two bases, and no method named.
    """
    source, target = read.source.model, read.target.model
    if source.base == target.base:
        return Ways({DIRECT: read.identity(DIRECT.text)})
    maps = dict(given or {name: read.fit(Method(name), name) for name in methods})
    if not maps:
        raise InputError("a transfer between two bases needs at least one map")
    shuffled = {}
    for name, one in maps.items():
        method = next(iter(one.values())).fit.method
        if method not in UNFITTED:
            shuffled[by_map(name)] = read.fit(method, _shuffled(by_map(name)).text, null=one)
    identity = read.identity(IDENTITY.text) if source.d_model == target.d_model else None
    return Ways({by_map(name): one for name, one in maps.items()}, shuffled, identity)


def _shuffled(way: Way) -> Way:
    return Way(passage=Passage.SHUFFLED, map=way.map)


def named(found: Ways) -> dict[Way, Maps]:
    """Every map of some ways as arms name it, the first map first."""
    nulls = {_shuffled(way): one for way, one in found.shuffled.items()}
    identity = {} if found.identity is None else {IDENTITY: found.identity}
    return {**found.maps, **nulls, **identity}


class Index(Record):
    """What stands in a folder of ways: each in a folder of its own, in their order."""

    ways: tuple[tuple[str, Way], ...]


def save(found: Ways, folder: Path) -> None:
    """A folder for each map, and an index that says which is which."""
    made = dict(_placed(found))
    for inside, way in made.items():
        named(found)[way].save(folder / inside)
    write_json(folder / INDEX, Index(ways=tuple(made.items())))


def _placed(found: Ways) -> Iterator[tuple[str, Way]]:
    """The folder of each map: its kind, its place among its kind, and what a reader looks for."""
    for way in named(found):
        kind = {Passage.SHUFFLED: "shuffled", Passage.IDENTITY: "identity"}.get(way.passage, "map")
        some = found.shuffled if kind == "shuffled" else found.maps
        number = list(some).index(by_map(way.map)) if way.map else 0
        yield f"{kind}-{number}-{way.map or way.text}", way


def stored(folder: Path) -> Ways:
    """What `save` wrote. Raises `InputError` for a missing or damaged file."""
    index = Index.parse(read_json(folder / INDEX), str(folder / INDEX)).ways
    found = {way: Maps.load(folder / inside) for inside, way in index}
    return Ways(
        {way: one for way, one in found.items() if not way.null},
        {by_map(way.map): one for way, one in found.items() if way.passage is Passage.SHUFFLED},
        found.get(IDENTITY),
    )


def alike(
    read: Alignment,
    found: Ways,
    sources: Mapping[str, Things],
    targets: Mapping[str, Things],
    seed: int = 0,
) -> dict[str, dict[str, Alike]]:
    """Likeness of every source's things to every target's own, by every way, site by site.

    By source, target, thing, way, site. A thing that a target has none of is compared with its
    main one, the first. Draws are made once for each way and site.
    """
    last = {pair[1]: folds.last for pair, folds in zip(read.pairs, read.moments, strict=True)}
    draws = draws_for(len(last))
    agree = {site: Agreement(moments, draws, seed) for site, moments in last.items()}
    made: dict[str, dict[str, Alike]] = {s: {t: {} for t in targets} for s in sources}
    for way, through in named(found).items():
        for site, one in through.items():
            if site not in last:
                continue
            nulls = Nulls(one, last[site], draws=draws, seed=seed, agreement=agree[site])
            for (source, given), (target, own) in itertools.product(
                sources.items(), targets.items()
            ):
                main = next(iter(own.values()))
                for thing, some in given.items():
                    cell = made[source][target].setdefault(thing.value, {}).setdefault(way.text, {})
                    goal = own.get(thing, main)[site]
                    cell[str(site)] = nulls.likeness(some[one.source.site], goal)
    return made
