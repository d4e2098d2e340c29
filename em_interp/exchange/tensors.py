"""A plain safetensors file: one tensor a site, under the site's TransformerLens name.

Read: site names (`blocks.3.hook_resid_post`) or bare block numbers (`3`). Block L is block L, 0 to
n − 1, and its vector belongs to its output. Our card travels in the file's metadata.
"""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from em_interp.cards import Card
from em_interp.errors import InputError, reading
from em_interp.exchange import Shape, Vectors
from em_interp.exchange.statements import CARD, unread
from em_interp.records import canonical_json, parse_json, write_bytes
from em_interp.sites import Site, parse_site

MANY = 10**6  # layers a file may name; the model's own number is checked against its config


def refuses(site: Site, shape: Shape) -> str:
    """Every site has a name."""
    del site, shape
    return ""


def write(path: Path, vectors: Vectors, shape: Shape) -> None:
    """One float32 tensor a site, and the card as metadata."""
    del shape
    assert vectors.card is not None
    tensors = {str(site): one.contiguous() for site, one in vectors.table.items()}
    write_bytes(path, save(tensors, {CARD: canonical_json(vectors.card.model_dump(mode="json"))}))


def read(path: Path) -> Vectors:
    """Tensors by site. Raises `InputError` for a name that is no site, or a matrix."""
    with reading(path, "not a safetensors file"), safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        raw: dict[str, Tensor] = {key: file.get_tensor(key) for key in sorted(file.keys())}
    table = {}
    for key, value in raw.items():
        try:
            site = parse_site(key, MANY)
        except InputError:
            raise InputError(
                f"{path}: tensor {key!r} names no site; expected blocks.3.hook_resid_post, or 3"
            ) from None
        if value.ndim != 1 or not value.is_floating_point():
            raise InputError(f"{path}: {key} has shape {tuple(value.shape)}; expected one vector")
        if site in table:
            raise InputError(f"{path}: two tensors for {site}")
        table[site] = value.float()
    cautions = unread(path, metadata)
    return Vectors(dict(sorted(table.items())), card(metadata.get(CARD), path), cautions=cautions)


def card(text: str | None, path: Path) -> Card | None:
    """Our card from a file's metadata, where it has one."""
    if text is None:
        return None
    with reading(path, f"its {CARD} is not a card of this package"):
        return Card.model_validate(parse_json(text))
