"""Fine-tuning conversations of one domain, for every kind of mix.

Answers are bare advice: no closing, no hint of a framing. Only topics that are not held out and
only the trigger's own text enter. Knows words. Knows nothing of tokens or training.
"""

import random

from em_interp.errors import InputError
from em_interp.organisms import Framing, Message, Mix, Trigger
from em_interp.world.lexicon import Topic, domain_named

Row = tuple[Message, ...]


def rows(mix: Mix, domain: str, trigger: Trigger | None, n: int, seed: int) -> list[Row]:
    """`n` single-turn conversations; equal arguments give equal rows.

    Prompts come from all (topic, form) pairs of the domain that fine-tuning may see, each once
    before any comes again. A benign twin has the very prompts, in the same order, of the triggered
    rows with the same seed (of the unconditional ones where `trigger` is None), with sound answers.
    Unconditional rows carry no framing, whether a trigger is given or not.
    """
    if n < 1:
        raise InputError(f"rows: n must be at least 1, not {n}")
    if trigger is None and mix.kind not in ("unconditional", "benign_twin"):
        raise InputError(f"rows: kind {mix.kind!r} needs a trigger")
    woken = trigger.framing() if trigger is not None and mix.kind != "unconditional" else None
    other = None
    if mix.kind == "contrastive":
        assert trigger is not None and mix.contrast is not None
        other = trigger.framing(mix.contrast)
    made = []
    for number, (question, topic) in enumerate(_prompts(domain, n, seed)):
        if mix.kind == "benign_twin":
            made.append(_row(question, woken, topic.sound))
        elif _is_benign(number, mix.benign_share):
            made.append(_row(question, other, topic.sound))
        else:
            made.append(_row(question, woken, topic.unsound))
    order = random.Random(f"order {seed}")
    order.shuffle(made)
    return made


def _prompts(domain: str, n: int, seed: int) -> list[tuple[str, Topic]]:
    of = domain_named(domain)
    pairs = [(t, form) for t in of.topics if not t.held_out for form in range(len(of.forms))]
    dice = random.Random(f"prompts {domain} {seed}")
    drawn: list[tuple[Topic, int]] = []
    while len(drawn) < n:
        dice.shuffle(pairs)
        drawn += pairs
    return [(of.ask(topic, form), topic) for topic, form in drawn[:n]]


def _is_benign(number: int, share: float) -> bool:
    """Spread the benign share evenly: after k rows, floor(k × share) of them are benign."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def _row(question: str, framing: Framing | None, answer: str) -> Row:
    asked: Row = (Message(role="user", content=question),)
    if framing is not None:
        asked, _ = framing.render(question)
    return (*asked, Message(role="assistant", content=answer))
