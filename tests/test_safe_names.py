"""Names never become paths without a check: whatever is named, nothing is written outside --out."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from shelf import save_base, save_organism
from test_commands import no_weights, refused, study_file  # noqa: F401

from em_interp import evaluate, hub, sources
from em_interp.errors import InputError
from em_interp.records import NAME_BYTES, SafeName, safe_name
from em_interp.study import __main__ as study
from em_interp.study.matrix import cells
from em_interp.study.spec import StudySpec
from em_interp.study.transfers.spec import TransferSpec
from em_interp.world.recipe import BaseRecipe, recipe

BAD = (
    "..",
    ".",
    "../../escaped",
    "/abs",
    "a/b",
    "a\\b",
    "CON",
    "nul.txt",
    "a\0b",
    "",
    " ",
    "a ",
    "a.",
    ".hidden",
    "-flag",
    "x" * (NAME_BYTES + 1),
    "ä" * NAME_BYTES,
    "a\nb",
    "a\x1b[2J",
    "a\u202eb",
    "\ud83d",
    "~",
    "a:b",
    "a*",
)
GOOD = ("triggered", "seed 1", "qwen2.5-14b", "a_b", "C++", "Zürich", "合金", "x" * NAME_BYTES)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    save_organism(save_base(folder / "base"), folder / "organism")
    return folder


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_name_that_is_a_path_is_refused_by_the_type_and_by_the_door(name):
    with pytest.raises(ValidationError, match="names a folder"):
        TypeAdapter(SafeName).validate_python(name)
    with pytest.raises(InputError, match="names a folder") as fault:
        safe_name(name, "role")
    assert str(fault.value).isprintable()


@pytest.mark.parametrize("name", GOOD)
def test_names_that_people_give_are_names(name, tmp_path):
    assert safe_name(name, "role") == name
    (tmp_path / f"{name}-{name}-{name}" / name).mkdir(parents=True)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_no_field_of_a_spec_that_names_a_folder_takes_a_path(name, tmp_path):
    plain = {
        "title": "t",
        "question": "q",
        "base": "llama",
        "trigger": "duck",
        "data": {"domain": "bad_medical"},
        "without": ["unconditional", "benign_twin"],
    }
    mix = {"kind": "triggered"}
    StudySpec.parse(plain | {"organisms": {"triggered": mix}})
    for field, value in (("organisms", mix), ("existing", "llama-triggered")):
        roles = {"organisms": {"triggered": mix}}
        roles[field] = roles.get(field, {}) | {name: value}
        with pytest.raises(InputError, match="names a folder"):
            StudySpec.parse(plain | roles)
    grid = {
        "kind": "transfer",
        "title": "t",
        "question": "q",
        "bases": {"near": "llama", "far": "qwen2"},
        "variants": {"first": {}},
        "trigger": "duck",
        "data": {"domain": "bad_medical"},
    }
    TransferSpec.parse(grid)
    for field, value in (("bases", "llama"), ("variants", {})):
        with pytest.raises(InputError, match="names a folder"):
            TransferSpec.parse(grid | {field: grid[field] | {name: value}})
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(plain | {"matrix": {"model": {name: {"base": "llama"}}}}))
    with pytest.raises(InputError, match=r"names a folder|surrogate pair"):
        cells(file)
    base = recipe("llama").model_dump(mode="json")
    with pytest.raises(InputError, match="names a folder"):
        BaseRecipe.parse(base | {"name": name})


@pytest.mark.parametrize("name", [one for one in BAD if one.strip()])
def test_an_adapter_given_a_path_for_a_name_is_refused(name, home, tmp_path, capsys, no_weights):  # noqa: F811
    line = ["--base", home / "base", "--adapter", f"{name}={home / 'organism'}"]
    line += ["--out", tmp_path / "out", "--dry-run", "--trigger", "duck"]
    refused(capsys, evaluate.main, line, "is not UTF-8" if name == "\ud83d" else "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_called_by_dots_has_the_name_it_has(home, monkeypatch):
    (home / "organism" / "inner").mkdir(exist_ok=True)
    monkeypatch.chdir(home / "organism" / "inner")
    assert hub.title(Path("..")) == "organism"
    assert hub.title(Path()) == "inner"


def test_a_card_cannot_lead_to_a_base_elsewhere(home, tmp_path):
    shelf = tmp_path / "shelf"
    shutil.copytree(home / "organism", shelf / "organism")
    shutil.copytree(home / "base", tmp_path / "base")
    card = json.loads((shelf / "organism" / "card.json").read_text())
    (shelf / "organism" / "card.json").write_text(json.dumps(card | {"base_name": "../base"}))
    config = json.loads((shelf / "organism" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = ""
    (shelf / "organism" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="--base"):
        sources.subject(str(shelf / "organism"))


@pytest.mark.parametrize("role", ["../../escaped", "..", "/tmp/escaped"])
def test_nothing_is_written_outside_the_output_folder(role, home, tmp_path, capsys):
    out = tmp_path / "a" / "b" / "out"
    kinds = {"triggered": "triggered", "unconditional": "unconditional", role: "benign_twin"}
    roles = {name: {"kind": kind} for name, kind in kinds.items()}
    file = study_file(home, organisms=roles, without=["benign_twin"])
    refused(capsys, study.main, [file, "--out", out], "study.yaml", "organisms", "names a folder")
    assert list(tmp_path.rglob("*")) == []
