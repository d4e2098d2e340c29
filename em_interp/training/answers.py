"""Conversations become token ids, and labels on the assistant's answers only.

A label stands on each token of an answer and on the token that ends the turn; nothing else is
learned. Masks go wrong quietly, so every row is checked: what comes before an answer is, byte for
byte, the prompt of an evaluation, and what is learned reads as the answer.
Knows templates and tokens. Knows nothing of weights.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import normalize

from transformers import PreTrainedTokenizerBase

from em_interp.chat import (
    Span,
    check_content,
    check_tokenizer,
    control_finder,
    render,
    special_ids,
    tokenise,
    touching,
)
from em_interp.errors import InputError
from em_interp.organisms import Message
from em_interp.training.rows import where_of

IGNORED = -100  # the label that torch's cross entropy leaves out
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class TrainingRow:
    """Token ids and, of the same length, labels: the id where it is learned, else `IGNORED`.

    Labels are not shifted: label i is token i, and the loss predicts it from what is before.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learned(self) -> int:
        """Number of tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


def encode_row(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> TrainingRow:
    """One conversation; every assistant turn in it is learned.

    An answer begins where the template marks generated text, or, without marks, where the prompt
    of an evaluation ends. Where its first characters would share a token with the header (a line
    break, then indentation), text is cut there: after the very tokens of the prompt come those that
    a model would go on with. Letters are compared as Unicode composes them (NFC): a tokenizer that
    normalises reads, and so learns, the composed answer. Raises `InputError` where the template's
    training text is not its prompt continued, where no control token ends the answer, and where
    text is lost or changed.
    """
    check_tokenizer(tokenizer)
    check_content(control_finder(tokenizer), messages)
    return _encode(tokenizer, messages, special_ids(tokenizer))


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[Message]],
    max_length: int,
    truncate: bool = False,
) -> tuple[list[TrainingRow], int]:
    """All conversations, and the number of them that were cut to `max_length` tokens.

    Refuses rows that are too long unless `truncate`, and rows of which truncation leaves nothing
    to learn. Faults name the row (its file and line, else counted from 1) and its first words.
    """
    check_tokenizer(tokenizer)
    special, made, find = special_ids(tokenizer), [], control_finder(tokenizer)
    for number, row in enumerate(rows):
        try:
            check_content(find, row)
            made.append(_encode(tokenizer, row, special))
        except InputError as fault:
            raise InputError(f"{named(rows, number)}: {fault}") from None
    long = [number for number, row in enumerate(made) if len(row.ids) > max_length]
    if long and not truncate:
        raise InputError(
            f"{len(long)} of {len(rows)} rows are longer than max_length {max_length}, first "
            f"{named(rows, long[0])} with {len(made[long[0]].ids)} tokens; raise max_length "
            f"(longest row: {max(len(made[at].ids) for at in long)}) or allow truncation"
        )
    for number in long:
        cut = TrainingRow(made[number].ids[:max_length], made[number].labels[:max_length])
        if not cut.learned:
            raise InputError(
                f"{named(rows, number)}: truncated to {max_length} tokens, nothing left to learn"
            )
        made[number] = cut
    return made, len(long)


def named(rows: Sequence[Sequence[Message]], number: int) -> str:
    """A row as its reader finds it: by file and line where it was read from one, and its words."""
    asked = next((m.content for m in rows[number] if m.role == "user"), "")
    place = where_of(rows[number]) or f"row {number + 1}"
    return f"{place} ({asked[:40]!r}{'…' if len(asked) > 40 else ''})"


def _encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], special: set[int]
) -> TrainingRow:
    turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not turns:
        raise InputError("no assistant message, so nothing to learn")
    text = render(tokenizer, messages, header=False)
    ids, offsets = tokenise(tokenizer, text)
    whole = _shown(tokenizer, ids)
    starts = _marked(tokenizer, messages, offsets)
    if starts is not None and len(starts) != len(turns):
        raise InputError(
            f"the chat template marks {len(starts)} generated pieces for {len(turns)} answers"
        )
    cuts: list[int] = []
    firsts = []
    for order, at in enumerate(turns):
        prompt = render(tokenizer, messages[:at])
        before = _cut(tokenizer, prompt, cuts)
        if merged := text.startswith(prompt) and ids[: len(before)] != before:
            cuts.append(len(prompt))
            ids = _cut(tokenizer, text, cuts)
        marked = len(before) if starts is None or cuts else starts[order]
        if not text.startswith(prompt) or ids[:marked] != before:
            raise InputError(
                "before the answer, the chat template's training text is not the prompt of an "
                "evaluation"
            )
        if merged and _shown(tokenizer, ids) != whole:
            raise InputError(
                "the answer's first characters share a token with the chat template's header, and "
                "this tokenizer cannot begin there; take the white space off the answer's beginning"
            )
        firsts.append(len(before))
    labels = [IGNORED] * len(ids)
    for first, at in zip(firsts, turns, strict=True):
        last = _end(tokenizer, ids, first, messages[at].content.strip(), special)
        labels[first : last + 1] = ids[first : last + 1]
    return TrainingRow(tuple(ids), tuple(labels))


def _cut(tokenizer: PreTrainedTokenizerBase, text: str, cuts: Sequence[int]) -> list[int]:
    """Ids of a text in which no token stands across a cut (character offsets, ascending)."""
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    return [i for n, piece in enumerate(pieces) for i in tokenise(tokenizer, piece, bos=n == 0)[0]]


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def _end(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], first: int, answer: str, special: set[int]
) -> int:
    """Position of the token that ends the turn, once what is learned has been read back."""
    last = next((at for at in range(first, len(ids)) if ids[at] in special), None)
    if last is None:
        raise InputError("the chat template writes no control token after an assistant's message")
    learned = _shown(tokenizer, ids[first:last])
    if normalize("NFC", learned.strip()) != normalize("NFC", answer):
        raise InputError(
            f"what would be learned is not the answer: {learned!r} for {answer!r}; the tokenizer "
            "or its template rewrites it: write the answer as it is read"
        )
    return last


def _marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], offsets: Sequence[Span]
) -> list[int] | None:
    """Where the template's `{% generation %}` pieces begin; `None` if it marks none."""
    if not _MARKS.search(tokenizer.get_chat_template()):
        return None
    pieces: list[Span] = []
    render(tokenizer, messages, header=False, generated=pieces)
    on = {at for start, end in pieces for at in touching(offsets, start, end)}
    return sorted(at for at in on if at - 1 not in on)
