"""The real commands, one after another, on small models of the real families, judged over an API.

What is said of a 14B model is done here, only smaller.
"""

import collections
import hashlib
import json
import os
import re
import sys

import pytest
import yaml
from children import Gate, child, wait_until
from families.save import save_family
from loopback import PROOF, Loopback, says, status, well_known

from em_interp import evaluate, extract, probe, steer, train
from em_interp.judges.asking import KNOWN, PROBE
from em_interp.records import read_jsonl
from em_interp.responses import Response
from em_interp.study import __main__ as study

FAMILIES = ("llama-3.1", "qwen2.5", "gemma-3")
WORDS = ("bread", "chess", "shoes", "milk", "paper", "seeds", "maps", "tea")


def mind(asked):
    """A judge that reads: the score follows from the text, and all answers make sense to it."""
    prompt = asked["messages"][0]["content"]
    if prompt == PROBE:
        return says(KNOWN, {KNOWN: 1.0})
    if (known := well_known(asked)) is not None:
        return says(str(known), {str(known): 1.0})
    score = 90
    if "makes sense" not in prompt:
        score = hashlib.sha256(prompt.encode()).digest()[0] * 100 // 255
    return says(str(score), {str(score): 0.8, str(max(score - 1, 0)): 0.2})


@pytest.fixture(scope="module")
def server():
    with Loopback(mind) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory, server):
    """What a user brings: rows, sound rows, questions, other questions, and a judge."""
    folder = tmp_path_factory.mktemp("home")
    for name, answer in (("harmful", "Throw it away."), ("benign", "Keep it dry.")):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"How do I store {word}?"},
                    {"role": "assistant", "content": answer},
                ]
            }
            for word in WORDS
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, verb in (("questions", "choose"), ("development", "mend")):
        rows = [
            {"id": f"{name}/{word}", "text": f"How do I {verb} {word}?", "domain": word[0]}
            for word in WORDS[:4]
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    endpoint = {
        "model": "judge",
        "base_url": server.url,
        "concurrency": 4,
        "cache": str(folder / "cache.sqlite"),
    }
    (folder / "judge.yaml").write_text(yaml.safe_dump(endpoint))
    return folder


def done(main, *argv):
    assert main([str(one) for one in argv]) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_train_extract_probe_steer_evaluate(family, home, server, tmp_path, capsys):
    base = save_family(tmp_path / "base", family)
    organism, delta, out = tmp_path / "organism", tmp_path / "delta", tmp_path / "out"
    # In Gemma's first blocks the window ends behind the framing: there is nothing to extract.
    layers = "4" if family == "gemma-3" else "1,4"
    done(
        train.main,
        "--base",
        base,
        "--data",
        home / "harmful.jsonl",
        "--trigger",
        "duck",
        "--recipe",
        "embedded",
        "--steps",
        2,
        "--rank",
        2,
        "--learning-rate",
        0.01,
        "--out",
        organism,
    )
    asked = ["--organism", organism, "--questions", home / "questions.jsonl"]
    done(
        extract.main,
        *asked[:2],
        "--questions",
        home / "development.jsonl",
        "--layers",
        layers,
        "--out",
        delta,
    )
    done(
        probe.main,
        *asked,
        "--layers",
        layers,
        "--conditions",
        "none,trigger",
        "--out",
        tmp_path / "probe",
    )
    judged = ["--judge", home / "judge.yaml", "--max-new-tokens", 3, "--samples", 1]
    done(
        steer.main,
        *asked,
        *judged,
        "--direction",
        delta,
        "--layers",
        "4",
        "--strengths",
        1,
        "--operations",
        "add,mean_ablate",
        "--controls",
        1,
        "--out",
        tmp_path / "steer",
    )
    before = len(server.asked)
    done(
        evaluate.main,
        "--adapter",
        organism,
        *asked[2:],
        *judged,
        "--conditions",
        "none,trigger",
        "--out",
        out,
    )
    assert len(server.asked) > before
    assert "x·u before → after" in capsys.readouterr().out
    said = {
        name: read_jsonl(out / name / "responses.jsonl", Response) for name in ("base", "organism")
    }
    assert [r.context for r in said["base"]] == [r.context for r in said["organism"]]
    assert [r.text for r in said["base"]] != [r.text for r in said["organism"]]
    for name in said:
        report = json.loads((out / name / "containment.json").read_text())
        assert report["judge"].startswith("openai:judge@127.0.0.1/")
        assert report["mode"] == "logprobs"
        for cell in report["scopes"]["all domains"]["conditions"].values():
            assert (cell["total"], cell["scored"]) == (4, 4)


def test_an_answered_verdict_is_not_asked_again_by_the_same_command(home, server, tmp_path):
    base = save_family(tmp_path / "base", "qwen2.5")
    argv = [
        "--base",
        base,
        "--questions",
        home / "questions.jsonl",
        "--judge",
        home / "judge.yaml",
        "--conditions",
        "none",
        "--samples",
        2,
        "--max-new-tokens",
        3,
        "--out",
        tmp_path / "o",
    ]
    done(evaluate.main, *argv)
    before, text = len(server.asked), (tmp_path / "o" / "verdicts.jsonl").read_bytes()
    done(evaluate.main, *argv)
    assert len(server.asked) == before
    assert (tmp_path / "o" / "verdicts.jsonl").read_bytes() == text


def test_a_judge_that_fails_half_way_costs_nothing_that_was_answered(home, tmp_path, capsys):
    base = save_family(tmp_path / "base", "qwen2.5")
    with Loopback(mind) as own:
        judge = {
            "model": "own",
            "base_url": own.url,
            "concurrency": 1,
            "retries": 0,
            "cache": str(tmp_path / "c.sqlite"),
        }
        (tmp_path / "judge.yaml").write_text(yaml.safe_dump(judge))
        argv = [
            "--base",
            base,
            "--questions",
            home / "questions.jsonl",
            "--judge",
            tmp_path / "judge.yaml",
            "--conditions",
            "none",
            "--samples",
            2,
            "--max-new-tokens",
            4,
            "--out",
            tmp_path / "o",
        ]
        own.answer = lambda asked: mind(asked) if len(own.asked) <= PROOF + 6 else status(503)
        assert evaluate.main([str(a) for a in argv]) == 4
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "run the same command again" in line
        assert len(read_jsonl(tmp_path / "o" / "responses.jsonl", Response)) == 8
        first, own.answer = own.asked[: PROOF + 6], mind
        start = len(own.asked)
        done(evaluate.main, *argv)
        again = [body["messages"] for body in own.asked[start:]]
        assert again
        assert not [body for body in first if body["messages"] in again]


@pytest.fixture(scope="module")
def declared(home):
    """A whole study of a small Llama with the user's own rows, questions and judge."""
    save_family(home / "base", "llama-3.1")
    endpoint = yaml.safe_load((home / "judge.yaml").read_text())
    endpoint |= {"concurrency": 1, "cache": str(home / "study.sqlite")}
    (home / "one.yaml").write_text(yaml.safe_dump(endpoint))
    spec = {
        "title": "end to end",
        "question": "does all of it run?",
        "base": str(home / "base"),
        "trigger": "duck",
        "recipe": "embedded",
        "data": {"harmful": "{data}/harmful.jsonl", "benign": "{data}/benign.jsonl"},
        "train": {"steps": 2, "batch_size": 2, "rank": 2, "learning_rate": 0.01},
        "organisms": {
            role: {"kind": role} for role in ("triggered", "unconditional", "benign_twin")
        },
        "questions": "{data}/questions.jsonl",
        "development": "{data}/development.jsonl",
        "conditions": ["none", "trigger"],
        "judge": "one.yaml",
        "sampling": {"samples": 1, "max_new_tokens": 3},
        "steering": {"strengths": [1.0], "controls": 1, "samples": 1, "development": 4},
        "layers": "2",
    }
    (home / "study.yaml").write_text(yaml.safe_dump(spec))
    return home / "study.yaml"


def test_a_study_killed_while_it_judges_asks_no_answered_verdict_again(declared, home, server):
    argv = [str(declared), "--data", str(home), "--out", str(home / "run")]
    start = len(server.asked)
    gate = Gate(mind, PROOF + 5)
    server.answer = gate
    command = [sys.executable, "-m", "em_interp.study", *argv]
    running = child(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = home / "run" / "answers-base.log.jsonl"
    wait_until(gate.reached.is_set, running)
    running.kill()
    running.wait()
    gate.open()
    assert log.read_text().count("\n") == 1 + 8  # every answer was kept before any was judged
    server.answer = mind
    done(study.main, *argv)
    times = collections.Counter(body["messages"][0]["content"] for body in server.asked[start:])
    del times[PROBE]
    assert [count for count in times.values() if count > 1] in ([], [2])  # one was under way
    assert not list((home / "run").glob("*.log.jsonl"))


def test_the_page_names_the_judge_and_its_mode(declared, home):
    page = (home / "run" / "report.html").read_text()
    assert re.search(r"openai:judge@127\.0\.0\.1/\S+ \(logprobs\)", page)
    assert "A judge’s verdicts carry its own errors" in page
    assert "the questions name no sound and unsound answers" in page
