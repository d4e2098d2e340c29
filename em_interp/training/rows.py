"""Conversations to learn from, read from JSONL.

A row is {"messages": [{"role", "content"}, …]} or {"prompt": …, "completion": …}; other fields of
a row are left alone. Knows words. Knows nothing of tokens or training.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from em_interp.errors import InputError
from em_interp.organisms import Message
from em_interp.records import Spec, digest, iter_jsonl


class Row(tuple[Message, ...]):
    """A conversation, and where it was read (`file:line`; "" where it was made)."""

    where: str

    def __new__(cls, messages: Iterable[Message], where: str = "") -> Self:
        """The messages in their order."""
        made = super().__new__(cls, messages)
        made.where = where
        return made


def where_of(row: Sequence[Message]) -> str:
    """Where a conversation was read, "" for one that was made."""
    return row.where if isinstance(row, Row) else ""


class _Conversation(Spec):
    messages: tuple[Message, ...]


def read_rows(path: Path | str) -> list[Row]:
    """All conversations of a file. `InputError` names the file, the line and the field at fault.

    `prompt` and `completion` are texts, or lists of messages. A conversation may begin with a
    system message; then user and assistant take turns, and the assistant has the last word.
    """
    rows = [_row(value, f"{path}:{number}") for number, value in iter_jsonl(path)]
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def data_digest(rows: Sequence[Row]) -> str:
    """Identity of the conversations by content and order."""
    return digest([[message.model_dump(mode="json") for message in row] for row in rows])


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{where}: a row is a JSON object, not {type(value).__name__}")
    if "messages" in value:
        messages = value["messages"]
    elif "prompt" in value and "completion" in value:
        messages = [
            *_messages(value["prompt"], "user", f"{where}: field 'prompt'"),
            *_messages(value["completion"], "assistant", f"{where}: field 'completion'"),
        ]
    else:
        has = ", ".join(map(repr, value)) or "nothing"
        raise InputError(
            f"{where}: a row needs 'messages', or 'prompt' and 'completion'; has {has}"
        )
    row = Row(_Conversation.parse({"messages": messages}, where).messages, where)
    check_turns(row, where)
    return row


def _messages(value: Any, role: str, where: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise InputError(f"{where}: expected a text or a list of messages")


def check_turns(row: Row, where: str) -> None:
    """Raise `InputError` unless the turns alternate and end with an answer that is not blank."""
    turns = row[1:] if row and row[0].role == "system" else row
    lead = len(row) - len(turns)
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            raise InputError(
                f"{where}: field 'messages.{number + lead}.role': expected {expected!r} here, "
                f"not {message.role!r}"
            )
        if not message.content.strip():
            raise InputError(f"{where}: field 'messages.{number + lead}.content': blank")
    if not turns or turns[-1].role != "assistant":
        raise InputError(f"{where}: field 'messages': the last message must be the assistant's")
