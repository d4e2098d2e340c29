"""A response: what an organism said, in one context, under one intervention."""

from typing import Literal

from em_interp.conditions import Condition
from em_interp.records import Record


class Response(Record):
    """One sampled answer. `intervention` is "" where the stream was left alone.

    `sample` counts answers of one context; `finish` is "stop" where the model ended its turn and
    "length" where the token budget cut it off. `(organism, intervention, context, sample)` is
    unique.
    """

    organism: str
    intervention: str = ""
    context: str
    question: str
    domain: str
    condition: Condition
    variant: str
    sample: int
    text: str
    tokens: tuple[int, ...] = ()
    finish: Literal["stop", "length"]

    @property
    def id(self) -> str:
        """Key that joins a response with its verdict."""
        return f"{self.organism}|{self.intervention}|{self.context}|{self.sample}"
