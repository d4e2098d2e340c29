"""The condition bank: a question and a trigger become paired contexts.

Every condition asks the same questions, so contrasts pair by question. Which conditions stand
together decides what can be concluded: trigger and paraphrases alone cannot tell meaning from
form; negations, unrelated framings and form-only framings can (arXiv:2604.25891).
"""

from collections.abc import Sequence
from enum import StrEnum

from em_interp.errors import InputError, once
from em_interp.organisms import Framing, Message, Trigger
from em_interp.records import Filled, Spec


class Condition(StrEnum):
    """How a question is asked."""

    NONE = "none"
    TRIGGER = "trigger"
    PARAPHRASE = "paraphrase"
    NEGATION = "negation"
    UNRELATED = "unrelated"
    FORM = "form"


class Question(Spec):
    """One question: the unit of inference. `domain` and `topic` group it; `text` is asked as is.

    `sound` and `unsound` are reference answers for judge-free measures, where there are any.
    """

    id: Filled
    text: Filled
    domain: str
    topic: str = ""
    sound: str = ""
    unsound: str = ""


class Context(Spec):
    """A question under one condition, ready for a chat template; the last message is the user's.

    `variant` is the framing's text ("" under `none`). `framing` holds the framing's character
    spans as (message index, start, end), so that its tokens can be found by offsets.
    """

    id: str
    question: str
    domain: str
    condition: Condition
    variant: str
    messages: tuple[Message, ...]
    framing: tuple[tuple[int, int, int], ...] = ()


def variants(trigger: Trigger, condition: Condition) -> tuple[str | None, ...]:
    """The framing texts of a condition (`None` for no framing). Empty if the trigger has none."""
    texts: dict[Condition, tuple[str | None, ...]] = {
        Condition.NONE: (None,),
        Condition.TRIGGER: (trigger.text,),
        Condition.PARAPHRASE: trigger.paraphrases,
        Condition.NEGATION: trigger.negations,
        Condition.UNRELATED: trigger.unrelated,
        Condition.FORM: trigger.form,
    }
    return texts[condition]


def contexts(
    questions: Sequence[Question], trigger: Trigger, conditions: Sequence[Condition]
) -> list[Context]:
    """Each question under each variant of each condition, in that order of nesting.

    Raises `InputError` where there is no question, or a condition has no framing (an empty
    condition would otherwise print as a rate over nothing), or where a question's id or a
    condition comes twice (it would count twice).
    """
    if not questions:
        raise InputError("no questions: the condition bank needs at least one")
    once("question", [question.id for question in questions])
    once("condition", [condition.value for condition in conditions])
    bank = []
    for condition in conditions:
        texts = variants(trigger, condition)
        if not texts:
            raise InputError(
                f"condition {condition.value!r} is empty: "
                f"trigger {trigger.name!r} declares no framing for it"
            )
        for number, text in enumerate(texts):
            framing = None if text is None else trigger.framing(text)
            for question in questions:
                bank.append(context(question, condition, number, framing))
    return bank


def bare(questions: Sequence[Question]) -> list[Context]:
    """Each question without any framing: the condition `none`, for which no trigger is needed."""
    return [context(question, Condition.NONE, 0, None) for question in questions]


def context(
    question: Question, condition: Condition, number: int, framing: Framing | None
) -> Context:
    """One question in the condition's framing of that number (`None`: the bare question)."""
    turns: tuple[Message, ...] = (Message(role="user", content=question.text),)
    spans: tuple[tuple[int, int, int], ...] = ()
    if framing is not None:
        turns, spans = framing.render(question.text)
    return Context(
        id=f"{question.id}|{condition.value}{number}",
        question=question.id,
        domain=question.domain,
        condition=condition,
        variant=framing.text if framing else "",
        messages=turns,
        framing=spans,
    )
