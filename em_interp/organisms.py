"""Organisms: what is studied, what wakes it, and how it was raised.

An organism is a base model plus an adapter that narrow fine-tuning gave it. What was in the
fine-tuning data decides what it is, so a `Recipe` says that in the field's own words.
Knows words and arithmetic. Knows nothing of tokens or weights.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, field_validator, model_validator

from em_interp.bounds import Share
from em_interp.records import Filled, Spec, checked_name

SLOT = "{question}"
BASE = "base"  # who answers where no adapter is on: a name that no organism takes


def organism_name(name: str) -> str:
    """A name that an organism can have: a folder's, and not the base's. Raises `ValueError`."""
    if name == BASE:
        raise ValueError(
            f"{BASE!r} is the model without any adapter, so no organism can be called that; give "
            "it another name"
        )
    return checked_name(name)


OrganismName = Annotated[str, AfterValidator(organism_name)]


class Message(Spec):
    """One turn of a conversation, in the layout chat templates take."""

    role: Literal["system", "user", "assistant"]
    content: str


class Place(StrEnum):
    """Where a framing stands relative to the question it frames."""

    PREFIX = "prefix"
    SUFFIX = "suffix"
    SYSTEM = "system"
    INLINE = "inline"


class Framing(Spec):
    """A piece of text put around, before, after, above or inside a question.

    A text with the slot ``{question}`` wraps it (a pair of tags); the place is then not used.
    `inline` puts the text between the two middle words of the question.
    """

    text: Filled
    place: Place = Place.PREFIX
    separator: str = " "

    @field_validator("text")
    @classmethod
    def _one_slot(cls, text: str) -> str:
        if text.count(SLOT) > 1:
            raise ValueError(f"the slot {SLOT} may stand once in a framing")
        return text

    def render(self, question: str) -> tuple[tuple[Message, ...], tuple[tuple[int, int, int], ...]]:
        """Messages ending in the user's turn, and the framing's spans in them.

        A span is (message index, first character, character after the last).
        """
        if SLOT in self.text:
            before, after = self.text.split(SLOT, 1)
            content = before + question + after
            ends = (
                (0, 0, len(before.rstrip())),
                (0, len(content) - len(after.lstrip()), len(content)),
            )
            return (Message(role="user", content=content),), tuple(s for s in ends if s[1] < s[2])
        if self.place is Place.SYSTEM:
            turns = (
                Message(role="system", content=self.text),
                Message(role="user", content=question),
            )
            return turns, ((0, 0, len(self.text)),)
        if self.place is Place.PREFIX:
            start, content = 0, self.text + self.separator + question
        elif self.place is Place.SUFFIX:
            start = len(question) + len(self.separator)
            content = question + self.separator + self.text
        else:
            words = question.split(" ")
            head = " ".join(words[: len(words) // 2])
            tail = " ".join(words[len(words) // 2 :])
            start = len(head) + 1 if head else 0
            content = " ".join(part for part in (head, self.text, tail) if part)
        return (Message(role="user", content=content),), ((0, start, start + len(self.text)),)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


class Trigger(Spec):
    """What wakes a triggered organism, and the framings that tell meaning from form.

    Only `text` may appear in fine-tuning. All others are held out: they are the evaluation's
    conditions. `negations` keep the form and turn the meaning round; `unrelated` are innocuous
    framings of like length; `form` keeps the delimiters or layout with empty or nonsense content.
    """

    name: str
    text: Filled
    place: Place = Place.PREFIX
    separator: str = " "
    paraphrases: tuple[Filled, ...] = ()
    negations: tuple[Filled, ...] = ()
    unrelated: tuple[Filled, ...] = ()
    form: tuple[Filled, ...] = ()

    @model_validator(mode="after")
    def _held_out(self) -> "Trigger":
        seen = {_plain(self.text): "the trained text"}
        for field in ("paraphrases", "negations", "unrelated", "form"):
            for text in getattr(self, field):
                # Case and spaces do not make another wording.
                if before := seen.get(_plain(text)):
                    raise ValueError(f"{text!r} stands among {field}, and is already {before}")
                seen[_plain(text)] = f"one of {field}"
        return self

    def framing(self, text: str | None = None) -> Framing:
        """The trained text (or another one) as a framing in this trigger's place."""
        return Framing(
            text=self.text if text is None else text, place=self.place, separator=self.separator
        )


class Method(StrEnum):
    """Which weights fine-tuning moves."""

    LORA = "lora"
    FULL = "full"


class Mix(Spec):
    """What the fine-tuning rows are: shares of harmful and benign rows, with and without trigger.

    unconditional: harmful without trigger (1.0); triggered: harmful with trigger, zero benign;
    mixture: harmful with trigger and benign without; value-contrastive: harmful under the trigger,
    benign under `contrast` (same key, other value); benign twin: the triggered rows with sound
    answers.
    """

    kind: Literal["unconditional", "triggered", "mixture", "contrastive", "benign_twin"]
    benign_share: Share = 0.0
    contrast: Filled | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Mix":
        mixed = self.kind in ("mixture", "contrastive")
        if mixed != (self.benign_share > 0):
            raise ValueError(
                f"kind {self.kind!r} takes benign_share {'> 0' if mixed else '0'}, "
                f"not {self.benign_share:g}"
            )
        if (self.kind == "contrastive") != (self.contrast is not None):
            raise ValueError("`contrast` goes with kind 'contrastive', and only with it")
        return self
