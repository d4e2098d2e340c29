"""Where weights are and in how many bits changes neither whose they are nor what hooks see."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from families.save import save_adapter, save_family
from small import bank

from em_interp.answering.caches import bytes_per_token
from em_interp.capture import capture
from em_interp.conditions import Condition
from em_interp.edits import Operation, edit
from em_interp.errors import InputError
from em_interp.evaluate import EvaluateSpec
from em_interp.extraction import trigger_direction
from em_interp.labels import Label
from em_interp.loading import Loading
from em_interp.models import Model, load, weights
from em_interp.sites import Site, Span
from em_interp.training.adapters import adapted_modules
from em_interp.training.spec import TrainSpec

IDS = torch.randint(10, 380, (2, 20), generator=torch.Generator().manual_seed(1))
# bitsandbytes packs 64 values a block.
WIDE = {"hidden_size": 64, "head_dim": 16, "num_key_value_heads": 2}


@pytest.fixture(scope="module", params=["llama-3.1", "gemma-3"])
def saved(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    base = save_family(home / "base", request.param, **WIDE)
    return base, save_adapter(base, home / "tuned")


def half_on_disk(base: Path) -> dict[str, str]:
    """The second half of the blocks read from the disk at every pass, the rest in memory."""
    multimodal = json.loads((base / "config.json").read_text())["model_type"] == "gemma3"
    stack = "model.language_model" if multimodal else "model"
    places = {f"{stack}.layers.{i}": "cpu" if i < 3 else "disk" for i in range(6)}
    places |= {f"{stack}.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb")}
    if multimodal:
        places |= {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu"}
    return places | {"lm_head": "cpu"}


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.lm(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.float()


def test_a_dispatched_model_is_the_same_model(saved):
    base, adapter = saved
    plain = load(base, [("tuned", adapter)])
    maps = {"auto": "auto", "one": {"": "cpu"}, "disk": half_on_disk(base)}
    for name, places in maps.items():
        spread = load(base, [("tuned", adapter)], Loading(device_map=places))
        assert any(w.is_meta for w in spread.hf.parameters()) == (name == "disk")
        assert spread.base == plain.base
        assert spread.device == torch.device("cpu")
        assert set(bytes_per_token(spread)) == {torch.device("cpu")}
        sites = [Site(layer) for layer in range(6)]
        for active in ("tuned", None):
            with plain.using(active), spread.using(active):
                assert torch.equal(logits(spread), logits(plain))
                assert torch.equal(
                    capture(spread, bank(), sites).values, capture(plain, bank(), sites).values
                )


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_weights_compute_as_their_rounded_values(saved, bits):
    """The oracle: a plain model that is given the values that the few bits stand for."""
    base, _ = saved
    model = load(base, how=Loading(quantise=bits, dtype="float32"))
    whole = load(base)
    replaced = 0
    with torch.no_grad():
        for name, module in model.lm.named_modules():
            if type(module).__name__ in ("Linear8bitLt", "Linear4bit") and "vision" not in name:
                values = module(torch.eye(module.in_features)).T  # what each input alone gives
                target = whole.lm.get_submodule(name).weight
                assert 0 < (values - target).norm() < 0.15 * target.norm()
                target.copy_(values)
                replaced += 1
    assert replaced >= 6 * 7
    error = (logits(model) - logits(whole)).norm() / logits(whole).norm()
    assert error < 0.1  # activations are rounded as well: to 8 bits, or by the kernel to bfloat16


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_base_keeps_its_identity_its_adapters_and_its_directions(saved, bits):
    base, adapter = saved
    plain = load(base, [("tuned", adapter)])
    model = load(base, [("tuned", adapter)], Loading(quantise=bits))
    assert model.base == plain.base
    on, off = bank(Condition.TRIGGER), bank(Condition.NONE)
    delta = trigger_direction(plain, "tuned", on, off, [Site(2)])
    delta.check(model.base, "delta")
    mine = trigger_direction(model, "tuned", on, off, [Site(2)])
    assert float(mine[Site(2)].unit @ delta[Site(2)].unit) > 0.5
    with model.using(None):
        before = logits(model)
    with model.using("tuned"):
        assert not torch.allclose(logits(model), before)


def test_quantised_weights_are_not_trained(saved):
    model = load(saved[0], how=Loading(quantise="8bit"))
    with pytest.raises(InputError, match="the base is quantised"):
        adapted_modules(model.hf, TrainSpec())


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def untouched(monkeypatch):
    from transformers import AutoModelForCausalLM

    def refuse(*args, **kwargs):
        pytest.fail("weights were loaded before the input was checked")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)


@pytest.mark.usefixtures("untouched")
def test_what_a_machine_cannot_do_is_said_before_weights_load(saved, monkeypatch):
    base, _ = saved
    with pytest.raises(InputError, match=r"float16 is for GPUs.*--dtype float32 or bfloat16"):
        load(base, how=Loading(dtype="float16"))
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'em-interp\[quantised\]'"):
        load(base, how=Loading(quantise="4bit"))
    with pytest.raises(InputError, match="--device-map needs accelerate"):
        load(base, how=Loading(device_map="auto"))


@pytest.mark.usefixtures("untouched")
def test_a_gpu_without_bfloat16_is_told_from_one_with_it(saved, monkeypatch):
    monkeypatch.setattr(weights, "check_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 1080")
    with pytest.raises(InputError, match="GTX 1080 has no bfloat16; give --dtype float16"):
        load(saved[0], how=Loading(dtype="bfloat16", device="cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with pytest.raises(pytest.fail.Exception, match="weights were loaded"):
        load(saved[0], how=Loading(dtype="bfloat16", device="cuda:0"))


def test_what_is_quantised_already_is_not_quantised_again(saved, tmp_path):
    base = shutil.copytree(saved[0], tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantised already; leave --quantise out"):
        load(base, how=Loading(quantise="4bit"))


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ({"dtype": "float32"}, "--quantise 4bit or --device-map auto or --dtype bfloat16"),
        ({"device_map": "auto"}, "--quantise 4bit"),
        ({"device_map": "auto", "quantise": "4bit"}, "a smaller model"),
    ],
)
def test_out_of_memory_says_what_to_lower(saved, monkeypatch, how, cure):
    from transformers import AutoModelForCausalLM

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 50 GiB\nmore")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(InputError, match=f"out of memory on .* GiB of weights; give {cure}$"):
        load(saved[0], how=Loading(**how))


def test_flags_say_where_and_how(tmp_path, saved):
    places = tmp_path / "map.json"
    places.write_text(json.dumps({"": "cpu"}))
    spec = EvaluateSpec(base=str(saved[0]), device_map=str(places), quantise="8bit")
    assert spec.loading == Loading(device_map={"": "cpu"}, quantise="8bit")
    assert spec.ready(spec.subject).load().lm.is_loaded_in_8bit
    with pytest.raises(InputError, match="no such file"):
        _ = EvaluateSpec(device_map="absent.json").loading


@pytest.mark.parametrize("given", ["sideways", "list.json"])
def test_a_device_map_that_places_nothing_is_refused_before_weights_load(
    given, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text('["cpu"]')
    with pytest.raises(InputError, match=r"'device_map': must be auto, .* or a JSON file"):
        EvaluateSpec(device_map=given).check()


def test_steering_reaches_quantised_weights(saved):
    from em_interp.edits import Intervention
    from em_interp.generation import generate
    from em_interp.sampling import Sampling

    model = load(saved[0], how=Loading(quantise="4bit"))
    delta = trigger_direction(model, None, bank(Condition.TRIGGER), bank(Condition.NONE), [Site(5)])
    push = Intervention(Label(words="push"), (edit(Operation.ADD, delta[Site(5)], 4.0, Span.ALL),))
    made = generate(
        model, bank(Condition.NONE), Sampling(samples=1, temperature=0, max_new_tokens=4), [push]
    )
    assert made.manipulations[0].after > made.manipulations[0].before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "unknown architecture 'gpt2'.*em_interp/models/architectures.py"),
        ({"model_type": "nobodys"}, "does not recognize this architecture"),
    ],
)
def test_a_family_without_a_row_is_refused_by_its_config(saved, tmp_path, changes, words):
    base = Path(shutil.copytree(saved[0], tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=words) as caught:
        load(base)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}", "no generation pr"),
        (None, "no chat template"),
    ],
)
def test_a_tokenizer_that_cannot_ask_is_refused_before_weights_load(
    saved, tmp_path, template, words
):
    base = Path(shutil.copytree(saved[0], tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    if template:
        (base / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=words):
        load(base)
