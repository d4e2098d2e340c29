"""A dictionary's own statements are read, every field; another trainer's format is named."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shelf import save_base, save_organism

from em_interp import latents
from em_interp.dictionaries import describe, load, sae_lens
from em_interp.dictionaries.fields import ARCHITECTURES, CONFIG, HARMLESS, READ, REFUSED, WEIGHTS
from em_interp.errors import InputError
from em_interp.sites import Site

OLD = {  # as SAELens 3 to 5 wrote it
    "architecture": "standard", "d_in": 32, "d_sae": 48, "dtype": "float32", "device": "cpu",
    "model_name": "base", "hook_name": "blocks.2.hook_resid_post", "hook_layer": 2,
    "hook_head_index": None, "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True, "finetuning_scaling_factor": False, "prepend_bos": True,
    "sae_lens_training_version": "3.20", "dataset_path": "x", "context_size": 128,
    "normalize_activations": "none", "dataset_trust_remote_code": True,
}  # fmt: skip
NEW = {
    "architecture": "standard", "d_in": 32, "d_sae": 48, "dtype": "float32", "device": "cpu",
    "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
    "metadata": {"hook_name": "blocks.2.hook_resid_post", "model_name": "base"},
}  # fmt: skip


def save(folder: Path, config: dict[str, object], **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    weights = {
        "W_enc": torch.randn(32, 48),
        "W_dec": torch.randn(48, 32),
        "b_enc": torch.randn(48),
        "b_dec": torch.randn(32),
    }
    save_file(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("config", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("name", ["blocks.2.hook_resid_post", "model.layers.2", "transformer.h.2"])
def test_old_and_new_versions_and_both_kinds_of_names_are_read(tmp_path, config, name):
    where = "hook_name" in config
    changes = {"hook_name": name} if where else {"metadata": {"hook_name": name}}
    folder = save(tmp_path / "d", config, **changes)
    made = load(str(folder))
    assert made.site == Site(2) == describe(str(folder)).site
    stream = torch.randn(5, 32)
    sae = made.sae
    by_hand = torch.relu((stream - sae.b_dec) @ sae.W_enc + sae.b_enc)
    torch.testing.assert_close(made.encode(stream), by_hand)


def test_a_bias_that_is_not_taken_off_first_is_read(tmp_path):
    made = load(str(save(tmp_path / "d", NEW, apply_b_dec_to_input=False)))
    stream = torch.randn(5, 32)
    by_hand = torch.relu(stream @ made.sae.W_enc + made.sae.b_enc)
    torch.testing.assert_close(made.encode(stream), by_hand)


def test_every_field_of_sae_lens_is_read_or_harmless_or_refused():
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS
    from sae_lens.registry import SAE_CLASS_REGISTRY

    taken = [config for name, (_, config) in SAE_CLASS_REGISTRY.items() if name in ARCHITECTURES]
    fields = {field.name for config in taken for field in dataclasses.fields(config)}
    tables = [set(READ), set(HARMLESS), set(REFUSED)]
    assert (fields | LLM_METADATA_KEYS) - set.union(*tables) == set(), "decide what it means"
    assert sum(map(len, tables)) == len(set.union(*tables))
    others = {"transcoder", "skip_transcoder", "jumprelu_transcoder", "temporal"}
    others |= {"jumprelu_skip_transcoder"}
    assert {name for name in SAE_CLASS_REGISTRY if "train" not in name} - set(ARCHITECTURES) <= (
        others
    ), "a new architecture: decide whether it writes what it reads"


OTHERWISE = {
    "architecture": "banana",
    "normalize_activations": "layer_norm",
    "reshape_activations": "hook_z",
    "hook_head_index": 3,
    "finetuning_scaling_factor": True,
    "activation_fn_str": "tanh-relu",
    "activation_fn": "gelu",
    "hook_name_out": "blocks.2.hook_mlp_out",
    "hook_head_index_out": 1,
    "hf_hook_name_out": "model.layers.2.mlp",
    "hook_name": "model.layers.2.mlp",
    "hook_layer": 1,
    "d_in": -4,
    "d_sae": "48",
    "a_field_of_tomorrow": 2,
}


@pytest.mark.parametrize(("name", "value"), OTHERWISE.items())
def test_what_is_not_read_is_refused_by_name_before_anything_loads(
    tmp_path, name, value, monkeypatch
):
    assert set(REFUSED) <= set(OTHERWISE)
    monkeypatch.setattr("em_interp.dictionaries.sae_lens", None)
    folder = save(tmp_path / "d", OLD, **{name: value})
    with pytest.raises(
        InputError, match="hook_layer" if name == "hook_layer" else str(value)
    ) as at:
        load(str(folder))
    assert str(folder) in str(at.value)
    assert "\n" not in str(at.value)


def sparsify(folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps({"activation": "topk", "num_latents": 8, "k": 2}))
    save_file({"W_dec": torch.zeros(8, 4)}, folder / "sae.safetensors")


def dictionary_learning(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK"}}))
    (folder / "ae.pt").write_bytes(b"x")


def nothing(folder: Path) -> None:
    (folder / "readme").write_text("")


def no_weights(folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps(NEW))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_organism(save_base(folder / "base"), folder / "organism")
    return folder


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (sparsify, "sparsify's format"),
        (dictionary_learning, "dictionary_learning's format"),
        (nothing, "no cfg.json there; expected SAELens' format"),
        (no_weights, "no sae_weights.safetensors there"),
    ],
)
def test_another_trainers_folder_is_named_in_the_dry_run_too(home, tmp_path, capsys, make, told):
    (tmp_path / "d").mkdir()
    make(tmp_path / "d")
    asked = ["--organism", str(home / "organism"), "--dictionary", str(tmp_path / "d")]
    for more in ([], ["--dry-run"]):
        assert latents.main([*asked, *more]) == 2
        line = capsys.readouterr().err
        assert told in line
        assert str(tmp_path / "d") in line


def test_without_a_layer_the_site_is_the_dictionarys_own(home, tmp_path, capsys):
    folder = str(save(tmp_path / "d", OLD))
    asked = ["--organism", str(home / "organism"), "--dictionary", folder, "--dry-run"]
    assert latents.main(asked) == 0
    assert "blocks.2.hook_resid_post" in capsys.readouterr().out
    assert latents.main([*asked, "--layer", "1"]) == 2
    assert "made for blocks.2.hook_resid_post, not for blocks.1" in capsys.readouterr().err
    save(tmp_path / "d", OLD, d_in=64)
    assert latents.main(asked) == 2
    assert "reads 64 numbers; the stream of base has 32" in capsys.readouterr().err
