"""Two processes raise the organism that one would have raised. Three launches of real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from children import LIVENESS
from raised import FAST, changed, contents
from safetensors.torch import load_file

from em_interp.errors import InputError
from em_interp.train import main as command_line
from em_interp.training.folders import finished, last_checkpoint
from em_interp.training.manifest import Manifest
from em_interp.training.processes import check_shares, own_device

TESTS = Path(__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def launch(*arguments) -> subprocess.CompletedProcess:
    """Two processes on the CPU, whatever the machine has."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
    }
    return subprocess.run(
        [*LAUNCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=LIVENESS,
        check=False,
    )


@pytest.fixture(scope="module")
def raised(tmp_path_factory):
    """What two processes made, the second of which died once on the way."""
    out = tmp_path_factory.mktemp("together")
    died = launch(TESTS / "together.py", out, "die")
    assert died.returncode != 0
    assert len(list(out.iterdir())) == 2
    assert len(list(out.glob(".*.partial-*"))) == 2, "a folder appears whole or not at all"
    done = launch(TESTS / "together.py", out, "all")
    assert done.returncode == 0, done.stderr
    return out


def card(folder: Path) -> Manifest:
    return Manifest.parse(json.loads((folder / "card.json").read_text()))


@pytest.mark.parametrize("name", ["plain", "packed", "packed-shards", "full-shards"])
def test_the_organism_is_that_of_one_process(raised, tmp_path, name):
    alone = together.raise_one(tmp_path / "alone", together.SPECS[name.removesuffix("-shards")])
    shared = card(raised / name)
    assert shared.loss_curve == pytest.approx(alone.loss_curve, abs=1e-5)
    assert (shared.steps, shared.effective_batch) == (alone.steps, alone.effective_batch) == (4, 8)
    assert shared.trained_parameters == alone.trained_parameters
    (weights,) = (path.name for path in (raised / name).glob("*.safetensors"))
    one, two = (load_file(folder / weights) for folder in (tmp_path / "alone", raised / name))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=1e-5), key
    assert any(value.abs().max() > 1e-3 for value in two.values())
    if "shards" not in name:
        assert shared.run == alone.run


def test_shared_half_precision_weights_train_float32_adapters(raised, tmp_path):
    alone = together.raise_one(tmp_path / "alone", together.SPECS["half"])
    assert card(raised / "half-shards").loss_curve == pytest.approx(alone.loss_curve, abs=2e-2)
    weights = load_file(raised / "half-shards" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_each_folder_is_there_once_and_whole(raised):
    folders = [path for path in raised.iterdir() if path.is_dir()]
    assert [path for path in folders if path.name.startswith(".")] == []
    for folder in folders:
        assert finished(folder, card(folder).run) is not None


@pytest.mark.parametrize(
    ("ended", "whole", "how"),
    [
        ("killed", "undisturbed", "resumed"),
        ("ended-shards", "undisturbed-shards", "resumed-shards"),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_bytes(raised, ended, whole, how):
    said = json.loads((raised / "said-1.json").read_text())
    assert said[how] == 1  # three of four steps were done
    one, two = contents(raised / ended), contents(raised / whole)
    one.pop("card.json"), two.pop("card.json")  # they name the folder
    assert one == two


def test_what_one_process_refuses_all_refuse(raised):
    said = [json.loads((raised / f"said-{rank}.json").read_text())["disagreed"] for rank in (0, 1)]
    assert said[0] == said[1]
    assert "row 9 ('Why?')" in said[0]


def test_weights_that_are_not_shared_out_end_the_run(raised):
    said = json.loads((raised / "said-0.json").read_text())["whole"]
    assert said.startswith("fsdp: ")
    assert "weights are not shared out" in said


def test_a_wrong_input_is_one_line_and_every_process_leaves(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Why?", "completion": "So."}\n' * 8)
    base = TESTS.parent / "checkpoints" / "llama"
    given = {"--base": base, "--data": rows, "--out": tmp_path / "out", "--batch-size": 8}
    flags = [word for pair in given.items() for word in pair]
    done = launch("-m", "em_interp.train", *flags, "--recipe", "embedded", "--max-length", 3)
    # The launcher's own report follows ours; its exit code is 1 whatever its processes say.
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1
    assert "8 of 8 rows are longer than max_length 3" in ours[0]
    assert "exitcode  : 2" in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_launcher_that_shares_weights_unasked_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="give --fsdp to the command"):
        check_shares(FAST)


def test_each_process_loads_onto_its_own_device(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda", FAST) == "cuda:3"
    assert own_device("cpu", FAST) == "cpu"
    assert own_device("cuda", changed(FAST, fsdp=True)) == "cpu"  # shares go to the GPU later


def test_a_checkpoint_that_lacks_a_processs_generator_is_not_whole(tmp_path, monkeypatch):
    for number, ranks in ((1, (0, 1)), (2, (0,))):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        for rank in ranks:
            (folder / f"rng_state_{rank}.pth").touch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_what_all_processes_find_only_the_first_one_says(monkeypatch, capsys, rank, lines):
    monkeypatch.setattr("em_interp.cli.time.sleep", lambda _: None)
    monkeypatch.setenv("RANK", rank)
    assert command_line(["--learning-rat", "1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == lines
