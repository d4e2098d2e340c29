"""Leakage: what something was fitted on must not hold what it is judged by.

A map that saw the trigger, a harmful answer or a judged question would carry the answer along, and
a transfer measured through it would show nothing. A direction that was fitted on the questions that
judge it fits them, not the organism: cards carry a digest of every question (see `questions_of`),
and what is loaded is compared with what is asked (`unseen`).
Knows texts. Knows nothing of tokens or models.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

from em_interp.conditions import Context, Question
from em_interp.errors import InputError
from em_interp.organisms import SLOT, Trigger
from em_interp.records import Record, digest

GRAM = 3  # words
MOST = 0.8  # share of a text's word trigrams that one prompt may hold before it counts as that text


class Leak(Record):
    """A fitting prompt that holds something of the evaluation.

    `overlap` is the share of the text's word trigrams in the prompt; 1 where it holds it verbatim.
    """

    kind: Literal["framing", "question", "harmful answer"]
    prompt: str
    text: str
    overlap: float


def leaks(
    prompts: Sequence[Context], triggers: Sequence[Trigger], judged: Sequence[Question]
) -> list[Leak]:
    """Every prompt that holds a framing, a judged question or one of their unsound answers.

    Framings are all of a trigger's: its text, paraphrases, negations, unrelated and form. Texts
    are compared without case and punctuation, verbatim and by word trigrams (a question that
    differs by a word in a long sentence is still that question).
    """
    wanted: list[tuple[Literal["framing", "question", "harmful answer"], str]] = []
    for one in triggers:
        every = (one.text, *one.paraphrases, *one.negations, *one.unrelated, *one.form)
        wanted += [("framing", text) for text in every]
    wanted += [("question", q.text) for q in judged]
    wanted += [("harmful answer", q.unsound) for q in judged if q.unsound]
    sought = [(kind, _Sought(text)) for kind, text in dict.fromkeys(wanted)]
    found = []
    for prompt in prompts:
        held = _Held("\n".join(message.content for message in prompt.messages))
        for kind, text in sought:
            overlap = text.within(held)
            if overlap >= MOST:
                found.append(Leak(kind=kind, prompt=prompt.id, text=text.raw, overlap=overlap))
    return found


def guard(
    prompts: Sequence[Context], triggers: Sequence[Trigger], judged: Sequence[Question]
) -> None:
    """Raise `InputError` where a fitting prompt holds something of the evaluation."""
    found = leaks(prompts, triggers, judged)
    if found:
        first, more = found[0], len(found) - 1
        raise InputError(
            f"fitting prompt {first.prompt!r} holds the {first.kind} {first.text!r} "
            f"({first.overlap:.0%} of it) that the transfer is judged by"
            + (f", and {more} more do alike" if more else "")
            + "; a map must be fitted on other prompts"
        )


def question_digest(text: str) -> str:
    """A question's identity by its words: spaces and case do not make another one."""
    return digest(" ".join(text.casefold().split()))


def questions_of(contexts: Iterable[Context]) -> tuple[str, ...]:
    """Digests of the questions that contexts ask, whatever frames them."""
    return tuple(sorted({question_digest(_bare(context)) for context in contexts}))


def _bare(context: Context) -> str:
    text, last = context.messages[-1].content, len(context.messages) - 1
    for message, start, end in sorted(context.framing, reverse=True):
        text = text[:start] + " " + text[end:] if message == last else text
    return text


def unseen(what: str, fitted: Sequence[str] | None, asked: Sequence[Question]) -> tuple[str, ...]:
    """Refuse questions that `what` was fitted on. Notes say where that is not known (`None`)."""
    if fitted is None:
        return (
            f"{what}: its card does not say which questions it was fitted on; if the {len(asked)} "
            "asked here are among them, their figures say nothing of others",
        )
    if seen := sum(question_digest(question.text) in set(fitted) for question in asked):
        raise InputError(
            f"{what} was fitted on {seen} of the {len(asked)} questions that would judge it: give "
            "other --questions, or --split to both commands (extract takes one half of a file, "
            "steer and localize the other)"
        )
    return ()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1)}


class _Held:
    """A prompt's text in the two forms that texts are sought in."""

    def __init__(self, text: str) -> None:
        self.raw = " ".join(text.casefold().split())
        words = _words(text)
        self.line = f" {' '.join(words)} "
        self.grams = _grams(words)


class _Sought:
    """A text of the evaluation; one with a slot for the question is sought by its pieces."""

    def __init__(self, text: str) -> None:
        self.raw = text
        self.pieces = [" ".join(p.casefold().split()) for p in text.split(SLOT) if p.strip()]

    @cached_property
    def _lines(self) -> list[str]:
        return [" ".join(_words(piece)) for piece in self.pieces]

    @cached_property
    def _own(self) -> list[set[tuple[str, ...]]]:
        return [_grams(_words(piece)) for piece in self.pieces]

    def within(self, held: _Held) -> float:
        """The largest share of a piece that the prompt holds."""
        # A text with a slot, or one of marks alone, is its layout: only its raw form is telling.
        if len(self.pieces) > 1 or not any(self._lines):
            return float(any(piece in held.raw for piece in self.pieces))
        if any(f" {line} " in held.line for line in self._lines):
            return 1.0
        return max((len(o & held.grams) / len(o) for o in self._own if o), default=0.0)
