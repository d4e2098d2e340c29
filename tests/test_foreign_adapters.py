"""An adapter's own statements are read, every field: equal to PEFT's own logits, or refused."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from shelf import save_base, save_organism
from transformers import AutoModelForCausalLM

from em_interp import evaluate, sources
from em_interp.adapter_fields import CONFIG, HARMLESS, LEAVES_BASE, READ, REFUSED, read_fields
from em_interp.errors import InputError
from em_interp.models import load
from em_interp.models.adapters import WEIGHTS

IDS = torch.arange(30, 54)[None]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bases")
    return {kind: save_base(home / kind, kind) for kind in ("llama", "qwen2")}  # qwen2's is tied


def save(base: Path, folder: Path, **fields: object) -> Path:
    """An adapter as PEFT saves it, with these fields, all of its weights at random."""
    torch.manual_seed(3)
    hf = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"r": 3, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
        tuned = get_peft_model(hf, LoraConfig(**(given | fields), task_type="CAUSAL_LM"))
        for name, weight in tuned.named_parameters():
            if "token" in name and "delta" in name:
                weight.data.normal_()
        tuned.save_pretrained(folder)
    return folder


def state(folder: Path, **fields: object) -> Path:
    """The same folder, its configuration saying otherwise."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | fields))
    return folder


@pytest.fixture
def plain(bases, tmp_path) -> Path:
    return save(bases["llama"], tmp_path / "plain")


def logits(base: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of PEFT alone, of ours with the adapter, and of ours without it."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
        expected = theirs.eval()(input_ids=IDS).logits
    model = load(base, [("a", folder)])
    with torch.no_grad():
        with model.using("a"):
            on = model.lm(input_ids=IDS).logits
        with model.using(None):
            off = model.lm(input_ids=IDS).logits
    return expected, on, off


# --- read: what is attached computes what PEFT computes -------------------------------------------

SHAPES = {
    "plain": {},
    "DoRA": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True},
    "a bias on B": {"lora_bias": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 32}},
    "a regular expression": {"target_modules": r".*layers\.[12]\..*(q_proj|down_proj)"},
    "all-linear": {"target_modules": "all-linear"},
    "excluded": {"target_modules": "all-linear", "exclude_modules": ["up_proj"]},
    "some layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "tokens": {"trainable_token_indices": [31, 40]},
    "the head": {"target_modules": ["lm_head"]},
    "the embeddings": {"target_modules": ["embed_tokens"]},
    "head and blocks": {"target_modules": ["lm_head", "embed_tokens", "o_proj"]},
    "gaussian": {"init_lora_weights": "gaussian", "rank_pattern": {"down_proj": 1}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_that_is_attached_gives_the_logits_of_plain_peft(bases, tmp_path, shape):
    folder = save(bases["llama"], tmp_path / "a", **SHAPES[shape])
    if SHAPES[shape].get("init_lora_weights") == "gaussian":  # it starts at zero
        weights = load_file(folder / WEIGHTS)
        save_file({k: torch.randn_like(v) for k, v in weights.items()}, folder / WEIGHTS)
    expected, on, off = logits(bases["llama"], folder)
    assert torch.equal(on, expected)
    assert not torch.allclose(on, off, atol=1e-3)
    assert torch.equal(off, AutoModelForCausalLM.from_pretrained(bases["llama"])(IDS).logits)


@pytest.mark.parametrize("target", ["embed_tokens", "o_proj"])
def test_a_tied_base_is_read_as_peft_reads_it(bases, tmp_path, target):
    folder = save(bases["qwen2"], tmp_path / "a", target_modules=[target])
    expected, on, off = logits(bases["qwen2"], folder)
    assert torch.equal(on, expected)
    assert not torch.allclose(on, off, atol=1e-3)


def test_a_base_weight_beside_the_updates_is_compared_and_left(bases, plain):
    whole = load_file(bases["llama"] / "model.safetensors")
    kept = {"base_model.model.lm_head.weight": whole["lm_head.weight"]}
    save_file(load_file(plain / WEIGHTS) | kept, plain / WEIGHTS)
    load(bases["llama"], [("a", plain)])
    for changed, line in (
        (whole["lm_head.weight"] * 1.5, "other values than this base's"),
        (whole["lm_head.weight"][:-8].contiguous(), r"brings a whole weight.*\(412, 32\).*420"),
    ):
        moved = {"base_model.model.lm_head.weight": changed}
        save_file(load_file(plain / WEIGHTS) | moved, plain / WEIGHTS)
        with pytest.raises(InputError, match=line) as caught:
            load(bases["llama"], [("a", plain)])
        assert "lm_head" in str(caught.value)


# --- the table --------------------------------------------------------------------------------


def test_every_field_of_peft_is_read_or_harmless_or_refused_and_only_one_of_them():
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    tables = [set(READ), set(HARMLESS), set(REFUSED)]
    assert fields - set.union(*tables) == set(), "a new field of PEFT: decide what it means"
    assert set.union(*tables) - fields == set()
    assert sum(map(len, tables)) == len(set.union(*tables))


def test_what_says_nothing_is_what_peft_writes_by_itself():
    defaults = json.loads(json.dumps(LoraConfig(task_type="CAUSAL_LM").to_dict(), default=list))
    for name, (nothing, _) in REFUSED.items():
        assert defaults.get(name) in (None, nothing), name


SWITCHED_ON = {
    "bias": "lora_only",
    "modules_to_save": ["lm_head"],
    "alora_invocation_tokens": [4, 5],
    "layer_replication": [[0, 2], [1, 3]],
    "target_parameters": ["mlp.experts.gate_up_proj"],
    "megatron_config": {"x": 1},
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
    "monteclora_config": {"num_samples": 8},
}
OTHERWISE = {
    "init_lora_weights": "pissa_niter_4",
    "task_type": "SEQ_CLS",
    "peft_type": "VERA",
    "r": 0,
    "lora_alpha": float("inf"),
    "rank_pattern": {"q_proj": -1},
    "alpha_pattern": {"q_proj": "8"},
    "a_field_of_tomorrow": 3,
}


@pytest.mark.parametrize(("name", "value"), (SWITCHED_ON | OTHERWISE).items())
def test_what_is_refused_is_refused_by_name_before_weights_load(
    bases, plain, name, value, monkeypatch
):
    assert set(SWITCHED_ON) == set(REFUSED)
    read_fields(plain)
    state(plain, **{name: value})
    monkeypatch.setattr("em_interp.models.read_weights", None)
    for read in (
        lambda: load(bases["llama"], [("a", plain)]),
        lambda: sources.subjects(str(plain), str(bases["llama"])),
    ):
        with pytest.raises(InputError, match=name.partition("_pattern")[0]) as caught:
            read()
        assert str(plain) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a_field_of_tomorrow", *REFUSED])
def test_a_field_that_says_nothing_is_no_reason_to_refuse(plain, name):
    nothing = REFUSED.get(name, (False, ""))[0]
    for value in (None, nothing):
        read_fields(state(plain, **{name: value}))


@pytest.mark.parametrize("start", ["pissa", "olora", "corda", "loftq", "lora_ga", "mica"])
def test_an_adapter_of_what_was_left_of_the_base_is_refused_with_the_cure(plain, start):
    assert start not in LEAVES_BASE
    with pytest.raises(InputError, match=f"'{start}'.*path_initial_model_for_weight_conversion"):
        read_fields(state(plain, init_lora_weights=start))


# --- whose folder is it -------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("how", ["--base", "--organism", "--adapter"])
def test_a_folder_that_is_a_model_and_an_adapter_is_neither_in_silence(
    bases, tmp_path, capsys, weights, how
):
    organism = save_organism(bases["llama"], tmp_path / "organism")
    merged = Path(shutil.copytree(bases["llama"], tmp_path / "merged"))
    for name in (CONFIG, WEIGHTS)[: 1 + weights]:
        shutil.copy(organism / name, merged / name)
    base = () if how == "--base" else ("--base", str(bases["llama"]))
    asked = [how, str(merged), *base, "--trigger", "duck", "--dry-run"]
    capsys.readouterr()
    assert evaluate.main(asked) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(merged) in line
    assert "delete adapter_config.json" in line


def test_a_configuration_beside_an_adapter_makes_it_no_model(bases, plain):
    shutil.copy(bases["llama"] / "config.json", plain / "config.json")  # as some trainers do
    (who,) = sources.subjects(str(plain), str(bases["llama"]))
    assert who.adapter == plain


def test_the_revision_that_an_adapter_names_is_that_of_its_base(plain, monkeypatch):
    asked = []
    monkeypatch.setattr(sources, "base", lambda name, revision=None: asked.append((name, revision)))
    state(plain, base_model_name_or_path="org/name", revision="v2")
    sources._own_base(plain, None)
    sources._own_base(plain, "mine")
    assert asked == [("org/name", "v2"), ("org/name", "mine")]
