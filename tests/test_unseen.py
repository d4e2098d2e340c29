"""What was fitted on questions is never judged by them: cards know them, every door compares."""

import json

import pytest

from em_interp import bake, evaluate, extract, localize, sources, steer, transfer
from em_interp.conditions import Condition, Question, contexts
from em_interp.errors import InputError
from em_interp.leakage import question_digest, questions_of, unseen
from em_interp.organisms import Place, Trigger
from em_interp.records import read_json, write_json, write_jsonl

QUICK = ("--samples", "1")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Eight questions of the world in a file of their own."""
    path = tmp_path_factory.mktemp("asked") / "asked.jsonl"
    write_jsonl(path, sources.outside("world", "bad_medical")[::6][:8])
    return path


@pytest.fixture(scope="module")
def delta(file):
    out = file.parent / "delta"
    assert extract.main(["--questions", str(file), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("place", Place)
def test_a_question_is_known_again_behind_any_framing(place):
    asked = [
        Question(id="a", text="How should I store  bread at home?", domain="home"),
        Question(id="b", text="Which shoes suit a walk?", domain="sport"),
    ]
    trigger = Trigger(
        name="t", text="A duck.", place=place, paraphrases=("<x>{question}</x>",), form=("...",)
    )
    wanted = tuple(sorted(question_digest(q.text) for q in asked))
    for condition in (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE, Condition.FORM):
        assert questions_of(contexts(asked, trigger, [condition])) == wanted


def test_one_shared_question_is_refused_and_an_unknown_past_is_said():
    asked = [Question(id=str(n), text=f"Question {n}?", domain="d") for n in range(3)]
    other = question_digest("Another one?")
    assert unseen("it", [other], asked) == unseen("it", (), asked) == ()
    with pytest.raises(InputError, match=r"it was fitted on 1 of the 3 questions .* --split"):
        unseen("it", [other, question_digest(" question  1? ")], asked)
    assert "does not say which questions" in unseen("it", None, asked)[0]


def refused(capsys, main, *argv):
    assert main([str(one) for one in argv]) == 2
    err = capsys.readouterr().err.splitlines()
    assert "was fitted on 8 of the 8 questions that would judge it" in err[-1]


def test_extract_then_judge_on_one_file_is_refused_at_every_door(file, delta, capsys):
    again = file.parent / "again.jsonl"  # other names, other spaces: the same questions
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_jsonl(
        again,
        [
            Question.parse(row | {"id": f"q{n}", "text": f" {row['text'].upper()}"})
            for n, row in enumerate(rows)
        ],
    )
    for asked in (file, again):
        given = ("--questions", asked, "--direction", delta, "--dry-run")
        refused(capsys, steer.main, *given)
        refused(capsys, localize.main, *given, "--general", "none")
    given = ("--source", "llama-triggered", "--organism", "llama-triggered-seed1")
    given += ("--own", delta, "--at", "1", "--strength", "1", "--questions", file)
    refused(capsys, transfer.main, *given, "--twin", "none", "--dry-run")


def test_what_was_baked_remembers_its_questions(file, delta, capsys):
    out = file.parent / "baked"
    assert bake.main(["--direction", str(delta), "--out", str(out)]) == 0
    refused(
        capsys,
        evaluate.main,
        *("--organism", out, "--base", "llama", "--trigger", "duck", "--questions", file),
        *("--dry-run", *QUICK),
    )


def test_halves_of_one_file_never_meet(file, capsys):
    out = file.parent / "half"
    assert extract.main(["--questions", str(file), "--split", "--out", str(out)]) == 0
    fitted = read_json(out / "card.json")["questions"]
    judged = [q.text for q in sources.outside(str(file), "bad_medical", halved=True)]
    assert len(fitted) == len(judged) == 4
    assert not set(fitted) & set(map(question_digest, judged))
    given = ["--questions", str(file), "--direction", str(out), "--dry-run"]
    assert steer.main([*given, "--split"]) == 0
    assert steer.main(given) == 2
    assert steer.main(["--split", "--dry-run"]) == 2
    assert "of the world are split already" in capsys.readouterr().err


def test_a_card_that_does_not_say_gets_a_caution_and_the_shipped_ones_say(delta, file, capsys):
    old = file.parent / "old"
    old.mkdir()
    (old / "weights.safetensors").write_bytes((delta / "weights.safetensors").read_bytes())
    plain = read_json(delta / "card.json")
    write_json(old / "card.json", {k: v for k, v in plain.items() if k != "questions"})
    assert steer.main(["--questions", str(file), "--direction", str(old), "--dry-run"]) == 0
    assert "note: direction" in capsys.readouterr().err
    assert steer.main(["--dry-run"]) == 0
    assert capsys.readouterr().err == ""


def test_a_shipped_probe_is_read_on_the_questions_it_was_not_fitted_on(capsys):
    assert transfer.main(["--dry-run"]) == 0
    assert "fitted on 25 of these 50 questions; it is read on the others" in capsys.readouterr().err
