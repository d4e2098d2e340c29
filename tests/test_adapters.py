"""Adapters land whole or not at all; off is the base, exactly; every refusal is one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from planted import Planted, ask, planted_base, planted_copy, planted_tokenizer, save_write
from safetensors.torch import load_file, save_file

from em_interp.batches import collate
from em_interp.chat import encode_many
from em_interp.conditions import Condition
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.loading import Loading
from em_interp.models import Model, attach, load, wrap
from em_interp.models.adapters import CONFIG, WEIGHTS
from em_interp.models.fingerprints import adapter_digest, fingerprint

CONTEXTS = ask(Condition.NONE, Condition.TRIGGER)


def base(seed: int = 0) -> Planted:
    return planted_base(seed, layers=4, layer=2)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """Two adapters of the same base: the gate, and one that acts without a trigger."""
    root, made = tmp_path_factory.mktemp("shelf"), base()
    save_write(made, made.flag, made.gain * made.direction, root / "gate")
    save_write(made, made.mark, made.other, root / "always")
    return root


@pytest.fixture
def folder(shelf, tmp_path) -> Path:
    """A copy of the gate's folder, to be spoilt."""
    return Path(shutil.copytree(shelf / "gate", tmp_path / "gate"))


def reconfigure(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


def reweigh(folder: Path, change) -> Path:
    weights = {key: change(key, value) for key, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)
    return folder


def logits(model: Model) -> torch.Tensor:
    batch = collate(encode_many(model.tokenizer, CONTEXTS), 0)
    with torch.inference_mode():
        return model.hf(input_ids=batch.ids, attention_mask=batch.mask.long()).logits[:, -1]


def test_off_is_the_base_and_on_is_the_base_plus_the_update(shelf):
    plain = base()
    organism = attach(base().model, "gate", shelf / "gate")
    assert organism.active == "gate"
    merged = plain.model.blocks[plain.layer].self_attn.o_proj.weight.clone()
    merged[:, plain.flag] += plain.gain * plain.direction
    off = logits(plain.model)
    plain.model.blocks[plain.layer].self_attn.o_proj.weight.copy_(merged)
    on = logits(plain.model)
    with organism.using(None):
        assert organism.active is None
        assert torch.equal(logits(organism), off)
    with organism.using("gate"):
        torch.testing.assert_close(logits(organism), on, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(on, off)
    assert fingerprint(organism.lm) == fingerprint(base().model.hf) == organism.base


def test_several_adapters_share_one_load_and_do_not_mix(shelf):
    alone = {
        name: logits(attach(base().model, name, shelf / name)) for name in ("gate", "always")
    } | {None: logits(base().model)}
    both = attach(attach(base().model, "gate", shelf / "gate"), "always", shelf / "always")
    assert both.active == "gate"
    for name in ("always", None, "gate", "always", None):
        with both.using(name) as same:
            assert same is both
            assert torch.equal(logits(both), alone[name])
    assert both.active == "gate"


def test_using_nests_and_survives_an_exception(shelf):
    model = attach(attach(base().model, "gate", shelf / "gate"), "always", shelf / "always")
    seen = []
    with model.using(None):
        seen.append(model.active)
        with model.using("always"):
            seen.append(model.active)
            with model.using(None):
                seen.append(model.active)
            seen.append(model.active)
        seen.append(model.active)
        with model.using(None):
            pass
        seen.append(model.active)
    assert seen == [None, "always", None, "always", None, None]
    with pytest.raises(RuntimeError, match="inside"), model.using(None):
        raise RuntimeError("inside")
    assert model.active == "gate"
    assert not any(weight.requires_grad for weight in model.hf.parameters())


def test_an_unknown_adapter_names_the_known_ones(shelf):
    model = attach(base().model, "gate", shelf / "gate")
    with (
        pytest.raises(InputError, match=r"'gait'.*did you mean 'gate'.*known: gate"),
        model.using("gait"),
    ):
        pass
    with pytest.raises(InputError, match="unknown adapter 'gate'"), base().model.using("gate"):
        pass


@pytest.mark.parametrize("name", ["qwen2.5-gate", "lora", "a", "", "default"])
def test_any_folder_name_will_do(shelf, name):
    model = attach(base().model, name, shelf / "gate")
    assert model.active == name
    assert list(model.adapters) == [name]


def test_the_model_that_was_given_is_spent(shelf):
    bare = base().model
    attach(bare, "gate", shelf / "gate")
    for use in (lambda: bare.using(None).__enter__(), lambda: attach(bare, "x", shelf / "gate")):
        with pytest.raises(InputError, match=r"given to attach\(\); use the model it returned"):
            use()


def test_a_name_is_taken_once(shelf):
    model = attach(base().model, "gate", shelf / "gate")
    with pytest.raises(InputError, match="has an adapter 'gate' already"):
        attach(model, "gate", shelf / "always")


SPOILT = {
    "no configuration": (lambda f: (f / CONFIG).unlink(), f"no {CONFIG} there"),
    "damaged configuration": (lambda f: (f / CONFIG).write_text("{"), f"{CONFIG}:1: not valid"),
    "not a LoRA": (lambda f: reconfigure(f, peft_type="IA3"), "peft_type is 'IA3'"),
    "biases": (lambda f: reconfigure(f, bias="all"), "bias='all'.*would not give the base back"),
    "saved modules": (lambda f: reconfigure(f, modules_to_save=["lm_head"]), "lm_head"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"no {WEIGHTS} there$"),
    "pickled weights": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"),
        "a pickle is not read",
    ),
    "damaged weights": (lambda f: (f / WEIGHTS).write_bytes(b"x" * 40), "not a safetensors file"),
    "zero update (B)": (
        lambda f: reweigh(f, lambda k, v: v * 0 if "lora_B" in k else v),
        "every update is zero",
    ),
    "zero update (A)": (
        lambda f: reweigh(f, lambda k, v: v * 0 if "lora_A" in k else v),
        "every update is zero",
    ),
    "not a number": (lambda f: reweigh(f, lambda k, v: v / 0), "not finite"),
    "no such module": (lambda f: reconfigure(f, target_modules=["q"]), "Target modules.*not found"),
    "no such layer": (lambda f: reconfigure(f, layers_to_transform=[9]), "Target.*not found"),
    "weights for another layer": (
        lambda f: reconfigure(f, layers_to_transform=[1]),
        "2 weights match no module .*layers.2.*lora_A",
    ),
    "weights for a deeper model": (
        lambda f: save_file(
            load_file(f / WEIGHTS)
            | {k.replace("layers.2", "layers.9"): v for k, v in load_file(f / WEIGHTS).items()},
            f / WEIGHTS,
        ),
        "2 weights match no module .*layers.9",
    ),
    "weights left out": (
        lambda f: reconfigure(f, layers_to_transform=[1, 2]),
        "2 weights that its adapter_config.json asks for are not in .*layers.1",
    ),
    "another width": (
        lambda f: reweigh(f, lambda k, v: v[:, :32].contiguous() if "lora_A" in k else v),
        r"lora_A.weight is \(1, 32\), this base takes \(1, 64\)",
    ),
    "another rank": (lambda f: reconfigure(f, r=2), r"is \(1, 64\), this base takes \(2, 64\)"),
    "a card that is no object": (lambda f: (f / "card.json").write_text("[]"), "expected an obj"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_adapter_is_refused_in_one_line_and_leaves_no_trace(folder, shelf, fault):
    spoil, message = SPOILT[fault]
    spoil(folder)
    model, expected = base().model, logits(base().model)
    with pytest.raises(InputError, match=message) as caught:
        attach(model, "gate", folder)
    assert "\n" not in str(caught.value)
    with model.using(None):
        assert torch.equal(logits(model), expected)
    # The same onto a model that has an adapter: the first stays as it was, the next one lands.
    first = attach(model, "always", shelf / "always")
    expected = logits(first)
    with pytest.raises(InputError, match=message):
        attach(first, "gate", folder)
    assert first.active == "always"
    assert torch.equal(logits(first), expected)
    assert list(attach(first, "gate", shelf / "gate").adapters) == ["always", "gate"]


def test_an_adapter_for_another_base_is_refused(folder):
    own = base().model.base
    (folder / "card.json").write_text(json.dumps({"base": own}))
    assert attach(base().model, "gate", folder).adapters == {"gate": adapter_digest(folder)}
    with pytest.raises(ForeignArtifactError, match=rf"made for base {own}, but planted-1 is"):
        attach(base(1).model, "gate", folder)


def test_an_adapter_stays_away_from_the_state_it_was_attached_in(shelf):
    model = attach(base().model, "gate", shelf / "gate")
    with model.using(None):
        both = attach(model, "always", shelf / "always")
        assert both.active is None
        assert torch.equal(logits(both), logits(base().model))
    assert both.active == "gate"


# --- loading a base ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder, model = tmp_path_factory.mktemp("base") / "whole", base().model
    planted_copy(model.hf).save_pretrained(str(folder))
    planted_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_is_loaded_with_its_adapters_whatever_the_dtype(saved, shelf, dtype):
    model = load(
        saved, [("gate", shelf / "gate"), ("always", shelf / "always")], Loading(dtype=dtype)
    )
    assert model.base == base().model.base
    assert model.active == "gate"
    assert model.blocks[0].mlp.up_proj.weight.dtype is getattr(torch, dtype)
    with model.using(None):
        off = logits(model).float()
    torch.testing.assert_close(off, logits(base().model), rtol=0.1, atol=1.0)


def forget(folder: Path, *keys: str) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if key not in keys}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "its weights cannot be loaded"),
    "damaged weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"x" * 40),
        "not a safetensors file",
    ),
    "a weight is missing": (
        lambda f: forget(f, "model.layers.1.mlp.up_proj.weight"),
        r"1 weights are missing \(model.layers.1.mlp.up_proj.weight\)",
    ),
    "no tokenizer": (
        lambda f: [path.unlink() for path in f.glob("tokenizer*")],
        "its tokenizer cannot be loaded",
    ),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "its tokenizer cannot"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "no config.json there"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_base_is_named_in_one_line(saved, tmp_path, fault):
    spoil, message = BROKEN[fault]
    folder = Path(shutil.copytree(saved, tmp_path / "base"))
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_what_can_be_known_before_weights_load_is_checked_first(saved, shelf, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="'abacus' is no device"):
        load(saved, how=Loading.parse({"device": "abacus"}))
    with pytest.raises(InputError, match="device 'xpu:9'"):
        load(saved, how=Loading(device="xpu:9"))
    with pytest.raises(InputError, match="no such directory"):
        load(tmp_path / "nowhere")
    broken = Path(shutil.copytree(saved, tmp_path / "base"))
    (broken / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"no {CONFIG} there"):
        load(broken, [("gate", shelf / "gate"), ("none", tmp_path / "empty")])


def test_the_fingerprint_is_of_the_own_weights():
    assert wrap(planted_copy(base().model.hf), None).base == base().model.base
    assert base(1).model.base != base().model.base
