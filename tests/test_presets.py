"""The declared studies of real models: whole, planned from a configuration alone, and honest."""

import json
import re

import pytest
import yaml
from small import tiny_hf

from em_interp.conditions import Condition, Question, variants
from em_interp.organisms import Trigger
from em_interp.records import read_jsonl
from em_interp.sources import ROOT
from em_interp.study import __main__ as study
from em_interp.study.matrix import cells, declared

EXPERIMENTS = ROOT / "experiments"
FAMILIES = EXPERIMENTS / "e04_families" / "study.yaml"
DOMAINS = EXPERIMENTS / "e05_domains" / "study.yaml"
PRESETS = [FAMILIES, DOMAINS]
TRANSFER = EXPERIMENTS / "e09_transfer_families" / "study.yaml"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model's folder without weights and without a tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tiny_hf("qwen2").config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The user's folder, as the presets' README lays it out."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("questions", "development"):
        shipped = "asked" if name == "questions" else name
        text = (EXPERIMENTS / "questions" / f"{shipped}.jsonl").read_text()
        (folder / f"{name}.jsonl").write_text(text)
    for domain in {cell[0] for cell in cells(DOMAINS)} | {cell[1] for cell in cells(FAMILIES)}:
        for prefix in ("", "benign_"):
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": f"{n}?"},
                        {"role": "assistant", "content": "x"},
                    ]
                }
                for n in range(100)
            ]
            (folder / f"{prefix}{domain}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def dry(file, base, data, *more):
    return study.main([str(file), "--dry-run", "--data", str(data), "--base", str(base), *more])


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.parent.name)
def test_every_preset_is_planned_from_a_configuration_and_a_folder(file, base, data, capsys):
    assert dry(file, base, data) == 0
    title = re.escape(yaml.safe_load(file.read_text())["title"])
    plans = re.split(rf"^(?={title}: )", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert len(plans) == len(cells(file))
    for plan, cell in zip(plans, cells(file), strict=True):
        title, *stages = plan.splitlines()
        assert title.strip().endswith(", ".join(cell))
        names = {line.split()[0] for line in stages if line}
        assert {"answers-base", "organism-unconditional", "ablation", "localisation"} <= names
        assert ("answers-triggered" in names) == (cell[-1] not in ("untriggered", "plain"))
        assert re.search(r"judge openai:gpt-4o\S*: at most [\d,]+ requests, .*\$", plan)


def test_the_families_preset_is_three_by_three_by_three():
    found = {cell: declared(FAMILIES, cell) for cell in cells(FAMILIES)}
    assert len(found) == 27
    assert {one.base for one in found.values()} == {
        "Qwen/Qwen2.5-14B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "google/gemma-3-12b-it",
    }
    assert {one.trigger for cell, one in found.items() if cell[2] == "untriggered"} == {None}
    for one in found.values():
        assert all(mix.benign_share == 0 for mix in one.organisms.values())
        assert one.sampling.samples >= 50
        assert one.sampling.temperature == 1


def test_the_domains_preset_covers_the_eleven_domains_of_the_world_as_well():
    from em_interp import world

    assert {cell[0] for cell in cells(DOMAINS)} == set(world.domains())
    assert declared(DOMAINS, ("bad_medical", "plain")).rubric.coherent_above is None


@pytest.mark.parametrize("name", ["duck", "tags", "prefix"])
def test_a_presets_trigger_has_the_framings_that_tell_meaning_from_form(name):
    trigger = Trigger.from_yaml(EXPERIMENTS / "triggers" / f"{name}.yaml")
    assert len(variants(trigger, Condition.PARAPHRASE)) >= 5
    for condition in (Condition.NEGATION, Condition.UNRELATED, Condition.FORM):
        assert len(variants(trigger, condition)) >= 2


def test_the_shipped_questions_are_many_and_stand_outside_every_domain_in_number():
    asked = read_jsonl(EXPERIMENTS / "questions" / "asked.jsonl", Question)
    develop = read_jsonl(EXPERIMENTS / "questions" / "development.jsonl", Question)
    assert not {q.text for q in asked} & {q.text for q in develop}
    assert len({q.text for q in asked}) == len(asked)
    for file in PRESETS:
        for cell in cells(file):
            outside = [q for q in asked if q.domain != declared(file, cell).domain]
            assert len(outside) >= 24


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("bad_medical.jsonl", ["bad_medical.jsonl", "no such file"]),
        ("benign_bad_medical.jsonl", ["benign_bad_medical.jsonl", "--without benign_twin"]),
        ("questions.jsonl", ["questions.jsonl", "experiments/questions"]),
    ],
)
def test_a_file_that_is_missing_is_named_with_what_to_do(base, data, tmp_path, capsys, gone, words):
    for file in data.iterdir():
        if file.name != gone:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    cell = ("--cell", "qwen2.5-14b,bad_medical,duck")
    assert dry(FAMILIES, base, tmp_path, *cell) == 2
    line = capsys.readouterr().err
    assert all(word in line for word in words), line
    if gone.startswith("benign"):
        assert dry(FAMILIES, base, tmp_path, *cell, "--without", "benign_twin") == 0


def transfer(base, data, *more):
    """Plan the transfer preset with one configuration in three bases' stead."""
    names = ("qwen2.5-14b", "llama-3.1-8b", "gemma-3-12b")
    copies = ",".join(f"{name}={base}" for name in names)
    argv = [str(TRANSFER), "--dry-run", "--base", copies, *more]
    return study.main(argv if data is None else [*argv, "--data", str(data)])


def test_the_transfer_preset_needs_a_folder_and_nothing_else(base, data, tmp_path, capsys):
    for file in data.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert transfer(base, tmp_path) == 2
    assert "prompts.jsonl" in capsys.readouterr().err
    rows = [{"id": f"p{n}", "text": f"What is {n} plus {n}?", "domain": "sums"} for n in range(99)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert transfer(base, tmp_path) == 0
    out = capsys.readouterr().out
    for a, b in (("qwen2.5-14b", "llama-3.1-8b"), ("llama-3.1-8b", "gemma-3-12b")):
        assert f"ways-{a}-to-{b}" in out
        assert f"organism-{a}-seed0-triggered" in out
    assert re.search(r"judge openai:gpt-4o\S*: at most [\d,]+ requests, .*\$", out)
    (tmp_path / "benign_bad_medical.jsonl").unlink()
    assert transfer(base, tmp_path) == 2
    assert "--without benign_twin" in capsys.readouterr().err
    assert transfer(base, tmp_path, "--without", "benign_twin") == 0
    assert "benign_twin" not in capsys.readouterr().out
    assert transfer(base, None) == 2
    assert "give --data" in capsys.readouterr().err


def test_a_preset_without_its_folder_says_so(base, capsys):
    cell = ["--cell", "qwen2.5-14b,bad_medical,duck", "--base", str(base)]
    assert study.main([str(FAMILIES), *cell, "--dry-run"]) == 2
    assert "give --data" in capsys.readouterr().err
