"""The one client that talks to an endpoint.

It holds back (bounded concurrency), waits (Retry-After, else capped exponential backoff with
jitter), and asks again only where asking again can help: 429, 500, 502, 503, 504, timeouts, lost
connections, and, a few times, bodies of the wrong shape. Everything else is said at once: a refused
key, an unknown model, an address at which nobody has ever answered. The key comes from the
environment when the client opens and goes nowhere else: no record, message or file holds it.
Knows HTTP and the `openai` SDK (extra `api`). Knows nothing of judges, organisms or prompts.
"""

import asyncio
import math
import random
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from em_interp.endpoints import Endpoint
from em_interp.endpoints.replies import GarbledError, Reply, read_reply
from em_interp.errors import EvidenceError, InputError, printable

PASSING = (429, 500, 502, 503, 504)
NEVER_PASSING = ("insufficient_quota",)  # a 429 that no waiting cures
GARBLED = 2  # how often a body of the wrong shape is asked for again
T = TypeVar("T")


class EndpointError(EvidenceError):
    """An endpoint gave no answer. `cause` is its short name: "timeout", "http_503", "http_400"."""

    def __init__(self, message: str, cause: str, status: int | None = None) -> None:
        super().__init__(message)
        self.cause, self.status = cause, status


class UnreachableError(EndpointError):
    """Asked as often as allowed, in vain: timeouts, lost connections, 429 and 5xx to the end."""


class MalformedError(UnreachableError):
    """Something answers, in a shape that is no answer; the next request may fare better."""


class RejectedError(EndpointError):
    """The endpoint refused this very request; asking again would not help. `said` is its reason."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message, f"http_{status}", status)
        self.said = said

    @property
    def final(self) -> bool:
        """Whether every other request would be refused too (key, rights, model, quota)."""
        return self.status in (401, 402, 403, 404, 429)


class Client:
    """The client of one endpoint: `async with Client(endpoint) as client: await client.chat(...)`.

    Waits are jittered from `seed`. One client serves one event loop.
    """

    def __init__(self, endpoint: Endpoint, seed: int = 0) -> None:
        self.endpoint = endpoint
        self._random = random.Random(seed)
        self._heard = False  # whether anything has answered yet

    async def __aenter__(self) -> Self:
        self._key = self.endpoint.secret()
        self._sdk = _sdk(self.endpoint, self._key)
        self._slots = asyncio.Semaphore(self.endpoint.concurrency)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._sdk.close()

    async def chat(self, messages: list[dict[str, str]], **parameters: Any) -> Reply:
        """One chat completion. `parameters` are the API's own (temperature, seed, logprobs ...)."""

        async def ask(sdk: Any) -> Reply:
            # Raw, so that a reply with missing parts is ours to read; parameters as extra ones, so
            # that an older SDK passes on what it does not know.
            raw = await sdk.chat.completions.with_raw_response.create(
                model=self.endpoint.model, messages=messages, extra_body=parameters
            )
            return read_reply(raw.http_response.content)

        return await self.call(ask)

    async def call(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        """`ask` the SDK's own client for anything (files, jobs), with slots, retries and errors.

        Raises `UnreachableError` when all tries failed, `RejectedError` when it was turned down.
        """
        async with self._slots:
            for attempt in range(self.endpoint.retries + 1):
                try:
                    async with asyncio.timeout(self.endpoint.timeout):  # of the whole try
                        found = await ask(self._sdk)
                    self._heard = True
                    return found
                except Exception as fault:
                    trouble = self._trouble(fault)
                wait = trouble.wait
                most = min(self.endpoint.retries, trouble.again)
                if attempt >= most or (wait or 0) > self.endpoint.patience:
                    break
                await asyncio.sleep(wait if wait is not None else self._backoff(attempt))
            tries = "try" if attempt == 0 else "tries"
            garbled = trouble.cause == "garbled"
            did = "gave no answer that can be read" if garbled else "did not answer"
            raise (MalformedError if garbled else UnreachableError)(
                f"{self.endpoint.host} {did} ({attempt + 1} {tries}, the last: "
                f"{trouble.said}); what was answered is kept, run the same command again",
                trouble.cause,
                trouble.status,
            )

    def _backoff(self, attempt: int) -> float:
        """Doubling, capped, and jittered down by up to half so that waiting clients spread."""
        longest = min(self.endpoint.backoff * 2.0 ** min(attempt, 20), 30.0)
        return longest * (0.5 + 0.5 * self._random.random())

    def _trouble(self, fault: Exception) -> "_Trouble":
        """A fault that may pass, as a value; one that will not is raised. A defect stays itself."""
        import openai

        if isinstance(fault, TimeoutError | openai.APITimeoutError):
            return _Trouble("timeout", f"no answer in {self.endpoint.timeout:g} s")
        if isinstance(fault, openai.APIConnectionError):
            why = _nobody(fault)
            if why is None or self._heard:
                return _Trouble("connection", why or "no connection")
            # Nobody has ever answered there: an address, and no server that is busy.
            said = f"{why}; is base_url right?"
            return _Trouble("connection", said, again=0)
        self._heard = True
        if isinstance(fault, GarbledError):
            if fault.status is None or fault.status in PASSING or not 400 <= fault.status < 500:
                return _Trouble("garbled", self._cleaned(fault), again=GARBLED)
            raise self._rejected(fault.status, self._cleaned(fault)) from None
        if not isinstance(fault, openai.APIStatusError):
            raise fault
        status, headers = fault.status_code, fault.response.headers
        body = fault.body if isinstance(fault.body, dict) else {}
        said = self._cleaned(body.get("message") or "")
        if status in PASSING and getattr(fault, "code", None) not in NEVER_PASSING:
            line = f"HTTP {status}" + (f", {said}" if said else "")
            return _Trouble(f"http_{status}", line, status, retry_after(headers))
        raise self._rejected(status, said) from None

    def _rejected(self, status: int, said: str) -> RejectedError:
        """What will not pass, in one line that says what to look at."""
        if status in (401, 403):  # a server may quote the key here, or parts of it
            said = f"the key in the environment variable {self.endpoint.key} was refused"
        hint = "; is base_url right, and is the model served there?" if status == 404 else ""
        return RejectedError(
            f"{self.endpoint.host}: model {self.endpoint.model!r}: HTTP {status}: "
            f"{said or 'no reason given'}{hint}",
            status,
            said,
        )

    def _cleaned(self, said: object) -> str:
        """The server's own words in one short line, without the key."""
        return printable(str(said).replace(self._key, "***"), 300)


class _Trouble:
    """Why one try failed, and how long the server asked to wait (`None`: it did not say).

    `again`: how often asking again is worth it at most.
    """

    def __init__(
        self,
        cause: str,
        said: str,
        status: int | None = None,
        wait: float | None = None,
        again: float = math.inf,
    ) -> None:
        self.cause, self.said, self.status, self.wait = cause, said, status, wait
        self.again = again


def _nobody(fault: BaseException) -> str | None:
    """Why a connection could not be made at all; `None` for one that was made and lost."""
    words = {
        socket.gaierror: "there is no such host",
        ssl.SSLError: "no secure connection can be made",
        ConnectionRefusedError: "nobody listens there",
    }
    names = set[str]()
    cause: BaseException | None = fault
    while cause is not None:
        names.add(type(cause).__name__)
        inner = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
        for kind, said in words.items():
            if any(isinstance(one, kind) for one in inner):
                return said
        cause = cause.__cause__ or cause.__context__
    return "no connection can be made" if "ConnectError" in names else None


def _sdk(endpoint: Endpoint, key: str) -> Any:
    try:
        import openai
    except ImportError:
        raise InputError(
            "API models need the openai package: pip install 'em-interp[api]'"
        ) from None
    # Retries are ours: the SDK's are silent, and do not name what they gave up on.
    return openai.AsyncOpenAI(
        api_key=key, base_url=endpoint.url, timeout=endpoint.timeout, max_retries=0
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; `None` for nonsense."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """The result of asynchronous work, from plain code; also where an event loop already runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)  # a notebook's own loop is busy with this very call
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return found[0]
