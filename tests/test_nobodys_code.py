"""Nobody's code runs: a checkpoint's classes, a pickle, a kernel from a hub, at no door."""

import ast
import builtins
import json
import shutil
from pathlib import Path

import pytest
from shelf import save_base, save_organism
from test_commands import no_weights, refused, study_file  # noqa: F401

from em_interp import evaluate, probe, train
from em_interp.errors import InputError
from em_interp.loading import Loading
from em_interp.models import load
from em_interp.models.sizes import size
from em_interp.records import read_yaml
from em_interp.study import __main__ as study
from em_interp.study.tokens import reader

PACKAGE = Path(__file__).parents[1] / "em_interp"
OWN = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = {kind!r}
class Own(LlamaForCausalLM): config_class = Config
class Words(PreTrainedTokenizerFast): pass
"""
MAPS = {
    "config.json": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "own.Words"]},
    "generation_config.json": {"AutoConfig": "own.Config"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    save_organism(save_base(folder / "base"), folder / "organism")
    return folder


@pytest.fixture
def yes(monkeypatch):
    """Somebody who says yes to whatever is asked, as `yes |` does."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")


def coded(home, folder, name, kind):
    """A copy of the base whose file of that name asks for code that would leave a mark."""
    shutil.copytree(home / "base", folder / "base")
    (folder / "base" / "own.py").write_text(OWN.format(marker=str(folder / "mark"), kind=kind))
    path = folder / "base" / name
    plain = json.loads(path.read_text()) if path.is_file() else {}
    if name == "config.json":
        plain["model_type"] = kind
    path.write_text(json.dumps(plain | {"auto_map": MAPS[name]}))
    return folder / "base"


@pytest.mark.usefixtures("yes")
@pytest.mark.parametrize("kind", ["llama", "own_kind"])
@pytest.mark.parametrize("name", MAPS)
def test_a_folder_that_names_code_is_refused_in_one_line_and_runs_none(
    home,
    tmp_path,
    capsys,
    name,
    kind,
    no_weights,  # noqa: F811
):
    base = coded(home, tmp_path, name, kind)
    asked = ["--base", base, "--trigger", "duck", "--out", tmp_path / "out"]
    raised = ["--base", base, "--recipe", "embedded", "--domain", "bad_medical"]
    refused(capsys, train.main, [*raised, "--out", tmp_path / "o", "--dry-run"], name, "never")
    refused(capsys, evaluate.main, asked, name, "auto_map", "never run")
    refused(capsys, probe.main, [*asked, "--organism", home / "organism"], "never run")
    file = study_file(tmp_path)
    refused(capsys, study.main, [file, "--out", tmp_path / "s"], "never run")
    with pytest.raises(InputError, match="never run"):
        size(base)
    with pytest.raises(InputError, match="never run"):
        reader(base)
    assert not (tmp_path / "mark").exists()


def test_a_kernel_of_the_hub_is_code(home, tmp_path):
    shutil.copytree(home / "base", tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    kernel = {"attn_implementation": "somebody/kernel:attention"}
    path.write_text(json.dumps(json.loads(path.read_text()) | kernel))
    with pytest.raises(InputError, match=r"kernel of the hub \(somebody/kernel"):
        load(tmp_path / "base", how=Loading())


def test_a_base_in_a_pickle_is_not_read(home, tmp_path):
    import torch
    from safetensors.torch import load_file

    shutil.copytree(home / "base", tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "base" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(tmp_path / "base")


def calls():
    """Every call in the package, with its file and what is called."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                said = {key.arg: ast.unparse(key.value) for key in node.keywords}
                yield path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func), said


def test_every_loader_of_transformers_says_that_no_code_runs():
    opened = [
        (file, called, said)
        for file, called, said in calls()
        if called.startswith("Auto") or called in ("TransformersModel", "build")
    ]
    assert len(opened) >= 6
    assert [one for one in opened if one[2].get("trust_remote_code") != "False"] == []
    doors = {"models/checkpoints.py", "world/bases.py", "engines/ndif.py", "engines/remote.py"}
    assert {file for file, _, _ in opened} == doors
    others = {
        called
        for _, called, _ in calls()
        if called.endswith((".from_pretrained", ".from_config")) and not called.startswith("Auto")
    }
    assert others == {
        "PeftConfig.from_pretrained",
        "PeftModel.from_pretrained",
        "SAE.from_pretrained",
    }


def test_the_one_reader_of_yaml_builds_plain_data_only(tmp_path):
    (tmp_path / "a.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_yaml(tmp_path / "a.yaml")


def test_no_loader_unpickles_and_nothing_is_evaluated():
    for file, called, said in calls():
        if called == "torch.load":
            assert said.get("weights_only") == "True", file
        if called in ("np.load", "numpy.load"):
            assert said.get("allow_pickle", "False") == "False", file
        last = called.rpartition(".")[2]
        assert called not in ("eval", "exec", "compile", "__import__"), file
        assert called not in ("pickle.load", "pickle.loads", "joblib.load"), file
        assert called != "yaml.load" or file == "records.py"
        assert last not in ("unsafe_load", "full_load", "read_pickle"), file
