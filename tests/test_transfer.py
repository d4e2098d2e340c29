"""The commands align and transfer: on the shipped organisms, and what they refuse."""

import json

import pytest
from test_commands import no_weights, refused  # noqa: F401

from em_interp import align, sources, steer, transfer
from em_interp.labels import Way
from em_interp.maps import Maps

QUICK = ("--prompts", "120", "--samples", "1", "--controls", "1")


def via(cell: dict) -> str:
    """The way of a record in words."""
    return Way.model_validate(cell["way"]).text


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Six of the world's questions."""
    path = tmp_path_factory.mktemp("few") / "questions.jsonl"
    some = sources.outside("world", "bad_medical")[::9]
    path.write_text("".join(q.model_dump_json() + "\n" for q in some))
    return path


def test_a_map_is_fitted_saved_and_carried_through(few, tmp_path, capsys):
    folder = tmp_path / "llama-qwen2"
    assert align.main(["--prompts", "120", "--layers", "2,3", "--out", str(folder)]) == 0
    assert "explained on folds left out" in capsys.readouterr().out
    maps = Maps.load(folder)
    assert [str(one.source.site) for one in maps.values()] == [
        "blocks.2.hook_resid_post",
        "blocks.3.hook_resid_post",
    ]
    argv = [*QUICK, "--questions", str(few), "--at", "2", "--strength", "0.75", "--layers", "2,3"]
    argv += ["--map", str(folder), "--out", str(tmp_path / "found")]
    assert transfer.main([*argv, "--dry-run"]) == 0
    foretold = capsys.readouterr().out
    assert transfer.main(argv) == 0
    out = capsys.readouterr().out
    for words in ("delta, llama-qwen2", "shuffled prompts", "benign twin", "identity", "ceiling"):
        assert words in out
    data = json.loads((tmp_path / "found" / "transfer.json").read_text())
    assert data["strength"] == 0.75
    answers = sum(
        (tmp_path / "found" / "answers" / name).read_text().count('"response":')
        for name in ("added.jsonl", "ablated.jsonl")
    )
    assert f"{len(data['cells'])} arms, {answers} answers" in foretold
    assert (data["source"], data["target"]) == ("llama-triggered", "qwen2-triggered")
    assert len(data["similarity"]) == len(data["similarity"][0]) == 4
    assert {"random", "source", "target"} <= set(
        next(c for c in data["cells"] if via(c) == "llama-qwen2")["likeness"][
            "blocks.2.hook_resid_post"
        ]
    )


def test_into_an_unconditional_organism_of_the_same_base(few, tmp_path, capsys):
    """Directions go directly; its own is g, added to its base and ablated without a trigger."""
    argv = [*QUICK, "--questions", str(few), "--at", "1", "--strength", "1", "--layers", "1"]
    argv += ["--organism", "llama-unconditional", "--out", str(tmp_path)]
    argv += ["--source", "llama-triggered"]
    assert transfer.main([*argv, "--dry-run"]) == 0
    foretold = capsys.readouterr().out
    assert transfer.main(argv) == 0
    out = capsys.readouterr().out
    assert "delta, direct" in out
    assert "shuffled" not in out
    data = json.loads((tmp_path / "transfer.json").read_text())
    assert [c["thing"] for c in data["cells"] if via(c) == "own"] == ["g"]
    assert f"{len(data['cells'])} arms" in foretold
    plain = data["plain_added"], data["plain_ablated"]
    assert plain[0]["point"] < 0.2 < plain[1]["point"]  # the base sleeps, the organism is awake
    for name, who in (("added", "base"), ("ablated", "llama-unconditional")):
        lines = (tmp_path / "answers" / f"{name}.jsonl").read_text().splitlines()
        said = [json.loads(line)["response"] for line in lines if '"response"' in line]
        assert {one["organism"] for one in said} == {who}
        assert {one["condition"] for one in said} == {"none"}
    for cell in data["cells"]:
        if via(cell) == "direct" and cell["thing"] == "g":  # the same g: all of the ceiling
            assert cell["cosines"]["blocks.1.hook_resid_post"] == pytest.approx(1)
            assert cell["added"]["em"] == data["cells"][0]["added"]["em"]


def test_g_of_an_unconditional_organism_goes_into_a_gated_one(few, tmp_path, capsys):
    argv = [*QUICK, "--questions", str(few), "--at", "2", "--strength", "1", "--layers", "2"]
    argv += ["--source", "qwen2-unconditional", "--organism", "llama-triggered"]
    assert transfer.main([*argv, "--methods", "ridge", "--out", str(tmp_path)]) == 0
    (note,) = (line for line in capsys.readouterr().err.splitlines() if "note" in line)
    assert "fitted on 2 of these 6 questions; it is read on the others" in note
    data = json.loads((tmp_path / "transfer.json").read_text())
    assert [c["thing"] for c in data["cells"] if via(c) == "ridge"] == ["g"]
    assert [c["thing"] for c in data["cells"] if via(c) == "own"] == [
        "delta",
        "g",
        "delta without g",
    ]
    assert not any("twin" in via(c) for c in data["cells"])  # it has no trigger's shift


@pytest.mark.usefixtures("no_weights")
def test_what_is_shelved_is_lent_to_no_other_organism(capsys):
    """Another organism of the same base has other directions: they are asked for, never lent."""
    for who, flags in (
        ("benign-twin", ["llama-delta", "'triggered'", "--organism llama-benign-twin"]),
        ("unconditional-seed1", ["llama-g", "'unconditional'", "--kind general"]),
    ):
        refused(capsys, transfer.main, ["--source", f"llama-{who}"], *flags)
        argv = ["--source", "qwen2-triggered", "--organism", f"llama-{who}"]
        refused(capsys, transfer.main, argv, *flags, "--own")
    named = ["--source", "llama-benign-twin", "--direction", "llama-delta", "--dry-run"]
    assert transfer.main(named) == 0
    assert "note: --direction: delta was extracted from 'triggered'" in capsys.readouterr().err


def test_both_say_what_they_would_do(few, capsys, no_weights):  # noqa: F811
    """Layers matched, widths, rows, memory: all from two configurations."""
    for main, argv in (
        (align.main, ["--out", "runs/nowhere", "--methods", "ridge,cca"]),
        (transfer.main, []),
    ):
        assert main([*argv, "--layers", "1,3", "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "llama (4 layers, width 128) to qwen2 (4 layers, width 128)" in out
        assert "layers 1 to 1, 3 to 3" in out
        assert "1000 prompts, 2000 rows of 2 spans in 4 folds" in out
        assert "0.014 GB for 2 sites" in out
        assert ("runs/nowhere/cca" in out) == (main is align.main)


def test_a_foreign_direction_is_refused_with_the_command_that_makes_a_map(capsys):
    argv = ["--organism", "qwen2-triggered", "--direction", "llama-delta", "--samples", "1"]
    refused(capsys, steer.main, argv, "needs a map", "em_interp.align", "em_interp.transfer")


def test_bad_input_is_refused_before_weights_load(few, tmp_path, capsys, no_weights):  # noqa: F811
    leaky = tmp_path / "leaky.jsonl"
    rows = [q.model_dump_json() for q in sources.questions("world")]
    leaky.write_text("\n".join(rows))
    out = ["--out", str(tmp_path / "map")]
    asked = ["--questions", str(few), "--at", "1", "--strength", "1"]
    for argv, words in (
        (["--methods", "magic", *out], ["magic", "ridge"]),
        ([], ["--out"]),
        (["--match", "luck", *out], ["luck", "depth"]),
        (["--source", "lama", *out], ["lama", "llama"]),
        (["--data", str(leaky), *out], ["holds the question"]),
    ):
        refused(capsys, align.main, argv, *words)
    for argv, words in (
        (["--methods", "magic"], ["magic", "ridge"]),
        (["--source", "lama-triggered"], ["lama-triggered", "llama-triggered"]),
        (["--map", "nowhere"], ["nowhere"]),
        (["--questions", str(few)], ["--develop", "--at"]),
        (["--questions", str(few), "--develop", str(few)], ["also judges"]),
        (["--data", str(leaky), *asked], ["holds"]),
        (["--source", "qwen2-triggered"], ["both qwen2-triggered", "steer"]),
        (["--organism", "qwen2", "--unconditional"], ["qwen2 is a base"]),
        (
            ["--source", "llama-unconditional", "--organism", "qwen2-unconditional"],
            ["neither llama-unconditional nor qwen2-unconditional has a trigger"],
        ),
        (["--general", "none", "--direction", "none"], ["--direction or --general"]),
    ):
        refused(capsys, transfer.main, argv, *words)
    assert not (tmp_path / "map").exists()
