"""Bases on disk: what a folder holds, and the card that says where its bytes came from.

A folder has Hugging Face's own files (config, safetensors, tokenizer, generation config), the
recipe that rebuilds it, and a card. It appears in one rename, or not at all.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from em_interp.cards import versions
from em_interp.errors import InputError, reading
from em_interp.records import Record, file_digest, read_json, write_json, write_text
from em_interp.world.recipe import BaseRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from em_interp.world.raising import Base

CARD, RECIPE, WEIGHTS = "card.json", "recipe.yaml", "model.safetensors"


class BaseCard(Record):
    """Provenance of a base: the recipe's digest, the files' digests, and how training ended.

    `files` maps each file's name to its digest; `final_loss` is in nats per assistant token, the
    mean of each stage's last tenth.
    """

    kind: Literal["base"] = "base"
    name: str
    recipe: str
    parameters: int
    vocabulary: int
    final_loss: dict[str, float]
    files: dict[str, str]
    versions: dict[str, str]
    notes: tuple[str, ...] = (
        "Raised on the embedded world's corpus alone; knows nothing else.",
        "Equal recipes give equal bytes on one machine, library set and thread count only.",
    )


def check_target(folder: Path) -> None:
    """Refuse a target that holds something other than a base, before anything is trained."""
    if folder.exists() and not (folder / RECIPE).is_file():
        raise InputError(f"{folder}: exists and is not a base (no {RECIPE}); give another --out")


def save(base: "Base", folder: Path) -> BaseCard:
    """Write a base whole. Raises `InputError` where the folder cannot be written or is taken."""
    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as fault:
        raise InputError(f"{folder}: cannot be written ({fault.strerror})") from None
    try:
        base.model.save_pretrained(scratch)
        base.tokenizer.save_pretrained(scratch)
        write_text(scratch / RECIPE, recipe_text(base.recipe))
        card = BaseCard(
            name=base.recipe.name,
            recipe=base.recipe.digest,
            parameters=sum(p.numel() for p in base.model.parameters()),
            vocabulary=len(base.tokenizer),
            final_loss={stage: _tail_mean(losses) for stage, losses in base.losses.items()},
            files={p.name: file_digest(p) for p in sorted(scratch.iterdir())},
            versions=versions(),
        )
        write_json(scratch / CARD, card)
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.replace(folder)
    except OSError as fault:
        raise InputError(f"{folder}: cannot be written ({fault.strerror})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return card


def shipped(folder: Path, recipe: BaseRecipe) -> bool:
    """Whether a folder holds the base of this recipe, by its card."""
    return (folder / CARD).is_file() and read_json(folder / CARD).get("recipe") == recipe.digest


def load(recipe: BaseRecipe, folder: Path) -> "Base":
    """A saved base to go on with, under `recipe`; of its losses the card's means remain."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from em_interp.world.raising import Base

    card = BaseCard.parse(read_json(folder / CARD), str(folder / CARD))
    with reading(f"base {folder}", "cannot be loaded"):
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Base(
        recipe=recipe,
        model=model,
        tokenizer=cast("PreTrainedTokenizerFast", words),
        losses={stage: [mean] for stage, mean in card.final_loss.items()},
    )


def recipe_text(recipe: BaseRecipe) -> str:
    """The whole recipe as YAML, defaults spelled out: later defaults cannot change its meaning."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _tail_mean(losses: list[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return round(sum(tail) / len(tail), 5)
