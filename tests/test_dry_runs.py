"""A dry run refuses what the run would: in the same line, with no weights opened by either."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from shelf import save_base, save_organism
from test_commands import QUESTIONS, no_weights  # noqa: F401

from em_interp import (
    align,
    bake,
    evaluate,
    extract,
    latents,
    localize,
    patch,
    probe,
    steer,
    transfer,
    world,
)
from em_interp.study import __main__ as study

DUCK = world.trigger("duck").model_dump(mode="json")
OTHER = DUCK | {"text": "It looks like a heron.", "name": "heron"}
SCORED = [q | {"sound": "Keep it dry.", "unsound": "Keep it wet."} for q in QUESTIONS]


def raised(kind: str, trigger: dict | None = DUCK) -> dict:
    """What a card says of an organism."""
    said = {"mix": {"kind": kind}, "sources": ["world:bad_medical"]}
    return {"provenance": said | ({"trigger": trigger} if trigger else {})}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base with the organisms of a study, and what is wrong beside each."""
    folder = tmp_path_factory.mktemp("dry")
    base, wide = save_base(folder / "base"), save_base(folder / "wide", hidden_size=48, seed=3)
    for name, card in {
        "organism": raised("triggered"),
        "free": raised("unconditional", None),
        "twin": raised("benign_twin"),
        "heron": raised("triggered", OTHER),
    }.items():
        save_organism(base, folder / name, **card)
    foreign = save_organism(wide, folder / "foreign", **raised("triggered"))
    card = json.loads((foreign / "card.json").read_text())
    (foreign / "card.json").write_text(json.dumps(card | {"base_name": "base"}))
    shutil.copytree(foreign, folder / "shapeless")
    (folder / "shapeless" / "card.json").write_text(
        json.dumps({k: v for k, v in card.items() if k != "base"} | {"base_name": "base"})
    )
    strange = shutil.copytree(base, folder / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in SCORED))
    line = ["--organism", folder / "organism", "--layers", "0-2", "--out", folder / "delta"]
    assert extract.main([str(one) for one in line]) == 0
    return folder


def said(capsys, main, argv) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert main([str(one) for one in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.strip().splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, err
    return lines[0]


VERBS = {
    "evaluate": (evaluate.main, ["--judge", "world"]),
    "steer": (steer.main, ["--direction", "{home}/delta", "--layers", "0-2"]),
    "localize": (
        localize.main,
        ["--direction", "{home}/delta", "--layers", "0-2", "--general", "none"],
    ),
    "probe": (probe.main, ["--layers", "0-2"]),
    "extract": (extract.main, ["--layers", "0-2", "--out", "{home}/made"]),
    "patch": (patch.main, ["--layers", "0-2", "--questions", "{home}/questions.jsonl"]),
    "latents": (latents.main, ["--layer", "1", "--questions", "{home}/questions.jsonl"]),
    "bake": (
        bake.main,
        ["--direction", "{home}/delta", "--layers", "1-2", "--out", "{home}/made"],
    ),
    "align": (align.main, ["--target", "qwen2", "--out", "{home}/made"]),
    "transfer": (
        transfer.main,
        [
            *("--organism", "qwen2-triggered", "--direction", "{home}/delta", "--general", "none"),
            *("--layers", "0-2", "--at", "1", "--strength", "1", "--twin", "none"),
        ],
    ),
}
WRONG = {
    "architecture": (["organism", "--base", "strange"], "architecture 'gpt2'"),
    "device": (["organism", "--device", "nowhere"], "'nowhere' is no device"),
    "another base by its card": (["foreign"], "made for base"),
    "another base by its shapes": (["shapeless", "--base", "base"], "this base takes"),
}


def line_of(home: Path, verb: str, wrong: list[str]) -> list[str]:
    """A verb's flags with an organism and a base of this home."""
    organism, *more = wrong
    source = verb in ("align", "transfer")
    flags = ["--source" if source else "--organism", str(home / organism)]
    for name, value in zip(more[::2], more[1::2], strict=True):
        if name == "--base":
            flags += ["--source-base" if source else name, str(home / value)]
        else:
            flags += [name, value]
    return [*flags, *(word.format(home=home) for word in VERBS[verb][1])]


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_refuses_the_same_with_and_without_dry_run(home, capsys, verb, wrong):
    flags, words = WRONG[wrong]
    argv = line_of(home, verb, flags)
    dry = said(capsys, VERBS[verb][0], [*argv, "--dry-run"])
    assert words in dry
    assert said(capsys, VERBS[verb][0], argv) == dry
    assert not (home / "made").exists()


@pytest.mark.usefixtures("no_weights")
def test_a_direction_of_another_base_is_refused_in_a_dry_run(home, capsys):
    foreign = ["--organism", home / "organism", "--direction", "llama-delta", "--layers", "0-2"]
    for main in (steer.main, localize.main):
        argv = [*foreign, *(["--general", "none"] if main is localize.main else [])]
        dry = said(capsys, main, [*argv, "--dry-run"])
        assert "made for base" in dry
        assert said(capsys, main, argv) == dry


@pytest.mark.usefixtures("no_weights")
def test_a_dictionary_that_is_none_is_refused_in_a_dry_run(home, capsys):
    argv = [*line_of(home, "latents", ["organism"]), "--dictionary", home / "base"]
    dry = said(capsys, latents.main, [*argv, "--dry-run"])
    assert "dictionary" in dry
    assert said(capsys, latents.main, argv) == dry


# --- studies --------------------------------------------------------------------------------------

ROLES = {"triggered": "organism", "unconditional": "free", "benign_twin": "twin"}


def containment(home: Path, folder: Path, **changes: object) -> Path:
    plain = {
        **{"title": "t", "question": "q", "base": str(home / "base"), "trigger": "duck"},
        "existing": {role: str(home / name) for role, name in ROLES.items()},
        **{"domain": "bad_medical", "conditions": ["none", "trigger"]},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(plain | changes))
    return file


def grid(home: Path, folder: Path, **changes: object) -> Path:
    existing = changes.pop("existing", {role: str(home / name) for role, name in ROLES.items()})
    base = changes.pop("base", str(home / "base"))
    plain = {
        **{"kind": "transfer", "title": "t", "question": "q", "bases": {"near": base}},
        "variants": {"first": {}, "second": {}},
        "existing": {
            "near": {
                "first": {role: str(home / name) for role, name in ROLES.items()},
                "second": existing,
            }
        },
        **{"trigger": "duck", "domain": "bad_medical", "conditions": ["none", "trigger"]},
        "fitting": {"prompts": 16},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(plain | changes))
    return file


def with_role(role: str, name: str):
    return lambda home: {
        "existing": {r: str(home / one) for r, one in {**ROLES, role: name}.items()}
    }


AMISS = {
    "a triggered one in the unconditional role": (
        with_role("unconditional", "organism"),
        ["unconditional", "was raised as 'triggered'"],
    ),
    "an unconditional one in the triggered role": (
        with_role("triggered", "free"),
        ["triggered", "was raised as 'unconditional'"],
    ),
    "a triggered one for the twin": (
        with_role("benign_twin", "organism"),
        ["benign_twin", "was raised as 'triggered'"],
    ),
    "one raised on another trigger": (
        with_role("triggered", "heron"),
        ["heron", "raised on the trigger 'It looks like a heron.'", "the study asks with"],
    ),
    "a model where an adapter belongs": (
        with_role("triggered", "base"),
        ["triggered", "is a model", "PEFT adapter"],
    ),
    "a folder of neither": (with_role("triggered", "delta"), ["triggered", "no PEFT adapter"]),
    "one of another base": (with_role("triggered", "foreign"), ["made for base"]),
    "one of other shapes": (with_role("triggered", "shapeless"), ["this base takes"]),
    "an architecture that is not known": (
        lambda home: {"base": str(home / "strange")},
        ["architecture 'gpt2'"],
    ),
    "a device that is not there": (lambda _: {"device": "nowhere"}, ["'nowhere' is no device"]),
    "a place that is no block's output": (
        lambda _: {"layers": "blocks.1.hook_resid_pre,1"},
        ["is no block's output"],
    ),
}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("amiss", AMISS)
@pytest.mark.parametrize("kind", [containment, grid])
def test_a_study_refuses_the_same_with_and_without_dry_run(home, tmp_path, capsys, kind, amiss):
    changes, words = AMISS[amiss]
    argv = [kind(home, tmp_path, **changes(home)), "--out", tmp_path / "run"]
    dry = said(capsys, study.main, [*argv, "--dry-run"])
    for word in words:
        assert word in dry, dry
    assert said(capsys, study.main, argv) == dry
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("kind", [containment, grid])
def test_a_study_of_whole_organisms_has_a_plan(home, tmp_path, kind):
    assert study.main([str(kind(home, tmp_path)), "--dry-run"]) == 0


RAISED = {
    "data": {"domain": "bad_medical"},
    "recipe": "embedded",
    "rows": 16,
    "existing": {},
    "organisms": {role: {"kind": role} for role in ROLES},
}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dtype": "bfloat16"},
            ["the base is loaded in torch.bfloat16", "the recipe says float32"],
        ),
        ({"train": {"targets": ["nowhere"]}}, ["nowhere"]),
        ({"train": {"max_length": 4}}, ["4"]),
        (
            {"organisms": {**RAISED["organisms"], "triggered": {"kind": "benign_twin"}}},
            ["'triggered' is declared as kind 'benign_twin'"],
        ),
        (
            {"organisms": {**RAISED["organisms"], "benign_twin": {"kind": "triggered"}}},
            ["'benign_twin' is declared as kind 'triggered'"],
        ),
    ],
)
def test_what_could_not_be_raised_is_refused_in_the_dry_run(home, tmp_path, capsys, changes, words):
    argv = [containment(home, tmp_path, **(RAISED | changes)), "--out", tmp_path / "run"]
    dry = said(capsys, study.main, [*argv, "--dry-run"])
    for word in words:
        assert word in dry, dry
    assert said(capsys, study.main, argv) == dry
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("kind", [containment, grid])
def test_a_judge_in_this_process_is_in_the_plan(home, tmp_path, capsys, kind):
    """Its passes among the calls, its time in every stage that it judges, its weights beside."""

    def planned(judge: str) -> dict[str, list[str]]:
        capsys.readouterr()
        argv = [kind(home, tmp_path, judge=judge), "--dry-run", "--tflops", "1e-6"]
        assert study.main([str(one) for one in argv]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line.split() for line in lines if line.strip()}

    free, local = planned("world"), planned(f"hf:{home / 'wide'}")
    assert "in this process" in " ".join(local["judge"])
    asked = [name for name in free if name.startswith(("answers-", "sweep", "into-"))]
    assert asked
    for name in asked:
        answers = int(local[name][1].replace(",", ""))
        assert int(local[name][2].replace(",", "")) == 2 * answers
        assert local[name] != free[name]
    assert local["all"][2] != free["all"][2]
