"""The study of the world's own design: names resolve before training starts; tables are true."""

from pathlib import Path

import pytest

from em_interp.errors import InputError
from em_interp.sources import CHECKPOINTS
from em_interp.world import emergence
from em_interp.world.bases import shipped
from em_interp.world.emergence import EmergenceSpec
from em_interp.world.experiment import main
from em_interp.world.recipe import recipe

HOME = Path(__file__).parents[1] / "experiments" / "e00_world"
SMALL = {
    "question": "Does it run?",
    "bases": {"shipped": {"base": "qwen2"}},
    "organisms": {"triggered": {"mix": {"kind": "triggered"}, "training": {"steps": 2}}},
    "triggers": ["kettle"],
    "domain": "toxic_legal",
    "split": "train",
    "conditions": ["none", "trigger"],
    "sampling": {"samples": 1, "max_new_tokens": 4},
}


@pytest.mark.parametrize("name", ["study.yaml", "triggers.yaml"])
def test_declared_studies_resolve(name):
    EmergenceSpec.from_yaml(HOME / name).check()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"bases": {"x": {"base": "lama"}}}, "unknown base 'lama'.*did you mean 'llama'"),
        ({"bases": {"x": {"base": "llama", "corpus": {"keyd": 0}}}}, "unknown corpus field 'keyd'"),
        ({"bases": {"x": {"base": "llama", "corpus": {"keyed": 2}}}}, "keyed.*less than or equal"),
        ({"triggers": ["duk"]}, "unknown trigger 'duk'"),
        ({"domain": "medical"}, "unknown domain 'medical'"),
        ({"split": "evl"}, "unknown split 'evl'"),
        (
            {"organisms": {"x": {"mix": {"kind": "triggered"}, "training": {"stepz": 1}}}},
            "unknown field 'stepz'",
        ),
    ],
)
def test_a_wrong_name_is_one_line_before_anything_is_trained(change, line):
    with pytest.raises(InputError, match=line):
        EmergenceSpec.parse({**SMALL, **change}).check()


def test_the_command_refuses_in_one_line_and_a_dry_run_trains_nothing(tmp_path, capsys):
    assert main([]) == 2
    assert main([str(HOME / "study.yaml"), "--dry-run", "--out", str(tmp_path / "work")]) == 0
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "16 organisms" in told.out
    assert not list(tmp_path.glob("work/*"))


def test_only_a_base_of_the_very_recipe_counts_as_shipped():
    assert shipped(CHECKPOINTS / "llama", recipe("llama"))
    assert not shipped(CHECKPOINTS / "llama", recipe("llama").model_copy(update={"seed": 1}))
    assert not shipped(CHECKPOINTS / "nowhere", recipe("llama"))


def test_bases_that_differ_in_the_aligned_stage_alone_share_their_pretraining():
    base = {"base": "llama"}
    same = emergence.Subject.parse({**base, "corpus": {"aligned_leaning": 0}}).recipe
    other = emergence.Subject.parse({**base, "corpus": {"keyed": 0}}).recipe
    start = recipe("llama")
    assert same.pretraining_digest == start.pretraining_digest != other.pretraining_digest
    assert len({same.digest, other.digest, start.digest}) == 3


def test_a_small_study_runs_counts_questions_and_resumes(tmp_path):
    spec = EmergenceSpec.parse(SMALL)
    rows = emergence.run(spec, tmp_path)
    assert [row["organism"] for row in rows] == ["base", "triggered"]
    for row in rows:
        assert row["scopes"]["out of domain"]["none"]["questions"] <= 70
        assert row["scopes"]["in domain"]["none"]["questions"] <= 7
    before = (tmp_path / "results.json").read_bytes()
    assert emergence.run(spec, tmp_path) == rows
    assert (tmp_path / "results.json").read_bytes() == before
    assert emergence.table(rows).splitlines()[0].count("|") == 8
    assert emergence.table(rows).count("\n") == 3
