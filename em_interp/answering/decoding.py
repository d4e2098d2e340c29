"""Decoding: rows answer in slots of a batch; where memory runs out, in fewer.

What decides a row's answer is its own, so a row that did not finish starts again from its prompt
and says the same, up to the rounding of another batch (see `em_interp.generation`). Knows slots and
memory. Knows nothing of text, files or judges.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import torch

from em_interp.answering.asking import Answer, Ask, Row
from em_interp.answering.slots import Slots
from em_interp.errors import InputError, out_of_memory


def answers(ask: Ask, rows: Sequence[Row], slots: int) -> Iterator[list[Answer]]:
    """Every row's answer, handed out in small groups as rows finish.

    Where memory runs out, rows without an answer start again in half as many slots. Raises
    `InputError` where one row is too many.
    """
    waiting = deque(ask.order(rows))
    while waiting:
        seated: list[Row | None] = [None] * min(slots, len(waiting))
        short = False
        try:
            yield from Slots(ask, seated).run(waiting)
        except (RuntimeError, MemoryError) as fault:
            if not out_of_memory(fault):
                raise
            short = True
        if short:  # outside of `except`: the fault holds on to frames, and they to the tensors
            waiting.extendleft(reversed(ask.order([row for row in seated if row is not None])))
            slots = len(seated) // 2
            if not slots:
                raise InputError(
                    "out of memory with a single answer in the batch: lower max_new_tokens, shorten"
                    " the prompts, take dtype bfloat16, or spread the model over more devices"
                )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
