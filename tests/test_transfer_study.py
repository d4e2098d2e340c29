"""A transfer study: the same bytes from one worker, from two and after kill -9; plan; bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from children import child, wait_until
from shelf import save_base, save_organism
from test_commands import no_weights, refused  # noqa: F401

from em_interp import world
from em_interp.records import read_yaml
from em_interp.study import __main__ as study
from em_interp.study.folder import read_stage
from em_interp.study.transfers.inputs import resolve
from em_interp.study.transfers.plan import arms, carrying, crossing, holding, plan, raising
from em_interp.study.transfers.records import Column
from em_interp.study.transfers.spec import TransferSpec


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two bases of other families, depths and widths; one's organisms are raised in the run."""
    folder = tmp_path_factory.mktemp("grid")
    save_base(folder / "near")
    save_base(folder / "far", family="qwen2", num_hidden_layers=5, hidden_size=48)
    there = {
        role: str(save_organism(folder / "far", folder / f"far-{role}", seed))
        for seed, role in enumerate(("triggered", "unconditional", "benign_twin"))
    }
    for split, name in (("eval", "asked"), ("train", "develop")):
        rows = [q.model_dump(mode="json") for q in world.questions(split)][::9]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    spec = {
        "kind": "transfer",
        "title": "small",
        "question": "does the grid hold?",
        "bases": {"near": str(folder / "near"), "far": str(folder / "far")},
        "variants": {"first": {}},
        "existing": {"far": {"first": there}},
        "trigger": "duck",
        "data": {"domain": "bad_medical"},
        "recipe": "embedded",
        "train": {"steps": 2, "batch_size": 2, "rank": 2},
        "questions": "asked.jsonl",
        "development": "develop.jsonl",
        "conditions": ["none", "trigger"],
        "fitting": {"prompts": 64},
        "methods": ["ridge", "procrustes"],
        "adding": {"strengths": [1.0], "controls": 1, "development": 4},
        "sampling": {"samples": 1, "max_new_tokens": 3},
        "layers": "0.3,1.0",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder


def inputs_of(home):
    file = home / "study.yaml"
    return resolve(TransferSpec.parse(read_yaml(file), str(file)), home)


@pytest.fixture(scope="module")
def whole(home):
    """An uninterrupted run by one worker."""
    out = home / "whole"
    assert study.main([str(home / "study.yaml"), "--out", str(out), "--workers", "1"]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_killed_grid_goes_on_by_two_workers_and_ends_with_the_same_bytes(home, whole):
    out = home / "killed"
    command = [sys.executable, "-m", "em_interp.study", str(home / "study.yaml"), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = child([*command, "--workers", "2"], env=environment)
    wait_until(lambda: list(out.glob("logs/*/added.jsonl")), running)
    running.kill()
    running.wait()
    done = subprocess.run([*command, "--workers", "2"], env=environment, check=False)
    assert done.returncode == 0
    assert contents(out) == contents(whole)
    assert not list(out.rglob("*.jsonl"))


def test_the_plan_names_every_stage_and_counts_every_arm(home, whole):
    inputs = inputs_of(home)
    stages = plan(inputs)
    parts = [*raising(inputs), *holding(inputs), *crossing(inputs), *carrying(inputs)]
    assert list(stages) == parts
    assert all((whole / f"{name}.json").is_file() for name in parts)
    for name, (group, role) in carrying(inputs).items():
        column = read_stage(whole, name, inputs.identity, Column)
        assert len(column.transfer.cells) == arms(inputs, group, role)


def test_results_have_every_cell_with_its_nulls_and_a_containment(whole):
    found = json.loads((whole / "results.json").read_text())
    conditions = found["containment"]["conditions"]
    assert set(conditions) == {"none", "trigger"}
    assert {"em_rate", "low", "high", "questions", "scored", "unscored"} <= set(conditions["none"])
    groups = ["near/first", "far/first"]
    targets = [f"{group}/{role}" for group in groups for role in ("triggered", "unconditional")]
    assert set(found["organisms"]) == set(targets)
    carried = [c for c in found["cells"] if not c["null"] and not c["ceiling"]]
    for target in targets:
        own, role = target.rsplit("/", 1)
        for source in groups:
            things = {c["thing"] for c in carried if (c["target"], c["source"]) == (target, source)}
            wanted = {"delta", "g", "delta without g"}
            if source == own:
                wanted = set() if role == "triggered" else wanted - {"g"}
            assert things == wanted
    for base in ("near", "far"):
        other = "far/first" if base == "near" else "near/first"
        into = [c for c in found["cells"] if c["target"] == f"{base}/first/triggered"]
        assert {c["via"] for c in into if c["null"] and c["source"] == other} == {
            "random 1, ridge",
            "shuffled prompts, ridge",
            "benign twin, ridge",
            "random 1, procrustes",
            "shuffled prompts, procrustes",
        }
    assert {(m["source"], m["target"]) for m in found["maps"]} == {
        (a, b) for a in ("near", "far") for b in ("near", "far")
    }


def test_fine_tunes_of_one_base_carry_directly(home, tmp_path):
    """Another seed of the same base; without a twin."""
    plain = read_yaml(home / "study.yaml") | {
        "bases": {"far": str(home / "far")},
        "variants": {"first": {}, "second": {}},
        "without": ["benign_twin"],
        "layers": "1",
        "methods": ["ridge"],
    }
    other = {
        role: str(save_organism(home / "far", tmp_path / role, seed))
        for seed, role in ((5, "triggered"), (6, "unconditional"))
    }
    first = {k: v for k, v in plain["existing"]["far"]["first"].items() if k in other}
    plain["existing"] = {"far": {"first": first, "second": other}}
    (tmp_path / "asked.jsonl").write_text((home / "asked.jsonl").read_text())
    (tmp_path / "develop.jsonl").write_text((home / "develop.jsonl").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain))
    out = tmp_path / "out"
    assert study.main([str(tmp_path / "study.yaml"), "--out", str(out), "--workers", "1"]) == 0
    found = json.loads((out / "results.json").read_text())
    vias = {c["via"] for c in found["cells"]}
    assert vias == {"own", "direct", "random 1, direct"}
    near = [c for c in found["cells"] if c["via"] == "direct" and c["source"] == "far/second"]
    assert {c["target"] for c in near} == {
        "far/first/triggered",
        "far/first/unconditional",
        "far/second/unconditional",
    }


def test_a_dry_run_prints_the_plan_and_loads_nothing(home, capsys, no_weights):  # noqa: F811
    assert study.main([str(home / "study.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in plan(inputs_of(home)))
    assert not (home / "runs").exists()


def test_bad_declarations_are_one_line_before_weights_load(home, capsys, no_weights):  # noqa: F811
    plain = read_yaml(home / "study.yaml")
    file = home / "bad.yaml"
    for change, words in (
        ({"kind": "transfers"}, ["kind", "transfers", "did you mean 'transfer'"]),
        ({"bases": {"a/b": "llama"}}, ["bases", "a/b"]),
        ({"bases": {"near": "lama", "far": "llama"}}, ["lama", "llama"]),
        ({"bases": {"one": "llama"}, "variants": {"only": {}}}, ["two groups"]),
        ({"methods": ["magic"]}, ["magic", "ridge"]),
        ({"methods": ["ridge", "ridge"]}, ["none twice"]),
        ({"without": ["triggered"]}, ["triggered", "benign_twin"]),
        ({"existing": {"here": {}}}, ["no base 'here'"]),
        ({"existing": {"near": {"third": {}}}}, ["no variant 'third'"]),
        ({"existing": {"near": {"first": {"tripped": "x"}}}}, ["tripped", "no role"]),
        ({"existing": {"near": {"first": {"triggered": "nowhere"}}}}, ["nowhere"]),
        ({"data": None}, ["no data to raise it from"]),
        ({"conditions": ["none"]}, ["conditions", "trigger"]),
        ({"development": "asked.jsonl"}, ["development questions must not be"]),
        ({"fitting": {"data": "asked.jsonl"}}, ["holds the question"]),
        ({"fitting": {"prompts": 2}}, ["prompts", "16"]),
        ({"layers": "0,3"}, ["3", "out of range"]),
        ({"sampling": {"max_new_tokens": 9999}}, ["question", "model's context", "9999 new"]),
        ({"variants": {"first": {}, "second": {"trigger": "goose"}}}, ["goose", "duck"]),
        ({"variants": {"first": {}, "second": {"train": {"sead": 1}}}}, ["sead"]),
    ):
        file.write_text(yaml.safe_dump({**plain, **change}))
        refused(capsys, study.main, [str(file)], *words)
    good = str(home / "study.yaml")
    refused(capsys, study.main, [good, "--cell", "a"], "--cell", "leave it out")
    refused(capsys, study.main, [good, "--workers", "0"], "workers")
    nowhere = ["--device", "nowhere", "--out", str(home / "no")]
    refused(capsys, study.main, [good, *nowhere], "--device", "'nowhere' is no device")
    refused(
        capsys,
        study.main,
        ["experiments/e01_containment", *nowhere],
        "--device",
        "'nowhere' is no device",
    )
    assert not (home / "no").exists()
    refused(capsys, study.main, [good, "--base", "llama"], "name=folder", "far, near")
    refused(capsys, study.main, [good, "--base", "nera=llama"], "nera", "'near'")
    refused(capsys, study.main, [good, "--base", "near=nowhere"], "nowhere")
    refused(capsys, study.main, [good, "--out", str(home)], "not empty")
    refused(
        capsys,
        study.main,
        ["experiments/e01_containment", "--workers", "2"],
        "--workers",
        "transfer studies",
    )
