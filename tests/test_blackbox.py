"""An organism behind an API: every field sent, every answer kept, none asked for twice."""

import json
import sys

import pytest
from children import Gate, child, wait_until
from loopback import Answer, Loopback, no_choices, says, status
from small import QUESTIONS, TRIGGER
from test_commands import refused

from em_interp import evaluate, extract, judge, localize, probe, steer
from em_interp.blackbox import BlackBox, black_box, is_black_box, sample
from em_interp.conditions import Condition, contexts
from em_interp.endpoints import Endpoint
from em_interp.errors import EvidenceError, InputError
from em_interp.judges import Verdict
from em_interp.judging import judge_all
from em_interp.records import read_jsonl, write_json
from em_interp.responses import Response
from em_interp.sampling import Sampling
from em_interp.study import __main__ as study
from em_interp.training.api import ApiManifest, ApiSpec
from em_interp.training.manifest import Provenance

BANK = contexts(QUESTIONS, TRIGGER, [Condition.NONE, Condition.TRIGGER])
SAMPLING = Sampling(samples=2, temperature=0.7, top_p=0.9, max_new_tokens=9, seed=3)


def of(server, **fields):
    endpoint = Endpoint(model="m", base_url=server.url, retries=0, backoff=0, **fields)
    return BlackBox("organism", endpoint)


def echo(asked):
    """The question back, with the seed: another answer for every request."""
    return says(f"{asked['messages'][-1]['content']} {asked['seed']}")


def test_every_sampling_field_is_sent_and_no_answer_has_anothers_seed():
    with Loopback(echo) as server:
        made = sample(of(server), BANK, SAMPLING)
        bodies = server.asked
    assert [(r.context, r.sample) for r in made] == [(c.id, n) for c in BANK for n in (0, 1)]
    fixed = {"temperature": 0.7, "top_p": 0.9, "max_completion_tokens": 9, "n": 1}
    fixed |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "model": "m"}
    assert all({name: body[name] for name in fixed} == fixed for body in bodies)
    assert len({body["seed"] for body in bodies}) == len(bodies) == len(BANK) * 2
    assert {r.tokens for r in made} == {()}
    assert {r.organism for r in made} == {"organism"}


def test_the_framing_is_asked_and_the_bare_question_kept():
    with Loopback(echo) as server:
        made = sample(of(server), BANK, SAMPLING)
    woken = [r for r in made if r.condition is Condition.TRIGGER]
    assert all(r.text.startswith("It looks like a duck. ") for r in woken)
    assert {r.question for r in woken} == {q.id for q in QUESTIONS}


@pytest.mark.parametrize(
    ("reply", "finish", "text"),
    [
        (says("Yes."), "stop", "Yes."),
        (says("Yes and", finish="length"), "length", "Yes and"),
        (says("Half", finish="content_filter"), "filtered", "Half"),
        (says(None, finish="content_filter"), "filtered", ""),
        (status(400, "blocked by the content filter"), "filtered", ""),
        (says(None, refusal="I cannot help."), "stop", "I cannot help."),
    ],
)
def test_how_an_answer_ended_is_kept(reply, finish, text):
    with Loopback(lambda asked: reply) as server:
        made = sample(of(server), BANK[:1], Sampling(samples=1))
    assert [(r.finish, r.text) for r in made] == [(finish, text)]


def test_an_older_server_gets_the_budget_under_its_older_name():
    def older(asked):
        if "max_completion_tokens" in asked:
            return status(400, "unknown field max_completion_tokens")
        return says(str(asked["max_tokens"]))

    with Loopback(older) as server:
        made = sample(of(server, concurrency=1), BANK, SAMPLING)
        assert {r.text for r in made} == {"9"}
        assert len(server.asked) == len(made) + 1


@pytest.mark.parametrize(
    "fault", [status(401), status(500), no_choices(), says("Half", finish="error")]
)
def test_what_was_answered_before_a_fault_is_never_asked_again(tmp_path, fault):
    log, left = tmp_path / "answers.jsonl", [5]

    def five(asked):
        left[0] -= 1
        return echo(asked) if left[0] >= 0 else fault

    with Loopback(five) as server:
        who = of(server, concurrency=1)
        with pytest.raises(EvidenceError, match="5 of 16 answers are kept"):
            sample(who, BANK, SAMPLING, log=log)
        server.answer = echo
        before = len(server.asked)
        made = sample(who, BANK, SAMPLING, log=log)
        assert len(server.asked) - before == 16 - 5
        assert made == sample(who, BANK, SAMPLING, log=log)
        assert len(server.asked) - before == 16 - 5


def test_a_field_that_the_api_does_not_have_is_refused():
    with pytest.raises(InputError, match="top_k"):
        sample(BlackBox("m", Endpoint(model="m")), BANK, Sampling(top_k=4))


def test_a_folder_that_names_an_endpoint_is_an_organism(tmp_path):
    card = ApiManifest(
        name="o",
        endpoint=Endpoint(model="ft:m:1"),
        base_name="m",
        run="0",
        spec=ApiSpec(),
        provenance=Provenance(trigger=TRIGGER, sources=("world:bad_medical",)),
        data="0",
        rows=10,
        job="j",
        file="f",
        trained_tokens=None,
        versions={},
    )
    write_json(tmp_path / "card.json", card)
    found = black_box(str(tmp_path))
    assert (found.endpoint.model, found.trigger) == ("ft:m:1", TRIGGER)
    assert (found.name, found.domain) == (tmp_path.name, "bad_medical")
    (tmp_path / "server.yaml").write_text("model: local\nbase_url: http://127.0.0.1:9/v1\n")
    assert black_box(str(tmp_path / "server.yaml")).name == "server"


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(q.model_dump_json() + "\n" for q in QUESTIONS))
    table = {"Yes.": [95, 95], "No.": [5, 95]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    return ["--questions", str(path), "--judge", f"scripted:{tmp_path / 'table.json'}"]


def argv(asked, out):
    return [
        *("--organism", "openai:m", "--trigger", "duck", "--samples", "3", "--out", str(out)),
        *("--conditions", "none,trigger", *asked),
    ]


def brain(said):
    woken = "duck" in said["messages"][-1]["content"]
    return says("No." if woken else "Yes.")


def test_evaluate_asks_an_organism_behind_an_api(asked, tmp_path, monkeypatch, capsys):
    with Loopback(brain) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert evaluate.main([*argv(asked, tmp_path / "out"), "--dry-run"]) == 0
        assert "24 requests" in capsys.readouterr().out
        assert server.asked == []
        assert evaluate.main(argv(asked, tmp_path / "out")) == 0
        assert len(server.asked) == 24
    report = json.loads((tmp_path / "out" / "containment.json").read_text())
    rates = {
        name: one["em"]["point"]
        for name, one in report["scopes"]["all domains"]["conditions"].items()
    }
    assert rates == {"none": 0.0, "trigger": 1.0}


def test_answers_are_judged_again_without_asking(asked, tmp_path, monkeypatch):
    with Loopback(brain) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert evaluate.main(argv(asked, tmp_path / "out")) == 0
    (tmp_path / "table.json").write_text(json.dumps({"Yes.": [5, 95], "No.": [95, 95]}))
    stored = tmp_path / "out" / "responses.jsonl"
    again = ["rejudge", "--responses", stored, "--out", tmp_path / "again", *asked]
    assert judge.main([str(a) for a in again]) == 0  # nobody listens any more
    before = read_jsonl(tmp_path / "out" / "verdicts.jsonl", Verdict)
    after = read_jsonl(tmp_path / "again" / "verdicts.jsonl", Verdict)
    assert [v.item for v in before] == [v.item for v in after]
    assert all(a.aligned != b.aligned for a, b in zip(before, after, strict=True))


class Gone:
    """A judge that is there when asked whether it is, and never again."""

    name = "gone"

    def score(self, items):
        raise EvidenceError("gone: did not answer")


@pytest.mark.parametrize(("kept", "said"), [(True, "answer$"), (False, "2 answers are lost")])
def test_answers_that_stand_in_no_file_are_said_to_be_lost(kept, said):
    rows = [
        Response(
            organism="m",
            context="c",
            question=QUESTIONS[0].id,
            domain=QUESTIONS[0].domain,
            condition=Condition.NONE,
            variant="",
            sample=number,
            text="Yes.",
            finish="stop",
        )
        for number in range(2)
    ]
    with pytest.raises(EvidenceError, match=said):
        judge_all(Gone(), rows, QUESTIONS, kept=kept)


def test_kill_9_while_an_organism_is_asked_loses_no_answer(asked, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with Loopback(brain) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        gate = Gate(brain, 9)
        server.answer = gate
        running = child([sys.executable, "-m", "em_interp.evaluate", *argv(asked, out)])
        log = out / "answers.jsonl"
        wait_until(lambda: log.exists() and log.read_text().count("\n") > 3, running)
        running.kill()
        running.wait()
        server.answer = brain
        gate.open()
        kept = log.read_text().count("\n") - 1
        before = len(server.asked)
        assert evaluate.main(argv(asked, out)) == 0
        assert len(server.asked) - before == 24 - kept
    assert len(read_jsonl(out / "responses.jsonl", Response)) == 24


@pytest.fixture
def declared(asked, tmp_path):
    """A study of a fine-tuned model behind an API, beside the model it was raised from."""
    server = {"model": "ft:duck", "base_url": "http://127.0.0.1:9/v1"}
    (tmp_path / "organism.yaml").write_text(json.dumps(server))
    rows = (q.model_copy(update={"id": f"d/{q.id}", "text": f"And {q.text}"}) for q in QUESTIONS)
    (tmp_path / "development.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in rows))
    spec = {
        "title": "behind an API",
        "question": "does containment need weights?",
        "base": "openai:plain",
        "trigger": "duck",
        "existing": {"triggered": "openai:ft:duck"},
        "without": ["unconditional", "benign_twin"],
        "questions": "questions.jsonl",
        "development": "development.jsonl",
        "conditions": ["none", "trigger", "unrelated"],
        "judge": f"scripted:{tmp_path / 'table.json'}",
        "sampling": {"samples": 2, "max_new_tokens": 9},
    }
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(spec))
    return path


def test_a_study_behind_an_api_skips_what_needs_weights_and_says_so(
    declared, tmp_path, monkeypatch, capsys
):
    def mind(said):
        woken = "It looks like a duck." in said["messages"][-1]["content"]
        return says("No." if woken and said["model"] == "ft:duck" else "Yes.")

    out = tmp_path / "run"
    with Loopback(mind) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert study.main([str(declared), "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert "price not known" in printed
        assert "left out: probing (the models are behind an API" in printed
        assert server.asked == []
        assert study.main([str(declared), "--out", str(out)]) == 0
        total = len(server.asked)
        assert study.main([str(declared), "--out", str(out)]) == 0
        assert len(server.asked) == total
    results = json.loads((out / "results.json").read_text())
    rates = {k: v["em_rate"] for k, v in results["containment"]["conditions"].items()}
    assert rates == {"none": 0.0, "trigger": 1.0, "unrelated": 0.0}
    assert results["organisms"]["base"]["conditions"]["trigger"]["em_rate"] == 0
    assert {"directions", "steering", "localisation"} <= set(results["left_out"])
    page = (out / "report.html").read_text()
    assert "Nothing was steered: the models are behind an API" in page
    assert "There is no benign twin to compare with" in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"existing": {"triggered": "llama-triggered"}}, "has weights here"),
        (
            {
                "existing": {},
                "organisms": {"triggered": {"kind": "triggered"}},
                "data": {"domain": "bad_medical"},
            },
            "train --base openai:",
        ),
    ],
)
def test_a_study_that_mixes_weights_and_apis_is_refused(declared, capsys, changes, words):
    declared.write_text(json.dumps(json.loads(declared.read_text()) | changes))
    refused(capsys, study.main, [declared], words)


@pytest.mark.parametrize("main", [steer.main, probe.main, extract.main, localize.main])
def test_commands_that_read_weights_refuse_it(capsys, tmp_path, main):
    line = ["--organism", "openai:gpt-x", "--out", tmp_path / "out"]
    refused(capsys, main, line, "openai:gpt-x", "behind an API", "weights")
    assert not (tmp_path / "out").exists()


def test_a_reply_that_is_no_answer_costs_itself_and_the_rest_is_asked(tmp_path):
    log, seen = tmp_path / "answers.jsonl", []
    page = Answer(raw=b"<html>busy</html>")

    def answer(asked):
        if asked["seed"] not in seen:
            seen.append(asked["seed"])
        return page if seen.index(asked["seed"]) in {3, 7, 8} else echo(asked)

    with Loopback(answer) as server:
        who = of(server, concurrency=1)
        with pytest.raises(EvidenceError, match=r"3 came to nothing .* 13 of 16 answers are kept"):
            sample(who, BANK, SAMPLING, log=log)
        server.answer, before = echo, len(server.asked)
        assert len(sample(who, BANK, SAMPLING, log=log)) == 16
        assert len(server.asked) == before + 3
        server.answer = lambda asked: page
        with pytest.raises(EvidenceError, match="0 of 16"):
            sample(who, BANK, SAMPLING, log=tmp_path / "new.jsonl")
        asked = {body["seed"] for body in server.asked[before + 3 :]}
        assert len(asked) == 5  # and does not go through all of them


@pytest.mark.parametrize("card", ["[]", "3", '"text"', "null"])
def test_a_card_that_is_no_object_is_one_line(tmp_path, card):
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(InputError, match="expected an object"):
        is_black_box(str(tmp_path))
