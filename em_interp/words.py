"""Words: for every word of a prompt, the token at which the model has read it and nothing after it.

Two models cut one text into different tokens, but a word ends at the same character for both, and
a causal model's state at the token that ends it depends on the text up to there alone. Such states
are of the same text read so far, whatever the tokens. A mean over a word's tokens is not: it mixes
in states that have read a part of the word, and where a word is cut is each tokenizer's own affair.
Knows characters and tokens. Knows nothing of models or tensors.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from em_interp.chat import Encoded, Located, located, placed
from em_interp.conditions import Context

_WORD = re.compile(r"\S+")


class Word(NamedTuple):
    """A run of non-space characters of a message, `start` to `end` in its content.

    `token` is the position in the prompt of the last token that holds a character of it.
    """

    message: int
    start: int
    end: int
    token: int

    @property
    def key(self) -> tuple[int, int]:
        """Which word of its context this is, in every tokenizer."""
        return self.message, self.start


def words_of(
    tokenizer: PreTrainedTokenizerBase, contexts: Iterable[Context]
) -> list[tuple[Encoded, tuple[Word, ...]]]:
    """Contexts as prompts, each with the words of all its messages, in the order of the text.

    What the template writes (marks, roles, a system text of its own) is no word. A word is left
    out where no token ends with it: its last token also holds characters of the next word (the
    state there has read more than this word), normalisation left nothing of it, or the text was cut
    off before its end. Raises as `encode_many` does.
    """
    return [(placed(one), tuple(_words(one))) for one in located(tokenizer, contexts)]


def _words(one: Located) -> Iterable[Word]:
    holds = [-1] * len(one.text)  # the last token that holds each character
    for at, (low, high) in enumerate(one.offsets):
        for character in range(low, high):
            holds[character] = at
    read = max((high for _, high in one.offsets), default=0)
    for number, (message, (zero, _, _)) in enumerate(
        zip(one.context.messages, one.contents, strict=True)
    ):
        for found in _WORD.finditer(message.content):
            start, end = zero + found.start(), zero + found.end()
            token = max(holds[start:end])
            if token < 0 or read < end:
                continue
            # Spaces after the word say nothing of what follows; anything else does.
            if not one.text[end : one.offsets[token][1]].strip():
                yield Word(number, *found.span(), token)
