"""Maps over sites: one map for each target site, their card, and the folder they live in.

The folder has the shelf format (`weights.safetensors`, `card.json`); see `artifacts`.
Knows maps and files. Knows nothing of how activations were captured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field
from safetensors.torch import save

from em_interp.artifacts import CARD, WEIGHTS, SiteTable, check_weights, columns_of
from em_interp.cards import Card
from em_interp.directions import Direction, Directions
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.maps.spacemap import Fit, Space, SpaceMap
from em_interp.probes import Probe, Probes
from em_interp.records import Record, file_digest, read_json, write_bytes, write_json
from em_interp.sites import Site, parse_site

NDIMS = {"matrix": 3, "source_mean": 2, "target_mean": 2, "scale": 1}
CARRIED = "strength 1 = ||matrix (mean(on) - mean(off))||, the source's difference as carried"


class Leg(Record):
    """One map of a folder: from which site to which, and how it was fitted."""

    source: str
    target: str
    fit: Fit


class MapCard(Record):
    """Provenance of maps: fingerprints of both bases, what they were fitted on, figures by site.

    `data` is the digest of the fitting prompts, `spans` the text spans that rows are means over;
    `questions` and `weights` as on a `Card`.
    """

    kind: Literal["map"] = "map"
    name: str
    source: str
    source_name: str
    target: str
    target_name: str
    data: str
    spans: tuple[str, ...]
    prompts: int
    seed: int
    questions: tuple[str, ...] | None = None
    weights: str = ""
    legs: tuple[Leg, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Maps(Mapping[Site, SpaceMap]):
    """Maps by target site, each from the source site that is its counterpart."""

    table: dict[Site, SpaceMap]
    card: MapCard

    def __getitem__(self, site: Site) -> SpaceMap:
        try:
            return self.table[site]
        except KeyError:
            known = ", ".join(map(str, self.table))
            raise InputError(f"no map to {site} (there are: {known})") from None

    def __contains__(self, site: object) -> bool:
        return site in self.table

    def __iter__(self) -> Iterator[Site]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def directions(self, source: Directions) -> Directions:
        """Directions of the source model as directions of the target, at every mapped site."""
        self._check(source)
        carried: dict[Site, Direction] = {}
        for site, one in self.items():
            carried[site] = one.direction(source[one.source.site])
        return Directions(carried, self._carried(source.card, CARRIED))

    def probes(self, source: Probes) -> Probes:
        """Probes of the source model as probes of the target, at every mapped site."""
        self._check(source)
        carried: dict[Site, Probe] = {}
        for site, one in self.items():
            carried[site] = one.probe(source[one.source.site])
        return Probes(carried, self._carried(source.card, source.card.unit))

    def then(self, following: "Maps") -> "Maps":
        """First these maps, then the following ones, at every target site of those."""
        table = {site: self[one.source.site].then(one) for site, one in following.items()}
        card = self.card.model_copy(
            update={
                "name": f"{self.card.name} then {following.card.name}",
                "target": following.card.target,
                "target_name": following.card.target_name,
                "notes": (*self.card.notes, *following.card.notes),
            }
        )
        return Maps(table, card)

    def check(self, source: str, target: str, where: str = "") -> Self:
        """Refuse a pair of bases that these maps do not lie between. Returns itself."""
        if (self.card.source, self.card.target) != (source, target):
            at = f" ({where})" if where else ""
            raise ForeignArtifactError(
                f"map {self.card.name!r}{at} goes from base {self.card.source} to "
                f"{self.card.target}, not from {source} to {target}"
            )
        return self

    def save(self, folder: Path) -> None:
        """Write the folder: weights, then card."""
        rows = list(self.values())
        if len({one.matrix.shape for one in rows}) != 1:
            raise InputError("maps of different widths do not share a folder; save them apart")
        columns = {
            key: torch.stack([getattr(one, key) for one in rows]).contiguous()
            for key in ("matrix", "source_mean", "target_mean")
        }
        columns["scale"] = torch.tensor([one.scale for one in rows], dtype=torch.float64)
        legs = tuple(
            Leg(source=str(one.source.site), target=str(one.target.site), fit=one.fit)
            for one in rows
        )
        write_bytes(folder / WEIGHTS, save(columns))
        about = {"legs": legs, "weights": file_digest(folder / WEIGHTS)}
        write_json(folder / CARD, self.card.model_copy(update=about))

    @classmethod
    def load(cls, folder: Path) -> "Maps":
        """Read a folder. Raises `InputError` for a missing, damaged or foreign file."""
        data = read_json(folder / CARD)
        if isinstance(data, dict) and data.get("kind") != "map":
            raise InputError(f"{folder}: holds a {data.get('kind', 'thing unnamed')}, not a map")
        card = MapCard.parse(data, str(folder / CARD))
        columns = columns_of(folder / WEIGHTS, NDIMS, len(card.legs))
        check_weights(folder, card.weights)
        table = {}
        for row, leg in enumerate(card.legs):
            matrix = columns["matrix"][row]
            source, target = (parse_site(name, 10**6) for name in (leg.source, leg.target))
            table[target] = SpaceMap(
                source=Space(card.source, source, matrix.shape[1]),
                target=Space(card.target, target, matrix.shape[0]),
                matrix=matrix,
                source_mean=columns["source_mean"][row],
                target_mean=columns["target_mean"][row],
                scale=float(columns["scale"][row]),
                fit=leg.fit,
            )
        return cls(table, card)

    def _check(self, source: SiteTable[Direction] | SiteTable[Probe]) -> None:
        if source.card.base != self.card.source:
            raise ForeignArtifactError(
                f"{source.card.kind} {source.card.name!r}: made for base {source.card.base}, but "
                f"map {self.card.name!r} begins at {self.card.source} ({self.card.source_name})"
            )

    def _carried(self, card: Card, unit: str) -> Card:
        methods = ", ".join(sorted({one.fit.method.value for one in self.values()}))
        note = f"carried from base {card.base} by map {self.card.name} ({methods})"
        return card.model_copy(
            update={"base": self.card.target, "unit": unit, "notes": (*card.notes, note)}
        )
