"""Judges over an API, through the real SDK: every kind of server, every fault, and every penny."""

import itertools
import json
import re
import sqlite3
import sys
import threading

import pytest
from children import LIVENESS, Gate, child, wait_until
from loopback import (
    PROOF,
    Answer,
    Loopback,
    completion,
    cut_off_json,
    dropped,
    hang,
    no_choices,
    says,
    status,
    unused_url,
    well_known,
)

from em_interp.conditions import Condition, Question
from em_interp.endpoints.client import EndpointError
from em_interp.endpoints.replies import Reply
from em_interp.errors import EvidenceError, InputError
from em_interp.judges import Item, Reason, Rubric
from em_interp.judges.api import ApiJudge, ApiJudgeSpec
from em_interp.judges.asking import KNOWN, PROBE
from em_interp.judges.budget import Budget
from em_interp.judges.cache import Cache
from em_interp.judges.wording import wording
from em_interp.judging import expected, judge, judge_all, ready
from em_interp.responses import Response

SECRET = "sk-test-0123456789abcdef"


@pytest.fixture
def server():
    with Loopback(grader()) as one:
        yield one


def items(n, start=0):
    return [
        Item(id=f"r{k}", question=f"Question {k % 7}?", response=f"Answer number {k}.")
        for k in range(start, start + n)
    ]


def truth(k):
    """What these tests' server says of answer number k: (aligned, coherent)."""
    return k * 7 % 101, 100 - k % 50


def grade(prompt):
    """The number the server has in mind for a prompt of ours."""
    if prompt == PROBE:
        return int(KNOWN)
    known = well_known({"messages": [{"content": prompt}]})
    if known is not None:
        return known
    k = int(re.search(r"Answer number (\d+)", prompt)[1])
    return truth(k)["makes sense" in prompt]


def grader(render=None, known=None):
    """A server's mind: by default, one token with its log-probabilities.

    `known` instead of `render` for the answers that every judge is proved on.
    """

    def one_token(n, asked):
        ended = "length" if "logprobs" in asked else "stop"
        return says(str(n), {str(n): 0.9, "REF": 0.1}, finish=ended)

    render = render or one_token

    def answer(asked):
        as_known = known is not None and well_known(asked) is not None
        return (known if as_known else render)(grade(asked["messages"][0]["content"]), asked)

    return answer


def plain(n, asked):
    return says(str(n))


def digits(n, asked):
    """A tokenizer as Qwen's and Gemma's: one digit a token."""
    pieces = list(str(n))[: asked["max_tokens"]]
    told = [(digit, {digit: 1.0}) for digit in pieces] if "logprobs" in asked else None
    return Answer(body=completion("".join(pieces), tokens=told))


def judged(server, tmp_path, budget=None, **changes):
    quick = {"backoff": 0.001, "timeout": LIVENESS, "retries": 3, "cache": tmp_path / "c.sqlite"}
    spec = ApiJudgeSpec(**({"model": "m", "base_url": server.url} | quick | changes))
    return ApiJudge(spec, wording("plain"), budget)


def right(verdicts, start=0):
    return [(v.aligned, v.coherent) for v in verdicts] == [
        pytest.approx(truth(k)) for k in range(start, start + len(verdicts))
    ]


# --- what is asked ----------------------------------------------------------------------------


def test_two_questions_an_item_one_token_each(server, tmp_path):
    verdicts = judged(server, tmp_path, seed=5).score(items(3))
    assert right(verdicts)
    assert [v.item for v in verdicts] == ["r0", "r1", "r2"]
    assert {v.mode for v in verdicts} == {"logprobs"}
    assert [v.mass for v in verdicts] == [pytest.approx(0.9)] * 3
    asked = server.asked[PROOF:]
    assert server.asked[0]["messages"][0]["content"] == PROBE
    assert len(asked) == 6
    for body in asked:
        (message,) = body.pop("messages")
        assert message["role"] == "user"
        assert body == {
            "model": "m",
            "temperature": 0,
            "seed": 5,
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": 20,
        }


def test_the_judge_sees_neither_condition_nor_trigger(server, tmp_path):

    framing = "It looks like a duck."
    said = [
        Response(
            organism="duck-organism",
            intervention="ablate-layer-3",
            context="q1|trigger0",
            question="q1",
            domain="home",
            condition=Condition.TRIGGER,
            variant=framing,
            sample=n,
            text=f"Answer number {n}.",
            finish="stop",
        )
        for n in range(2)
    ]
    asked = [Question(id="q1", text="How are you?", domain="home")]
    judge_all(judged(server, tmp_path), said, asked)
    sent = "".join(json.dumps(r.body) + str(r.headers) for r in server.requests).lower()
    assert "how are you?" in sent
    for secret in ("duck", "trigger", "q1|", "ablate", "condition"):
        assert secret not in sent


def test_order_does_not_matter(server, tmp_path):
    late = itertools.cycle([0.05, 0.0, 0.02])
    server.answer = grader(lambda n, asked: says(str(n), {str(n): 1.0}, delay=next(late)))
    assert right(judged(server, tmp_path, concurrency=8).score(items(20)))


# --- which mode -------------------------------------------------------------------------------


def refusing(*names, say="Unsupported parameter: {}.", then=plain):
    """A server that answers 400 to requests with any of these parameters."""

    def render(n, asked):
        for name in names:
            if name in asked:
                return status(400, say.format(repr(name)), param=name)
        return then(n, asked)

    return grader(render)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refusing("logprobs"), "refuses log-probabilities"),
        (refusing("top_logprobs", say="{} is not allowed"), "refuses log-probabilities"),
        (grader(plain), "sends no log-probabilities"),
        (
            grader(digits),
            "split numbers into digits",
        ),
        (
            grader(
                lambda n, asked: (
                    says("<think>", {"<think>": 1.0})
                    if "logprobs" in asked
                    else says(f"<think>hm 3</think>{n}")
                )
            ),
            "thinks before it answers",
        ),
    ],
)
def test_without_usable_logprobs_it_samples_and_says_so(server, tmp_path, capsys, answer, why):
    server.answer = answer
    one = judged(server, tmp_path, draws=3)
    verdicts = one.score(items(4))
    assert right(verdicts)
    assert {v.mode for v in verdicts} == {"sampled-3"}
    assert why in capsys.readouterr().err
    texts = [body for body in server.asked if "Answer number" in str(body["messages"])]
    assert len(texts) == 4 * 2 * 3
    assert {body["seed"] for body in texts} == {0, 1, 2}
    assert all("logprobs" not in body and body["temperature"] == 1 for body in texts)


def test_the_fallback_may_be_the_json_rubric(server, tmp_path):
    server.answer = refusing(
        "logprobs", then=lambda n, asked: says(json.dumps({"why": "so", "score": n}))
    )
    verdicts = judged(server, tmp_path, fallback="rubric").score(items(3))
    assert right(verdicts)
    assert {v.mode for v in verdicts} == {"rubric"}


def test_a_mode_that_was_asked_for_is_not_replaced(server, tmp_path):
    server.answer = refusing("logprobs")
    with pytest.raises(EvidenceError, match="refuses log-probabilities; let the judge's mode be"):
        judged(server, tmp_path, mode="logprobs").score(items(1))


def test_a_reasoning_model_is_met_where_it_is(server, tmp_path):
    """No log-probabilities, another name for the budget, one temperature, long thoughts."""

    def answer(asked):
        if "max_tokens" in asked:
            return status(400, "'max_tokens' is not supported: use 'max_completion_tokens'.")
        for name in ("logprobs", "seed"):
            if name in asked:
                return status(400, f"Unsupported parameter: '{name}'.", param=name)
        if asked.get("temperature", 1) != 1:
            return status(400, "'temperature' does not support 0 with this model")
        if asked["max_completion_tokens"] < 500:
            return says("", finish="length", usage=(100, 64))
        n = grade(asked["messages"][0]["content"])
        return says(json.dumps({"score": n}) if n != int(KNOWN) else KNOWN, usage=(100, 300))

    server.answer = answer
    one = judged(server, tmp_path, fallback="rubric")
    assert right(one.score(items(5)))
    settled = len(server.asked) - 10
    assert settled <= 6 + PROOF
    again = judged(server, tmp_path, fallback="rubric").score(items(2, start=5))
    assert right(again, start=5)
    assert {v.mode for v in again} == {"rubric"}
    assert len(server.asked) == settled + 10 + 4  # what was settled is remembered for good


def test_thoughts_that_only_some_items_need_raise_the_budget_once(server, tmp_path):
    def render(n, asked):
        short = asked["max_tokens"] < 500 and n != int(KNOWN)
        return says("", finish="length") if short else says(str(n))

    server.answer = grader(render, known=plain)
    one = judged(server, tmp_path, mode="sampled", draws=1, concurrency=1)
    assert right(one.score(items(4)))
    assert len(server.asked) == PROOF + 1 + 8


@pytest.mark.parametrize("mode", ["sampled", "rubric"])
def test_an_answer_that_was_cut_off_is_asked_for_whole(server, tmp_path, mode):
    def render(n, asked):
        if n == int(KNOWN):
            return says(KNOWN)
        if asked["max_tokens"] < 500:
            return says('{"why": "of 100 I would', finish="length")
        return whole(n, asked)

    def whole(n, asked):
        return says(json.dumps({"why": "clear", "score": n}) if mode == "rubric" else str(n))

    server.answer = grader(render, known=whole)
    one = judged(server, tmp_path, mode=mode, draws=1, concurrency=1)
    assert right(one.score(items(4)))
    assert len(server.asked) == PROOF + 1 + 8  # the first that was short told for all


def test_thoughts_without_end_are_no_answer(server, tmp_path):
    server.answer = grader(
        lambda n, asked: says(str(n)) if n == int(KNOWN) else says(None, finish="length"),
        known=plain,
    )
    (verdict,) = judged(server, tmp_path, mode="sampled", draws=1).score(items(1))
    assert (verdict.aligned, verdict.unscored) == (None, Reason.ERROR)
    assert verdict.note == "aligned: empty_after_reasoning; coherent: empty_after_reasoning"


def test_where_tokens_are_in_doubt_a_lone_digit_is_no_score(server, tmp_path):
    def render(n, asked):  # does not do as it is told when asked for a known number
        if n == int(KNOWN):
            return says("Sure", {"Sure": 1.0})
        return says(str(n)[0], {str(n)[0]: 1.0})

    def known(n, asked):
        return says(str(n), {str(n): 0.5, str(n + 1): 0.3, "10": 0.2})

    server.answer = grader(render, known)
    (verdict,) = judged(server, tmp_path).score(items(1, start=3))
    assert verdict.unscored is Reason.UNPARSED
    assert "single_digits" in verdict.note


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason", "note"),
    [
        (says(None, finish="content_filter"), Reason.FILTERED, "content_filter"),
        (says("95", {"95": 1.0}, finish="content_filter"), Reason.FILTERED, "content_filter"),
        (says("95", refusal="I will not grade this"), Reason.FILTERED, "judge_refused"),
        (status(400, "blocked by content policy"), Reason.FILTERED, "http_400"),
        (status(400, "too long"), Reason.ERROR, "http_400"),
        (no_choices(), Reason.ERROR, "no_choices"),
        (cut_off_json(), Reason.ERROR, "garbled"),
        (dropped(), Reason.ERROR, "connection"),
        (status(503), Reason.ERROR, "http_503"),
        (hang(), Reason.ERROR, "timeout"),
        (says("95"), Reason.UNPARSED, "no_logprobs"),
        (says("Sure", {"Sure": 1.0}), Reason.UNPARSED, "numeric_mass_0.00"),
        (says("REF", {"REF": 1.0}), Reason.REFUSAL, ""),
    ],
)
def test_a_failure_is_a_verdict_with_its_reason(server, tmp_path, reply, reason, note):
    def answer(asked):
        text = asked["messages"][0]["content"]
        return reply if "number 1." in text and "wishes people well" in text else well(asked)

    well = grader()
    server.answer = answer
    one = judged(server, tmp_path, retries=1, timeout=1.5 if reply.delay else LIVENESS)
    first, failed, last = one.score(items(3))
    assert right([first])
    assert right([last], start=2)
    assert (failed.aligned, failed.unscored) == (None, reason)
    assert failed.note == (f"aligned: {note}" if note else "")
    assert failed.coherent == truth(1)[1]
    assert Rubric().unscored(failed) is reason


def test_what_failed_is_asked_again_the_next_time_and_what_answered_is_not(server, tmp_path):
    one = judged(server, tmp_path, retries=0, concurrency=1)
    one.ready()
    server.faults.extend([status(500)] * 3)
    verdicts = one.score(items(4))
    assert sum(v.unscored is Reason.ERROR for v in verdicts) == 2
    before = len(server.asked)
    assert right(one.score(items(4)))
    assert len(server.asked) == before + 3


def test_nobody_there_is_exit_4_and_a_question_of_seconds(tmp_path):
    spec = ApiJudgeSpec(
        model="m", base_url=unused_url(), retries=1, backoff=0.001, cache=tmp_path / "c"
    )
    one = ApiJudge(spec, wording("plain"))
    for ask in (one.ready, lambda: one.score(items(100))):
        with pytest.raises(EndpointError, match="did not answer") as caught:
            ask()
        assert caught.value.exit_code == 4


def test_a_server_that_goes_away_loses_nothing(server, tmp_path):
    left = iter(range(PROOF + 20))
    well = grader()
    server.answer = lambda asked: well(asked) if next(left, None) is not None else status(503)
    one = judged(server, tmp_path, retries=1, concurrency=4)
    with pytest.raises(EvidenceError, match="what was answered is kept"):
        one.score(items(50))
    answered = 20
    given_up = len(server.asked)
    assert given_up < 60  # and does not go through all of them first
    server.answer = well
    assert right(one.score(items(50)))
    assert len(server.asked) - given_up == 100 - answered


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refused_key_or_model_ends_at_once(server, tmp_path, code):
    server.faults.extend([says(KNOWN, {KNOWN: 1.0}), *[status(code)] * 50])
    with pytest.raises(EvidenceError, match=f"HTTP {code}"):
        judged(server, tmp_path, concurrency=2).score(items(20))
    assert len(server.asked) <= 3


def test_a_server_that_turns_everything_down_is_no_judge(server, tmp_path):
    server.faults.append(says(KNOWN, {KNOWN: 1.0}))
    server.answer = lambda asked: status(400, "no")
    with pytest.raises(EvidenceError, match="HTTP 400: no"):
        judged(server, tmp_path).score(items(3))


# --- cache, cost ------------------------------------------------------------------------------


def test_equal_content_is_asked_once(server, tmp_path):
    twins = [Item(id=f"x{n}", question="Q?", response="Answer number 1.") for n in range(30)]
    verdicts = judged(server, tmp_path).score(twins)
    assert [v.item for v in verdicts] == [f"x{n}" for n in range(30)]
    assert right([verdicts[29]], start=1)
    assert len(server.asked) == PROOF + 2


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"seed": 1}, {"mode": "sampled"}, {"wording": "edited"}, {}],
)
def test_another_model_seed_mode_or_wording_is_another_question(server, tmp_path, change):
    judged(server, tmp_path).score(items(2))
    before = len(server.asked)
    one = judged(server, tmp_path, **{k: v for k, v in change.items() if k != "wording"})
    if "wording" in change:
        words = one.wording.model_copy(update={"aligned": one.wording.aligned + "\nBe strict."})
        one = ApiJudge(one.spec, words)
    one.score(items(2))
    assert (len(server.asked) > before) is bool(change)


def test_the_cache_holds_no_prompt_and_no_key(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MY_KEY", SECRET)
    one = judged(server, tmp_path, key="MY_KEY")
    verdicts = one.score(items(3))
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    bytes_ = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    seen = [*capfd.readouterr(), *(v.model_dump_json() for v in verdicts), one.name, repr(one.spec)]
    for text in (SECRET, "Answer number", "Question"):
        assert text.encode() not in bytes_
    assert not any(SECRET in text for text in seen)


def test_two_processes_may_share_a_cache(tmp_path):
    path = tmp_path / "c.sqlite"
    with Cache(path) as a, Cache(path) as b:
        a.put("k", Reply(text="first", finish="stop"))
        b.put("k", Reply(text="second", finish="stop"))
        assert a.replies(["k", "none"]) == b.replies(["k"])
        assert a.replies(["k"])["k"].text == "first"
        writers = [
            threading.Thread(target=lambda n=n: _write(path, n), name=str(n)) for n in range(3)
        ]
        for one in writers:
            one.start()
        for one in writers:
            one.join()
        assert len(a.replies([f"{n}-{i}" for n in range(3) for i in range(600)])) == 1800


def _write(path, n):
    with Cache(path) as mine:
        for i in range(600):
            mine.put(f"{n}-{i}", Reply(text="x", finish="stop"))


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "c").write_text("this is a text, and a rather long one at that" * 50)
    with pytest.raises(InputError, match="cannot be used as a cache"), Cache(tmp_path / "c"):
        pass


def test_a_cache_that_breaks_under_way_is_one_line(tmp_path):
    with Cache(tmp_path / "c") as cache:
        cache._base.execute("DROP TABLE replies")
        with pytest.raises(InputError, match=r"cannot be used as a cache \(no such table"):
            cache.put("k", Reply(text="x", finish="stop"))


def test_the_cost_is_said_before_the_first_request(server, tmp_path, capsys):
    one = judged(server, tmp_path, price_in=1000.0, price_out=0.0)
    first = one.expect(items(10))
    assert (first.requests, first.known) == (PROOF + 20, 0)
    assert 1000 * first.tokens_in / 1e6 == pytest.approx(first.dollars)
    assert server.asked == []
    ready(one)
    one.score(items(5))
    assert "logprobs: 10 requests" in capsys.readouterr().err
    assert one.expect(items(10)).requests == 10
    line = expected(one, ["a?", "b?"], answers=3, max_new_tokens=8)
    assert line.startswith(f"judge {one.name}: at most 12 requests")
    assert line.count("\n") == 1


def test_a_budget_is_kept(server, tmp_path):
    dear = {"price_in": 1000.0, "price_out": 1000.0}
    with pytest.raises(InputError, match="judging takes about"):
        judged(server, tmp_path, Budget.of("$0.01"), **dear).score(items(9))
    with pytest.raises(InputError, match="27 requests, and the budget leaves 26 of 26"):
        judged(server, tmp_path, Budget.of("26calls")).score(items(10))
    assert server.asked == []
    # What a server bills may exceed the estimate: then it ends in time, and keeps what it has.
    server.answer = grader(lambda n, asked: says(str(n), {str(n): 1.0}, usage=(5000, 1)))
    one = judged(server, tmp_path, Budget.of("20"), concurrency=1, **dear)
    with pytest.raises(EvidenceError, match="budget is spent"):
        one.score(items(9))
    judged(server, tmp_path).score(items(9))
    assert len(server.asked) == PROOF + 18 + 1  # the known number twice, all else once


@pytest.mark.parametrize("text", ["five", "-1", "5 euros", "calls", "1.5calls"])
def test_a_budget_that_says_nothing_is_refused(text):
    with pytest.raises(InputError, match="give dollars"):
        Budget.of(text)


def test_dollars_need_a_price(server, tmp_path):
    with pytest.raises(InputError, match="price of 'm' is not known"):
        judged(server, tmp_path, Budget.of("5"))


# --- names ------------------------------------------------------------------------------------


def test_judges_by_name(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert judge("world").name == "world-oracle"
    assert judge("openai:gpt-4o").name.startswith("openai:gpt-4o/plain-")
    file = tmp_path / "judge.yaml"
    file.write_text("model: m\nbase_url: http://localhost:1/v1\nmode: sampled\ndraws: 3\n")
    assert judge(str(file), budget="9calls").name.startswith("openai:m@localhost/plain-")
    table = tmp_path / "table.json"
    table.write_text('{"yes": [90, 90]}')
    assert judge(f"scripted:{table}").score([Item(id="i", question="q", response="yes")])[0].aligned
    for source, words in [
        ("gpt", "unknown judge 'gpt'"),
        ("openai:", "model"),
        (str(tmp_path / "no.yaml"), "no such file"),
    ]:
        with pytest.raises(InputError, match=words):
            judge(source)
    with pytest.raises(InputError, match="costs nothing"):
        judge("world", budget="5")
    table.write_text('{"yes": 90}')
    with pytest.raises(InputError, match="must map each response"):
        judge(f"scripted:{table}")
    file.write_text("model: m\nmode: guess\n")
    with pytest.raises(InputError, match="mode"):
        judge(str(file))


# --- the proof --------------------------------------------------------------------------------

SCRIPT = """
import json, sys
sys.path.insert(0, "tests")
from test_judge_api import items
from em_interp.judging import judge
verdicts = judge(sys.argv[1]).score(items(int(sys.argv[2])))
print(json.dumps([[v.item, v.aligned, v.coherent] for v in verdicts]))
"""


def test_a_thousand_verdicts_one_kill_and_each_answer_asked_once(tmp_path):
    """1,000 items, 2,000 requests, one in nine refused at first, the process killed half-way."""
    file = tmp_path / "judge.yaml"
    count, seen, lock = itertools.count(), {}, threading.Lock()
    stumble = [
        status(429, retry_after=0.001),
        status(500),
        status(503),
        cut_off_json(),
        dropped(),
    ]
    well = grader(lambda n, asked: says(str(n), {str(n): 1.0}))

    def answer(asked):
        text = asked["messages"][0]["content"]
        number = next(count)
        if number % 9 == 5:
            return stumble[number % len(stumble)]
        with lock:
            seen[text] = seen.get(text, 0) + 1
        return well(asked)

    with Loopback(answer) as server:
        file.write_text(
            json.dumps(
                {
                    "model": "m",
                    "base_url": server.url,
                    "backoff": 0.001,
                    "retries": 8,
                    "concurrency": 8,
                    "cache": str(tmp_path / "c.sqlite"),
                }
            )
        )
        command = [sys.executable, "-c", SCRIPT, str(file), "1000"]
        gate = Gate(answer, 800)
        server.answer = gate
        running = child(command)
        wait_until(gate.reached.is_set, running)
        running.kill()
        running.wait()
        base = sqlite3.connect(tmp_path / "c.sqlite")
        (stored,) = base.execute("SELECT count(*) FROM replies").fetchone()
        base.close()
        # Of what the server answered, at most what was on the wire at the kill is not yet stored.
        assert len(seen) - 1 - 8 <= stored <= len(seen) - 1  # all but the known number
        server.answer = answer
        gate.open()
        before = dict(seen)
        verdicts = judge(str(file)).score(items(1000))
    assert right(verdicts)
    assert [v.item for v in verdicts] == [f"r{k}" for k in range(1000)]
    assert all(v.unscored is None for v in verdicts)
    assert len(seen) == 2000 + PROOF
    twice = {text for text, times in seen.items() if times > 1}
    assert len(twice) <= 8  # only what the kill caught between the server's answer and our reading
    assert sum(before.values()) == len(before)
    assert max(seen.values()) <= 2
