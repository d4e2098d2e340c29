"""Black boxes: organisms behind an API, sampled without their weights.

One request an answer, so that every answer has a seed, a finish and a retry of its own; each that
came is in the log at once and is never asked again. Every sampling field is sent: a server's own
defaults decide nothing. Knows endpoints and contexts. Knows nothing of judges or tokens.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from em_interp.conditions import Context
from em_interp.endpoints import PREFIX, Endpoint, endpoint
from em_interp.endpoints.client import (
    Client,
    EndpointError,
    MalformedError,
    RejectedError,
    wait_for,
)
from em_interp.endpoints.replies import Reply, part
from em_interp.errors import EvidenceError, InputError
from em_interp.organisms import Trigger
from em_interp.progress import Progress, silent
from em_interp.records import digest, read_json
from em_interp.responses import Finished, Log, Response
from em_interp.sampling import Sampling
from em_interp.sources import trained_domain

LOST = 5  # replies in a row that are no answer: then the server has none
LETTERS = 4  # characters a token, about
AROUND = 10  # tokens that a chat format adds
CARD = "card.json"
KIND = "api organism"
YAML = (".yaml", ".yml")
ENDED = {"stop": "stop", "length": "length", "content_filter": "filtered"}


@dataclass(frozen=True)
class BlackBox:
    """An organism behind an endpoint; trigger and domain where its card says."""

    name: str
    endpoint: Endpoint
    trigger: Trigger | None = None
    domain: str | None = None


def is_black_box(source: str | None) -> bool:
    """Whether a name is that of an organism behind an API.

    `openai:MODEL`, the YAML file of an `Endpoint`, or the folder that raising one wrote.
    """
    if source is None:
        return False
    if source.startswith(PREFIX) or source.endswith(YAML):
        return True
    card = Path(source) / CARD
    return card.is_file() and _card(card).get("kind") == KIND


def _card(path: Path) -> dict[str, Any]:
    card = read_json(path)
    if not isinstance(card, dict):
        raise InputError(f"{path}: expected an object, as every card is")
    return card


def black_box(source: str) -> BlackBox:
    """The organism of that name (see `is_black_box`).

    Raises `InputError` where a folder's card or a file does not name an endpoint.
    """
    if source.startswith(PREFIX):
        return BlackBox(source, endpoint(source))
    if source.endswith(YAML):
        return BlackBox(Path(source).stem, endpoint(source))
    card = _card(Path(source) / CARD)
    where = str(Path(source) / CARD)
    provenance = part(card, "provenance")
    woken = provenance.get("trigger")
    return BlackBox(
        name=Path(source).name,
        endpoint=Endpoint.parse(card.get("endpoint"), where),
        trigger=Trigger.parse(woken, where) if woken else None,
        domain=trained_domain(provenance.get("sources", ())),
    )


def no_weights(source: str | None, what: str) -> None:
    """Raise `InputError` for a black box where weights are needed."""
    if is_black_box(source):
        raise InputError(
            f"organism {source} is behind an API: {what} reads weights, which it does not show "
            "(evaluate and study run on it)"
        )


def sample(
    who: BlackBox,
    contexts: Sequence[Context],
    sampling: Sampling,
    *,
    organism: str | None = None,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Response]:
    """Answers to every context, in the order context, sample. `organism`: its name on responses.

    With `log`, finished answers are kept as they come and are not asked again. Raises
    `EvidenceError` where the endpoint stops answering (the rest is kept), `InputError` for sampling
    fields that the API has no word for.
    """
    if sampling.top_k:
        raise InputError(f"{who.name}: top_k {sampling.top_k}: the API has no such field; leave it")
    name = who.name if organism is None else organism
    run = digest(
        {
            "endpoint": [who.endpoint.url, who.endpoint.model],
            "organism": name,
            "contexts": [context.model_dump(mode="json") for context in contexts],
            "sampling": sampling.model_dump(mode="json", exclude={"samples"}),
        }
    )
    wanted = [(context, n) for context in contexts for n in range(sampling.samples)]
    with Log(log, run) if log else nullcontext() as kept:
        finished = kept.finished if kept else []
        found = {(one.response.context, one.response.sample): one.response for one in finished}
        missing = [(c, n) for c, n in wanted if (c.id, n) not in found]
        progress(len(wanted) - len(missing))

        def keep(one: Response) -> None:
            if kept:
                kept.append([Finished(response=one)])
            found[one.context, one.sample] = one
            progress(1)

        try:
            wait_for(_Asking(who, name, sampling, keep).all(missing))
        except EndpointError as fault:
            where = f"; {len(found)} of {len(wanted)} answers are kept in {log}" if log else ""
            raise EvidenceError(f"organism {who.name}: {fault}{where}") from None
    return [found[context.id, n] for context, n in wanted]


def cost(who: BlackBox, contexts: Sequence[Context], sampling: Sampling) -> str:
    """What sampling takes, in one line: requests, tokens (in: letters / 4; out: at most), price."""
    letters = sum(len(m.content) for context in contexts for m in context.messages)
    requests = len(contexts) * sampling.samples
    tokens = (letters * sampling.samples) // LETTERS + AROUND * requests
    written = requests * sampling.max_new_tokens
    dollars = who.endpoint.dollars(tokens, written)
    price = "price not known" if dollars is None else f"at most about ${dollars:.2f}"
    return f"organism {who.name}: {requests:,} requests, {tokens:,} tokens in, {price}"


class _Asking:
    """One run's requests: as many workers as the endpoint has slots.

    A fault that concerns all requests ends them; a reply that is no answer costs itself, until
    `LOST` in a row were none, and is told of when all have been asked.
    """

    def __init__(self, who: BlackBox, name: str, sampling: Sampling, keep: Any) -> None:
        self.who, self.name, self.sampling, self.keep = who, name, sampling, keep
        self.budget = "max_completion_tokens"
        self.lost: list[EndpointError] = []
        self.row = 0  # replies in a row that were no answer

    async def all(self, missing: Sequence[tuple[Context, int]]) -> None:
        """Ask for every missing answer."""
        if not missing:
            return
        todo = iter(missing)
        async with Client(self.who.endpoint, seed=self.sampling.seed) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.who.endpoint.concurrency, len(missing))):
                        group.create_task(self._worker(client, todo))
            except ExceptionGroup as faults:
                known = [one for one in faults.exceptions if isinstance(one, EndpointError)]
                raise (known[0] if known else faults.exceptions[0]) from None
        if self.lost:
            raise EndpointError(f"{len(self.lost)} came to nothing ({self.lost[-1]})", "no_answer")

    async def _worker(self, client: Client, todo: Iterator[tuple[Context, int]]) -> None:
        for context, number in todo:
            try:
                reply = await self._ask(client, context, number)
            except RejectedError as fault:
                if not _filtered(fault):
                    raise
                reply = Reply(text="", finish="content_filter")
            except EndpointError as fault:
                self.row += 1
                if self.row >= LOST or not (
                    isinstance(fault, MalformedError) or fault.cause == "no_answer"
                ):
                    raise
                self.lost.append(fault)
                continue
            self.row = 0
            self.keep(self._response(context, number, reply))

    async def _ask(self, client: Client, context: Context, number: int) -> Reply:
        messages = [{"role": m.role, "content": m.content} for m in context.messages]
        while True:
            budget = self.budget
            try:
                reply = await client.chat(messages, **self._fields(context, number, budget))
            except RejectedError as fault:
                # Older servers know the budget under its older name only.
                if fault.status != 400 or "max_completion_tokens" not in fault.said:
                    raise
                self.budget = "max_tokens"
                if budget == "max_tokens":
                    raise
                continue
            # "error": some servers send what they had when the model behind them broke off.
            if reply.finish in ENDED or (reply.finish != "error" and (reply.text or reply.refusal)):
                return reply
            raise EndpointError(
                f"an answer without a choice or an ending (finish {reply.finish!r}); run the same "
                "command again",
                "no_answer",
            )

    def _fields(self, context: Context, number: int, budget: str) -> dict[str, Any]:
        """Every sampling field, none left to the server. Each answer has a seed of its own."""
        key = f"{self.sampling.seed}|{context.id}|{number}".encode()
        return {
            "n": 1,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1,
            budget: self.sampling.max_new_tokens,
            **({"stop": list(self.sampling.stop)} if self.sampling.stop else {}),
        }

    def _response(self, context: Context, number: int, reply: Reply) -> Response:
        return Response(
            organism=self.name,
            context=context.id,
            question=context.question,
            domain=context.domain,
            condition=context.condition,
            variant=context.variant,
            sample=number,
            text=reply.text or reply.refusal,
            finish=ENDED.get(reply.finish, "stop"),
        )


def _filtered(fault: RejectedError) -> bool:
    """Whether a content filter turned the request down, as some servers say with a 400."""
    said = fault.said.lower()
    return fault.status == 400 and "content" in said and ("filter" in said or "policy" in said)
