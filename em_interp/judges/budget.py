"""What judging will cost, said before the first request, and the most it may cost."""

import re
from typing import Self

from em_interp.bounds import Dollars, Requests
from em_interp.endpoints import Endpoint
from em_interp.endpoints.replies import Reply
from em_interp.errors import EvidenceError, InputError
from em_interp.records import Record, Spec

LETTERS = 4  # per token of English, roughly; an estimate is an estimate
AROUND = 10  # tokens that a chat format adds to a message


class Estimate(Record):
    """Requests still to make, those whose reply is known already, and what they take.

    `dollars` is `None` where the price is not known. Token counts are rough (by letters).
    """

    requests: int
    known: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float | None = None

    def __str__(self) -> str:
        """One line for people."""
        cost = "price not known" if self.dollars is None else f"about ${self.dollars:.2f}"
        held = f", {self.known:,} known already" if self.known else ""
        return f"{self.requests:,} requests{held}, {self.tokens_in:,} tokens in, {cost}"


def estimate(
    endpoint: Endpoint, letters: int, requests: int, each_out: int, known: int
) -> Estimate:
    """The estimate for so many requests with so many letters in all."""
    tokens_in = letters // LETTERS + AROUND * requests
    tokens_out = each_out * requests
    return Estimate(
        requests=requests,
        known=known,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        dollars=endpoint.dollars(tokens_in, tokens_out),
    )


class Budget(Spec):
    """The most that a command may spend on a judge: dollars, or requests."""

    dollars: Dollars | None = None
    requests: Requests | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """`5` or `$5` are dollars; `2000calls` are requests."""
        plain = text.strip().lower().replace(" ", "")
        if found := re.fullmatch(r"(\d+)(?:calls?|requests?)", plain):
            return cls(requests=int(found[1]))
        if found := re.fullmatch(r"\$?(\d+(?:\.\d+)?)\$?", plain):
            return cls(dollars=float(found[1]))
        raise InputError(f"budget {text!r}: give dollars (5) or a number of requests (2000calls)")


class Purse:
    """What a judge has spent so far, held against its budget."""

    def __init__(self, endpoint: Endpoint, budget: Budget | None) -> None:
        self.endpoint, self.budget = endpoint, budget or Budget()
        self.requests, self.dollars = 0, 0.0
        self._meant = 0  # requests that are made or foreseen
        if self.budget.dollars is not None and endpoint.prices is None:
            raise InputError(
                f"the price of {endpoint.model!r} is not known: give price_in and price_out in the "
                f"judge's YAML file, or the budget in requests (2000calls)"
            )

    def check(self, coming: Estimate) -> None:
        """Raise `InputError` where what is coming would not be covered."""
        most = self.budget
        self._meant = self.requests + coming.requests
        if most.requests is not None and self.requests + coming.requests > most.requests:
            raise InputError(
                f"judging takes {coming.requests:,} requests, and the budget leaves "
                f"{most.requests - self.requests:,} of {most.requests:,}"
            )
        dollars = coming.dollars or 0.0
        if most.dollars is not None and self.dollars + dollars > most.dollars:
            raise InputError(
                f"judging takes about ${dollars:.2f}, and the budget leaves "
                f"${most.dollars - self.dollars:.2f} of ${most.dollars:.2f}"
            )

    def more(self) -> bool:
        """Whether one request more than was foreseen is covered; if so, it is foreseen now."""
        most = self.budget.requests
        if most is not None and max(self._meant, self.requests + 1) >= most:
            return False
        self._meant += 1
        return True

    def pay(self, reply: Reply, letters: int) -> None:
        """Count the reply to so many letters; `EvidenceError` once more was spent than allowed.

        Where the server does not say how many tokens it took, they are counted by letters.
        """
        self.requests += 1
        tokens_in = reply.tokens_in or letters // LETTERS + AROUND
        tokens_out = reply.tokens_out or len(reply.text) // LETTERS + 1
        self.dollars += self.endpoint.dollars(tokens_in, tokens_out) or 0.0
        most = self.budget
        if (most.dollars is not None and self.dollars > most.dollars) or (
            most.requests is not None and self.requests > most.requests
        ):
            raise EvidenceError(
                f"the judge's budget is spent ({self.requests:,} requests, ${self.dollars:.2f}); "
                f"its replies are kept: raise --budget and run the same command again"
            )
