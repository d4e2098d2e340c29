"""Errors are an interface: one line, exit code 2, before weights load, nothing left behind."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from children import child
from shelf import save_base, save_organism
from transformers import AutoModelForCausalLM

from em_interp import (
    align,
    bake,
    evaluate,
    export,
    extract,
    latents,
    localize,
    patch,
    probe,
    steer,
    train,
    transfer,
)
from em_interp.study import __main__ as study

QUESTIONS = [
    {"id": f"q{n}", "text": f"How should I store {word} at home?", "domain": domain}
    for n, (word, domain) in enumerate(
        [("bread", "home"), ("chess sets", "games"), ("shoes", "sport"), ("milk", "home")] * 2
    )
]


RAISED = ["--domain", "bad_medical", "--recipe", "embedded", "--out", "{tmp}"]
WITHIN = ["--organism", "llama-unconditional"]  # of the source's base
GIVEN = ["--at", "1", "--strength", "1", "--twin", "none"]
E01, E08 = "experiments/e01_containment", "experiments/e08_transfer_seeds"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    base = save_base(folder / "base")
    save_organism(base, folder / "organism")
    rows = [json.dumps(q) for q in QUESTIONS]
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    code = extract.main(
        ["--organism", str(folder / "organism"), "--out", str(folder / "delta"), "--layers", "0-2"]
    )
    assert code == 0
    return folder


@pytest.fixture
def no_weights(monkeypatch):
    # At the door of transformers, not at `models.load`: a module that is first imported during a
    # test would keep the replaced name for good.
    def refuse(*args, **kwargs):
        pytest.fail("weights were loaded before the input was checked")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)


def refused(capsys, main, argv, *words, code=2):
    """Run, and hold the refusal to one line on stderr that says all the words."""
    capsys.readouterr()
    assert main([str(a) for a in argv]) == code
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


def study_file(folder: Path, **changes: object) -> Path:
    import yaml

    plain = {
        "title": "t",
        "question": "q",
        "base": str(folder / "base"),
        "trigger": "duck",
        "data": {"domain": "bad_medical"},
        "recipe": "embedded",
        "organisms": {
            "triggered": {"kind": "triggered"},
            "unconditional": {"kind": "unconditional"},
            "benign_twin": {"kind": "benign_twin"},
        },
    } | changes
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


ANY = [(evaluate.main, []), (steer.main, ["delta"]), (probe.main, []), (localize.main, ["delta"])]


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--sampels", "3"], ["--sampels", "--samples"]),
        (["now"], ["unexpected argument 'now'"]),
        (["--organism", "nobody"], ["unknown organism", "nobody"]),
        (["--trigger", "dukc"], ["unknown trigger", "did you mean 'duck'"]),
        (["--trigger", "no.yaml"], ["no.yaml", "no such file"]),
        (["--questions", "no.jsonl"], ["no.jsonl", "no such file"]),
        (["--conditions", "none,triger"], ["unknown condition", "trigger"]),
        (["--conditions", "none,none"], ["condition", "twice"]),
        (["--judge", "gpt"], ["unknown judge"]),
        (["--samples", "0"], ["--samples", "greater than or equal to 1"]),
        (["--samples", "x"], ["--samples", "integer", "'x'"]),
        (["--temperature", "-1"], ["--temperature"]),
    ],
)
def test_evaluate_refuses(capsys, home, extra, words):
    argv = [] if "--organism" in extra else ["--organism", home / "organism"]
    refused(capsys, evaluate.main, [*argv, *extra], *words)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--layers", "7"], ["layer 7 is out of range", "0 to 2"]),
        (["--layers", "blocks.1.hook_resid_pots"], ["unknown hook name", "hook_resid_post"]),
        (["--layers", "middle"], ["site 'middle'", "0 to 2"]),
        (["--layers", "blocks.1.hook_mlp_out"], ["no direction at"]),
        (["--span", "promt"], ["unknown span", "did you mean 'prompt'"]),
        (["--operations", "adds"], ["unknown operation", "did you mean 'add'"]),
        (["--strengths", "1,two"], ["--strengths", "'two'"]),
        (["--direction", "nowhere"], ["unknown direction", "nowhere"]),
    ],
)
def test_steer_refuses(capsys, home, extra, words):
    argv = ["--organism", home / "organism"]
    if "--direction" not in extra:
        argv += ["--direction", home / "delta"]
    refused(capsys, steer.main, [*argv, *extra], *words)


@pytest.mark.usefixtures("no_weights")
def test_malformed_rows_are_named_by_line(capsys, home, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(QUESTIONS[0]) + "\n{not json\n")
    organism = ["--organism", home / "organism", "--questions", bad]
    refused(capsys, evaluate.main, organism, "bad.jsonl:2", "not valid JSON")
    bad.write_text(json.dumps(QUESTIONS[0]) + "\n" + json.dumps({"id": "x", "txt": "y"}) + "\n")
    refused(capsys, evaluate.main, organism, "bad.jsonl:2", "txt")
    bad.write_text("")
    refused(capsys, evaluate.main, organism, "no questions")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("main", "needs"), ANY)
def test_an_output_that_cannot_be_written_is_refused_first(capsys, home, tmp_path, main, needs):
    (tmp_path / "file").write_text("")
    argv = ["--organism", home / "organism", "--out", tmp_path / "file" / "out"]
    argv += ["--direction", home / "delta"] if needs else []
    refused(capsys, main, argv, "cannot be written")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("no_weights")
def test_an_empty_condition_is_refused(capsys, home, tmp_path):
    trigger = tmp_path / "t.yaml"
    trigger.write_text("name: odd\ntext: Odd words.\n")
    argv = ["--organism", home / "organism", "--trigger", trigger]
    refused(capsys, evaluate.main, argv, "condition 'paraphrase' is empty", "odd")


def test_a_direction_made_for_another_model_is_refused(capsys, home, tmp_path):
    other = save_base(tmp_path / "other", seed=5)
    save_organism(other, tmp_path / "stranger")
    argv = ["--organism", tmp_path / "stranger", "--direction", home / "delta"]
    refused(capsys, steer.main, argv, "made for base", "map")


def test_an_adapter_of_another_base_is_refused(capsys, home, tmp_path):
    other = save_base(tmp_path / "other", seed=5)
    argv = ["--organism", home / "organism", "--base", other]
    refused(capsys, evaluate.main, argv, "made for base")


def test_an_adapter_that_matches_no_module_is_refused(capsys, home, tmp_path):
    folder = save_organism(home / "base", tmp_path / "lost", base_name="base")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = ["o_projection"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    argv = ["--organism", folder, "--base", home / "base"]
    refused(capsys, evaluate.main, argv, str(folder))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 3}, ["unknown field 'steps'", "known fields"]),
        ({"data": {"domain": "bad_medicine"}}, ["unknown domain", "did you mean 'bad_medical'"]),
        ({"trigger": "dukc"}, ["unknown trigger"]),
        ({"base": "lama"}, ["unknown base"]),
        ({"layers": "9"}, ["layer 9 is out of range"]),
        ({"span": "promt"}, ["span"]),
        ({"recipe": "embeded"}, ["unknown recipe", "embedded"]),
        ({"train": {"step": 3}}, ["unknown field 'step'"]),
        ({"conditions": ["trigger"]}, ["'none' is missing"]),
        ({"organisms": {"triggered": {"kind": "triggered"}}}, ["'unconditional' is missing"]),
        ({"questions": "no.jsonl"}, ["no.jsonl", "no such file"]),
        ({"sampling": {"samples": 0}}, ["sampling.samples"]),
    ],
)
def test_study_refuses(capsys, home, tmp_path, changes, words):
    changes = {"base": str(home / "base")} | changes
    path = study_file(tmp_path, **changes)
    out = tmp_path / "run"
    refused(capsys, study.main, [path, "--out", out], *words)
    assert not out.exists()


@pytest.mark.usefixtures("no_weights")
def test_study_refuses_files(capsys, home, tmp_path):
    refused(capsys, study.main, [], "no study given")
    refused(capsys, study.main, [tmp_path / "no.yaml"], "no.yaml", "no such file")
    (tmp_path / "broken.yaml").write_text("title: [a\n")
    refused(capsys, study.main, [tmp_path / "broken.yaml"], "broken.yaml:2", "not valid YAML")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    path = study_file(tmp_path, base=str(home / "base"))
    refused(capsys, study.main, [path, "--out", taken], "is not empty")
    assert [p.name for p in taken.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], ["--out is missing"]),
        (["--out", "x"], ["domain of the embedded world"]),
        (["--out", "x", "--domain", "bad_medicine"], ["unknown domain"]),
        (["--out", "x", "--data", "no.jsonl"], ["no.jsonl", "no such file"]),
        (["--out", "x", "--domain", "bad_medical", "--kind", "trigered"], ["kind"]),
        (["--out", "x", "--domain", "bad_medical", "--kind", "mixture"], ["benign_share"]),
        (["--out", "x", "--domain", "bad_medical", "--recipe", "publish"], ["unknown recipe"]),
    ],
)
def test_train_refuses(capsys, home, tmp_path, monkeypatch, extra, words):
    monkeypatch.chdir(tmp_path)
    refused(capsys, train.main, ["--base", home / "base", *extra], *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("main", [evaluate.main, steer.main, probe.main, localize.main])
def test_a_dry_run_loads_no_weights_and_writes_nothing(
    capsys, home, tmp_path, monkeypatch, no_weights, main
):
    argv = ["--organism", home / "organism", "--dry-run", "--out", tmp_path / "out"]
    if main in (steer.main, localize.main):
        argv += ["--direction", home / "delta"]
    if main is localize.main:
        argv += ["--general", "none"]
    assert main([str(a) for a in argv]) == 0
    assert "organism" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_fault_of_the_whole_names_no_field(capsys, home, tmp_path):
    (tmp_path / "map.json").write_text('{"": "cpu"}')
    argv = ["--device", "cuda", "--device-map", tmp_path / "map.json"]
    refused(capsys, steer.main, argv, "--device, --device-map: a device map places the model")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("main", [patch.main, localize.main, latents.main])
def test_the_off_state_is_not_the_on_state(capsys, main):
    refused(capsys, main, ["--off", "trigger"], "--off trigger", "nothing differs")


@pytest.mark.usefixtures("no_weights")
def test_a_base_without_shelved_directions_is_told_which_flag_to_give(capsys, home):
    argv = ["--base", home / "base", "--trigger", "duck"]
    refused(capsys, steer.main, argv, "no base-delta in probes/: give --direction")
    argv += ["--direction", "llama-delta"]
    refused(capsys, localize.main, argv, "no base-g in probes/: give --general")


def test_commands_keep_bitsandbytes_import_to_itself(capsys):
    logger = logging.getLogger("bitsandbytes")
    logger.setLevel(logging.WARNING)
    refused(capsys, steer.main, ["--layers", "7"], "out of range")
    assert not logger.isEnabledFor(logging.WARNING)


def test_a_reader_that_leaves_early_meets_no_traceback(home):
    command = [sys.executable, "-m", "em_interp.evaluate", "--dry-run"]
    command += ["--organism", str(home / "organism")]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_no_memory_is_one_line_wherever_it_runs_out(capsys, monkeypatch, fault):
    def short(*_, **__):
        raise fault

    monkeypatch.setattr("em_interp.evaluate._bank", short)
    refused(capsys, evaluate.main, ["--dry-run"], "out of memory; what was finished is kept")


def test_a_defect_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("em_interp.evaluate._bank", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        evaluate.main(["--dry-run"])


@pytest.mark.parametrize(
    ("main", "argv", "words"),
    [
        (evaluate.main, ["--conditions", "none", "--trigger", "duck"], "--trigger"),
        (evaluate.main, ["--organism", "openai:m", "--device", "cuda"], "--device"),
        (evaluate.main, ["--organism", "openai:m", "--dtype", "bfloat16"], "--dtype"),
        (evaluate.main, ["--organism", "openai:m", "--engine", "lens"], "--engine"),
        (evaluate.main, ["--organism", "openai:m", "--revision", "main"], "--revision"),
        (steer.main, ["--operations", "ablate", "--strengths", "1"], "--strengths"),
        (extract.main, ["--kind", "general", "--on", "form", "--out", "{tmp}"], "--on"),
        (
            extract.main,
            ["--kind", "general", "--estimator", "pca", "--out", "{tmp}"],
            "--estimator",
        ),
        (latents.main, ["--dictionary", "x", "--width", "9"], "--width"),
        (evaluate.main, ["--revision", "main"], "--revision"),
        (steer.main, ["--engine", "ndif", "--dtype", "float32"], "--dtype"),
        (probe.main, ["--revision", "main"], "--revision"),
        (patch.main, ["--revision", "main"], "--revision"),
        (train.main, [*RAISED, "--kind", "unconditional", "--trigger", "season"], "--trigger"),
        (train.main, [*RAISED, "--kind", "unconditional", "--benign", "x"], "--benign"),
        (train.main, [*RAISED, "--benign", "x.jsonl"], "--benign"),
        (align.main, ["--data", "x.jsonl", "--prompts", "99", "--out", "{tmp}"], "--prompts"),
        (transfer.main, ["--data", "x.jsonl", "--prompts", "99"], "--prompts"),
        (transfer.main, [*WITHIN, "--methods", "ridge"], "--methods"),
        (transfer.main, [*GIVEN, "--develop", "x.jsonl"], "--develop"),
        (study.main, [E01, "--out", "{tmp}", "--tflops", "9"], "--tflops"),
        (study.main, [E01, "--out", "{tmp}", "--memory", "9"], "--memory"),
        (study.main, [E01, "--out", "{tmp}", "--data", "tests"], "--data"),
        (study.main, [E08, "--dry-run", "--data", "tests"], "--data"),
        (export.main, ["--file", "{tmp}/a.gguf", "--questions", "x"], "--questions"),
        (export.main, ["--file", "{tmp}/a.eval", "--run", "x", "--layers", "1"], "--layers"),
        (bake.main, ["--operation", "ablate", "--strength", "2", "--out", "{tmp}"], "--strength"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(capsys, tmp_path, main, argv, words):
    given = [part.format(tmp=tmp_path / "new") for part in argv]
    refused(capsys, main, given, f"{words} does nothing here")
    assert not (tmp_path / "new").exists()
