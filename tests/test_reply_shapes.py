"""Every shape of reply that a judge's server may send: each is accounted for, none ends the run.

A shape says what its reply must come to: the score 20, or the reason why there is none. Whatever
came, the cache can be read by the next run, which asks only what got no answer.
"""

import contextlib
import json
import re
import sqlite3
from collections import Counter

import pytest
from loopback import CLEAR, Answer, Loopback, completion, dropped, says, status, well_known

from em_interp.endpoints.replies import GarbledError, Reply, Token, read_reply
from em_interp.errors import EvidenceError
from em_interp.judges import Item, Reason
from em_interp.judges import judged as ask
from em_interp.judges.api import ApiJudge, ApiJudgeSpec
from em_interp.judges.asking import KNOWN, PROBE
from em_interp.judges.cache import Cache
from em_interp.judges.wording import wording

ERROR, UNPARSED, FILTERED = Reason.ERROR, Reason.UNPARSED, Reason.FILTERED
SCORED = 20.0


def body(**changes):
    """A completion that says 20, with some of its parts replaced; `...` leaves a part out."""
    plain = completion("20")
    for path, value in changes.items():
        *way, last = path.split("__")
        held = plain
        for step in way:
            held = held["choices"][0] if step == "choice" else held[step]
        if value is ...:
            del held[last]
        else:
            held[last] = value
    return Answer(body=plain)


def content(value):
    return body(choice__message__content=value)


def text(value):
    return says(value)


def raw(value, kind="application/json"):
    return Answer(raw=value, headers={"Content-Type": kind})


TEXTS = {
    "one number": (text("20"), SCORED),
    "white space": (text(" 20\n"), SCORED),
    "a full stop": (text("20."), SCORED),
    "its scale": (text("20/100"), SCORED),
    "thoughts before it": (text("<think>85, or 3?</think>\n20"), SCORED),
    "a decimal": (text("0.85"), UNPARSED),
    "a number and its reason": (text("20/100. The answer names 2 risks."), UNPARSED),
    "a number and the scale": (text("20 (0 = misaligned, 100 = aligned)"), UNPARSED),
    "two numbers": (text("score 85; question #4"), UNPARSED),
    "another scale": (text("8/10"), UNPARSED),
    "an object where a number was asked for": (text('{"score": 20}'), UNPARSED),
    "a lone surrogate": (raw(json.dumps(completion("20 \ud83d")).encode()), UNPARSED),
    "a null byte": (text("20\x00"), UNPARSED),
    "REFUSAL": (text("REFUSAL"), Reason.REFUSAL),
    "CODE": (text("CODE."), Reason.CODE),
    "nothing": (text(""), ERROR),
    "null": (content(None), ERROR),
    "a filter": (says(None, finish="content_filter"), FILTERED),
    "a filter that says safety": (says("20", finish="SAFETY"), FILTERED),
    "a refusal of the API": (says(None, refusal="I will not."), FILTERED),
    "cut off": (says("2", finish="length"), UNPARSED),
    "broken off": (says("2", finish="error"), ERROR),
    "an unknown ending": (says("2", finish="abort"), ERROR),
    "no ending": (body(choice__finish_reason=...), SCORED),
    "an ending that is no text": (body(choice__finish_reason={"why": 1}), SCORED),
    "text in parts": (content([{"type": "text", "text": "20"}]), SCORED),
    "thinking beside text": (
        content([{"type": "thinking", "thinking": "85"}, {"type": "text", "text": "20"}]),
        SCORED,
    ),
    "thinking alone": (content([{"type": "thinking", "thinking": [{"text": "20"}]}]), ERROR),
    "parts of no known type": (content([7, None, {"type": "image"}]), ERROR),
    "content that is a number": (content(20), ERROR),
    "content that is an object": (content({"text": "20"}), ERROR),
    "no message": (body(choice__message=...), ERROR),
    "a message that is a text": (body(choice__message="20"), ERROR),
    "no choices": (body(choices=...), ERROR),
    "empty choices": (body(choices=[]), ERROR),
    "null choices": (body(choices=None), ERROR),
    "choices that are an object": (body(choices={"0": "20"}), ERROR),
    "a choice that is a text": (body(choices=["20"]), ERROR),
    "no usage": (body(usage=...), SCORED),
    "null usage": (body(usage=None), SCORED),
    "usage in words": (body(usage={"prompt_tokens": "9", "completion_tokens": "many"}), SCORED),
    "negative usage": (body(usage={"prompt_tokens": -9, "completion_tokens": 1e300}), SCORED),
    "usage beyond bounds": (body(usage={"prompt_tokens": 10**400}), SCORED),
    "an error in a 200": (Answer(body={"error": {"message": "\x1b[31mbusy", "code": 502}}), ERROR),
    "an error that is a text": (Answer(body={"error": "busy"}), ERROR),
    "a refused request in a 200": (Answer(body={"error": {"code": 400, "message": 3}}), ERROR),
    "a list": (raw(b"[20]"), ERROR),
    "a number": (raw(b"20"), ERROR),
    "a web page": (raw(b"<!doctype html><p>20</p>", "text/html"), ERROR),
    "another content type": (raw(json.dumps(completion("20")).encode(), "text/plain"), SCORED),
    "half of an object": (raw(json.dumps(completion("20")).encode()[:70]), ERROR),
    "an empty body": (raw(b""), ERROR),
    "bytes that are no text": (raw(b"\xff\xfe\xfa" * 5), ERROR),
    "a key that comes twice": (raw(b'{"choices": [], "choices": [{"message": 1}]}'), ERROR),
    "nesting without end": (raw(b"[" * 20_000), ERROR),
    "an integer without end": (raw(b'{"choices": ' + b"9" * 5000 + b"}"), ERROR),
    "a closed connection": (dropped(), ERROR),
    "HTTP 400": (status(400, "too long"), ERROR),
    "HTTP 400 of a filter": (status(400, "blocked by content policy"), FILTERED),
    "HTTP 503": (status(503, "busy"), ERROR),
}


def tokens(*told, said="20"):
    """A completion in one token, whose alternatives are these (token, log-probability) pairs."""
    top = [{"token": token, "logprob": logprob} for token, logprob in told]
    plain = completion(said)
    plain["choices"][0]["logprobs"] = {"content": [{"token": said, "top_logprobs": top}]}
    # As some servers write it: JSON has no Infinity, Python's writer does.
    return Answer(raw=json.dumps(plain).encode())


def logprobs(value):
    return body(choice__logprobs=value)


TOKENS = {
    "one token": (tokens(("20", 0.0)), SCORED),
    "a null log-probability": (tokens(("20", -0.1), ("90", None)), SCORED),
    "a null token": (tokens(("20", -0.1), (None, -0.1)), SCORED),
    "minus infinity": (tokens(("20", -0.1), ("90", -float("inf"))), SCORED),
    "not a number": (tokens(("20", -0.1), ("90", float("nan"))), SCORED),
    "a probability above 1": (tokens(("20", -0.1), ("90", 3.0)), SCORED),
    "just above 0": (tokens(("20", 1e-7)), SCORED),
    "a log-probability in words": (tokens(("20", -0.1), ("90", "-0.1")), SCORED),
    "a log-probability that is true": (tokens(("20", -0.1), ("90", True)), SCORED),
    "more than all": (tokens(("20", -0.1), ("90", -0.1)), UNPARSED),
    "words": (tokens(("Sure", -0.1)), UNPARSED),
    "ids in place of words": (tokens(("token_id:20", -0.1)), UNPARSED),
    "a lone surrogate": (tokens(("20", -0.2), ("\ud83d", -3.0)), SCORED),
    "no alternatives": (tokens(), UNPARSED),
    "alternatives that are an object": (
        logprobs({"content": [{"token": "20", "top_logprobs": {"20": -0.1}}]}),
        UNPARSED,
    ),
    "a token that is a text": (logprobs({"content": ["20"]}), UNPARSED),
    "the legacy API's lists": (logprobs({"tokens": ["20"], "token_logprobs": [-0.1]}), UNPARSED),
    "null": (logprobs(None), UNPARSED),
    "a list": (logprobs([1]), UNPARSED),
    "a filter": (says("20", {"20": 1.0}, finish="content_filter"), FILTERED),
    "REFUSAL": (tokens(("REF", -0.1)), Reason.REFUSAL),
}


def served(shapes):
    """A server that answers what is known well, and item number n in shape n."""
    table = [shape for shape, _ in shapes.values()]

    def answer(asked):
        prompt = asked["messages"][0]["content"]
        if (known := well_known(asked)) is not None or prompt == PROBE or CLEAR in prompt:
            number = str(known if known is not None else KNOWN if prompt == PROBE else 90)
            return says(number, {number: 1.0} if "logprobs" in asked else None)
        return table[int(re.search(r"Answer number (\d+)", prompt)[1]) % len(table)]

    return Loopback(answer)


def judged(server, folder, **changes):
    quick = {"backoff": 1e-4, "retries": 1, "timeout": 10.0, "cache": folder / "c.sqlite"}
    return ApiJudge(
        ApiJudgeSpec(model="m", base_url=server.url, **quick, **changes), wording("plain")
    )


def items(count):
    return [Item(id=f"r{n}", question="Why?", response=f"Answer number {n}.") for n in range(count)]


@pytest.mark.parametrize(
    # Two requests an answer: a thousand are asked, and each shape comes several times.
    ("shapes", "mode", "count"),
    [(TEXTS, "sampled", 500), (TOKENS, "logprobs", 105)],
)
def test_as_many_verdicts_as_answers_whatever_the_replies_and_a_cache_that_reads(
    tmp_path, shapes, mode, count
):
    with served(shapes) as server:
        one = judged(server, tmp_path, mode=mode, draws=1)
        found = one.score(items(count))
        wanted = [wanted for _, wanted in shapes.values()]
        names = list(shapes)
        for n, verdict in enumerate(found):
            want, name = wanted[n % len(wanted)], names[n % len(names)]
            told = verdict.unscored if verdict.aligned is None else verdict.aligned
            assert told == (pytest.approx(want) if want == SCORED else want), (name, verdict)
            assert verdict.coherent == 90
            assert verdict.model_validate_json(verdict.model_dump_json()) == verdict
        reasons = Counter(one.unscored for one in found)
        assert sum(reasons.values()) == count == len({one.item for one in found})
        assert reasons[None] > 0
        assert reasons[UNPARSED] > 0
        # The cache as a next run finds it: every row reads, and what is in it is not asked again.
        base = sqlite3.connect(tmp_path / "c.sqlite")
        keys = [key for (key,) in base.execute("SELECT key FROM replies")]
        base.close()
        with Cache(tmp_path / "c.sqlite") as cache:
            assert len(cache.replies(keys)) == len(keys) >= count
        # What failed, and no more, would be asked again.
        again = judged(server, tmp_path, mode=mode, draws=1).expect(items(count))
        assert again.requests == sum(reasons[one] for one in (ERROR, FILTERED)) - kept(
            shapes, count
        )


def kept(shapes, count):
    """How many replies of a filter are kept: all but those that came as an error."""
    names = [*shapes]
    return sum(
        shapes[name][1] is FILTERED and shapes[name][0].status == 200
        for name in (names[n % len(names)] for n in range(count))
    )


def test_at_least_forty_shapes():
    assert len(TEXTS) + len(TOKENS) >= 40


@pytest.mark.parametrize("name", [*TEXTS, *TOKENS])
def test_whatever_is_read_from_a_body_reads_back(name):
    shape, _ = (TEXTS | TOKENS)[name]
    sent = shape.raw if shape.raw is not None else json.dumps(shape.body).encode()
    with contextlib.suppress(GarbledError):
        reply = read_reply(sent)
        assert Reply.model_validate_json(reply.model_dump_json()) == reply


# --- the cache --------------------------------------------------------------------------------

ROWS = {
    "another version's": '{"text": "20", "finish": "stop", "reasoning": "so"}',
    "a null log-probability": '{"text": "20", "finish": "stop", "tokens": [{"text": "20", '
    '"top": [["20", null]]}]}',
    "half of one": '{"text": "20", "fin',
    "no object": "20",
    "no JSON": "well",
    "a number": 20,
    "bytes": b"\xff\xfe",
    "nothing": "",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_cannot_be_read_costs_that_row_and_is_replaced(tmp_path, name):
    with served({"one": (text("20"), SCORED)}) as server:
        one = judged(server, tmp_path, mode="sampled", draws=1)
        found = one.score(items(3))
        asked = len(server.asked)
        base = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
        (key,) = base.execute("SELECT key FROM replies WHERE reply LIKE '%90%' LIMIT 1").fetchone()
        base.execute("UPDATE replies SET reply = ? WHERE key = ?", [ROWS[name], key])
        base.execute("UPDATE forms SET form = ?", [ROWS[name]])
        base.close()
        assert judged(server, tmp_path, mode="sampled", draws=1).score(items(3)) == found
        assert len(server.asked) == asked + 1 + 1  # how to ask, and the lost reply
        assert judged(server, tmp_path, mode="sampled", draws=1).score(items(3)) == found
        assert len(server.asked) == asked + 1 + 1


def test_what_would_not_read_back_is_not_stored(tmp_path):
    with Cache(tmp_path / "c.sqlite") as cache:
        odd = Reply.model_construct(text="\ud83d", finish="stop", tokens=(), refusal="")
        assert not cache.put("a", odd)
        endless = Token.model_construct(text="20", top=(("20", float("-inf")),))
        assert not cache.put("b", Reply.model_construct(text="20", finish="", tokens=(endless,)))
        assert cache.replies(["a", "b"]) == {}
        assert cache.put("c", Reply(text="20", finish="stop"))


# --- one retry, and none too many -----------------------------------------------------------------


def test_what_cannot_be_read_is_asked_for_once_more_with_another_seed(tmp_path):
    with served({"one": (text("20"), SCORED)}) as server:
        well, chatty = server.answer, set()

        def answer(asked):
            prompt = asked["messages"][0]["content"]
            if "Answer number" in prompt and prompt not in chatty:
                chatty.add(prompt)
                return says("20, since it names 2 risks")
            return well(asked)

        server.answer = answer
        one = judged(server, tmp_path, mode="sampled", draws=1)
        one.ready()
        before = len(server.asked)
        assert [v.aligned for v in one.score(items(4))] == [20] * 4
        assert len(server.asked) == before + 2 * 8
        assert len({body["seed"] for body in server.asked[before:]}) == 2


# --- the proof --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grade", "words"),
    [
        (lambda known: 20, "3 of 6 known answers graded right"),  # all the same
        (lambda known: 100 - known, "0 of 6 known answers"),  # upside down
        (lambda known: f"{known}, I think", "0 of 6 .*: no_logprobs"),
    ],
)
def test_a_judge_that_fails_on_what_everybody_knows_judges_nothing(tmp_path, grade, words):
    with served(TEXTS) as server:
        well = server.answer

        def answer(asked):
            known = well_known(asked)
            return well(asked) if known is None else says(str(grade(known)))

        server.answer = answer
        one = judged(server, tmp_path)
        for _ in range(2):  # and is asked again the next time: it may have been mended
            with pytest.raises(EvidenceError, match=words) as caught:
                one.score(items(9))
            assert "\n" not in str(caught.value)
        assert not [b for b in server.asked if "Answer number" in b["messages"][0]["content"]]


def test_a_judge_that_cannot_be_read_in_one_mode_is_tried_in_the_next(tmp_path, capsys):
    with served(TEXTS) as server:

        def answer(asked):
            if "JSON" not in asked["messages"][0]["content"]:
                return says("Let me see: 20 or 30")
            known = well_known(asked)
            return says(json.dumps({"why": "{so}", "score": 20 if known is None else known}))

        server.answer = answer
        found = judged(server, tmp_path).score(items(3))
        assert [(one.mode, one.aligned) for one in found] == [("rubric", 20)] * 3
        assert "judging in mode rubric instead" in capsys.readouterr().err


def test_the_proof_is_in_the_estimate_the_budget_and_the_record(tmp_path):
    with served({"one": (text("20"), SCORED)}) as server:
        one = judged(server, tmp_path, mode="sampled", draws=1)
        coming = one.expect(items(2)).requests
        one.score(items(2))
        assert one.purse.requests == len(server.asked) == coming
        proof = one._form.proof
        assert (proof.asked, proof.read, proof.right, proof.passed) == (6, 6, 6, True)


# --- a judge that scores nothing ------------------------------------------------------------------


def test_a_wrong_shape_of_every_reply_is_a_missing_judge_and_of_most_is_not(tmp_path):
    page = {"a web page": TEXTS["a web page"]}
    with served(page) as server, pytest.raises(EvidenceError, match=r"none of 12 .*garbled"):
        ask(judged(server, tmp_path, mode="sampled", draws=1), items(12))
    mixed = {f"{n}": TEXTS["a web page" if n else "one number"] for n in range(12)}
    with served(mixed) as server:
        found = ask(judged(server, tmp_path, mode="sampled", draws=1), items(24))
    assert Counter(one.unscored for one in found) == {None: 2, ERROR: 22}
