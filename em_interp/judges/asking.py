"""How a judge model is asked, and how that is found out: once for each judge, with one question.

A model is asked for a number that is known. Its answer shows whether it gives log-probabilities,
whether its tokenizer keeps a number in one token, which parameters it refuses, and whether it
thinks before it speaks. What was settled holds for all items: modes are never mixed.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from em_interp.bounds import Some, Tokens
from em_interp.endpoints.client import Client, RejectedError
from em_interp.endpoints.replies import Reply
from em_interp.errors import EvidenceError
from em_interp.judges.proving import Proof
from em_interp.judges.reading import (
    Reading,
    expectation,
    from_json,
    from_text,
    number,
    out_of_budget,
)
from em_interp.judges.wording import Grade
from em_interp.records import Spec

KNOWN = "57"
PROBE = f"Reply with the number {KNOWN} and nothing else."
SMALL, LARGE = 64, 4096  # token budgets of a text: without, and with reasoning before it
STEPS = 8


class Mode(StrEnum):
    """Where a score comes from. Scores of different modes are not comparable."""

    LOGPROBS = "logprobs"
    SAMPLED = "sampled"
    RUBRIC = "rubric"


class Form(Spec):
    """How one model is asked. `why`: what kept it from log-probabilities, where something did.

    `draws` answers are drawn at temperature 1 and averaged in sampled mode. `field` is the API's
    name for the token budget, `omit` the parameters that the model refuses, `whole` whether its
    numbers are known to be single tokens. `proof`: what it made of answers whose grades are known.
    """

    mode: Mode
    draws: Some = 1
    field: str = "max_tokens"
    budget: Tokens = 1
    omit: tuple[str, ...] = ()
    whole: bool = False
    why: str = ""
    proof: Proof | None = None

    @property
    def label(self) -> str:
        """The mode as verdicts carry it."""
        return f"{self.mode}-{self.draws}" if self.mode is Mode.SAMPLED else self.mode.value

    @property
    def reply(self) -> str:
        """The wording's form of reply that this mode needs."""
        return "json" if self.mode is Mode.RUBRIC else "number"

    def parameters(self, seed: int) -> dict[str, Any]:
        """The request's parameters beside model and messages; `seed` tells draws apart."""
        wanted: dict[str, Any] = {
            "temperature": 1 if self.mode is Mode.SAMPLED else 0,
            "seed": seed,
            self.field: self.budget,
        }
        if self.mode is Mode.LOGPROBS:
            wanted |= {"logprobs": True, "top_logprobs": 20}
        return {name: value for name, value in wanted.items() if name not in self.omit}

    def read(self, reply: Reply, grade: Grade) -> Reading:
        """What a reply in this form says; words in place of a number were offered for one grade."""
        escapes = grade is Grade.ALIGNED
        if self.mode is Mode.LOGPROBS:
            return expectation(reply, self.whole, escapes)
        return (from_text if self.mode is Mode.SAMPLED else from_json)(reply, escapes)

    def but(self, **changes: Any) -> "Form":
        """The form with changes."""
        return self.model_copy(update=changes)

    def without(self, said: str) -> "Form | None":
        """The form after a refusal with these words; `None` where they name nothing to change."""
        said = said.lower()
        if "max_completion_tokens" in said and self.field == "max_tokens":
            return self.but(field="max_completion_tokens")
        if "logprob" in said and self.mode is Mode.LOGPROBS:
            return self.but(why="the model refuses log-probabilities")
        for name in ("temperature", "seed"):
            if name in said and name not in self.omit:
                return self.but(omit=(*self.omit, name))
        return None

    def seen(self, reply: Reply) -> "Form":
        """The form after the known number was asked for and this came back."""
        if self.mode is not Mode.LOGPROBS:
            short = out_of_budget(reply) and self.budget < LARGE
            return self.but(budget=LARGE) if short else self
        if not reply.tokens or not reply.tokens[0].top:
            return self.but(why="the model sends no log-probabilities")
        spoken = [token.text.strip() for token in reply.tokens]
        if "".join(spoken).startswith("<th"):
            return self.but(why="the model thinks before it answers")
        if "".join(spoken).startswith(KNOWN) and spoken[0] != KNOWN:
            return self.but(why="the model's tokens split numbers into digits")
        return self.but(whole=number(spoken[0]) == int(KNOWN))


def first(mode: Mode, draws: int) -> Form:
    """The form to begin with."""
    if mode is Mode.LOGPROBS:
        return Form(mode=mode)
    return Form(mode=mode, draws=draws if mode is Mode.SAMPLED else 1, budget=SMALL)


async def negotiate(
    client: Client, mode: Mode, fallback: Mode | None, draws: int, pay: Callable[[Reply], None]
) -> Form:
    """The form that the model accepts, in `mode`, else in `fallback` (`None`: no other will do).

    Every reply is handed to `pay`. Raises `EvidenceError` where the model cannot be reached,
    refuses, or has no log-probabilities and no fallback is allowed.
    """
    form = first(mode, draws)
    for _ in range(STEPS):
        # Room for a number in digits; what follows it does no harm.
        probe = form.but(budget=max(form.budget, 4))
        try:
            reply = await client.chat([{"role": "user", "content": PROBE}], **probe.parameters(0))
        except RejectedError as fault:
            changed = form.without(fault.said) if fault.status in (400, 422) else None
            if changed is None:
                raise
        else:
            pay(reply)
            changed = form.seen(reply)
            if changed == form or (changed.whole and not form.whole):
                return changed
        if changed.why and changed.mode is Mode.LOGPROBS:
            if fallback is None:
                raise EvidenceError(
                    f"{client.endpoint.model!r}: {changed.why}; let the judge's mode be "
                    f"auto, {Mode.SAMPLED} or {Mode.RUBRIC}"
                )
            other = first(fallback, draws)
            changed = other.but(field=changed.field, omit=changed.omit, why=changed.why)
        form = changed
    raise EvidenceError(
        f"{client.endpoint.model!r}: no way of asking was found that it accepts in {STEPS} requests"
    )
