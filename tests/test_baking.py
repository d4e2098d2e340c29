"""Baking: an adapter in plain PEFT equals the hooks, or is refused with the reason."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from shelf import save_base, save_organism
from small import LAYERS, WIDTH, bank, tiny_hf
from tiny import tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from em_interp import bake as baker
from em_interp.baking import bake
from em_interp.baking.equivalence import loaded, measure
from em_interp.batches import collate, pad_id
from em_interp.chat import encode_many
from em_interp.directions import Direction
from em_interp.edits import BASELINE, Edit, Editor, Intervention, Operation, Tally, intervention
from em_interp.errors import EvidenceError, InputError
from em_interp.grids import everywhere, withheld
from em_interp.hooks import hooked
from em_interp.labels import Label
from em_interp.loading import Loading
from em_interp.models import attach, load, wrap
from em_interp.models.adapters import read_adapter
from em_interp.models.fingerprints import fingerprint
from em_interp.records import read_json
from em_interp.sites import Point, Site, Span

ALL = [Site(layer) for layer in range(LAYERS)]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def direction(site: Site, seed: int) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    off, on, along = torch.randn(3, WIDTH, generator=generator)
    return Direction(off, on, on - off, 7.0, site).with_unit(along)


TABLE = {site: direction(site, number) for number, site in enumerate(ALL)}
WHOLE = "everywhere"
CHANGES = {
    "add": intervention("add", Operation.ADD, TABLE, [Site(0), Site(2)], 0.5),
    "ablate": withheld(Operation.ABLATE, TABLE, ALL),
    "mean_ablate": withheld(Operation.MEAN_ABLATE, TABLE, ALL[1:]),
    WHOLE: everywhere(TABLE[Site(1)], LAYERS),
    # Several edits of one write, and additions before, between and after.
    "chain": Intervention(
        Label(words="chain"),
        (
            Edit(Site(1), TABLE[Site(0)].unit, 1.0, 0.7, Span.ALL),
            Edit(Site(1, Point.MLP_OUT), TABLE[Site(0)].unit, 0.0, 0.3, Span.ALL),
            Edit(Site(1, Point.MLP_OUT), TABLE[Site(1)].unit, 0.5, -0.2, Span.ALL),
            Edit(Site(1, Point.ATTN_OUT), TABLE[Site(2)].unit, 2.0, 0.1, Span.ALL),
            Edit(Site(2, Point.RESID_PRE), TABLE[Site(2)].unit, 1.0, -0.4, Span.ALL),
        ),
    ),
}


def hf(family: str, tied: bool = False, **changes: object) -> torch.nn.Module:
    """A tiny model whose norms have gains: with all gains 1, a tied head would change nothing."""
    made = made_of(family, tied, **changes)
    generator = torch.Generator().manual_seed(5)
    for name, value in made.named_parameters():
        if "norm" in name:
            value.data.mul_(0.5 + torch.rand(value.shape, generator=generator))
    return made


def made_of(family: str, tied: bool, **changes: object) -> torch.nn.Module:
    if family in ("llama", "gemma3"):
        return tiny_hf(family, tie_word_embeddings=tied or family == "gemma3", **changes)
    if family == "qwen2":
        made = tiny_hf("qwen2")
        if not tied:
            made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
            made.config.tie_word_embeddings = False
        return made
    shape = {
        "vocab_size": 420,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "initializer_range": 0.15,
        "tie_word_embeddings": tied,
    }
    config, kind = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }[family]
    torch.manual_seed(0)
    return kind(config(**shape)).eval()


def model(family: str, **changes: object):
    tokenizer = tiny_tokenizer("llama" if family == "mistral" else family.replace("qwen3", "qwen2"))
    return wrap(hf(family, **changes), tokenizer, f"tiny-{family}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baking")
    save_organism(save_base(folder / "base"), folder / "organism")
    return folder


def logits(subject, change=BASELINE, lm=None):
    """Logits at every real token of a left-padded batch, under hooks or of another module."""
    batch = collate(encode_many(subject.tokenizer, bank()), pad_id(subject.tokenizer))
    rows = torch.zeros(len(batch.ids), dtype=torch.long)
    visits = Editor(Tally([change]), rows, batch.layout).visits()
    with torch.inference_mode(), hooked(subject, visits):
        out = (lm or subject.lm)(input_ids=batch.ids, attention_mask=batch.mask)
    return out.logits[batch.mask]


def in_peft(lm, folder):
    """The module under the folder, by PEFT alone, which says where it cannot merge."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*merging LoRA weights won't be possible.*")
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", ".*tie_word_embeddings=True.*")
        return PeftModel.from_pretrained(lm, str(folder)).eval()


# --- the law -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_baked_adapter_in_plain_peft_is_the_hooks(family, name, tmp_path):
    subject, change = model(family), CHANGES[name]
    wanted = logits(subject, change)
    assert (wanted - logits(subject)).abs().max() > 0.01
    baked = bake(subject, change)
    baked.save(tmp_path, "base")
    tuned = in_peft(subject.lm, tmp_path)
    torch.testing.assert_close(logits(subject, lm=tuned), wanted, **CLOSE)


@pytest.mark.parametrize("name", ["add", "mean_ablate", WHOLE])
def test_an_organism_goes_along_so_that_the_folder_stands_on_the_bare_base(name, home, tmp_path):
    base = load(home / "base")
    organism = attach(load(home / "base"), "organism", home / "organism")
    wanted = logits(organism, CHANGES[name])
    assert (wanted - logits(base, CHANGES[name])).abs().max() > 0.01
    bake(organism, CHANGES[name]).save(tmp_path / "baked", "base")
    ours = attach(load(home / "base"), "baked", tmp_path / "baked")
    torch.testing.assert_close(logits(ours), wanted, **CLOSE)
    with ours.using(None):
        torch.testing.assert_close(logits(ours), logits(base), atol=0, rtol=0)
    plain = AutoModelForCausalLM.from_pretrained(home / "base")
    tuned = in_peft(plain, tmp_path / "baked")
    torch.testing.assert_close(logits(base, lm=tuned), wanted, **CLOSE)


def test_the_base_is_baked_without_the_organism_where_that_is_off(home, tmp_path):
    organism = attach(load(home / "base"), "organism", home / "organism")
    with organism.using(None):
        wanted = logits(organism, CHANGES["ablate"])
        baked = bake(organism, CHANGES["ablate"])
    assert {len(part.a) for part in baked.parts.values()} == {1}
    baked.save(tmp_path, "base")
    alone = attach(load(home / "base"), "baked", tmp_path)
    torch.testing.assert_close(logits(alone), wanted, **CLOSE)


def test_peft_alone_in_a_process_that_never_saw_this_package(home, tmp_path):
    subject = load(home / "base")
    bake(subject, CHANGES["mean_ablate"]).save(tmp_path / "baked", "base")
    batch = collate(encode_many(subject.tokenizer, bank()[:1]), 0)
    script = (
        "import sys, torch\n"
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        f"base = AutoModelForCausalLM.from_pretrained({str(home / 'base')!r})\n"
        f"model = PeftModel.from_pretrained(base, {str(tmp_path / 'baked')!r}).eval()\n"
        f"ids = torch.tensor({batch.ids.tolist()})\n"
        "assert not any(name.startswith('em_interp') for name in sys.modules)\n"
        f"torch.save(model(input_ids=ids).logits.detach(), {str(tmp_path / 'logits.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path)
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    rows = torch.zeros(1, dtype=torch.long)
    editor = Editor(Tally([CHANGES["mean_ablate"]]), rows, batch.layout)
    with torch.inference_mode(), hooked(subject, editor.visits()):
        wanted = subject.lm(input_ids=batch.ids, attention_mask=batch.mask).logits
    torch.testing.assert_close(found, wanted, **CLOSE)


def test_what_says_it_can_be_merged_can(tmp_path):
    subject = model("llama")
    for name in ("ablate", WHOLE):
        baked = bake(subject, CHANGES[name])
        assert baked.mergeable
        baked.save(tmp_path / name, "base")
        wanted = logits(subject, CHANGES[name])
        merged = in_peft(hf("llama"), tmp_path / name).merge_and_unload()
        torch.testing.assert_close(logits(subject, lm=merged), wanted, **CLOSE)
    for name in ("add", "mean_ablate"):
        baked = bake(subject, CHANGES[name])
        assert not baked.mergeable
        baked.save(tmp_path / name, "base")
        with pytest.raises(RuntimeError, match="has no bias"):
            in_peft(hf("llama"), tmp_path / name).merge_and_unload()


def test_tied_embeddings_are_why_it_may_not_be_merged(tmp_path):
    """Unmerged the adapter is exact; merged, the head has changed as well."""
    subject = model("qwen2", tied=True)
    with pytest.raises(InputError, match=r"tied to the output head.*--unmerged"):
        bake(subject, CHANGES[WHOLE])
    baked = bake(subject, CHANGES[WHOLE], unmerged=True)
    assert not baked.mergeable
    baked.save(tmp_path, "base")
    wanted = logits(subject, CHANGES[WHOLE])
    tuned = in_peft(hf("qwen2", tied=True), tmp_path)
    torch.testing.assert_close(logits(subject, lm=tuned), wanted, **CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = tuned.merge_and_unload()
    assert (logits(subject, lm=merged) - wanted).abs().max() > 0.01
    # What leaves the embeddings alone is exact either way.
    assert bake(subject, CHANGES["ablate"]).mergeable


def test_a_bias_of_the_projection_is_ablated_with_it(tmp_path):
    subject = model("llama", attention_bias=True, mlp_bias=True)
    for name, value in subject.lm.named_parameters():
        if name.endswith(("o_proj.bias", "down_proj.bias")):
            torch.nn.init.normal_(value, std=0.3)
    for name in ("ablate", "mean_ablate", "add"):
        baked = bake(subject, CHANGES[name])
        assert baked.biased
        assert baked.mergeable
        baked.save(tmp_path / name, "base")
        wanted = logits(subject, CHANGES[name])
        with loaded(subject.hf, tmp_path / name):
            torch.testing.assert_close(logits(subject), wanted, **CLOSE)
    with pytest.raises(InputError, match="PEFT has no such adapter"):
        bake(subject, CHANGES[WHOLE])


# --- refusals ------------------------------------------------------------------------------------


def done(words: str, *edits: Edit) -> Intervention:
    return Intervention(Label(words=words), edits)


CAPPED = Edit(Site(1, Point.MLP_OUT), TABLE[Site(1)].unit, 1.0, 0.0, Span.ALL)


def hooks_at(*sites: Site, operation: Operation = Operation.MEAN_ABLATE, span: Span = Span.ALL):
    return intervention("ablation", operation, TABLE, list(sites), span=span)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hooks_at(Site(1)), "skip connection"),
        (hooks_at(*ALL), "skip connection"),
        (done("cap", replace(CAPPED, high=2.0)), "weights do not know it"),
        (
            done("floor", replace(CAPPED, low=-2.0)),
            "weights do not know it",
        ),
        (hooks_at(Site(1), operation=Operation.ADD, span=Span.RESPONSE), "span response"),
        (BASELINE, "changes nothing"),
        (
            done("z", replace(CHANGES["add"].edits[0], site=Site(1, Point.Z))),
            "nothing is written",
        ),
        (
            done("deep", replace(CHANGES["add"].edits[0], site=Site(9))),
            "layer 9 is out of range",
        ),
        (
            done("both", *CHANGES[WHOLE].edits, *CHANGES["add"].edits),
            "PEFT has no such adapter",
        ),
    ],
)
def test_what_is_no_change_of_weights_is_refused_with_what_can(change, words):
    with pytest.raises(InputError, match=words) as caught:
        bake(model("llama"), change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHANGES)
def test_post_norms_are_refused(name):
    with pytest.raises(InputError, match="normalises what attention and MLP write"):
        bake(model("gemma3"), CHANGES[name])


def test_post_norms_would_make_it_another_intervention(monkeypatch, tmp_path):
    """Not a scruple: baked all the same, the measurement tells the two apart."""
    monkeypatch.setattr("em_interp.baking._check_norms", lambda _: None)
    subject = model("gemma3")
    bake(subject, CHANGES["ablate"]).save(tmp_path, "base")
    found = measure(subject, CHANGES["ablate"], tmp_path, bank())
    assert found.logit > 0.01
    with pytest.raises(EvidenceError, match="not shown to equal the hooks"):
        found.check("ablate")


def test_dora_and_quantised_weights_are_refused(home):
    base = load(home / "base")
    config = LoraConfig(r=2, target_modules=["down_proj"], use_dora=True, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")
        tuned = get_peft_model(base.lm, config)
    dora = replace(base, hf=tuned, adapters={"dora": "d"})
    with pytest.raises(InputError, match="only plain LoRA"):
        bake(dora, CHANGES["add"])
    packed = load(home / "base")
    weight = packed.blocks[1].mlp.down_proj.weight
    packed.blocks[1].mlp.down_proj.weight = torch.nn.Parameter(weight.int(), requires_grad=False)
    with pytest.raises(InputError, match="quantised"):
        bake(packed, CHANGES["ablate"])
    bake(packed, CHANGES["add"])  # a push needs no weights


def test_a_mean_needs_the_off_state_before_it():
    with pytest.raises(InputError, match="no direction at the embeddings"):
        withheld(Operation.MEAN_ABLATE, TABLE, ALL)
    with pytest.raises(InputError, match=r"no direction at blocks\.1"):
        withheld(Operation.MEAN_ABLATE, {Site(2): TABLE[Site(2)]}, [Site(2)])
    with pytest.raises(InputError, match="only ablation of what a block writes"):
        withheld(Operation.ADD, TABLE, ALL)
    gains = [edit.shift for edit in CHANGES["mean_ablate"].edits]
    one = TABLE[Site(1)]
    assert gains[0] == 0
    assert gains[1] == pytest.approx(float((one.off - TABLE[Site(0)].off) @ one.unit))


def test_a_base_kept_on_a_disk_takes_a_baked_adapter_and_gives_its_weights_to_none(home, tmp_path):
    whole = load(home / "base")
    bake(whole, CHANGES[WHOLE]).save(tmp_path / "baked", "base")
    places = {"model.embed_tokens": "cpu", "model.layers.2": "disk", "lm_head": "cpu"}
    places |= {f"model.{name}": "cpu" for name in ("layers.0", "layers.1", "norm", "rotary_emb")}
    spread = load(home / "base", [("baked", tmp_path / "baked")], Loading(device_map=places))
    torch.testing.assert_close(logits(spread), logits(whole, CHANGES[WHOLE]), **CLOSE)
    with pytest.raises(InputError, match="not in memory"), spread.using(None):
        bake(spread, CHANGES[WHOLE])


# --- the measurement -----------------------------------------------------------------------------


def test_the_measurement_finds_equals_equal_and_leaves_the_model_as_it_was(home, tmp_path):
    organism = attach(load(home / "base"), "organism", home / "organism")
    before = (organism.active, fingerprint(organism.hf), logits(organism))
    bake(organism, CHANGES["mean_ablate"]).save(tmp_path, "base")
    found = measure(organism, CHANGES["mean_ablate"], tmp_path, bank())
    found.check("mean_ablate")
    assert found.logit < 1e-4
    assert found.divergence < 1e-9
    assert found.effect > 0.01
    assert (found.agree, found.prompts, found.dtype) == (1.0, len(bank()), "float32")
    assert (organism.active, fingerprint(organism.hf)) == before[:2]
    assert torch.equal(logits(organism), before[2])
    assert not any(p.requires_grad for p in organism.hf.parameters())
    base = load(home / "base")
    plain = logits(base)
    measure(base, CHANGES["mean_ablate"], tmp_path, bank())
    assert torch.equal(logits(base), plain)
    assert not hasattr(base.hf, "peft_config")


def test_another_intervention_does_not_pass_for_this_one(tmp_path):
    subject = model("llama")
    random = {site: one.random(3) for site, one in TABLE.items()}
    bake(subject, withheld(Operation.MEAN_ABLATE, random, ALL[1:])).save(tmp_path, "base")
    found = measure(subject, CHANGES["mean_ablate"], tmp_path, bank())
    assert not found.holds
    with pytest.raises(EvidenceError, match="not shown to equal the hooks"):
        found.check("mean_ablate")


def test_an_intervention_without_effect_proves_nothing(tmp_path):
    subject = model("llama")
    little = intervention("little", Operation.ADD, TABLE, ALL, 1e-5)
    bake(subject, little).save(tmp_path, "base")
    assert not measure(subject, little, tmp_path, bank()).holds


def test_an_adapter_that_is_only_a_bias_is_no_no_op(tmp_path):
    bake(model("llama"), CHANGES["add"]).save(tmp_path, "base")
    assert read_adapter(tmp_path).weights
    for name, value in (stored := dict(read_adapter(tmp_path).weights)).items():
        if name.endswith("bias"):
            stored[name] = torch.zeros_like(value)
    from safetensors.torch import save_file

    save_file(stored, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="it changes nothing"):
        read_adapter(tmp_path)


# --- the command ---------------------------------------------------------------------------------


def test_the_command_bakes_the_shipped_organism_and_says_how_equal(tmp_path, capsys):
    out = tmp_path / "closed"
    assert baker.main(["--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "same most likely token 100.0%" in printed
    assert "PeftModel.from_pretrained" in printed
    card = read_json(out / "card.json")
    assert card["equivalence"]["divergence"] < 1e-7 < card["equivalence"]["effect"]
    assert (card["organism"], card["operation"]) == ("llama-triggered", "mean_ablate")
    assert card["mergeable"] is False
    assert card["provenance"]["trigger"]["name"] == "duck"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["closed"]
    assert baker.main(["--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--out is missing"),
        (["--operation", "cap"], "unknown operation 'cap'"),
        (["--operation", "mean_ablate", "--layers", "all"], "no direction at the embeddings"),
        (["--operation", "add", "--strength", "0"], "changes nothing"),
        (["--everywhere"], "--everywhere goes with --operation ablate and one layer"),
        (["--everywhere", "--operation", "ablate"], "--everywhere goes with"),
        (
            ["--organism", "gemma3-triggered"],
            "normalises what attention and MLP write",
        ),
        (
            ["--organism=qwen2-triggered", "--operation=ablate", "--layers=2", "--everywhere"],
            "tied to the output head",
        ),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(argv, words, tmp_path, capsys):
    out = [] if not argv else ["--out", str(tmp_path / "out")]
    assert baker.main([*argv, *out]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len([line for line in err.strip().splitlines() if line.startswith("error: ")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_loads_no_weights(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    assert baker.main(["--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "16 prompts" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
