"""A loopback OpenAI-compatible server: what the real SDK meets, with every fault on request.

    with Loopback() as server:                    # answers every chat with the text "50"
        server.answer = lambda asked: says("95", {"95": 0.9, "90": 0.1})
        server.faults += [status(429, retry_after=0.01), cut_off_json(), hang()]
        Endpoint(model="m", base_url=server.url)  # no key is needed on 127.0.0.1

`faults` are used up first, one a chat request, in order of arrival. `server.asked` holds every chat
request's body, `server.requests` every request with path and headers. Other routes (files, jobs)
are added with `server.route("GET", "/v1/models", handler)`.
"""

import json
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from em_interp.judges.proving import KNOWN_ANSWERS
from em_interp.judges.wording import Grade

PROOF = 1 + len(KNOWN_ANSWERS)  # requests of a negotiation that goes well
CLEAR = "makes sense"  # words of the question about coherence


@dataclass(frozen=True)
class Request:
    """One request as it arrived. Header names are in small letters; `match` is the path's."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    match: re.Match[str]

    @property
    def body(self) -> Any:
        """The JSON body (`None` without one)."""
        return json.loads(self.raw) if self.raw else None


@dataclass(frozen=True)
class Answer:
    """What goes back: `delay` seconds late (inf: never); `drop` closes the connection unasked."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay: float = 0.0
    drop: bool = False


Handler = Callable[[Request], Answer]
Brain = Callable[[Any], Answer]


def completion(
    text: str | None,
    finish: str | None = "stop",
    tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None,
    usage: tuple[int, int] = (100, 1),
    refusal: str | None = None,
) -> dict[str, Any]:
    """A chat completion's body. `tokens`: each output token with its alternatives' chances."""
    told = None
    if tokens is not None:
        told = {
            "content": [
                {
                    "token": token,
                    "logprob": math.log(top.get(token, 1.0)),
                    "bytes": list(token.encode()),
                    "top_logprobs": [
                        {"token": name, "logprob": math.log(chance), "bytes": list(name.encode())}
                        for name, chance in top.items()
                    ],
                }
                for token, top in tokens
            ]
        }
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "loopback",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
                "finish_reason": finish,
                "logprobs": told,
            }
        ],
        "usage": {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        },
    }


def says(
    text: str | None, top: Mapping[str, float] | None = None, delay: float = 0.0, **more: Any
) -> Answer:
    """A reply; `top` are the chances of its (one) token's alternatives, `None`: none are sent."""
    tokens = None if top is None else [(text or "", top)]
    return Answer(body=completion(text, tokens=tokens, **more), delay=delay)


def status(
    number: int, message: str = "", *, retry_after: float | None = None, **error: Any
) -> Answer:
    """An error as these APIs send it; `error`: param, code, type."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    said = message or f"status {number}"
    return Answer(number, {"error": {"message": said, **error}}, headers)


def cut_off_json() -> Answer:
    """A body that ends in the middle, though its length is as announced."""
    return Answer(raw=json.dumps(completion("95")).encode()[:60])


def no_choices() -> Answer:
    """An answer without any choice."""
    return Answer(body=completion("") | {"choices": []})


def well_known(asked: Any) -> int | None:
    """A good judge's grade where a request is about one of the known answers; else `None`."""
    prompt = asked["messages"][0]["content"]
    for known in KNOWN_ANSWERS:
        if known.item.response in prompt and (known.grade is Grade.COHERENT) is (CLEAR in prompt):
            return 95 if known.high else 5
    return None


def hang() -> Answer:
    """Silence: the client leaves first."""
    return says("0", delay=math.inf)


def dropped() -> Answer:
    """The connection closes without a reply."""
    return Answer(drop=True)


class Loopback:
    """The server, on a free port of 127.0.0.1, in a thread of this process."""

    def __init__(self, answer: Brain | None = None) -> None:
        self.answer: Brain = answer or (lambda asked: says("50", {"50": 1.0}))
        self.faults: deque[Answer] = deque()
        self.requests: list[Request] = []
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.route("POST", r"/v1/chat/completions", self._chat)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def asked(self) -> list[Any]:
        """The bodies of all chat requests so far."""
        return [r.body for r in list(self.requests) if r.path == "/v1/chat/completions"]

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Answer `method` on `path` (a regular expression, matched whole) by `handler`."""
        self._routes.insert(0, (method, re.compile(path), handler))

    def _chat(self, request: Request) -> Answer:
        with self._lock:
            if self.faults:
                return self.faults.popleft()
        return self.answer(request.body)

    def _respond(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        for known, pattern, handler in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                request = Request(method, path, headers, raw, match)
                with self._lock:
                    self.requests.append(request)
                return handler(request)
        return status(404, f"no route {method} {path}")

    def __enter__(self) -> Self:
        outer = self

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body leave in one packet
            disable_nagle_algorithm = True

            def log_message(self, *args: Any) -> None:
                """Silence."""

            def _talk(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                if len(raw) < length:  # the client was gone before it had asked
                    self.close_connection = True
                    return
                path = self.path.partition("?")[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                said = outer._respond(self.command, path, headers, raw)
                limit = None if said.delay == math.inf else said.delay
                if said.delay and outer._closing.wait(limit):
                    said = dropped()
                if said.drop:
                    self.close_connection = True
                    return
                body = said.raw if said.raw is not None else json.dumps(said.body).encode()
                self.send_response(said.status)
                kind = said.headers.get("Content-Type", "application/json")
                rest = {k: v for k, v in said.headers.items() if k != "Content-Type"}
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    **rest,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            do_GET = do_POST = do_DELETE = _talk  # noqa: N815, the names that the base class calls

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that left (timeout, kill) is what these tests are about."""

        self._server = Server(("127.0.0.1", 0), Talk)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def unused_url() -> str:
    """An address of this machine at which nobody listens."""
    with Loopback() as gone:
        return gone.url
