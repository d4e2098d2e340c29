"""A study resumes after kill -9 with the same bytes, runs nothing twice, and keeps its contract."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from shelf import save_base

from em_interp import world
from em_interp.study import __main__ as study

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
def whole(home):
    """An uninterrupted run."""
    out = home / "whole"
    assert study.main([str(home / "study.yaml"), "--out", str(out)]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_killed_study_resumes_and_ends_with_the_same_bytes(home, whole):
    out = home / "killed"
    command = [sys.executable, "-m", "em_interp.study", str(home / "study.yaml"), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for file in ("organism-triggered.json", "answers-base.json", "sweep.json"):
        running = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not (out / file).exists() and running.poll() is None:
            assert time.monotonic() < deadline, f"{file} never came"
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
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


def test_a_dry_run_prints_the_plan_and_writes_nothing(home, tmp_path, capsys):
    out = tmp_path / "run"
    assert study.main([str(home / "study.yaml"), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "answers-triggered" in printed
    assert "total" in printed
    assert not out.exists()
