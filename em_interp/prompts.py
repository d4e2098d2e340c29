"""Prompts: a user's own harmless texts, which maps are fitted on.

A line of JSONL is {"text": …} or {"prompt": …}, or {"messages": [{"role", "content"}, …]}, of which
the last user's turn is the prompt's end (an answer after it is left out). `id` and `domain` may
stand beside; other fields are left alone, so that question files and fine-tuning rows serve as they
are. Knows words. Knows nothing of tokens or models.
"""

from pathlib import Path
from typing import Any

from em_interp.conditions import Condition, Context
from em_interp.errors import InputError, once
from em_interp.organisms import Message
from em_interp.records import Filled, Spec, iter_jsonl

FORMS = ("text", "prompt", "messages")


class _Prompt(Spec):
    id: Filled
    domain: str = ""
    messages: tuple[Message, ...]


def read_prompts(path: Path | str) -> list[Context]:
    """All prompts of a file, each its own group. `InputError` names the file, line and field."""
    found = [_prompt(value, f"{path}:{line}", line) for line, value in iter_jsonl(path)]
    if not found:
        raise InputError(f"{path}: no prompts in it")
    once("prompt id", (one.question for one in found), where=str(path))
    return found


def _prompt(value: Any, where: str, line: int) -> Context:
    if not isinstance(value, dict):
        raise InputError(f"{where}: a prompt is a JSON object, not {type(value).__name__}")
    form = next((form for form in FORMS if form in value), None)
    if form is None:
        has = ", ".join(map(repr, value)) or "nothing"
        raise InputError(f"{where}: a prompt needs 'text', 'prompt' or 'messages'; has {has}")
    given = value[form]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    about = {key: value[key] for key in ("id", "domain") if key in value}
    one = _Prompt.parse({"id": f"line {line}"} | about | {"messages": turns}, where)
    asked = [at for at, turn in enumerate(one.messages) if turn.role == "user"]
    if not asked or not one.messages[asked[-1]].content.strip():
        raise InputError(f"{where}: field {form!r}: no user's turn with text in it")
    return Context(
        id=one.id,
        question=one.id,
        domain=one.domain,
        condition=Condition.NONE,
        variant="",
        messages=one.messages[: asked[-1] + 1],
    )
