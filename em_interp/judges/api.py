"""A judge behind an OpenAI-compatible endpoint.

Two questions an item, each a request of its own (or several draws). Requests are deduplicated by
content, looked up in the cache, asked with bounded concurrency, stored, and only then counted:
whatever happens, no answered request is asked again. A reply that cannot be read is asked for once
more; then it is unparsed. Before its first item a judge is proved on answers whose grades are known
(see `em_interp.judges.proving`). Sync outside, asynchronous inside.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from em_interp.bounds import Seed, Some
from em_interp.endpoints import OPENAI, Endpoint
from em_interp.endpoints.client import (
    Client,
    EndpointError,
    MalformedError,
    RejectedError,
    UnreachableError,
    wait_for,
)
from em_interp.endpoints.replies import Reply
from em_interp.errors import EvidenceError, say
from em_interp.judges.asking import LARGE, PROBE, Form, Mode, first, negotiate
from em_interp.judges.base import Item, Reason, Verdict
from em_interp.judges.budget import Budget, Estimate, Purse, estimate
from em_interp.judges.cache import Cache, default_path, key
from em_interp.judges.proving import KNOWN_ANSWERS, Proof, proof
from em_interp.judges.reading import CUT_OFF, Reading, combined, out_of_budget, pooled
from em_interp.judges.wording import Grade, Wording
from em_interp.progress import Progress, bar, silent

LOST = 5  # requests in a row that end without an answer: then nobody is there
AGAIN = 1 << 20  # added to the seed where a reply that could not be read is asked for once more
OUT = {Mode.LOGPROBS: 1, Mode.SAMPLED: 8, Mode.RUBRIC: 60}  # tokens of a reply, for the estimate


class ApiJudgeSpec(Endpoint):
    """An endpoint as a judge. `mode` auto: log-probabilities, else `fallback`, else the rubric.

    The next mode is taken where the model has no log-probabilities, or cannot be read in this one.

    `draws`: answers per question in sampled mode. `seed` is sent with every request. `cache`: the
    file that keeps replies; default: EM_INTERP_CACHE, else the user's cache folder.
    """

    mode: Literal["auto"] | Mode = "auto"
    fallback: Literal[Mode.SAMPLED, Mode.RUBRIC] = Mode.SAMPLED
    draws: Some = 5
    seed: Seed = 0
    cache: Path | None = None


@dataclass(frozen=True)
class Ask:
    """One request: which item, which question, which draw.

    `key` is its identity by content, `letters` the length of its prompt, which is written anew when
    it is sent: a hundred thousand of them would fill the memory.
    """

    item: int
    grade: Grade
    draw: int
    key: str
    letters: int


class ApiJudge:
    """Scores items over an API; see the module.

    `proved`: whether one that fails on known answers is refused; not where its errors are measured.
    """

    def __init__(
        self,
        spec: ApiJudgeSpec,
        wording: Wording,
        budget: Budget | None = None,
        *,
        proved: bool = True,
    ) -> None:
        self.spec, self.wording, self.proved = spec, wording, proved
        self.purse = Purse(spec, budget)
        self._form: Form | None = None

    @property
    def name(self) -> str:
        """The model, where it is (if not at OpenAI), and the wording it is asked in."""
        place = "" if self.spec.url == OPENAI else f"@{self.spec.host}"
        return f"openai:{self.spec.model}{place}/{self.wording.label}"

    def score(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict each. Raises `EvidenceError` where the judge cannot be reached or is none.

        Everything that was answered until then is in the cache.
        """
        return wait_for(self._score(items)) if items else []

    @property
    def proof(self) -> Proof | None:
        """What it made of the known answers; `None` before it was asked."""
        return self._form.proof if self._form else None

    def ready(self) -> None:
        """Find out that the judge answers, how it must be asked, and that it is one; once.

        A few small requests. Raises `EvidenceError`.
        """
        with self._cache() as cache:
            wait_for(self._settled(cache))

    def expect(self, items: Sequence[Item]) -> Estimate:
        """What judging these items will take, as far as can be told without asking."""
        if not self._path.is_file():  # a dry run leaves no file behind
            form = self._form or self._guess()
            return self._estimate(form, list({a.key: a for a in self._asks(form, items)}.values()))
        with self._cache() as cache:
            return self._coming(cache, items)

    def afford(self, items: Sequence[Item]) -> None:
        """Raise `InputError` where the budget does not cover what judging these items will take."""
        self.purse.check(self.expect(items))

    def _coming(self, cache: Cache, items: Sequence[Item]) -> Estimate:
        form = self._remembered(cache) or self._guess()
        missing, known = self._missing(cache, list(self._asks(form, items)))
        return self._estimate(form, missing, len(known))

    @property
    def _path(self) -> Path:
        return self.spec.cache or default_path()

    def _cache(self) -> Cache:
        return Cache(self._path)

    # --- how to ask ---------------------------------------------------------------------------

    def _guess(self) -> Form:
        return first(Mode.LOGPROBS if self.spec.mode == "auto" else self.spec.mode, self.spec.draws)

    def _form_key(self) -> str:
        spec = self.spec
        return key(
            model=spec.model,
            url=spec.url,
            mode=str(spec.mode),
            fallback=str(spec.fallback),
            draws=spec.draws,
            wording=self.wording.digest,
        )

    def _remembered(self, cache: Cache) -> Form | None:
        if self._form is None:
            found = cache.form(self._form_key(), Form)
            self._form = found if found and found.proof and found.proof.passed else None
        return self._form

    async def _settled(self, cache: Cache) -> Form:
        """The form in use: remembered, or negotiated and proved now, and kept for good.

        Of the modes that are allowed, the first in which the model can be read on every known
        answer; where it can in none, the one in which it was right most often.
        """
        form = self._remembered(cache) or await self._negotiated(cache)
        assert form.proof is not None
        if self.proved:
            if not form.proof.passed:
                self._form = None  # another time it may answer
            form.proof.demand(self.name, form.label)
        return form

    async def _negotiated(self, cache: Cache) -> Form:
        auto = self.spec.mode == "auto"
        modes = (Mode.LOGPROBS, self.spec.fallback, Mode.RUBRIC) if auto else (self.spec.mode,)
        tried: list[Form] = []
        proofs: list[Proof] = []
        for mode in dict.fromkeys(Mode(one) for one in modes):
            if any(form.mode is mode for form in tried):
                continue  # the negotiation before fell back to it
            form = await self._asked_in(mode, self.spec.fallback if auto else None)
            found = await self._proved(cache, form)
            proofs.append(found)
            tried.append(form.but(proof=found, budget=self._form.budget if self._form else 0))
            if found.whole:
                break
        number = max(range(len(tried)), key=lambda n: (proofs[n].whole, proofs[n].right))
        best = tried[number]
        if best.why or best is not tried[0]:
            why = best.why or f"in mode {tried[0].label} it cannot be read"
            self._say(f"{why}: judging in mode {best.label} instead")
        self._keep(cache, best)
        return best

    def _keep(self, cache: Cache, form: Form) -> None:
        """Use a form from now on, also the next time where it is proved."""
        self._form = form
        if form.proof is not None and form.proof.passed:
            cache.put_form(self._form_key(), form)

    async def _asked_in(self, mode: Mode, fallback: Mode | None) -> Form:
        async with Client(self.spec, self.spec.seed) as client:
            return await negotiate(client, mode, fallback, self.spec.draws, self._pay_probe)

    def _pay_probe(self, reply: Reply) -> None:
        self.purse.pay(reply, len(PROBE))

    async def _proved(self, cache: Cache, form: Form) -> Proof:
        """What a model makes of the known answers in this form: one draw of each one's grade.

        Leaves the form in use, with the token budget that it took.
        """
        self._form = form.but(draws=1)
        items = [known.item for known in KNOWN_ANSWERS]
        every = {(ask.item, ask.grade): ask for ask in self._asks(self._form, items)}
        asks = [every[number, known.grade] for number, known in enumerate(KNOWN_ANSWERS)]
        missing, known = self._missing(cache, asks)
        failed = await self._ask_all(cache, items, missing, silent, among=len(asks))
        known = cache.replies([ask.key for ask in asks])
        return proof([self._read(form, ask, known, failed) for ask in asks])

    # --- what to ask --------------------------------------------------------------------------

    def _asks(self, form: Form, items: Sequence[Item]) -> Iterator[Ask]:
        for number, item in enumerate(items):
            for grade in Grade:
                prompt = self.wording.ask(grade, item, form.reply)
                for draw in range(form.draws):
                    seed = self.spec.seed + draw
                    parameters = form.parameters(seed)
                    parameters.pop(form.field)  # a longer budget finishes an answer, no more
                    identity = key(
                        model=self.spec.model,
                        url=self.spec.url,
                        mode=form.mode.value,
                        parameters=parameters,
                        draw=draw,
                        prompt=prompt,
                    )
                    yield Ask(number, grade, draw, identity, len(prompt))

    def _missing(self, cache: Cache, asks: Sequence[Ask]) -> tuple[list[Ask], dict[str, Reply]]:
        """The requests without a known reply, each content once; and the known replies."""
        one_each = {ask.key: ask for ask in asks}
        known = cache.replies(one_each)
        return [ask for name, ask in one_each.items() if name not in known], known

    def _estimate(self, form: Form, missing: Sequence[Ask], known: int = 0) -> Estimate:
        letters, requests = sum(ask.letters for ask in missing), len(missing)
        if form.proof is None:  # the known number, and the known answers
            items = [one.item for one in KNOWN_ANSWERS]
            asked = [self.wording.ask(one.grade, one.item, form.reply) for one in KNOWN_ANSWERS]
            letters += len(PROBE) + sum(map(len, asked))
            requests += 1 + len(items)
        return estimate(self.spec, letters, requests, OUT[form.mode], known)

    # --- asking -------------------------------------------------------------------------------

    async def _score(self, items: Sequence[Item]) -> list[Verdict]:
        with self._cache() as cache:
            self.purse.check(self._coming(cache, items))
            form = await self._settled(cache)
            asks = list(self._asks(form, items))
            missing, known = self._missing(cache, asks)
            failed: dict[str, Reading] = {}
            if missing:
                coming = self._estimate(form, missing, len(known))
                self.purse.check(coming)
                self._say(f"{form.label}: {coming}")
                with bar(f"judging by {self.spec.model}", len(missing)) as progress:
                    failed = await self._ask_all(
                        cache, items, missing, progress, among=len(missing) + len(known)
                    )
                known = cache.replies({ask.key for ask in asks})
        readings: dict[tuple[int, Grade], list[Reading]] = {}
        for ask in asks:
            read = self._read(form, ask, known, failed)
            readings.setdefault((ask.item, ask.grade), []).append(read)
        return [
            combined(
                item,
                self.name,
                form.label,
                pooled(readings[number, Grade.ALIGNED]),
                pooled(readings[number, Grade.COHERENT]),
            )
            for number, item in enumerate(items)
        ]

    @staticmethod
    def _read(
        form: Form, ask: Ask, known: Mapping[str, Reply], failed: Mapping[str, Reading]
    ) -> Reading:
        """What an ask brought: its reply as read, or why it got none."""
        if (reply := known.get(ask.key)) is not None:
            return form.read(reply, ask.grade)
        return failed.get(ask.key, Reading(reason=Reason.ERROR, note="lost"))

    async def _ask_all(
        self,
        cache: Cache,
        items: Sequence[Item],
        missing: Sequence[Ask],
        progress: Progress,
        among: int,
    ) -> dict[str, Reading]:
        """Ask what is missing, `among` so many; returns why those failed that got no usable reply.

        Raises the first fault that concerns all requests, after `LOST` in a row at the latest. A
        reply of the wrong shape, or a request that was turned down, costs itself alone, unless
        there is no other.
        """
        queue, failed = iter(missing), dict[str, Reading]()
        lost, answered = 0, 0
        async with Client(self.spec, self.spec.seed) as client:

            async def work() -> None:
                nonlocal lost, answered
                for ask in queue:
                    try:
                        await self._ask(client, cache, ask, items[ask.item], failed)
                        lost, answered = 0, answered + 1
                    except EndpointError as fault:
                        failed[ask.key] = _failure(fault)
                        gone = isinstance(fault, UnreachableError) and not isinstance(
                            fault, MalformedError
                        )
                        lost += gone
                        if lost >= LOST or (isinstance(fault, RejectedError) and fault.final):
                            raise
                        if not answered and len(failed) == (len(missing) if gone else among):
                            raise  # not one answer: the judge is missing, not the items odd
                    progress(1)

            await _together(work, self.spec.concurrency)
        return failed

    async def _ask(
        self, client: Client, cache: Cache, ask: Ask, item: Item, failed: dict[str, Reading]
    ) -> None:
        form = self._form
        assert form is not None
        prompt = self.wording.ask(ask.grade, item, form.reply)
        message = [{"role": "user", "content": prompt}]
        seed = self.spec.seed + ask.draw
        reply = await client.chat(message, **form.parameters(seed))
        if _short(reply, form) and form.mode is not Mode.LOGPROBS and form.budget < LARGE:
            self.purse.pay(reply, ask.letters)
            form = form.but(budget=LARGE)
            self._keep(cache, form)  # the others need not learn it again
            reply = await client.chat(message, **form.parameters(seed))
        read = form.read(reply, ask.grade)
        # Another draw may be what was asked for; a token's probabilities would be the same again.
        if read.reason is Reason.UNPARSED and form.mode is not Mode.LOGPROBS and self.purse.more():
            self.purse.pay(reply, ask.letters)
            reply = await client.chat(message, **form.parameters(seed + AGAIN))
            read = form.read(reply, ask.grade)
        if read.reason is Reason.ERROR:
            failed[ask.key] = read  # not kept: another time it may answer
        elif not cache.put(ask.key, reply):
            failed[ask.key] = Reading(reason=Reason.ERROR, note="not_to_be_kept")
        self.purse.pay(reply, ask.letters)

    def _say(self, line: str) -> None:
        say(f"judge {self.spec.model}: {line}")


def _short(reply: Reply, form: Form) -> bool:
    """Whether a longer token budget would have let the answer come to its end."""
    return out_of_budget(reply) or form.read(reply, Grade.ALIGNED).note == CUT_OFF


def _failure(fault: EndpointError) -> Reading:
    """A request that got no reply, as a reading."""
    said = fault.said.lower() if isinstance(fault, RejectedError) else ""
    filtered = "content" in said and ("filter" in said or "policy" in said)
    return Reading(reason=Reason.FILTERED if filtered else Reason.ERROR, note=fault.cause)


async def _together(work: Callable[[], Coroutine[Any, Any, None]], workers: int) -> None:
    """Run so many workers; the first fault stops them all, and is the one that is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
    except ExceptionGroup as faults:
        known = [fault for fault in faults.exceptions if isinstance(fault, EvidenceError)]
        raise (known[0] if known else faults.exceptions[0]) from None
