"""What a model can read: prompts that fit its context with what is to be written, of known tokens.

Knows configurations and token ids. Knows nothing of how a prompt is made (see `em_interp.chat`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from em_interp.chat import Encoded, check_tokenizer, encode_many
from em_interp.conditions import Context
from em_interp.errors import InputError

if TYPE_CHECKING:
    from em_interp.models import Model


class Limits(NamedTuple):
    """Tokens of a context (`None`: not declared), and rows of the embedding."""

    positions: int | None
    vocabulary: int


def limits(config: Any) -> Limits:
    """The limits that a configuration declares."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    return Limits(int(positions) if positions else None, int(text.vocab_size))


def check_ids(ids: Sequence[int], of: Limits, what: str, new: int = 0) -> None:
    """Raise `InputError` for a row that is too long with `new` more tokens, or of unknown ones."""
    if of.positions is not None and len(ids) + new > of.positions:
        more = f" and {new} new ones" if new else ""
        raise InputError(
            f"{what}: {len(ids)} tokens{more} are more than the {of.positions} of the model's "
            "context; shorten it" + (", or give a smaller --max-new-tokens" if new else "")
        )
    if ids and max(ids) >= of.vocabulary:
        raise InputError(
            f"{what}: token {max(ids)} is beyond the model's vocabulary of {of.vocabulary}; the "
            "tokenizer is not this model's (or tokens were added and the model not resized)"
        )


def encoded(model: "Model", contexts: Sequence[Context], new: int = 0) -> list[Encoded]:
    """Contexts as prompts that this model can read, with room for `new` more tokens."""
    return _fitting(model.tokenizer, contexts, limits(model.config), new)


def check_prompts(home: Path, contexts: Sequence[Context], new: int = 0) -> None:
    """Raise before weights load what `encoded` would raise once they are there."""
    from em_interp.models.checkpoints import read_config, read_tokenizer

    config, tokenizer = read_config(home), read_tokenizer(home)
    check_tokenizer(tokenizer)
    _fitting(tokenizer, contexts, limits(config), new)


def _fitting(tokenizer: Any, contexts: Sequence[Context], of: Limits, new: int) -> list[Encoded]:
    made = encode_many(tokenizer, contexts)
    for context, prompt in zip(contexts, made, strict=True):
        check_ids(prompt.ids, of, f"question {context.question!r} ({context.id})", new)
    return made
