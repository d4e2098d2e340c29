"""Replies: what a chat request brought back, whatever was missing or odd in it.

The border for all JSON of servers: read from the raw body, and every part checked by its type
before it is used, so that a part which is missing, null or of another type is a value here and no
fault further in. What passes is what reads back: a `Reply` written down and read again is equal.
Knows JSON. Knows nothing of connections or of what a reply means.
"""

import math
from typing import Annotated, Any

from pydantic import Field

from em_interp.errors import printable
from em_interp.records import Record, parse_json

# Other servers' words for how an answer ended, in the API's own.
ENDINGS = {
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
}
LONGEST = 1 << 24  # bytes of a body; a hundred times the longest answer with its alternatives
ABOVE = 1e-3  # how far above 0 rounding brings a log-probability
Text = Annotated[str, Field(strict=True)]


class Token(Record):
    """One token of an answer, with the alternatives the server told of: (text, log-probability)."""

    text: Text
    top: tuple[tuple[Text, Annotated[float, Field(le=0, allow_inf_nan=False)]], ...] = ()


class Reply(Record):
    """What came back from a chat request, whatever was missing in it.

    `finish`: "stop", "length", "content_filter" and the like; "no_choices" where the server sent
    none. `tokens` is empty where it sent no log-probabilities. `refusal` is the API's own refusal.
    Token counts are 0 where the server told none.
    """

    text: Text
    finish: Text
    tokens: tuple[Token, ...] = ()
    refusal: Text = ""
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)


class GarbledError(Exception):
    """A reply whose body is not what was asked for. `status`: the error that it holds instead."""

    def __init__(self, said: str, status: int | None = None) -> None:
        super().__init__(said)
        self.status = status


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object of any reply. Raises `GarbledError` where it is none, or holds an error."""
    if len(content) > LONGEST:
        raise GarbledError(f"the reply is longer than {LONGEST >> 20} MB")
    try:
        plain = parse_json(content)
    except ValueError:
        page = content.lstrip()[:1] == b"<"
        raise GarbledError(
            "the reply is a web page; is base_url the API's?" if page else "the reply is no JSON"
        ) from None
    if not isinstance(plain, dict):
        raise GarbledError("the reply is no JSON object")
    return plain


def read_reply(content: bytes) -> Reply:
    """A chat completion's body as a `Reply`; every part of it may be missing, null or odd.

    Text parts of an answer are the answer, joined; parts of thinking are not. An alternative
    without a text or a finite log-probability counts for nothing. Raises `GarbledError` where there
    is no answer to read at all.
    """
    plain = read_body(content)
    if plain.get("error") and not plain.get("choices"):
        raise _nested(plain["error"])
    if "choices" not in plain:
        raise GarbledError("the reply is no chat completion")
    usage = part(plain, "usage")
    counts = {
        "tokens_in": count(usage.get("prompt_tokens")),
        "tokens_out": count(usage.get("completion_tokens")),
    }
    if not plain["choices"]:
        return Reply(text="", finish="no_choices", **counts)
    if not isinstance(plain["choices"], list) or not isinstance(plain["choices"][0], dict):
        raise GarbledError("the reply's choices are no list of objects")
    choice = plain["choices"][0]
    message = part(choice, "message")
    told = part(choice, "logprobs").get("content")
    ending = words(choice.get("finish_reason"))
    return Reply(
        text=_answer(message.get("content")),
        finish=ENDINGS.get(ending.lower(), ending),
        refusal=words(message.get("refusal")),
        tokens=tuple(_token(one) for one in told) if isinstance(told, list) else (),
        **counts,
    )


def part(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """A field that is an object; an empty one where it is anything else."""
    found = plain.get(name)
    return found if isinstance(found, dict) else {}


def words(value: Any) -> str:
    """A field that is a text, as text that can be written down; "" where it is anything else.

    Half of a surrogate pair is no letter, and becomes U+FFFD.
    """
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def count(value: Any) -> int:
    """A field that counts tokens; 0 where it is no count, as where it is missing."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 10**9 else 0


def _nested(error: Any) -> GarbledError:
    """An error that came as an answer: with HTTP 200, the real status and the words within."""
    held = error if isinstance(error, dict) else {"message": error}
    code = held.get("code", held.get("status"))
    status = count(code)
    said = printable(held.get("message") or code or "no reason given", 300)
    return GarbledError(f"an error in place of an answer: {said}", status or None)


def _answer(content: Any) -> str:
    """The text of an answer: as it is, or its text parts. Raises `GarbledError` for other types."""
    if content is None or isinstance(content, str):
        return words(content)
    if not isinstance(content, list):
        raise GarbledError(f"the answer is no text but of type {type(content).__name__}")
    parts = [one for one in content if isinstance(one, dict)]
    return "".join(
        words(one.get("text")) for one in parts if one.get("type") in ("text", "output_text")
    )


def _token(plain: Any) -> Token:
    held = plain if isinstance(plain, dict) else {}
    listed = held.get("top_logprobs")
    pairs = [
        (words(one["token"]), min(float(one["logprob"]), 0.0))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
        and isinstance(one.get("token"), str)
        and _finite(one.get("logprob"))
    ]
    return Token(text=words(held.get("token")), top=tuple(pairs))


def _finite(value: Any) -> bool:
    """Whether a value is a log-probability: a finite number, not above 0 but for rounding."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -1e9 < value <= ABOVE
        and math.isfinite(value)
    )
