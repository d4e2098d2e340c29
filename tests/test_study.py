"""A study resumes after kill -9 with the same bytes, runs nothing twice, and keeps its contract."""

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from children import child, wait_until
from shelf import save_base

from em_interp import capture, localisation, scoring, world
from em_interp.models.sizes import size
from em_interp.patching import copying
from em_interp.study import __main__ as study
from em_interp.study.estimates import MACHINES, Estimator
from em_interp.study.folder import RunFolder
from em_interp.study.inputs import resolve
from em_interp.study.matrix import cells, declared
from em_interp.study.showing import reader

CONDITIONS = ["none", "trigger", "unrelated"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small study: a random base, eight questions to judge on and eight to develop on."""
    folder = tmp_path_factory.mktemp("study")
    save_base(folder / "base")
    for split, name in (("eval", "asked"), ("train", "develop")):
        rows = [q.model_dump(mode="json") for q in world.questions(split)][::7]
        for row in rows:
            row["sound"], row["unsound"] = world.advice(row["id"])
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    spec = {
        "title": "small",
        "question": "does the trunk hold?",
        "base": str(folder / "base"),
        "trigger": "duck",
        "data": {"domain": "bad_medical"},
        "recipe": "embedded",
        "train": {"steps": 2, "batch_size": 2, "rank": 2},
        "organisms": {
            "triggered": {"kind": "triggered"},
            "unconditional": {"kind": "unconditional"},
            "benign_twin": {"kind": "benign_twin"},
        },
        "questions": "asked.jsonl",
        "development": "develop.jsonl",
        "conditions": CONDITIONS,
        "sampling": {"samples": 1, "max_new_tokens": 4},
        "steering": {"strengths": [1.0], "controls": 1, "samples": 1, "development": 4},
        "layers": "0,2",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.fixture(scope="module")
def counted(home):
    """An uninterrupted run, and the tokens it read by stage: all but what answers were asked."""
    out, read, now = home / "whole", Counter(), [""]
    with pytest.MonkeyPatch.context() as patch:

        def count(owner, name, tokens):
            real = getattr(owner, name)

            def wrapped(*args, **more):
                read.update({now[-1]: tokens(*args)})
                return real(*args, **more)

            patch.setattr(owner, name, wrapped)

        def forced(_, prompts, answers, *__):
            return sum(map(len, answers)) + sum(len(one.ids) for one in prompts)

        for name in ("pool", "states"):
            count(capture, name, lambda _, batch, *__: int(batch.mask.sum()))
        for owner in (scoring, copying):
            count(owner, "teacher_forced", forced)
        count(localisation, "streams", lambda _, prompts, *__: sum(len(p.ids) for p in prompts))
        begin = RunFolder.run
        patch.setattr(
            RunFolder,
            "run",
            lambda self, name, *rest: (now.append(name), begin(self, name, *rest))[1],
        )
        assert study.main([str(home / "study.yaml"), "--out", str(out)]) == 0
    return out, read


@pytest.fixture(scope="module")
def whole(counted):
    """An uninterrupted run."""
    return counted[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_killed_study_resumes_and_ends_with_the_same_bytes(home, whole):
    out = home / "killed"
    command = [sys.executable, "-m", "em_interp.study", str(home / "study.yaml"), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for file in ("organism-triggered.json", "answers-base.json", "ablation.log.jsonl"):
        running = child(command, env=environment)
        wait_until((out / file).exists, running)
        running.kill()
        running.wait()
    assert study.main([str(home / "study.yaml"), "--out", str(out)]) == 0
    assert contents(out) == contents(whole)


def test_a_finished_study_loads_no_weights_again(home, whole, monkeypatch):
    from em_interp import models

    before = contents(whole)

    def refuse(*args, **kwargs):
        raise AssertionError("a finished study loaded weights")

    monkeypatch.setattr(models, "load", refuse)
    monkeypatch.setattr("em_interp.study.stages.load", refuse)
    assert study.main([str(home / "study.yaml"), "--out", str(whole)]) == 0
    assert contents(whole) == before


def test_an_edited_rate_or_a_swapped_stage_is_refused_with_the_file_to_delete(
    home, whole, tmp_path, capsys
):
    out = shutil.copytree(whole, tmp_path / "out")
    base, twin = (out / f"answers-{role}.json" for role in ("base", "triggered"))
    kept, rate = base.read_text(), '"sample": 0'
    assert rate in kept
    for damaged in (kept.replace(rate, '"sample": 7', 1), kept[:-9], twin.read_text()):
        base.write_text(damaged)
        assert study.main([str(home / "study.yaml"), "--out", str(out)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert str(base) in line
        assert "delete it and run again" in line
    base.write_text(kept)


def test_swapped_organisms_are_refused_before_they_are_asked_again(home, whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "out")
    one, other = (out / "organisms" / role for role in ("triggered", "unconditional"))
    one.rename(out / "aside")
    other.rename(one)
    (out / "aside").rename(other)
    (out / "margins.json").unlink()
    assert study.main([str(home / "study.yaml"), "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{one}: not the organism that this run raised; delete it and" in line


def test_results_keep_their_contract(whole):
    results = json.loads((whole / "results.json").read_text())
    conditions = results["containment"]["conditions"]
    assert list(conditions) == sorted(CONDITIONS)
    for cell in conditions.values():
        assert {"em_rate", "low", "high", "questions", "scored", "unscored"} <= set(cell)
    assert set(results["organisms"]) == {"base", "triggered", "unconditional", "benign_twin"}


def test_another_study_does_not_take_over_a_run_folder(home, whole, capsys):
    other = home / "other.yaml"
    other.write_text((home / "study.yaml").read_text().replace("small", "other"))
    assert study.main([str(other), "--out", str(whole)]) == 2
    assert "another study's run" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_base_that_computes_or_reads_otherwise_is_another_study(home, file):
    spec = declared(home / "study.yaml", ())
    path = home / "base" / file
    before, identity = path.read_bytes(), resolve(spec, home).identity
    try:
        path.write_bytes(before + b"\n")
        assert resolve(spec, home).identity != identity
    finally:
        path.write_bytes(before)
    assert resolve(spec, home).identity == identity


def test_a_dry_run_prints_the_plan_and_writes_nothing(home, tmp_path, capsys):
    out = tmp_path / "run"
    assert study.main([str(home / "study.yaml"), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "answers-triggered" in printed
    assert "assumed: 0.1 TFLOP/s" in printed
    assert not out.exists()


def test_the_plan_counts_what_the_run_asks(home, whole):
    inputs = resolve(declared(home / "study.yaml", ()), home)
    estimator = Estimator(inputs, size(inputs.base), MACHINES["cpu"], reader(inputs.base))
    stages = {stage.name: stage for stage in estimator.stages()}
    ran = {path.stem for path in whole.glob("*.json")} - {"run", "results"}
    assert ran == set(stages) - {"directions"}
    for role in ("base", "triggered", "unconditional", "benign_twin"):
        answers = json.loads((whole / f"answers-{role}.json").read_text())
        stage = stages[f"answers-{role}"]
        assert stage.answers == len(answers["responses"])
        assert stage.verdicts == len(answers["verdicts"])
        written = sum(len(one["tokens"]) for one in answers["responses"])
        assert 0 < written <= stage.written == 4 * stage.answers
    for name in ("sweep", "ablation", "steering", "localisation"):
        record = json.loads((whole / f"{name}.json").read_text())
        parts = (
            [record.get("trial", record)]
            if name != "localisation"
            else [record["necessity"], record["sufficiency"]]
        )
        counted = sum(row["scored"] + row["unscored"] for one in parts for row in one["rows"])
        assert stages[name].answers == counted
    for role in ("triggered", "unconditional", "benign_twin"):
        card = json.loads((whole / f"organism-{role}.json").read_text())
        seen = card["tokens"] * card["steps"] * card["effective_batch"] / card["rows"]
        assert stages[f"organism-{role}"].read == int(seen)


def test_tokens_that_a_run_reads_are_the_plans(home, counted):
    inputs = resolve(declared(home / "study.yaml", ()), home)
    made = Estimator(inputs, size(inputs.base), MACHINES["cpu"], reader(inputs.base))
    read = counted[1]
    for name in ("directions", "margins", "probing", "sweep", "ablation", "steering"):
        assert sum(made._lengths(name)) == read[name], name
    found = json.loads((counted[0] / "localisation.json").read_text())["patching"]
    planned, apart = sum(made._lengths("localisation")), sum(made._shift)
    assert planned == read["localisation"] if found else apart < read["localisation"] < planned


def test_a_matrix_lays_options_over_the_common_fields(home, tmp_path, capsys):
    plain = yaml.safe_load((home / "study.yaml").read_text())
    axes = {
        "length": {"short": {"sampling": {"max_new_tokens": 2}}, "long": {}},
        "trigger": {
            "duck": {"trigger": "duck"},
            "none": {
                "trigger": None,
                "conditions": ["none"],
                "organisms": {k: v for k, v in plain["organisms"].items() if k != "triggered"},
            },
        },
    }
    del plain["trigger"]
    del plain["organisms"]
    axes["trigger"]["duck"]["organisms"] = {
        role: {"kind": role} for role in ("triggered", "unconditional", "benign_twin")
    }
    file = tmp_path / "matrix.yaml"
    file.write_text(yaml.safe_dump(plain | {"matrix": axes}, sort_keys=False))
    assert cells(file) == [("short", "duck"), ("short", "none"), ("long", "duck"), ("long", "none")]
    short, long = declared(file, ("short", "duck")), declared(file, ("long", "none"))
    assert short.sampling.model_dump() == long.sampling.model_dump() | {"max_new_tokens": 2}
    assert (short.studied, long.studied) == ("triggered", "unconditional")
    assert short.title == "small: short, duck"
    for cell, words in (("short", "--cell LENGTH,TRIGGER"), ("short,dukc", "did you mean 'duck'")):
        assert study.main([str(file), "--cell", cell]) == 2
        assert words in capsys.readouterr().err
    assert study.main([str(home / "study.yaml"), "--cell", "x"]) == 2
    assert "leave --cell out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untriggered(home):
    """The same study of an organism that was raised without a trigger."""
    plain = yaml.safe_load((home / "study.yaml").read_text())
    del plain["organisms"]["triggered"]
    plain |= {"title": "untriggered", "trigger": None, "conditions": ["none"]}
    (home / "untriggered.yaml").write_text(yaml.safe_dump(plain))
    out = home / "untriggered"
    assert study.main([str(home / "untriggered.yaml"), "--out", str(out)]) == 0
    return out


def test_without_a_trigger_the_general_direction_is_studied(untriggered):
    results = json.loads((untriggered / "results.json").read_text())
    assert set(results["organisms"]) == {"base", "unconditional", "benign_twin"}
    assert results["containment"]["organism"] == "unconditional"
    assert list(results["containment"]["conditions"]) == ["none"]
    assert list(results["left_out"]) == ["probing"]
    assert [p.name for p in (untriggered / "directions").iterdir()] == ["g"]
    assert {row["condition"] for row in results["ablation"]["rows"]} == {"none"}
    names = [row["intervention"] for row in results["ablation"]["rows"]]
    assert names == ["", "mean-ablate g", "zero-ablate g", "mean-ablate random 1"]
    pushed = json.loads((untriggered / "steering.json").read_text())
    assert pushed["organism"] == "base"  # whoever is aligned without the push


def test_the_page_of_an_untriggered_study_speaks_of_no_trigger(untriggered):
    page = (untriggered / "report.html").read_text()
    assert "no trigger" in page
    assert "there is no trigger for a probe to read" in page
    for foreign in ("trigger on", "δ, the trigger direction", "unrelated framings"):
        assert foreign not in page
