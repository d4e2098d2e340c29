"""The one encoder: messages become token ids, and the framing's and question's tokens are known.

The chat template renders the text; the text is tokenised once; every position follows from
character offsets in that text. No piece is ever tokenised by itself, since a piece alone may
tokenise differently from the same piece in its sentence.
Knows templates, characters and tokens. Knows nothing of models or tensors.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from em_interp.conditions import Context
from em_interp.errors import InputError
from em_interp.organisms import Message, Place
from em_interp.templates import rendered

# What templates leave to the caller. Thinking is off (Qwen 3): what is asked for, trained and
# judged is the answer. The date is fixed (Llama 3): prompts, and what rests on them, would else
# change overnight; it is the one that Llama's own template falls back to.
CHOICES: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
Span = tuple[int, int]
Offsets = Sequence[Span]


@dataclass(frozen=True)
class Encoded:
    """A prompt, up to and including the template's generation header.

    `framing`, `question` and `template` are 0-based absolute positions; together they are all
    positions, each exactly once. A token shared by framing and question counts as framing; what is
    neither (BOS, roles, separators, earlier turns, the header) is `template`.
    """

    ids: tuple[int, ...]
    framing: tuple[int, ...]
    question: tuple[int, ...]
    template: tuple[int, ...]

    @property
    def last(self) -> int:
        """Position of the last prompt token: the state that the first answer token is read from."""
        return len(self.ids) - 1


@dataclass(frozen=True)
class Located:
    """A context as its template writes it: the text, its tokens, and where the contents lie.

    `contents` holds for each message (place of its character 0, start, end) in `text`; character 0
    lies before the start where the template trimmed the content.
    """

    context: Context
    text: str
    ids: list[int]
    offsets: Offsets
    contents: list[tuple[int, int, int]]


def encode(tokenizer: PreTrainedTokenizerBase, context: Context) -> Encoded:
    """One context as a prompt (see `encode_many`)."""
    return encode_many(tokenizer, [context])[0]


def encode_many(tokenizer: PreTrainedTokenizerBase, contexts: Iterable[Context]) -> list[Encoded]:
    """Contexts as prompts, in the order given, unpadded.

    Exactly one BOS where the template writes one or the tokenizer adds one to plain text; none
    where neither does (Qwen).
    Raises `InputError` for a tokenizer without offsets or without a chat template, a template
    without a generation prompt, one that refuses or drops a message, and a framing without tokens.
    """
    return [placed(one) for one in located(tokenizer, contexts)]


def located(tokenizer: PreTrainedTokenizerBase, contexts: Iterable[Context]) -> Iterator[Located]:
    """Contexts rendered and tokenised, one by one (see `encode_many`, also for what it raises)."""
    check_tokenizer(tokenizer)
    skeletons: dict[tuple[str, ...], list[str]] = {}
    find = control_finder(tokenizer)
    for context in contexts:
        try:
            check_content(find, context.messages)
        except InputError as fault:
            raise InputError(f"question {context.question!r} ({context.id}): {fault}") from None
        roles = tuple(message.role for message in context.messages)
        if roles not in skeletons:
            skeletons[roles] = _skeleton(tokenizer, context.messages)
        text = render(tokenizer, context.messages)
        ids, offsets = tokenise(tokenizer, text)
        try:
            contents = _contents(text, skeletons[roles], context.messages)
        except InputError as fault:
            raise InputError(f"context {context.id!r}: {fault}") from None
        yield Located(context, text, ids, offsets, contents)


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return a generated answer as text: no special tokens, no whitespace around it."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text).strip()


def stop_ids(tokenizer: PreTrainedTokenizerBase, *configs: Any) -> set[int]:
    """Ids that end an answer.

    The tokenizer's EOS, what the model's or generation's configs declare (`None` configs are
    passed over), and the token that the chat template writes after an assistant's message: on
    several families this one is in no config, and answers then run on into an invented user turn.
    """
    stops: set[int] = set()
    for source in (tokenizer, *configs):
        declared = getattr(source, "eos_token_id", None)
        stops.update([declared] if isinstance(declared, int) else declared or ())
    if tokenizer.chat_template is not None and tokenizer.is_fast:
        turns = (Message(role="user", content="x"), Message(role="assistant", content=_slot(0)))
        _, found, after = render(tokenizer, turns, header=False).partition(_slot(0))
        ids, _ = tokenise(tokenizer, after.lstrip(), bos=False)
        if found and ids and ids[0] in special_ids(tokenizer):
            stops.add(ids[0])
    return stops


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of control tokens: the named special ones and all added ones marked special."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def control_finder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str | None]:
    """What finds the first control token that this tokenizer would read out of a plain text.

    A template writes them between turns; in a turn's own text one would open or end a turn that
    nobody wrote, and count as the question's.
    """
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = {token.content for token in added} | set(tokenizer.all_special_tokens)
    longest = sorted(filter(None, map(str, names)), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
    normal = tokenizer.backend_tokenizer.normalizer
    folded = normal is not None and any(token.normalized for token in added)

    def find(text: str) -> str | None:
        found = pattern.search(text)
        if found is None and folded:
            found = pattern.search(normal.normalize_str(text))
        return found[0] if found else None

    return find


def check_content(find: Callable[[str], str | None], messages: Sequence[Message]) -> None:
    """Raise `InputError` where a message's text holds a control token (see `control_finder`)."""
    for number, message in enumerate(messages):
        if token := find(message.content):
            raise InputError(
                f"message {number} ({message.role}) holds the control token {token!r}, which the "
                "model would read as the template's own, not as text; take it out or spell it "
                "otherwise"
            )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` unless the tokenizer has offsets, a template and a generation prompt."""
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise InputError(
            f"tokenizer {name}: slow tokenizers give no character offsets; a fast one is needed "
            "(tokenizer.json)"
        )
    if tokenizer.chat_template is None:
        raise InputError(
            f"tokenizer {name}: no chat template; an instruct model's tokenizer has one "
            "(chat_template.jinja or `chat_template` in tokenizer_config.json)"
        )
    turn = (Message(role="user", content="x"),)
    same = render(tokenizer, turn) == render(tokenizer, turn, header=False)
    if same and not _answers_at_once(tokenizer):
        raise InputError(
            f"tokenizer {name}: its chat template has no generation prompt, so answers would "
            "continue the user's turn; it must honour add_generation_prompt"
        )


def _answers_at_once(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether an answer follows the user's turn without a header of its own (Mistral)."""
    turns = (Message(role="user", content="x"), Message(role="assistant", content="x"))
    try:
        return _skeleton(tokenizer, turns)[1].strip() == _skeleton(tokenizer, turns[:1])[1].strip()
    except InputError:
        return False


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    header: bool = True,
    generated: list[Span] | None = None,
) -> str:
    """Messages as the template's text; with `header`, ending where the assistant begins.

    Where a template leaves a choice, it is made in `CHOICES`: no thinking, and one date for ever.
    `generated` gets the characters of the pieces that the template marks as such.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return rendered(tokenizer, turns, generated, add_generation_prompt=header, **CHOICES)
    except TemplateError as fault:
        roles = ", ".join(message.role for message in messages)
        cure = "; put the system text into the user's turn" if "system" in roles else ""
        raise InputError(
            f"the chat template refuses the roles {roles}: {fault.message}{cure}"
        ) from None


def cautions(tokenizer: PreTrainedTokenizerBase, place: Place | None = None) -> list[str]:
    """What the user should know of this template, one line each; `place` is the framings'."""
    found, template = [], str(tokenizer.chat_template)
    if "strftime_now" in template and "date_string" not in template:
        found.append("the chat template writes today's date: prompts will differ from day to day")
    if place is Place.SYSTEM and (text := default_system(tokenizer)):
        found.append(
            f"a system framing takes the place of the chat template's own system text ({text!r}); "
            "prompts without framing keep it, so they differ from the others in both"
        )
    return found


def default_system(tokenizer: PreTrainedTokenizerBase) -> str:
    """The system text that a template writes where none is given (Qwen 2.5 does); else "".

    A system message, and so a framing in its place, takes this text's place: the prompt without one
    differs from the prompt with one in both.
    """
    user, system = Message(role="user", content="x"), Message(role="system", content="x")
    try:
        before, between, _ = _skeleton(tokenizer, (system, user))
    except InputError:
        return ""
    alone = _skeleton(tokenizer, (user,))[0]
    inside = alone.startswith(before) and alone.endswith(between)
    return alone[len(before) : len(alone) - len(between)].strip() if inside else ""


def tokenise(
    tokenizer: PreTrainedTokenizerBase, text: str, *, bos: bool = True
) -> tuple[list[int], list[Span]]:
    """Ids and character offsets of rendered text, starting with one BOS (see `encode_many`).

    A BOS that the tokenizer adds and the template does not write has the empty offset (0, 0).
    """
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(coded["input_ids"]), [tuple(pair) for pair in coded["offset_mapping"]]
    first = tokenizer.bos_token_id
    if bos and first is not None:
        if ids[:2] == [first, first]:
            raise InputError("the chat template writes two BOS tokens; it should write one")
        if ids[:1] != [first] and list(tokenizer("x")["input_ids"])[:1] == [first]:
            ids, offsets = [first, *ids], [(0, 0), *offsets]
    return ids, offsets


def touching(offsets: Offsets, start: int, end: int) -> list[int]:
    """Positions of the tokens that share at least one character with [start, end)."""
    return [at for at, (low, high) in enumerate(offsets) if max(low, start) < min(high, end)]


def _slot(number: int) -> str:
    """Stand-in for a message's content; word characters, which no template trims or escapes."""
    return f"slot{number}of7f3ac1content"


def _skeleton(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[str]:
    """Text the template writes before, between and after the contents of these roles.

    Rendered with stand-ins for the contents, so that equal, empty or nested contents, and a system
    message folded into the user's turn, are all located without searching.
    """
    stand_ins = tuple(
        message.model_copy(update={"content": _slot(number)})
        for number, message in enumerate(messages)
    )
    rest, pieces = render(tokenizer, stand_ins), []
    for number, message in enumerate(messages):
        before, found, rest = rest.partition(_slot(number))
        if not found or _slot(number) in rest:
            fault = "repeats" if found else "drops or reorders"
            raise InputError(f"the chat template {fault} message {number} ({message.role})")
        pieces.append(before)
    return [*pieces, rest]


def _contents(
    text: str, pieces: list[str], messages: Sequence[Message]
) -> list[tuple[int, int, int]]:
    """Where each message's content lies in the text (see `Located`)."""
    places, cursor = [], 0
    for number, message in enumerate(messages):
        cursor += len(pieces[number])
        raw = message.content
        for shown in (raw, raw.strip(), raw.lstrip(), raw.rstrip()):
            end = cursor + len(shown)
            if text[cursor:end] == shown and text.startswith(pieces[number + 1], end):
                lead = len(raw) - len(raw.lstrip()) if shown == shown.lstrip() else 0
                places.append((cursor - lead, cursor, end))
                cursor = end
                break
        else:
            raise InputError(
                f"the chat template rewrites the content of message {number} ({message.role}), "
                "so its tokens cannot be placed"
            )
    return places


def placed(one: Located) -> Encoded:
    """Sort the prompt's positions into framing, question and template."""
    context, ids, offsets, contents = one.context, one.ids, one.offsets, one.contents
    framing: set[int] = set()
    rest = [True] * len(context.messages[-1].content)
    for message, start, end in context.framing:
        zero, low, high = contents[message]
        framing.update(touching(offsets, max(zero + start, low), min(zero + end, high)))
        if message == len(context.messages) - 1:
            rest[start:end] = [False] * (end - start)
    if context.framing and not framing:
        raise InputError(f"context {context.id!r}: its framing has no tokens in the prompt")
    zero, _, stop = contents[-1]
    bare = {
        zero + at
        for at, character in enumerate(context.messages[-1].content)
        if rest[at] and not character.isspace() and zero + at < stop
    }
    question = {
        at for at, (low, high) in enumerate(offsets) if not bare.isdisjoint(range(low, high))
    } - framing
    return Encoded(
        ids=tuple(ids),
        framing=tuple(sorted(framing)),
        question=tuple(sorted(question)),
        template=tuple(sorted(set(range(len(ids))) - framing - question)),
    )
