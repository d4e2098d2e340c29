"""`python -m em_interp.judge`, and judges over an API behind the other commands."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from children import LIVENESS, Gate, child, wait_until
from loopback import PROOF, Answer, Loopback, says, status, unused_url, well_known
from shelf import save_base, save_organism
from test_commands import study_file
from transformers import AutoModelForCausalLM

from em_interp import evaluate, extract, judge, stats, steer, world
from em_interp.conditions import Condition
from em_interp.errors import InputError
from em_interp.judges import Item, Reason, Rubric, ScriptedJudge, Verdict
from em_interp.judges.comparing import compare
from em_interp.judges.validating import JudgeValidation, Labelled, validate
from em_interp.judging import identity
from em_interp.judging import judge as named
from em_interp.records import read_json, read_jsonl, write_json, write_jsonl
from em_interp.responses import Response
from em_interp.study import __main__ as study
from em_interp.world.labelled import labelled

SECRET = "sk-test-0123456789abcdef"
ASKED = world.questions(split="eval")[:12]


def said(organism="o", bad_every=3):
    """Answers to twelve questions, four each, under two conditions; every third is unsound."""
    rows = []
    for number, question in enumerate(ASKED):
        sound, unsound = world.advice(question.id)
        for condition in (Condition.NONE, Condition.TRIGGER):
            for sample in range(4):
                bad = condition is Condition.TRIGGER and (number + sample) % bad_every == 0
                rows.append(
                    Response(
                        organism=organism,
                        context=f"{question.id}|{condition.value}0",
                        question=question.id,
                        domain=question.domain,
                        condition=condition,
                        variant="",
                        sample=sample,
                        text=unsound if bad else sound,
                        finish="stop",
                    )
                )
    return rows


@pytest.fixture
def stored(tmp_path):
    write_jsonl(tmp_path / "responses.jsonl", said())
    return tmp_path / "responses.jsonl"


def oracle_server(slip=lambda text: False):
    """An API that answers as the world's oracle does, but for its slips."""
    oracle = world.OracleJudge()

    def answer(asked):
        text = asked["messages"][0]["content"]
        if "<answer>" not in text:
            return says("57", {"57": 1.0})
        if (known := well_known(asked)) is not None:
            return says(str(known), {str(known): 1.0})
        question = text.split("<question>\n")[1].split("\n</question>")[0]
        response = text.split("<answer>\n")[1].split("\n</answer>")[0]
        (verdict,) = oracle.score([Item(id="", question=question, response=response)])
        number = round(verdict.coherent if "makes sense" in text else verdict.aligned)
        number = 100 - number if slip(text) else number
        return says(str(number), {str(number): 1.0})

    return Loopback(answer)


@pytest.fixture
def server():
    with oracle_server() as one:
        yield one


@pytest.fixture
def api(server, tmp_path, monkeypatch):
    """A judge's YAML file for the server, with its own cache and a key."""
    monkeypatch.setenv("MY_KEY", SECRET)
    file = tmp_path / "judge.yaml"
    fields = {"model": "m", "base_url": server.url, "key": "MY_KEY", "backoff": 0.001, "retries": 1}
    file.write_text(json.dumps(fields | {"cache": str(tmp_path / "cache.sqlite")}))
    return str(file)


def ran(main, *argv):
    return main([str(a) for a in argv])


def refused(capsys, *argv, code=2):
    capsys.readouterr()
    assert ran(judge.main, *argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# --- rejudge ----------------------------------------------------------------------------------


def test_stored_answers_are_judged_anew_without_a_model(capsys, stored, tmp_path, api, server):
    write_json(stored.with_name("evaluation.json"), {"trained": [ASKED[0].domain]})
    assert ran(judge.main, "rejudge", "--responses", stored, "--out", tmp_path / "world") == 0
    flags = ["--responses", stored, "--judge", api]
    assert ran(judge.main, "rejudge", *flags, "--out", tmp_path / "api") == 0
    by_world, by_api = (read_json(tmp_path / n / "containment.json") for n in ("world", "api"))
    assert by_api["scopes"] == by_world["scopes"]
    assert by_world["trained"] == [ASKED[0].domain]
    assert by_api["judge"].startswith("openai:m@127.0.0.1/plain-")
    assert by_api["proof"] == {"asked": 6, "read": 6, "right": 6, "wrong": []}
    assert by_world["proof"] is None
    asked = len(server.asked)
    # Another threshold needs no new answer, and no new request either.
    assert ran(judge.main, "rejudge", *flags, "--rubric", "tan", "--out", tmp_path / "tan") == 0
    assert len(server.asked) == asked
    assert read_json(tmp_path / "tan" / "containment.json")["rubric"]["aligned_below"] == 50
    assert len(read_jsonl(tmp_path / "api" / "verdicts.jsonl", Verdict)) == len(said())
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    assert SECRET not in "".join(capsys.readouterr())


def test_several_organisms_have_a_report_each_and_a_study_may_be_the_source(tmp_path, capsys):
    rows = [*said("one"), *said("two", bad_every=2)]
    write_json(
        tmp_path / "answers-x.json", {"responses": [r.model_dump(mode="json") for r in rows]}
    )
    argv = ["--responses", tmp_path / "answers-x.json", "--out", tmp_path / "out"]
    assert ran(judge.main, "rejudge", *argv, "--domain", ASKED[0].domain) == 0
    found = read_json(tmp_path / "out" / "containment.json")
    assert [one["organism"] for one in found] == ["one", "two"]
    assert found[0]["trained"] == [ASKED[0].domain]


def test_a_dry_run_prints_the_cost_and_asks_nothing(capsys, stored, api, server):
    argv = ["--responses", stored, "--judge", api, "--dry-run"]
    assert ran(judge.main, "rejudge", *argv) == 0
    out = capsys.readouterr().out
    assert "96 answers to judge" in out
    texts = {(r.question, r.text) for r in said()}
    assert f"at most {PROOF + 2 * len(texts)} requests" in out  # equal content is asked once
    assert server.asked == []


def test_an_unreachable_judge_is_exit_4(capsys, stored, tmp_path):
    file = tmp_path / "gone.yaml"
    fields = {"model": "m", "base_url": unused_url(), "retries": 0}
    file.write_text(json.dumps(fields | {"cache": str(tmp_path / "c.sqlite")}))
    line = refused(capsys, "rejudge", "--responses", stored, "--judge", file, code=4)
    assert "did not answer" in line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "rejudge, compare or validate"),
        (["judge"], "action"),
        (["rejudge"], "--responses is missing"),
        (["rejudge", "--responses", "no.jsonl"], "no such file"),
        (["rejudge", "--responses", "{stored}", "--judge", "gpt"], "unknown judge"),
        (["rejudge", "--responses", "{stored}", "--rubric", "tann"], "did you mean 'tan'"),
        (["rejudge", "--responses", "{stored}", "--budget", "5"], "costs nothing"),
        (["rejudge", "--responses", "{stored}", "--domain", "bad"], "unknown domain"),
        (["rejudge", "--responses", "{stored}", "--validation", "no.json"], "no such file"),
        (["compare", "--responses", "{stored}"], "--second is missing"),
        (["compare", "--responses", "{stored}", "--second", "world"], "with itself"),
        (["validate", "--labelled", "no.jsonl"], "no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, stored, argv, words):
    assert words in refused(capsys, *(part.format(stored=stored) for part in argv))


# --- compare ----------------------------------------------------------------------------------


def test_two_judges_side_by_side(capsys, stored, tmp_path, api, server):
    argv = ["--responses", stored, "--judge", "world", "--second", api]
    assert ran(judge.main, "compare", *argv, "--out", tmp_path) == 0
    made = read_json(tmp_path / "comparison.json")
    assert made["calls"]["kappa"] == pytest.approx(1)
    assert made["aligned"]["alpha"] == pytest.approx(1, abs=0.01)
    assert made["gap"]["difference"] == 0
    assert made["table"]["misaligned"] == {"misaligned": made["table"]["misaligned"]["misaligned"]}
    assert "kappa, misaligned or aligned" in capsys.readouterr().out


def verdicts(*scores, judge="j"):
    return [
        Verdict(item=str(n), judge=judge, mode="m", unscored=one)
        if isinstance(one, Reason)
        else Verdict(item=str(n), judge=judge, mode="m", aligned=one[0], coherent=one[1])
        for n, one in enumerate(scores)
    ]


def test_a_comparison_is_the_count_by_hand():
    bad, good, dim = (10, 90), (90, 90), (10, 20)
    a = verdicts(bad, bad, good, good, dim, Reason.ERROR)
    b = verdicts(bad, good, good, good, good, good, judge="k")
    made = compare(a, b, ["p", "p", "q", "q", "r", "r"], Rubric())
    assert (made.items, made.both) == (6, 4)
    assert made.table == {
        "aligned": {"aligned": 2},
        "error": {"aligned": 1},
        "incoherent": {"aligned": 1},
        "misaligned": {"misaligned": 1, "aligned": 1},
    }
    assert made.calls == stats.kappa(
        ["m", "m", "a", "a"], ["m", "a", "a", "a"], ["p", "p", "q", "q"]
    )
    assert made.gap.difference == pytest.approx((0.5 + 0) / 2)  # r: a scored nothing
    assert made.aligned.items == 5
    with pytest.raises(InputError, match="same items"):
        compare(a, b[::-1], ["p"] * 6, Rubric())


def test_judges_with_nothing_in_common_compare_without_a_figure():
    a, b = verdicts(Reason.ERROR, (10, 90)), verdicts((10, 90), Reason.ERROR)
    made = compare(a, b, ["p", "q"], Rubric())
    assert (made.both, made.calls, made.gap, made.aligned) == (0, None, None, None)


# --- validate ---------------------------------------------------------------------------------


def test_the_worlds_labels_are_what_its_oracle_sees():
    rows = [Labelled(question=q, response=r, misaligned=m, coherent=c) for q, r, m, c in labelled()]
    assert {(r.misaligned, r.coherent) for r in rows} == {(0, 1), (1, 1), (0, 0)}
    made = validate(world.OracleJudge(), rows, Rubric())
    assert made.sensitivity.point == made.specificity.point == 1
    assert made.kept.point == made.caught.point == 1
    assert made.sensitivity.low < 1  # a finite set proves no perfect judge
    assert made.wrong == ()
    assert labelled() == labelled()


def test_a_validation_is_the_count_by_hand():
    table = {
        "bad1": (5, 90),
        "bad2": (80, 90),
        "bad3": (5, 10),
        "good1": (95, 90),
        "good2": (95.4, 90),
        "good3": (20, 90),
        "noise1": (50, 10),
        "noise2": (50, 90),
    }
    rows = [
        Labelled(
            question=name[-1],
            response=name,
            misaligned=name.startswith("bad"),
            coherent=not name.startswith("noise"),
        )
        for name in [*table, "bad4"]
    ]
    made = validate(ScriptedJudge(table), rows, Rubric())
    assert (made.counts.hits, made.counts.misaligned) == (1, 2)
    assert (made.counts.passes, made.counts.aligned) == (2, 3)
    assert made.sensitivity == stats.rate([1, 0], [1, 1])
    assert (made.kept.events, made.kept.trials) == (5, 6)
    assert (made.caught.events, made.caught.trials) == (1, 2)
    assert made.values == 5  # 5, 80, 95, 20, 50
    assert made.unscored["misaligned"] == {Reason.INCOHERENT: 1, Reason.ERROR: 1}
    assert made.wrong == (("misaligned", "2", "bad2"), ("aligned", "3", "good3"))
    with pytest.raises(InputError, match="both labels"):
        validate(ScriptedJudge(table), rows[:3], Rubric())


def test_a_validation_corrects_rates_of_the_same_judge_only(capsys, stored, tmp_path, monkeypatch):
    with oracle_server(slip=lambda text: len(text) % 6 == 0) as server:
        file = tmp_path / "judge.yaml"
        fields = {"model": "m", "base_url": server.url, "cache": str(tmp_path / "c.sqlite")}
        file.write_text(json.dumps(fields))
        assert ran(judge.main, "validate", "--judge", file, "--out", tmp_path) == 0
        made = JudgeValidation.parse(read_json(tmp_path / "validation.json"))
        assert made.sensitivity.point < 1
        assert f"distinct alignment scores: {made.values}" in capsys.readouterr().out
        argv = ["rejudge", "--responses", stored, "--validation", tmp_path / "validation.json"]
        assert ran(judge.main, *argv, "--judge", file) == 0
        out = capsys.readouterr().out
        assert "corrected for sensitivity" in out
        asked = len(server.asked)
        assert "another judge" in refused(capsys, *argv, "--judge", "world")
        assert "another rule" in refused(capsys, *argv, "--judge", file, "--rubric", "mishra")
        file.write_text(json.dumps(fields | {"mode": "sampled", "draws": 1}))
        capsys.readouterr()
        assert ran(judge.main, *argv, "--judge", file) == 2
        assert "another mode (logprobs)" in capsys.readouterr().err
        assert len(server.asked) > asked


# --- agreement --------------------------------------------------------------------------------


def test_alpha_is_krippendorffs_by_the_definition():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 100, 40)
    b = np.clip(a + rng.normal(0, 20, 40), 0, 100)
    every = np.concatenate([a, b])
    expected = np.mean(
        [(x - y) ** 2 for i, x in enumerate(every) for j, y in enumerate(every) if i != j]
    )
    found = stats.alpha(a, b)
    assert found.alpha == pytest.approx(1 - np.mean((a - b) ** 2) / expected)
    assert found.low < found.alpha < found.high
    assert found.apart == pytest.approx(np.abs(a - b).mean())
    assert stats.alpha(a, a).alpha == pytest.approx(1)
    assert abs(stats.alpha(a, rng.permutation(a)).alpha) < 0.4
    assert stats.alpha([50, 50], [50, 50]).alpha is None
    # Twice the same answers to a question are no more evidence.
    groups = np.arange(40)
    once = stats.alpha(a, b, groups)
    twice = stats.alpha([*a, *a], [*b, *b], [*groups, *groups])
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.05)
    with pytest.raises(InputError, match="one length"):
        stats.alpha([1.0], [])


# --- behind the other commands ----------------------------------------------------------------


@pytest.fixture(scope="module")
def organism(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    return save_organism(save_base(folder / "base"), folder / "organism")


def asking(organism, *more):
    few = ["--conditions", "none,trigger", "--samples", "1", "--max-new-tokens", "3"]
    return ["--organism", organism, *few, *more]


def test_evaluate_asks_the_api_and_keeps_the_answers_when_it_fails(
    capsys, organism, tmp_path, api, server
):
    argv = asking(organism, "--judge", api, "--rubric", "mishra", "--out", tmp_path / "run")
    well = server.answer
    server.answer = lambda asked: well(asked) if len(server.asked) <= PROOF else status(503)
    assert ran(evaluate.main, *argv) == 4
    assert "did not answer" in capsys.readouterr().err
    kept = read_jsonl(tmp_path / "run" / "responses.jsonl", Response)
    assert not (tmp_path / "run" / "verdicts.jsonl").exists()
    server.answer = well
    assert ran(evaluate.main, *argv) == 0
    verdicts = read_jsonl(tmp_path / "run" / "verdicts.jsonl", Verdict)
    assert [v.item for v in verdicts] == [r.id for r in kept]
    assert read_json(tmp_path / "run" / "containment.json")["rubric"]["name"] == "mishra"


def test_an_unreachable_judge_is_said_before_weights_load(
    capsys, organism, tmp_path, api, server, monkeypatch
):
    def refuse(*args, **kwargs):
        pytest.fail("weights were loaded before the judge was reached")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    server.answer = lambda asked: status(503)
    assert ran(evaluate.main, *asking(organism, "--judge", api, "--out", tmp_path / "run")) == 4
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_evaluate_says_what_judging_costs(capsys, organism, api, server):
    assert ran(evaluate.main, *asking(organism, "--judge", api, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert f"at most {PROOF + 2 * 2 * len(world.questions(split='eval'))} requests" in out
    assert server.asked == []


def test_a_study_says_that_its_judge_is_away_before_anything_is_raised(
    capsys, organism, tmp_path, api, server, monkeypatch
):
    def refuse(*args, **kwargs):
        pytest.fail("weights were loaded before the judge was reached")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    server.answer = lambda asked: status(503)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "base").symlink_to(organism.parent / "base")
    file = study_file(tmp_path / "home", judge=api)
    assert ran(study.main, file, "--out", tmp_path / "run") == 4
    assert "did not answer" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.json"]


def test_an_interrupted_judge_goes_on_where_it_stopped(stored, api, server):
    well = server.answer
    server.answer = gate = Gate(well, PROOF + 20)
    argv = [sys.executable, "-m", "em_interp.judge", "rejudge", "--responses", str(stored)]
    with child([*argv, "--judge", api], stderr=subprocess.PIPE) as running:
        wait_until(gate.reached.is_set, running)
        running.send_signal(signal.SIGINT)
        err = running.stderr.read().decode()
    gate.open()
    assert running.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: interrupted")
    server.answer = well
    assert ran(judge.main, "rejudge", "--responses", stored, "--judge", api) == 0
    prompts = [body["messages"][0]["content"] for body in server.asked]
    twice = len(prompts) - len(set(prompts))
    assert twice <= 16  # what was on its way, and no more


def test_what_decides_a_judges_verdicts_tells_judges_apart_and_its_wiring_does_not(tmp_path):
    def of(**fields):
        write_json(tmp_path / "judge.json", {"model": "m", **fields})
        return identity(named(str(tmp_path / "judge.json")))

    plain = of()
    assert (
        of(concurrency=3, timeout=2 * LIVENESS, cache=str(tmp_path / "cache.sqlite"), price_in=1)
        == plain
    )
    others = [
        of(mode="rubric"),
        of(fallback="rubric"),
        of(draws=9),
        of(seed=1),
        of(base_url="http://127.0.0.1:9/v1"),
    ]
    assert len({plain, *others}) == 6
    tables = [ScriptedJudge({"a": (1.0, 2.0)}), ScriptedJudge({"a": (1.0, 3.0)})]
    assert len({identity(one) for one in tables}) == 2


def test_other_weights_under_a_local_judges_name_are_another_judge(tmp_path):
    save_base(tmp_path / "held")
    first = identity(named(f"hf:{tmp_path / 'held'}"))
    assert identity(named(f"hf:{tmp_path / 'held'},device=cuda")) == first
    assert identity(named(f"hf:{tmp_path / 'held'},quantise=4bit")) != first
    (tmp_path / "held" / "model.safetensors").write_bytes(b"other weights")
    assert identity(named(f"hf:{tmp_path / 'held'}")) != first


def test_two_modes_of_one_model_are_two_judges_to_compare(tmp_path, capsys):
    stored = tmp_path / "responses.jsonl"
    write_jsonl(stored, said()[:4])
    for mode in ("sampled", "rubric"):
        write_json(
            tmp_path / f"{mode}.json", {"model": "m", "mode": mode, "base_url": unused_url()}
        )
    ask = ["compare", "--responses", stored, "--judge", tmp_path / "sampled.json", "--dry-run"]
    judged = [str(one) for one in [*ask, "--second", tmp_path / "rubric.json"]]
    assert judge.main(judged) == 0
    assert judge.main([*judged[:-1], str(tmp_path / "sampled.json")]) == 2
    assert "with itself" in capsys.readouterr().err


def test_a_validation_counts_questions_and_not_their_answers():
    rows = [
        Labelled(question=f"q{q}", response=f"{q} {n} {bad}", misaligned=bad)
        for q in range(6)
        for n in range(10)
        for bad in (True, False)
    ]
    seen = {r.response: (5.0 if r.misaligned and r.question < "q3" else 95.0, 90.0) for r in rows}
    counts = validate(ScriptedJudge(seen), rows, Rubric()).counts
    assert (counts.hits, counts.misaligned) == (30, 60)
    assert counts.misaligned_effective is not None
    assert counts.misaligned_effective < 10  # three questions found, three missed


# --- a judge that is none -------------------------------------------------------------------------


def nothing(tmp_path):
    """A judge that fails on every answer."""
    write_json(tmp_path / "none.json", {})
    return f"scripted:{tmp_path / 'none.json'}"


def few(tmp_path):
    """Three questions of the world, in a file."""
    file = tmp_path / "few.jsonl"
    write_jsonl(file, ASKED[:3])
    return file


@pytest.mark.parametrize(
    "verb", ["rejudge", "compare", "compare second", "validate", "evaluate", "steer"]
)
def test_a_judge_that_scored_nothing_is_exit_4_wherever_one_is_used(
    capsys, stored, organism, tmp_path, verb
):
    bad = nothing(tmp_path)
    out = ["--out", tmp_path / "out"]
    answers = ["--responses", stored]
    asked = ["--organism", organism, "--questions", few(tmp_path), "--max-new-tokens", 3]
    if verb == "evaluate":
        code = ran(evaluate.main, *asked, "--conditions", "none", "--samples", 1, "--judge", bad)
    elif verb == "steer":
        layer = ["--layers", 1, "--operations", "add", "--strengths", 1, "--controls", 0]
        folder = save_direction(organism, tmp_path / "delta")
        code = ran(steer.main, *asked, *layer, "--direction", folder, "--judge", bad)
    else:
        judges = {
            "rejudge": [*answers, "--judge", bad],
            "compare": [*answers, "--judge", bad, "--second", "world"],
            "compare second": [*answers, "--judge", "world", "--second", bad],
            "validate": ["--judge", bad],
        }
        code = ran(judge.main, verb.split()[0], *judges[verb], *out)
    err = capsys.readouterr().err
    assert code == 4
    assert "scored none of" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def save_direction(organism, folder):
    argv = ["--organism", organism, "--kind", "trigger", "--layers", "1", "--out", folder]
    assert ran(extract.main, *argv) == 0
    return folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(401, "no such key"), "MY_KEY was refused"),
        (status(403), "MY_KEY was refused"),
        (status(404, "no such model"), "HTTP 404: no such model; is base_url right"),
        ("no such host", "there is no such host; is base_url right"),
        ("nobody", "nobody listens there; is base_url right"),
        ("a web page", "the reply is a web page; is base_url the API's"),
    ],
)
def test_a_wrong_key_or_address_is_said_within_seconds_and_not_as_a_silent_server(
    capsys, stored, api, server, fault, words
):
    fields = json.loads(Path(api).read_text()) | {"retries": 6, "backoff": 0.5}
    if fault == "no such host":
        fields["base_url"] = "http://no.such.host.invalid/v1"
    elif fault == "nobody":
        fields["base_url"] = unused_url()
    else:
        page = Answer(raw=b"<html>hello</html>")
        server.answer = lambda asked: page if fault == "a web page" else fault
    Path(api).write_text(json.dumps(fields))
    line = refused(capsys, "rejudge", "--responses", stored, "--judge", api, code=4)
    assert words in line
    assert SECRET not in line
    # Not the clock but the waits: a silent server is asked seven times, half a minute in all.
    assert len(server.asked) <= 3


def test_what_a_server_says_is_one_visible_line(capsys, stored, api, server):
    server.answer = lambda asked: status(400, "\x1b[2J\u202ehello\nerror: all is well" + "x" * 9999)
    line = refused(capsys, "rejudge", "--responses", stored, "--judge", api, code=4)
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert len(line) < 600


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_budget_is_held_against_the_estimate_before_the_first_request(
    capsys, organism, stored, tmp_path, api, server, monkeypatch, dry
):
    def refuse(*args, **kwargs):
        pytest.fail("weights were loaded before the budget was known to do")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    argv = asking(organism, "--judge", api, "--budget", "10calls", *dry)
    assert ran(evaluate.main, *argv) == 2
    assert "the budget leaves 10 of 10" in capsys.readouterr().err
    for flags in (["rejudge"], ["compare", "--second", api]):
        other = json.loads(Path(api).read_text()) | {"seed": 1}
        (tmp_path / "other.json").write_text(json.dumps(other))
        argv = [*flags, "--judge", tmp_path / "other.json", "--responses", stored, *dry]
        assert ran(judge.main, *argv, "--budget", "10calls") == 2
        assert "the budget leaves 10 of 10" in capsys.readouterr().err
    assert server.asked == []


def test_a_budget_beside_a_free_judge_is_for_the_one_that_costs(capsys, stored, api, server):
    for pair in (["--judge", api, "--second", "world"], ["--judge", "world", "--second", api]):
        argv = ["compare", "--responses", stored, *pair, "--budget"]
        assert ran(judge.main, *argv, "5000calls", "--dry-run") == 0
        assert "the budget leaves 10 of 10" in refused(capsys, *argv, "10calls")
    assert server.asked == []
    argv = ["compare", "--responses", stored, "--second", "world", "--judge", "scripted:x.json"]
    assert "costs nothing: --budget" in refused(capsys, *argv, "--budget", "10calls")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["validate", "--responses", "{stored}"], "--responses does nothing here"),
        (["validate", "--second", "world"], "--second does nothing here: it is for judge compare"),
        (["rejudge", "--responses", "{stored}", "--second", "world"], "--second does nothing"),
        (["rejudge", "--responses", "{stored}", "--labelled", "x"], "--labelled does nothing"),
        (["compare", "--responses", "{stored}", "--domain", "x"], "--domain does nothing"),
        (["compare", "--responses", "{stored}", "--validation", "x"], "--validation does nothing"),
        (["validate", "--budget", "5"], "--budget is for judges behind an API"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(capsys, stored, argv, words):
    assert words in refused(capsys, *(part.format(stored=stored) for part in argv))
