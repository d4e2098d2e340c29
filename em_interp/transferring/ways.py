"""Ways: the maps from one base to another, and those that should carry nothing.

Within one base a direction goes directly, coordinate by coordinate. Between bases it goes by fitted
maps; the first of them also carries the nulls. Knows alignments and maps. Knows nothing of answers.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from em_interp.errors import InputError
from em_interp.maps import DRAWS, Agreement, Likeness, Maps, Method, Nulls
from em_interp.transferring.alignment import Alignment
from em_interp.transferring.arms import DIRECT, IDENTITY, SHUFFLED, Things, Ways

UNFITTED = (Method.IDENTITY, Method.COMPOSED)
Alike = dict[str, dict[str, dict[str, Likeness]]]  # by thing, way and site


def ways(read: Alignment, methods: Sequence[str], given: Mapping[str, Maps] | None = None) -> Ways:
    """The ways that an alignment gives: `given` maps, else one fitted by each method.

    Raises `InputError` where nothing is given between two bases, and no method named.
    """
    source, target = read.source.model, read.target.model
    if source.base == target.base:
        return Ways({DIRECT: read.identity(DIRECT)})
    maps = dict(given or {name: read.fit(Method(name), name) for name in methods})
    if not maps:
        raise InputError("a transfer between two bases needs at least one map")
    shuffled = {}
    for name, one in maps.items():
        method = next(iter(one.values())).fit.method
        if method not in UNFITTED:
            shuffled[name] = read.fit(method, f"{SHUFFLED}, {name}", null=one)
    identity = read.identity(IDENTITY) if source.d_model == target.d_model else None
    return Ways(maps, shuffled, identity)


def named(found: Ways) -> dict[str, Maps]:
    """Every map of some ways as arms name it, the first map first."""
    nulls = {f"{SHUFFLED}, {name}": one for name, one in found.shuffled.items()}
    identity = {} if found.identity is None else {IDENTITY: found.identity}
    return {**found.maps, **nulls, **identity}


def save(found: Ways, folder: Path) -> None:
    """A folder for each map, numbered in their order."""
    for shape, some in (
        ("map", found.maps),
        ("shuffled", found.shuffled),
        ("identity", {IDENTITY: found.identity}),
    ):
        for number, (name, one) in enumerate(some.items()):
            if one is not None:
                one.save(folder / f"{shape}-{number}-{name}")


def stored(folder: Path) -> Ways:
    """What `save` wrote."""

    def read(shape: str) -> dict[str, Maps]:
        some = [one.name.split("-", 2) for one in folder.glob(f"{shape}-*")]
        some.sort(key=lambda parts: int(parts[1]))  # the eleventh comes after the tenth
        return {name: Maps.load(folder / f"{shape}-{number}-{name}") for _, number, name in some}

    return Ways(read("map"), read("shuffled"), read("identity").get(IDENTITY))


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
    agree = {site: Agreement(moments, DRAWS, seed) for site, moments in last.items()}
    made: dict[str, dict[str, Alike]] = {s: {t: {} for t in targets} for s in sources}
    for via, through in named(found).items():
        for site, one in through.items():
            if site not in last:
                continue
            nulls = Nulls(one, last[site], seed=seed, agreement=agree[site])
            for (source, given), (target, own) in itertools.product(
                sources.items(), targets.items()
            ):
                main = next(iter(own.values()))
                for thing, some in given.items():
                    cell = made[source][target].setdefault(thing.value, {}).setdefault(via, {})
                    goal = own.get(thing, main)[site]
                    cell[str(site)] = nulls.likeness(some[one.source.site], goal)
    return made
