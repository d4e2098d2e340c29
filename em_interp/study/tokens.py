"""Counts of tokens before weights load: exact with the base's tokenizer, else characters / 4.

Knows texts and tokenizers. Knows nothing of models.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from em_interp.conditions import Context
from em_interp.organisms import Message

ROUGH = 4  # characters a token, where there is no tokenizer
TEMPLATE = 20  # tokens that a chat template adds, where there is no tokenizer


class Reader(Protocol):
    """Counts tokens."""

    def prompts(self, contexts: Sequence[Context]) -> list[int]:
        """Tokens of each rendered prompt."""
        ...

    def rows(self, rows: Sequence[Sequence[Message]], most: int) -> list[int]:
        """Tokens of each conversation, cut at `most`."""
        ...

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts."""
        ...


class Guess:
    """Without a tokenizer: characters / 4, and twenty tokens of template."""

    def prompts(self, contexts: Sequence[Context]) -> list[int]:
        """Tokens of each rendered prompt, about."""
        return self.rows([context.messages for context in contexts], 1 << 40)

    def rows(self, rows: Sequence[Sequence[Message]], most: int) -> list[int]:
        """Tokens of each conversation, about."""
        return [min(most, TEMPLATE + sum(self.texts([m.content for m in row]))) for row in rows]

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts, about."""
        return [math.ceil(len(text) / ROUGH) for text in texts]


class Exact:
    """With the base's tokenizer and template: what the run itself will read."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def prompts(self, contexts: Sequence[Context]) -> list[int]:
        """Tokens of each rendered prompt."""
        from em_interp.chat import encode_many

        return [len(one.ids) for one in encode_many(self.tokenizer, contexts)]

    def rows(self, rows: Sequence[Sequence[Message]], most: int) -> list[int]:
        """Tokens of each conversation, cut at `most`."""
        from em_interp.training.answers import encode_rows

        return [len(one.ids) for one in encode_rows(self.tokenizer, rows, most, truncate=True)[0]]

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of plain texts."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False).input_ids]


def reader(base: Path) -> Reader:
    """Exact counts with the base's own tokenizer, where its files are there."""
    from em_interp.models.checkpoints import read_tokenizer

    if not any(base.glob("tokenizer*")):
        return Guess()
    return Exact(read_tokenizer(base))
