"""Artifacts: one thing at every site, its card, and the folder they live in.

A folder holds `weights.safetensors` (one row a site) and `card.json`; no pickles. An artifact
refuses a model that it was not made for. Knows tensors and files. Knows nothing of transformers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Self, TypeVar

from safetensors.torch import load, save
from torch import Tensor

from em_interp.cards import Card
from em_interp.errors import ForeignArtifactError, InputError, reading
from em_interp.records import file_digest, read_json, write_bytes, write_json
from em_interp.sites import Site, parse_site

T = TypeVar("T")
WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True, eq=False)
class SiteTable(Mapping[Site, T], Generic[T]):
    """A value at every site, with the card that says what they are and whose."""

    table: dict[Site, T]
    card: Card

    def __getitem__(self, site: Site) -> T:
        try:
            return self.table[site]
        except KeyError:
            known = ", ".join(map(str, self.table))
            raise InputError(f"no {self.card.kind} at {site} (there are: {known})") from None

    def __contains__(self, site: object) -> bool:
        return site in self.table  # Mapping's own would expect a KeyError

    def __iter__(self) -> Iterator[Site]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def check(self, base: str, where: str = "") -> Self:
        """Refuse a model whose base this was not made for. Returns itself."""
        if self.card.base != base:
            at = f" ({where})" if where else ""
            raise ForeignArtifactError(
                f"{self.card.kind} {self.card.name!r}{at}: made for base {self.card.base}, this "
                f"model is {base}; going to another model needs a map (python -m em_interp.align "
                "--source ITS_BASE --target THIS_BASE --out DIR, then em_interp.transfer)"
            )
        return self


def write_artifact(folder: Path, card: Card, sites: list[Site], columns: dict[str, Tensor]) -> None:
    """Weights, then card: a folder with a card is whole."""
    write_bytes(folder / WEIGHTS, save({k: v.contiguous() for k, v in columns.items()}))
    about = {"sites": tuple(map(str, sites)), "weights": file_digest(folder / WEIGHTS)}
    write_json(folder / CARD, card.model_copy(update=about))


def read_artifact(
    folder: Path,
    kind: Literal["direction", "probe"],
    ndims: Mapping[str, int],
    *others: Mapping[str, int],
) -> tuple[Card, list[Site], dict[str, Tensor]]:
    """Card, sites and columns of a folder; `ndims` (see `columns_of`) are what it may hold.

    Raises `InputError` for a file that is missing or damaged, holds another kind of thing, or does
    not fit its card.
    """
    card = Card.parse(read_json(folder / CARD), str(folder / CARD))
    if card.kind != kind:
        raise InputError(f"{folder}: holds a {card.kind}, not a {kind}")
    columns = columns_of(folder / WEIGHTS, ndims, len(card.sites), *others)
    check_weights(folder, card.weights)
    return card, [parse_site(name, n_layers=10**6) for name in card.sites], columns


def check_weights(folder: Path, given: str) -> None:
    """Refuse weights that are not those that the card was written for ("": it does not say)."""
    if given and given != file_digest(folder / WEIGHTS):
        raise InputError(
            f"{folder / WEIGHTS}: not the weights of its {CARD}; remove the folder and make it anew"
        )


def columns_of(
    path: Path, ndims: Mapping[str, int], rows: int, *others: Mapping[str, int]
) -> dict[str, Tensor]:
    """The tensors of a weights file: exactly those named, of these dimensions, a row a site.

    `others` are further sets of columns that the file may hold instead.
    """
    with reading(path, "not a safetensors file"):
        columns: dict[str, Tensor] = load(path.read_bytes())
    held, sets = ", ".join(sorted(columns)) or "nothing", (ndims, *others)
    found = next((one for one in sets if set(columns) == set(one)), None)
    if found is None:
        wanted = " or ".join(", ".join(sorted(one)) for one in sets)
        raise InputError(f"{path}: holds {held}; expected {wanted}")
    for name, dimensions in found.items():  # in our order: the file's own is not deterministic
        value = columns[name]
        if value.ndim != dimensions or len(value) != rows:
            raise InputError(
                f"{path}: {name} has shape {tuple(value.shape)}, but card.json names {rows} sites"
            )
    return columns
