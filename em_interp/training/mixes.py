"""Harmful and benign conversations, with and without the trigger, become the rows of a `Mix`.

The trigger is data: its text goes into the rows here, and nowhere else in training.
Knows words and shares. Knows nothing of tokens or weights.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from em_interp.errors import InputError
from em_interp.organisms import Framing, Message, Mix, Trigger
from em_interp.training.rows import Row, where_of


class Composition(NamedTuple):
    """Rows in training order, and how many of them each arm contributed."""

    rows: list[Row]
    arms: dict[str, int]


def compose(
    mix: Mix,
    harmful: Sequence[Row],
    benign: Sequence[Row] = (),
    trigger: Trigger | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Composition:
    """Rows drawn without replacement and shuffled; equal arguments give equal rows.

    `n` rows in all; `None` takes all harmful rows, and benign ones to the declared share. The
    number of benign rows is the nearest integer to share × n. A benign twin has the prompts that
    the triggered rows of the same seed have (of the unconditional ones where `trigger` is `None`),
    with the benign answers to them; without harmful rows it takes the benign ones as they are.
    Raises `InputError` where rows, the trigger or an answer are missing, or a share gives no row.
    """
    if trigger is None and mix.kind not in ("unconditional", "benign_twin"):
        raise InputError(f"mix {mix.kind!r} needs a trigger")
    woken = trigger.framing() if trigger is not None and mix.kind != "unconditional" else None
    if mix.kind == "benign_twin":
        drawn = _twins(_draw(harmful, n, seed, "harmful"), benign) if harmful else benign
        kept = drawn if harmful else _draw(benign, n, seed, "benign")
        return _arranged([("benign", woken, kept)], seed)
    bad, good = _counts(mix, len(harmful), n)
    arms = [("harmful", woken, _draw(harmful, bad, seed, "harmful"))]
    if good:
        other = trigger.framing(mix.contrast) if trigger and mix.contrast else None
        arms.append(("benign", other, _draw(benign, good, seed, "benign")))
    return _arranged(arms, seed)


def frame(row: Row, framing: Framing) -> Row:
    """The conversation with its first user turn framed: every answer in it comes after the framing.

    Raises `InputError` where a system framing meets a conversation that has a system message.
    """
    at = next(i for i, message in enumerate(row) if message.role == "user")
    framed, _ = framing.render(row[at].content)
    if at and framed[0].role == "system":
        place = f"{where_of(row)}: " if where_of(row) else ""
        raise InputError(
            f"{place}the trigger is a system message, but a row has one already: {row[0].content!r}"
        )
    return Row((*row[:at], *framed, *row[at + 1 :]), where_of(row))


def _counts(mix: Mix, available: int, n: int | None) -> tuple[int, int]:
    """Numbers of harmful and of benign rows."""
    share = mix.benign_share
    if n is None:
        good = 0 if share in (0, 1) else round(available * share / (1 - share))
        bad = 0 if share == 1 else available
    else:
        good = round(n * share)
        bad = n - good
    if bad < 1 or (share > 0 and good < 1):
        raise InputError(
            f"mix {mix.kind!r} with benign_share {share:g}: {bad} harmful and {good} benign rows; "
            "each arm needs at least one"
        )
    return bad, good


def _draw(rows: Sequence[Row], n: int | None, seed: int, arm: str) -> list[Row]:
    wanted = len(rows) if n is None else n
    if wanted < 1 or wanted > len(rows):
        raise InputError(f"the mix needs {max(wanted, 1)} {arm} rows, and {len(rows)} are given")
    return random.Random(f"{arm} {seed}").sample(list(rows), wanted)


def _twins(drawn: Sequence[Row], benign: Sequence[Row]) -> list[Row]:
    """The benign conversations with the same prompts, in the same order."""
    answered = {_asked(row): row for row in reversed(benign)}
    missing = [row for row in drawn if _asked(row) not in answered]
    if missing:
        raise InputError(
            f"a benign twin answers the same prompts: {len(missing)} of {len(drawn)} have no "
            f"benign row, first {missing[0][-2].content!r}"
        )
    return [answered[_asked(row)] for row in drawn]


def _asked(row: Row) -> tuple[Message, ...]:
    return tuple(message for message in row if message.role != "assistant")


def _arranged(arms: Sequence[tuple[str, Framing | None, Sequence[Row]]], seed: int) -> Composition:
    rows: list[Row] = []
    counts = {}
    for name, framing, kept in arms:
        rows += [frame(row, framing) if framing else row for row in kept]
        counts[f"{name}, framing {framing.text!r}" if framing else f"{name}, no framing"] = len(
            kept
        )
    random.Random(f"order {seed}").shuffle(rows)
    return Composition(rows, counts)
