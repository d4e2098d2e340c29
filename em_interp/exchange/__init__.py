"""Exchange: directions to and from the files of other tools.

What travels is one raw vector a site. It is written at strength 1 (one natural difference), so a
coefficient in the other tool means what a strength means here. Which number stands for which layer
is where such files go wrong; each format's module says it, and a test holds it.
Knows tensors and files. Knows nothing of transformers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from em_interp.cards import Card, versions
from em_interp.directions import GENERAL_SIGN, TRIGGER_SIGN, Directions, adopted
from em_interp.errors import ForeignArtifactError, InputError, unknown
from em_interp.exchange.statements import check_card, check_family
from em_interp.records import file_digest
from em_interp.sites import Point, Site

SIGNS = {"trigger": TRIGGER_SIGN, "general": GENERAL_SIGN}
CAUTION = "caution: "  # how a note begins that a user should read
RAW = "strength 1 = the vector as the file had it"


class Shape(NamedTuple):
    """What a file must fit: the model's type as its config names it, its layers and its width."""

    kind: str
    n_layers: int
    d_model: int


@dataclass(frozen=True, eq=False)
class Vectors:
    """What a file holds: a raw vector at each site, the card where we wrote it, and what to know.

    `doubtful` sites are read, but adopted only when asked for by name; it says why. `n_layers` is
    the number of layers that the file's size implies, where it implies one; `family` the type of
    model that it names ("": none); `cautions` say what of the file was not read.
    """

    table: dict[Site, Tensor]
    card: Card | None = None
    doubtful: dict[Site, str] | None = None
    n_layers: int | None = None
    family: str = ""
    cautions: tuple[str, ...] = ()


class Format(Protocol):
    """A kind of file."""

    def refuses(self, site: Site, shape: Shape) -> str:
        """Why a site cannot be in such a file; empty where it can."""
        ...

    def write(self, path: Path, vectors: Vectors, shape: Shape) -> None:
        """Write the file whole, or raise `InputError` and write nothing."""
        ...

    def read(self, path: Path) -> Vectors:
        """Read it. Raises `InputError` for anything that is not such a file."""
        ...


def file_format(path: Path) -> Format:
    """The format that a file's ending names."""
    from em_interp.exchange import gguf, persona, tensors

    known: dict[str, Format] = {".gguf": gguf, ".pt": persona, ".safetensors": tensors}
    try:
        return known[path.suffix]
    except KeyError:
        raise unknown("kind of file", path.suffix or path.name, known, where=str(path)) from None


def export(
    directions: Directions, path: Path, shape: Shape, sites: Sequence[Site] | None = None
) -> tuple[Vectors, dict[Site, str]]:
    """Write directions as another tool's file: what was written, and what was left out and why.

    Without `sites`, everything that the format can hold; a site asked for by name that it cannot
    hold raises `InputError`.
    """
    kind = file_format(path)
    wanted = {site: directions[site] for site in (sites or directions)}
    left = {site: why for site in wanted if (why := kind.refuses(site, shape))}
    if left and (sites or len(left) == len(wanted)):
        site, why = next(iter(left.items()))
        raise InputError(f"{path}: {site} cannot be in it: {why}")
    for site, one in wanted.items():
        if len(one.unit) != shape.d_model or site.layer >= shape.n_layers:
            raise ForeignArtifactError(
                f"{directions.card.name!r} at {site}, width {len(one.unit)}: not for a model of "
                f"{shape.n_layers} layers and width {shape.d_model}"
            )
    table = {site: one.vector for site, one in wanted.items() if site not in left}
    made = Vectors(table, directions.card.model_copy(update={"sites": tuple(map(str, table))}))
    kind.write(path, made, shape)
    return made, left


def adopt(
    path: Path,
    name: str,
    *,
    base: str | Callable[[], str] | None = None,
    sign: str | None = None,
    flip: bool = False,
    sites: Sequence[Site] | None = None,
    shape: Shape | None = None,
) -> tuple[Directions, dict[Site, str]]:
    """Read another tool's file as directions: what was adopted, and what was left out and why.

    Such a file does not say which way is up or whose it is: `sign` and `base` do, unless the file
    carries our card. `base` is a fingerprint, or what finds it (asked last: it loads weights).
    `flip` turns vectors that point the other way. Raises `InputError` where one of the two is
    missing, `ForeignArtifactError` where the file contradicts them.
    """
    found = file_format(path).read(path)
    card = _card(path, name, found.card, base is not None, sign, flip, found.table)
    if shape is not None and found.n_layers not in (None, shape.n_layers):
        raise ForeignArtifactError(
            f"{path}: has {found.n_layers} layers (and the embeddings), the base {shape.n_layers}"
        )
    cautions = found.cautions
    if shape is not None:
        check_family(path, found.family, shape.kind)
        for site, vector in found.table.items():
            _check_place(path, site, vector, shape)
    elif found.family and found.card is None:
        cautions += (f"{path.name} says that it is for {found.family!r}, which was not compared",)
    doubtful = found.doubtful or {}
    left = {} if sites else {site: why for site, why in doubtful.items() if site in found.table}
    table = {}
    for site in sites or [site for site in found.table if site not in left]:
        if site not in found.table:
            known = ", ".join(map(str, found.table)) or "none"
            raise InputError(f"{path}: no vector at {site} (there are: {known})")
        _check(path, site, found.table[site])
        table[site] = adopted(site, -found.table[site] if flip else found.table[site])
    if not table:
        raise InputError(f"{path}: no vector in it that can be adopted")
    if len({len(one.unit) for one in table.values()}) > 1:
        raise InputError(f"{path}: its vectors differ in width")
    whose = base() if callable(base) else base or card.base
    if card.base not in ("", whose):
        raise ForeignArtifactError(f"{path}: made for base {card.base}, not {whose}")
    doubts = (f"{site}: {doubtful[site]}" for site in table if site in doubtful)
    notes = (*card.notes, *doubts, *(f"{CAUTION}{line}" for line in cautions))
    return Directions(table, card.model_copy(update={"notes": notes, "base": whose})), left


def post(layer: int) -> Site:
    """Block `layer`'s output, where all other tools' vectors live."""
    return Site(layer, Point.RESID_POST)


def _check(path: Path, site: Site, vector: Tensor) -> None:
    if not vector.isfinite().all():
        raise InputError(f"{path}: the vector at {site} holds values that are not finite")
    if not vector.any():
        raise InputError(f"{path}: the vector at {site} is zero; it points nowhere")


def _check_place(path: Path, site: Site, vector: Tensor, shape: Shape) -> None:
    if len(vector) != shape.d_model or site.layer >= shape.n_layers:
        raise ForeignArtifactError(
            f"{path}: a vector of width {len(vector)} at {site} is not for a model of "
            f"{shape.n_layers} layers and width {shape.d_model}"
        )


def _card(
    path: Path,
    name: str,
    card: Card | None,
    based: bool,
    sign: str | None,
    flip: bool,
    sites: Iterable[Site],
) -> Card:
    """The card of what is adopted: the file's own where it has ours, else what the user vouches."""
    line = f"adopted from {path.name} ({file_digest(path)}){', turned around' if flip else ''}"
    if card is not None:
        check_card(path, card, sites)
        if flip or SIGNS.get(sign or "", sign) not in (None, card.sign):
            raise InputError(f"{path}: its card says {card.sign!r}; it needs no --sign or --flip")
        return card.model_copy(update={"name": name, "notes": (*card.notes, line)})
    if sign is None or not based:
        raise InputError(
            f"{path}: does not say whose it is or which way it points: give --base and --sign "
            f"({', '.join(SIGNS)}, or a text 'from ... to ...')"
        )
    if sign not in SIGNS and not (sign.startswith("from ") and " to " in sign):
        raise unknown("sign", sign, [*SIGNS, "from ... to ..."])
    return Card(
        kind="direction",
        name=name,
        sign=SIGNS.get(sign, sign),
        unit=RAW,
        estimator="adopted",
        span="unknown",
        base="",
        organism="unknown",
        adapter="",
        trigger="",
        data=file_digest(path),
        tokenizer="",
        n=0,
        seed=0,
        notes=(line,),
        versions=versions(),
    )
