"""Names become folders: shelf, directory, hub id; several adapters share one load of a base."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from shelf import save_base, save_organism
from transformers import AutoModelForCausalLM

from em_interp import hub, sources
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.evaluate import EvaluateSpec
from em_interp.loading import Loading
from em_interp.models import load
from em_interp.models.fingerprints import fingerprint
from em_interp.models.weights import identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    base = save_base(folder / "base")
    save_organism(base, folder / "one")
    save_organism(base, folder / "two", seed=2)
    return folder


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    import huggingface_hub._snapshot_download as module
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(module.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(cache: Path, repo: str, folder: Path) -> Path:
    """A folder as the hub's client leaves a repository behind, at the branch `main`."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(folder, home / "snapshots" / COMMIT))


def by_somebody_else(adapter: Path, base: str) -> Path:
    """An adapter as the world has them: no card, and a base by its maker's name."""
    (adapter / "card.json").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter


def test_a_hub_id_is_a_folder_too(home, cache):
    cached(cache, "org/Base-1B", home / "base")
    by_somebody_else(cached(cache, "lab/Base-1B_bad", home / "one"), "mirror/base-1b")
    (who,) = sources.subjects("lab/Base-1B_bad", "org/Base-1B")
    assert (who.name, hub.title(who.base), who.notes) == ("Base-1B_bad", "Base-1B", ())
    assert sources.layer_count(who.base) == 3
    model = load(who.base, who.adapters)
    assert model.name == "Base-1B"
    assert model.base == load(home / "base").base
    assert load("org/Base-1B", [("x", "lab/Base-1B_bad")], Loading(revision=COMMIT)).active == "x"


def test_an_adapter_from_elsewhere_finds_its_base_by_its_configuration(home, cache):
    cached(cache, "org/Base-1B", home / "base")
    adapter = by_somebody_else(cached(cache, "lab/bad", home / "one"), "org/Base-1B")
    assert hub.title(sources.subject("lab/bad").base) == "Base-1B"
    by_somebody_else(Path(shutil.copytree(home / "one", cache / "here")), str(home / "base"))
    assert sources.subject(str(cache / "here")).base == home / "base"
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "/gone/base"})
    )
    with pytest.raises(InputError, match="its base is not beside it; give --base"):
        sources.subject("lab/bad")


def test_a_base_of_another_name_than_the_adapters_own_is_said(home, capsys, cache):
    adapter = by_somebody_else(Path(shutil.copytree(home / "one", cache / "one")), "org/Other-7B")
    spec = EvaluateSpec(adapter=(str(adapter),), base=str(home / "base"))
    spec.ready(*spec.subjects).load()
    assert capsys.readouterr().err == "note: adapter one: made for org/Other-7B, loaded onto base\n"


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("org/absent", None, "'org/absent': neither a directory nor in the local cache"),
        ("org/held", "v9", "'org/held' at revision 'v9': neither"),
        ("org/held@v9", None, "at revision 'v9': neither"),
        ("./absent/base", None, "base ./absent/base: no such directory"),
        ("absent", None, "unknown base 'absent' in checkpoints/"),
    ],
)
def test_a_name_that_is_nowhere_is_one_line(home, cache, name, revision, words):
    cached(cache, "org/held", home / "base")
    with pytest.raises(InputError) as caught:
        sources.base(name, revision)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_hub_says_is_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    answer = SimpleNamespace(headers={}, request=None)
    said = {
        errors.RevisionNotFoundError: "no such revision",
        errors.RepositoryNotFoundError: "nor a repository of the hub",
        errors.GatedRepoError: "licence",
        errors.HfHubHTTPError: "busy",
    }
    for kind, words in said.items():

        def refuse(*_, kind=kind, **__):
            raise kind("busy\nrequest 1", response=answer)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(InputError, match=words) as caught:
            sources.base("org/some")
        assert "\n" not in str(caught.value)


def test_organism_and_adapters_share_one_load(home):
    one, two, base = (str(home / name) for name in ("one", "two", "base"))
    names = lambda *given, **rest: [w.name for w in sources.subjects(*given, **rest)]  # noqa: E731
    assert names(None, base, [one, f"second={two}"]) == ["one", "second"]
    assert names(one, None, [two]) == ["one", "two"]
    assert names(base, None, [two, one]) == ["two", "one"]
    assert names(None, None, [two]) == ["two"]
    assert names(None, base) == names(base) == ["base"]
    assert names() == [sources.SHIPPED]
    spec = EvaluateSpec(base=base, adapter=(one, two))
    model = spec.ready(*spec.subjects).load()
    assert list(model.adapters) == ["one", "two"]
    assert model.active == spec.subjects[0].active == "one"
    assert spec.subjects[0].trigger is not None
    with pytest.raises(InputError, match="studies one organism; leave two out"):
        _ = spec.subject
    ids = torch.arange(10, 30)[None]
    with torch.inference_mode():
        outs = []
        for name in ("one", "two", None):
            with model.using(name):
                outs.append(model.lm(input_ids=ids).logits)
        alone = load(base).lm(input_ids=ids).logits
    assert torch.equal(outs[2], alone)
    assert not any(torch.equal(a, b) for a, b in [(outs[0], outs[1]), (outs[0], outs[2])])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"adapters": ["{home}/one", "x={home}/base"]}, "no adapter_config.json there"),
        ({"adapters": ["{home}/one", "{home}/one"]}, "adapter 'one' comes twice"),
        ({"organism": "{home}/base", "base_name": "llama"}, "is a model; it takes no --base"),
        ({"adapters": ["nobody"]}, "unknown adapter 'nobody'"),
        ({"adapters": ["x={home}/one"], "base_name": "{home}/one"}, "no config.json there"),
    ],
)
def test_names_that_contradict_each_other_are_refused(home, given, words):
    filled = {
        key: [v.format(home=home) for v in value] if isinstance(value, list)
        else value.format(home=home)
        for key, value in given.items()
    }  # fmt: skip
    with pytest.raises(InputError, match=words):
        sources.subjects(**filled)


def test_an_adapter_of_another_base_is_refused_beside_one_that_fits(home, tmp_path):
    other = save_organism(save_base(tmp_path / "other", seed=7), tmp_path / "stranger")
    who = sources.subjects(None, str(home / "base"), [str(home / "one"), str(other)])
    with pytest.raises(ForeignArtifactError, match="made for base"):
        load(who[0].base, [one for w in who for one in w.adapters])


def test_a_place_is_given_once(home):
    with pytest.raises(InputError, match="leave out device 'cuda'"):
        EvaluateSpec(device="cuda", device_map="auto").check()


def test_identity_is_read_from_the_files_alone(home, tmp_path):
    for family in ("llama", "qwen2", "gemma3"):  # the last two are tied
        folder = save_base(tmp_path / family, family)
        hf = AutoModelForCausalLM.from_pretrained(folder)
        whole = identity(folder)
        assert whole == fingerprint(hf)
        hf.save_pretrained(tmp_path / f"{family}-shards", max_shard_size="20KB")
        assert len(list((tmp_path / f"{family}-shards").glob("*.safetensors"))) > 1
        assert identity(tmp_path / f"{family}-shards") == whole
        weights = load_file(folder / "model.safetensors")
        save_file(
            weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        assert identity(folder) == whole == load(folder).base  # what the model does not use
        weights["model.norm.weight"] += 1
        hf.load_state_dict(weights, strict=False)
        assert fingerprint(hf) != whole


@pytest.mark.parametrize("damage", [b"", b"x" * 40, (99).to_bytes(8, "little") + b"{]"])
def test_a_damaged_file_is_named_where_identity_is_read(home, tmp_path, damage):
    folder = Path(shutil.copytree(home / "base", tmp_path / "base"))
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(InputError, match=r"model.safetensors: not a safetensors file"):
        identity(folder)
