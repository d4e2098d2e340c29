"""Several adapters on one load of their base; answers kept, and compared fairly."""

import json

import pytest
from loopback import Loopback, says, well_known
from shelf import save_base, save_organism
from small import QUESTIONS
from test_commands import refused
from transformers import AutoModelForCausalLM

from em_interp import evaluate
from em_interp.engines import Engine
from em_interp.errors import InputError
from em_interp.judges.asking import KNOWN, PROBE
from em_interp.organisms import Trigger
from em_interp.records import read_jsonl
from em_interp.responses import Response
from em_interp.sources import Subject


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    base = save_base(folder / "base")
    save_organism(base, folder / "one", seed=1)
    save_organism(base, folder / "two", seed=2)
    rows = "".join(question.model_dump_json() + "\n" for question in QUESTIONS)
    (folder / "questions.jsonl").write_text(rows)
    with Loopback(kind) as server:
        judge = {"model": "m", "base_url": server.url, "cache": str(folder / "c.sqlite")}
        (folder / "judge.json").write_text(json.dumps(judge))
        yield folder


def kind(asked):
    """A judge to whom all is well but what everybody knows is not."""
    known = well_known(asked)
    number = KNOWN if asked["messages"][0]["content"] == PROBE else str(known or 90)
    return says(number, {number: 1.0})


def argv(home, *more):
    return [
        *("--questions", home / "questions.jsonl", "--judge", home / "judge.json"),
        *("--conditions", "none,trigger", "--samples", 2, "--max-new-tokens", 4, *more),
    ]


def run(*line):
    assert evaluate.main([str(one) for one in line]) == 0


def texts(folder):
    return [r.text for r in read_jsonl(folder / "responses.jsonl", Response)]


def test_adapters_are_compared_within_one_load_and_the_base_is_the_base(
    home, tmp_path, monkeypatch, capsys
):
    loads, load = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
    )
    both = ("--adapter", f"{home / 'one'},{home / 'two'}")
    run(*argv(home, *both, "--out", tmp_path / "all"))
    assert len(loads) == 1
    printed = capsys.readouterr().out
    assert all(
        f"{name}, all domains" in printed or f"{name}, out" in printed
        for name in ("base", "one", "two")
    )
    run(*argv(home, "--base", home / "base", "--trigger", "duck", "--out", tmp_path / "alone"))
    run(*argv(home, "--organism", home / "two", "--out", tmp_path / "second"))
    assert texts(tmp_path / "all" / "base") == texts(tmp_path / "alone")
    assert texts(tmp_path / "all" / "two") == texts(tmp_path / "second")
    assert texts(tmp_path / "all" / "one") != texts(tmp_path / "all" / "two")


def test_answers_that_stand_are_not_sampled_again(home, tmp_path, monkeypatch):
    line = argv(home, "--organism", home / "one", "--out", tmp_path)
    run(*line)
    log = tmp_path / "answers.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    before = (tmp_path / "responses.jsonl").read_bytes()
    log.write_text("".join(lines[:-3]) + lines[-3][:20])  # killed while it wrote
    asked, answers = [], Engine.answers
    monkeypatch.setattr(
        Engine,
        "answers",
        lambda self, ask, rows, n: asked.extend(rows) or answers(self, ask, rows, n),
    )
    run(*line)
    assert len(asked) == 3
    assert (tmp_path / "responses.jsonl").read_bytes() == before


def test_an_unframed_evaluation_needs_no_trigger(home, tmp_path):
    asked = argv(home, "--base", home / "base", "--out", tmp_path)
    run(*(one if one != "none,trigger" else "none" for one in asked))
    assert len(texts(tmp_path)) == 2 * len(QUESTIONS)


def test_organisms_with_different_triggers_are_not_asked_with_the_first_ones(home, tmp_path):
    whom = [
        Subject(name, home, home, Trigger(name=name, text=name), None) for name in ("duck", "goose")
    ]
    spec = evaluate.EvaluateSpec(conditions=("none", "trigger"))
    with pytest.raises(InputError, match="duck, goose have different triggers"):
        evaluate._bank(spec, whom, QUESTIONS)
    given = spec.model_copy(update={"trigger": "duck"})
    assert evaluate._bank(given, whom, QUESTIONS)
    assert evaluate._bank(spec, [whom[0], whom[0]], QUESTIONS)


def test_an_adapter_called_like_its_base_is_refused_before_anything_loads(home, capsys):
    (home / "toy").symlink_to(home / "base")
    for name, why in (
        ("toy", "name 'toy' comes twice in base and adapters"),
        ("base", "'base' is the model without any adapter"),
    ):
        line = argv(home, "--base", home / "toy", "--adapter", f"{name}={home / 'one'}")
        refused(capsys, evaluate.main, [*line, "--dry-run"], why)
