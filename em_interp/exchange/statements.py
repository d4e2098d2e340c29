"""What a foreign file of vectors says of itself, field by field, and what is done about it.

What changes which vector is added where is compared with the file's tensors and with the base, or
refused by name. What says only where a file came from is passed over. A field that is not known
here is taken for neither: it is named in a caution, which the card keeps.
Knows names and values. Knows nothing of file formats, transformers or weights.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from em_interp.cards import Card
from em_interp.errors import ForeignArtifactError, InputError, printable
from em_interp.sites import Site

CARD = "em_interp.card"

# Read: by `gguf` and `tensors`.
READ = frozenset({
    "general.architecture", "controlvector.model_hint", "controlvector.layer_count", CARD,
})  # fmt: skip

# A file's container, its title page, and how its models would be sampled.
HARMLESS = re.compile(
    r"GGUF\.(version|tensor_count|kv_count)|format|general\.("
    r"type|quantization_version|alignment|file_type|sampling\..*|name|author|version|organization|"
    r"finetune|basename|description|quantized_by|size_label|license(\.name|\.link)?|url|doi|uuid|"
    r"repo_url|source\..*|dataset\..*|tags|languages)"
)

# What may change a vector, or says that the file is not all of it.
REFUSED = {
    re.compile(r"controlvector\..*"): "it may say what its vectors mean",
    re.compile(r"split\..*"): "it is a part of a file; put the parts together first",
}

# llama.cpp's name for a family, where transformers has another.
ALIKE = {"mistral": {"llama"}}


def unread(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Cautions on the fields that nobody reads. Raises `InputError` for one that is refused."""
    strange = [name for name in names if name not in READ and not HARMLESS.fullmatch(name)]
    for name in strange:
        for pattern, why in REFUSED.items():
            if pattern.fullmatch(name):
                raise InputError(f"{path}: its field {printable(name, 80)!r} is not known: {why}")
    if not strange:
        return ()
    listed = ", ".join(printable(name, 80) for name in sorted(strange)[:8])
    more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
    return (f"{path.name} says things that were not read: {listed}{more}",)


def check_family(path: Path, hint: str, kind: str) -> None:
    """Raise `ForeignArtifactError` where a file names another family of models than the base's."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("text")

    if hint and plain(hint) not in {plain(kind), *ALIKE.get(kind, ())}:
        raise ForeignArtifactError(
            f"{path}: made for a model of type {printable(hint, 80)!r}, the base is {kind!r}"
        )


def check_card(path: Path, card: Card, sites: Iterable[Site]) -> None:
    """Raise `InputError` where our card in a file is not that of the vectors beside it."""
    if card.kind != "direction":
        raise InputError(f"{path}: its card is a {card.kind}'s; expected a direction's")
    held = {str(site) for site in sites}
    if card.sites and set(card.sites) != held:
        odd = ", ".join(sorted(set(card.sites) ^ held)[:4])
        raise InputError(f"{path}: its card and its vectors differ in their sites ({odd})")
