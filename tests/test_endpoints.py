"""The client through the real SDK against a loopback server: every fault, and a silent key."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from children import LIVENESS
from loopback import (
    Loopback,
    cut_off_json,
    dropped,
    hang,
    no_choices,
    says,
    status,
    unused_url,
)

from em_interp.endpoints import Endpoint, endpoint
from em_interp.endpoints.client import (
    Client,
    RejectedError,
    UnreachableError,
    retry_after,
    wait_for,
)
from em_interp.endpoints.replies import read_reply
from em_interp.errors import InputError

ASK = [{"role": "user", "content": "How many?"}]
SECRET = "sk-test-0123456789abcdef"


@pytest.fixture
def server():
    with Loopback() as one:
        yield one


def at(server, **changes):
    quick = {"backoff": 0.001, "timeout": LIVENESS, "retries": 3}
    return Endpoint(model="m", base_url=server.url, **(quick | changes))


def chat(endpoint, times=1, **parameters):
    async def work():
        async with Client(endpoint) as client:
            return await asyncio.gather(*(client.chat(ASK, **parameters) for _ in range(times)))

    found = wait_for(work())
    return found[0] if times == 1 else found


def test_a_reply_is_read_whole(server):
    server.answer = lambda asked: says("95", {"95": 0.9, "90": 0.1}, usage=(12, 1))
    reply = chat(at(server), temperature=0, seed=3, logprobs=True, top_logprobs=20)
    assert (reply.text, reply.finish, reply.tokens_in, reply.tokens_out) == ("95", "stop", 12, 1)
    (token,) = reply.tokens
    assert [name for name, _ in token.top] == ["95", "90"]
    assert token.top[0][1] == pytest.approx(-0.10536, abs=1e-4)
    assert server.asked == [
        {
            "model": "m",
            "messages": ASK,
            "temperature": 0,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 20,
        }
    ]


@pytest.mark.parametrize(
    "fault",
    [
        status(429, retry_after=0.01),
        status(500),
        status(502),
        status(503),
        status(504),
        cut_off_json(),
        dropped(),
        hang(),
    ],
    ids=lambda one: str(one.status if one.status != 200 else (one.raw or one.delay or "dropped")),
)
def test_what_may_pass_is_asked_again(server, fault):
    server.faults.extend([fault, fault])
    server.answer = lambda asked: says("7")
    assert chat(at(server, timeout=1.5 if fault.delay else LIVENESS)).text == "7"
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
def test_what_will_not_pass_is_said_at_once(server, code):
    server.faults.append(status(code, "not like this"))
    with pytest.raises(RejectedError, match=f"HTTP {code}") as caught:
        chat(at(server))
    assert len(server.asked) == 1
    assert caught.value.exit_code == 4
    assert caught.value.final is (code in (401, 403, 404))


def test_a_spent_quota_is_not_asked_again(server):
    server.faults.append(status(429, "quota", code="insufficient_quota"))
    with pytest.raises(RejectedError, match="quota") as caught:
        chat(at(server))
    assert caught.value.final
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("fault", "cause", "words"),
    [
        (status(503, "busy"), "http_503", "HTTP 503, busy"),
        (cut_off_json(), "garbled", "is no JSON"),
        (dropped(), "connection", "no connection"),
        (hang(), "timeout", "no answer in 0.1 s"),
    ],
)
def test_it_gives_up_and_says_after_what(server, fault, cause, words):
    server.faults.extend([fault] * 3)
    with pytest.raises(UnreachableError, match=words) as caught:
        chat(at(server, retries=2, timeout=0.1 if fault.delay else LIVENESS))
    assert caught.value.cause == cause
    assert "3 tries" in str(caught.value)
    assert len(server.asked) == 3


def test_nobody_there():
    with pytest.raises(UnreachableError, match=r"did not answer \(1 try, .*nobody listens there"):
        chat(Endpoint(model="m", base_url=unused_url()))


def test_a_server_that_asks_for_too_long_a_wait_is_given_up(server):
    server.faults.append(status(429, retry_after=3600))
    with pytest.raises(UnreachableError, match="1 try"):
        chat(at(server))


def test_retry_after_is_waited_for(server, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("em_interp.endpoints.client.asyncio.sleep", sleep)
    server.faults.extend([status(429, retry_after=7.5), status(500), status(500), status(500)])
    chat(at(server, backoff=4.0, retries=4))
    assert waits[0] == 7.5
    for wait, longest in zip(waits[1:], (8.0, 16.0, 30.0), strict=True):
        assert longest / 2 <= wait <= longest  # doubling, capped, jittered


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7.5"}, 7.5, 7.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0),
        ({"retry-after": "-3"}, 0, 0),
        ({"retry-after": "soon"}, None, None),
        ({}, None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(headers, low, high):
    wait = retry_after(headers)
    assert (wait is None) if low is None else (low <= wait <= high)


def test_retry_after_may_be_a_time_to_come():
    later = datetime.now(UTC) + timedelta(hours=1)
    assert 3000 < retry_after({"retry-after": format_datetime(later)}) <= 3600


def test_no_more_at_once_than_allowed(server):
    now, most, lock = 0, 0, threading.Lock()
    three = threading.Barrier(3, timeout=LIVENESS)

    def answer(asked):
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        three.wait()
        with lock:
            now -= 1
        return says("1")

    server.answer = answer
    assert len(chat(at(server, concurrency=3), times=12)) == 12
    assert most == 3


def test_an_empty_or_filtered_reply_is_a_reply(server):
    server.faults.extend([no_choices(), says(None, finish="content_filter")])
    assert chat(at(server)).finish == "no_choices"
    reply = chat(at(server))
    assert (reply.text, reply.finish) == ("", "content_filter")


def test_other_calls_share_slots_and_retries(server):
    server.route("GET", "/v1/models", lambda request: says("") if tries.pop() else status(503))
    tries = [True, False]

    async def work():
        async with Client(at(server)) as client:
            return await client.call(lambda sdk: sdk.get("/models", cast_to=object))

    assert wait_for(work())["object"] == "chat.completion"
    assert [r.path for r in server.requests] == ["/v1/models"] * 2


def test_plain_code_may_wait_inside_a_running_loop(server):
    async def notebook():
        return chat(at(server)).text

    assert asyncio.run(notebook()) == "50"

    async def failing():
        raise InputError("said inside")

    async def outer():
        return wait_for(failing())

    with pytest.raises(InputError, match="said inside"):
        asyncio.run(outer())


def test_the_key_comes_from_the_environment_and_goes_nowhere(server, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    one = at(server, key="MY_KEY")
    server.faults.extend(
        [
            status(400, f"bad key {SECRET}"),
            status(401, f"Incorrect key: {SECRET[:8]}***{SECRET[-4:]}"),
        ]
    )
    said = []
    for _ in range(2):
        with pytest.raises(RejectedError) as caught:
            chat(one)
        said += [str(caught.value), repr(caught.value), caught.value.said]
    chat(one)
    assert server.requests[-1].headers["authorization"] == f"Bearer {SECRET}"
    said += [repr(one), one.model_dump_json(), one.digest, caplog.text, *capfd.readouterr()]
    assert not any(SECRET in text or SECRET[:8] in text or SECRET[-4:] in text for text in said)
    assert "MY_KEY was refused" in said[3]


def test_a_missing_key_is_said_before_any_request(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        chat(Endpoint(model="m"))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"key": SECRET}, "never the key itself"),
        ({"api_key": SECRET}, "unknown field 'api_key'"),
        ({"base_url": f"https://me:{SECRET}@host/v1"}, "keys stay outside"),
        ({"base_url": f"https://host/v1?key={SECRET}"}, "keys stay outside"),
        ({"base_url": "host:8000"}, "must be an address"),
        ({"concurrency": 0}, "concurrency"),
        ({"model": ""}, "model"),
    ],
)
def test_a_bad_declaration_is_one_line_without_the_secret(field, words):
    with pytest.raises(InputError, match=words) as caught:
        Endpoint.parse({"model": "m"} | field)
    assert SECRET not in str(caught.value)


def test_names(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert endpoint("openai:gpt-4o") == Endpoint(model="gpt-4o")
    assert endpoint("openai:gpt-4o").host == "api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert endpoint("openai:gpt-4o").url == "http://localhost:8000/v1"
    file = tmp_path / "judge.yaml"
    file.write_text("model: m\nbase_url: http://localhost:1/v1\nconcurrency: 4\n")
    assert endpoint(str(file)).concurrency == 4
    with pytest.raises(InputError, match="names no endpoint"):
        endpoint("gpt-4o")
    with pytest.raises(InputError, match="model"):
        endpoint("openai:")


def test_prices(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert Endpoint(model="gpt-4o-mini").dollars(10**6, 10**6) == pytest.approx(0.75)
    assert Endpoint(model="nobody").dollars(1, 1) is None
    assert Endpoint(model="m", price_in=1, price_out=2).dollars(10**6, 10**6) == pytest.approx(3)
    # An own server under a known name does not cost the list price.
    assert Endpoint(model="gpt-4o", base_url="http://localhost:1/v1").prices is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": null}',
        b'{"choices": [{"message": null, "finish_reason": null, "logprobs": null}], "usage": null}',
        b'{"choices": [{"message": {"content": null}, "logprobs": {"content": null}}]}',
        b'{"choices": [{"logprobs": {"content": [{"token": "9", "top_logprobs": null}]}}]}',
    ],
)
def test_every_part_of_a_reply_may_be_missing(body):
    assert read_reply(body).text == ""
