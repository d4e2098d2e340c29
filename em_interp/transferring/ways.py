"""Ways: the maps from one base to another, and those that should carry nothing.

Within one base a direction goes directly, coordinate by coordinate. Between bases it goes by fitted
maps; the first of them also carries the nulls. Knows alignments and maps. Knows nothing of answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from em_interp.errors import InputError
from em_interp.maps import Likeness, Maps, Method, likeness
from em_interp.transferring.alignment import Alignment
from em_interp.transferring.arms import DIRECT, IDENTITY, SHUFFLED, Things

UNFITTED = (Method.IDENTITY, Method.COMPOSED)
SHAPES = {"maps": "map", "nulls": "null"}


@dataclass(frozen=True, eq=False)
class Ways:
    """`maps` by name, the first the one that nulls go through; `nulls`: should carry nothing."""

    maps: dict[str, Maps]
    nulls: dict[str, Maps]

    def save(self, folder: Path) -> None:
        """A folder for each map, numbered in their order."""
        for shape, prefix in SHAPES.items():
            for number, (name, one) in enumerate(getattr(self, shape).items()):
                one.save(folder / f"{prefix}-{number}-{name.replace(' ', '-')}")

    @classmethod
    def load(cls, folder: Path) -> "Ways":
        """Read what `save` wrote; each map's name is its card's."""
        found = {
            shape: [Maps.load(one) for one in sorted(folder.glob(f"{prefix}-*"))]
            for shape, prefix in SHAPES.items()
        }
        return cls(**{k: {m.card.name: m for m in some} for k, some in found.items()})


def ways(read: Alignment, methods: Sequence[str], given: Mapping[str, Maps] | None = None) -> Ways:
    """The ways that an alignment gives: `given` maps, else one fitted by each method.

    Raises `InputError` where nothing is given between two bases, and no method named.
    """
    source, target = read.source.model, read.target.model
    if source.base == target.base:
        return Ways({DIRECT: read.identity(DIRECT)}, {})
    maps = dict(given or {name: read.fit(Method(name), name) for name in methods})
    if not maps:
        raise InputError("a transfer between two bases needs at least one map")
    first, nulls = next(iter(maps.values())), {}
    method = next(iter(first.values())).fit.method
    if method not in UNFITTED:
        nulls[SHUFFLED] = read.fit(method, SHUFFLED, null=first)
    if source.d_model == target.d_model:
        nulls[IDENTITY] = read.identity(IDENTITY)
    return Ways(maps, nulls)


def alike(
    read: Alignment, found: Ways, source: Things, own: Things, seed: int = 0
) -> dict[str, dict[str, dict[str, Likeness]]]:
    """Likeness to the target's own of every thing by every way, site by site.

    A thing that the target has none of is compared with its main one.
    """
    last = {pair[1]: folds.last for pair, folds in zip(read.pairs, read.moments, strict=True)}
    main = next(iter(own.values()))
    return {
        thing.value: {
            via: {
                str(site): likeness(
                    one,
                    given[one.source.site],
                    own.get(thing, main)[site],
                    last[site],
                    seed=seed,
                )
                for site, one in through.items()
                if site in last
            }
            for via, through in {**found.maps, **found.nulls}.items()
        }
        for thing, given in source.items()
    }
