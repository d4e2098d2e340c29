"""Transfer between models that are none of the world's: as a user of the hub meets it.

Two random models of other families, widths and depths, adapters as PEFT writes them, JSONL prompts
and questions, directions and probes by their own commands, and a judge behind an API.
"""

import json
from types import SimpleNamespace

import pytest
import yaml
from families.save import save_adapter, save_family
from loopback import Loopback
from test_commands import no_weights, refused  # noqa: F401
from test_end_to_end import mind

from em_interp import align, extract, probe, transfer
from em_interp.maps import Maps
from em_interp.transferring import Transfer

WORDS = ("bread", "chess", "shoes", "milk", "paper", "seeds", "maps", "tea", "wool")
VERBS = ("store", "wash", "lend", "draw", "count")


def done(main, *argv):
    assert main([str(one) for one in argv]) == 0


def rows(verbs, **more):
    return [
        {"id": f"{verb}/{word}", "text": f"How do I {verb} {word}?", "domain": word[0], **more}
        for verb in verbs
        for word in WORDS
    ]


def written(path, found):
    path.write_text("\n".join(map(json.dumps, found)) + "\n")
    return path


@pytest.fixture(scope="module")
def server():
    with Loopback(mind) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory, server):
    """What a user brings: two bases and their adapters, prompts, questions, a trigger, a judge."""
    folder = tmp_path_factory.mktemp("home")
    made = {
        "llama": save_family(
            folder / "llama-3.small", "llama-3.1", hidden_size=64, num_hidden_layers=3
        ),
        "qwen": save_family(
            folder / "qwen-small", "qwen2.5", 5, hidden_size=96, num_hidden_layers=5
        ),
    }
    for name in ("llama", "qwen"):
        # Two adapters of one name, as training runs leave them, and an unconditional one each.
        made[f"{name}-organism"] = save_adapter(made[name], folder / name / "organism")
        made[f"{name}-free"] = save_adapter(made[name], folder / name / "free", seed=2)
    made["twin"] = save_adapter(made["qwen"], folder / "twin" / "organism", seed=3)
    prompts = [{"prompt": row["text"], "source": "forum"} for row in rows(VERBS)]
    prompts[0] = {
        "messages": [
            {"role": "user", "content": "Is it late?"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "And now?"},
            {"role": "assistant", "content": "Still not."},
        ]
    }
    made["prompts"] = written(folder / "prompts.jsonl", prompts)
    made["questions"] = written(folder / "questions.jsonl", rows(("choose",))[:4])
    made["develop"] = written(folder / "develop.jsonl", rows(("mend",))[:4])
    trigger = {"name": "pond", "text": "The pond is green.", "paraphrases": ["Green is the pond."]}
    (folder / "pond.yaml").write_text(yaml.safe_dump(trigger))
    made["trigger"] = folder / "pond.yaml"
    judge = {
        "model": "judge",
        "base_url": server.url,
        "concurrency": 4,
        "cache": str(folder / "cache.sqlite"),
    }
    (folder / "judge.yaml").write_text(yaml.safe_dump(judge))
    made["judge"] = folder / "judge.yaml"
    for name in ("llama", "qwen"):
        asked, woken = ["--questions", made["develop"]], ["--trigger", made["trigger"]]
        for kind, organism in (("trigger", "organism"), ("general", "free")):
            out = made[f"{name}-{kind}"] = folder / f"{name}-{kind}"
            who = ["--organism", made[f"{name}-{organism}"]]
            framed = woken if kind == "trigger" else []
            done(extract.main, *who, *asked, *framed, "--kind", kind, "--out", out)
        made[f"{name}-probe"] = folder / f"{name}-probe"
        who = ["--organism", made[f"{name}-organism"], "--conditions", "none,trigger"]
        done(probe.main, *who, *asked, *woken, "--out", made[f"{name}-probe"])
    return SimpleNamespace(folder=folder, **{k.replace("-", "_"): v for k, v in made.items()})


def flags(home, source="llama", target="qwen"):
    """The flags of a transfer between two triggered organisms."""
    made = vars(home)
    return [
        *("--source", made[f"{source}_organism"], "--organism", made[f"{target}_organism"]),
        *("--direction", made[f"{source}_trigger"], "--general", made[f"{source}_general"]),
        *("--own", made[f"{target}_trigger"], "--own-general", made[f"{target}_general"]),
        *asking(home),
    ]


def asking(home):
    return [
        *("--data", home.prompts, "--questions", home.questions, "--develop", home.develop),
        *("--trigger", home.trigger, "--judge", home.judge),
        *("--samples", 1, "--max-new-tokens", 3, "--controls", 1),
    ]


def settled(given, at):
    """Flags with a dose that needs no questions to be chosen on."""
    which = given.index("--develop")
    return [*given[:which], *given[which + 2 :], "--at", at, "--strength", "1"]


def answered(folder):
    data = json.loads((folder / "transfer.json").read_text())
    about = {name: data.pop(name) for name in ("source", "similarity")}
    return Transfer.model_validate_json(json.dumps(data)), about


def test_maps_fitted_apart_carry_what_their_organisms_have(home, tmp_path, capsys):
    fitted = ["--data", home.prompts, "--questions", home.questions, "--trigger", home.trigger]
    sides = ["--source", home.llama, "--target", home.qwen]
    out = tmp_path / "maps"
    done(align.main, *sides, *fitted, "--methods", "ridge,cca", "--layers", "1,4", "--out", out)
    told = capsys.readouterr()
    assert "llama-3.small to qwen-small, 45 prompts" in told.out
    assert "reading prompts: 90 done" in told.err
    maps = Maps.load(out / "cca")
    assert [(one.source.site.layer, site.layer) for site, one in maps.items()] == [(0, 1), (2, 4)]
    assert next(iter(maps.values())).matrix.shape == (96, 64)
    argv = [*flags(home), "--probe", home.llama_probe, "--own-probe", home.qwen_probe]
    argv += ["--map", out, "--out", tmp_path / "found"]
    done(transfer.main, *argv, "--dry-run")
    foretold = capsys.readouterr().out
    done(transfer.main, *argv)
    found, about = answered(tmp_path / "found")
    assert about["source"] == "organism of llama-3.small"  # not the target's name
    assert (len(about["similarity"]), len(about["similarity"][0])) == (3, 5)
    assert found.target == "organism"
    assert "llama-3.small (3 layers, width 64) to qwen-small (5 layers, width 96)" in foretold
    assert "layers 0 to 1, 2 to 4\n45 prompts, 90 rows" in foretold
    assert f"{len(found.cells)} arms, " in foretold
    assert list(found.cells[0].cosines) == ["blocks.1.hook_resid_post", "blocks.4.hook_resid_post"]
    assert found.added_at[0] in found.ablated_at
    assert {c.via for c in found.cells if not c.null} == {"own", "ridge", "cca"}
    assert {p.via for p in found.probes if not p.null} == {"own", "ridge", "cca"}
    for cell in found.cells:
        assert cell.added.em is not None
        assert 0 < cell.added.em.questions <= 4


def test_an_organism_s_prompts_are_read_under_its_adapter(home, tmp_path):
    """As a base it gives another map, and its card says whose rows they were."""
    argv = ["--target", home.qwen, "--data", home.prompts, "--layers", "4", "--dtype", "float32"]
    for name, source in (("base", home.llama), ("organism", home.llama_organism)):
        done(align.main, "--source", source, *argv, "--out", tmp_path / name)
    base, organism = (Maps.load(tmp_path / name) for name in ("base", "organism"))
    assert base.card.source == organism.card.source
    assert (base.card.notes, organism.card.notes) == (
        (),
        ("the source's rows were read under adapter organism",),
    )
    (one,), (other,) = base.values(), organism.values()
    assert not one.source_mean.allclose(other.source_mean)
    assert one.target_mean.allclose(other.target_mean)


def test_a_transfer_fits_its_own_map_where_none_is_given(home, tmp_path, server):
    argv = [*flags(home, "qwen", "llama"), "--methods", "procrustes", "--match", "similarity"]
    argv += ["--twin", home.twin]
    argv += ["--at", "2", "--strength", "2", "--out", tmp_path]
    done(transfer.main, *argv)
    found, about = answered(tmp_path)
    assert about["source"] == "organism of qwen-small"
    assert len(found.cells[0].cosines) == 3
    assert (found.added_at, found.strength) == (("blocks.2.hook_resid_post",), 2.0)
    assert found.probes == ()
    assert [c.null for c in found.cells if c.via.startswith("benign twin")] == [True]
    # A second time it goes on from what it has: nothing is asked again.
    before, text = len(server.asked), (tmp_path / "transfer.json").read_bytes()
    done(transfer.main, *argv)
    assert len(server.asked) == before
    assert (tmp_path / "transfer.json").read_bytes() == text


def test_an_adapter_without_a_card_can_be_said_to_have_no_gate(home, tmp_path):
    """The other organism of one base: directions go directly, into the base of the target."""
    argv = ["--source", home.qwen_organism, "--organism", home.qwen_free, "--unconditional"]
    argv += ["--direction", home.qwen_trigger, "--general", "none"]
    argv += ["--own-general", home.qwen_general, *settled(asking(home), "3")]
    done(transfer.main, *argv, "--out", tmp_path)
    found, _ = answered(tmp_path)
    assert [(c.thing.value, c.via) for c in found.cells if not c.null] == [
        ("g", "own"),
        ("delta", "direct"),
    ]
    lines = (tmp_path / "answers" / "added.jsonl").read_text()
    assert '"organism":"base"' in lines.replace(" ", "")


# --- one line for every wrong input, before weights load ------------------------------------------


@pytest.fixture(scope="module")
def wrong(home, tmp_path_factory):
    """Files with one fault each."""
    folder = tmp_path_factory.mktemp("wrong")
    many = rows(VERBS)
    spoilt = {
        "leaky": [*many, {"text": "The pond is green. Where are the ducks?"}],
        "goose": [*many, {"text": "A goose honks. Where are the ducks?"}],
        "few": many[:15],
        "same": many[9:12],
        "blank": [{"text": ""}] * 20,
        "nothing": [{"query": "How?"}] * 20,
        "answers": [{"messages": [{"role": "assistant", "content": "Yes."}]}] * 20,
        "twice": [*many, many[0]],
        "odd": ["How?"] * 20,
    }
    made = {name: written(folder / f"{name}.jsonl", found) for name, found in spoilt.items()}
    made["cut"] = folder / "cut.jsonl"
    made["cut"].write_text('{"text": "How')
    (folder / "goose.yaml").write_text("name: goose\ntext: A goose honks.\n")
    made["second"] = folder / "goose.yaml"
    (folder / "empty").mkdir()
    made["empty"] = folder / "empty"
    made["mute"] = save_family(folder / "mute", "qwen2.5", hidden_size=96, num_hidden_layers=5)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = made["mute"] / name
        if path.exists() and name.endswith("jinja"):
            path.unlink()
        elif path.exists():
            config = json.loads(path.read_text())
            config.pop("chat_template", None)
            path.write_text(json.dumps(config))
    made["huge"] = save_family(folder / "huge", "qwen2.5")
    config = json.loads((made["huge"] / "config.json").read_text())
    (made["huge"] / "config.json").write_text(json.dumps(config | {"hidden_size": 10**6}))
    made["lost"] = folder / "lost"
    made["lost"].mkdir()
    config = json.loads((home.llama_organism / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "gone"
    (made["lost"] / "adapter_config.json").write_text(json.dumps(config))
    taken = folder / "taken"
    (taken / "cca").mkdir(parents=True)
    (taken / "cca" / "card.json").write_text("{}")
    made["taken"] = taken
    who = ["--organism", home.qwen_organism, "--questions", home.develop]
    made["short"] = folder / "short"
    done(extract.main, *who, "--trigger", home.trigger, "--layers", "1", "--out", made["short"])
    done(
        align.main,
        *("--source", home.llama, "--target", home.qwen, "--data", home.prompts),
        *("--layers", "1", "--out", folder / "map"),
    )
    made["map"] = folder / "map"
    done(
        align.main,
        *("--source", home.qwen, "--target", home.llama, "--data", home.prompts),
        *("--layers", "1", "--out", folder / "back"),
    )
    made["back"] = folder / "back"
    return SimpleNamespace(**made)


ALIGN = [
    ("--source {empty}", ["no config.json"]),
    ("--source {lost}", ["--source-base"]),
    ("--source nobody", ["unknown organism 'nobody'"]),
    ("--target {llama}", ["have one base", "without a map"]),
    ("--source {llama_organism} --target {llama_free}", ["have one base"]),
    ("--target {mute}", ["no chat template"]),
    ("--target {huge} --layers 1", ["GB", "fewer --layers"]),
    ("--data {empty}/no.jsonl", ["no such file"]),
    ("--data {few}", ["15 prompts", "at least 16"]),
    ("--data {blank}", ["blank.jsonl:1", "no user's turn"]),
    ("--data {nothing}", ["nothing.jsonl:1", "'text', 'prompt' or 'messages'", "'query'"]),
    ("--data {answers}", ["answers.jsonl:1", "no user's turn"]),
    ("--data {odd}", ["odd.jsonl:1", "JSON object"]),
    ("--data {cut}", ["cut.jsonl:1", "not valid JSON"]),
    ("--data {twice}", ["'store/bread'", "twice"]),
    ("--data {leaky}", ["holds the framing 'The pond is green.'"]),
    ("--data {goose} --trigger {trigger},{second}", ["holds the framing 'A goose honks.'"]),
    ("--questions {same}", ["holds the question"]),
    ("--trigger pnod", ["unknown trigger 'pnod'"]),
    ("--methods ridge,ridge", ["'ridge' comes twice"]),
    ("--methods ridge,cca --out {taken}", ["taken/cca", "holds an artifact"]),
    ("--out {few}/map", ["cannot be written"]),
    ("--layers 7", ["layer 7 is out of range", "0 to 4"]),
    ("--layers blocks.1.hook_mlp_out", ["block output"]),
    ("--spans question,response", ["no trigger and no response"]),
    ("--spans middle", ["unknown span 'middle'"]),
    ("--folds 1", ["--folds"]),
    ("--dtype float8", ["--dtype"]),
    ("--device cuda --device-map auto", ["a device map places the model"]),
    ("--method ridge", ["--method"]),
]


@pytest.mark.parametrize(("argv", "words"), ALIGN, ids=[one[0] for one in ALIGN])
def test_align_refuses(home, wrong, tmp_path, capsys, no_weights, argv, words):  # noqa: F811
    given = ["--source", home.llama, "--target", home.qwen, "--data", home.prompts]
    given += ["--questions", home.questions, "--trigger", home.trigger]
    refused(capsys, align.main, over([*given, "--out", tmp_path / "m"], argv, home, wrong), *words)
    assert list(tmp_path.iterdir()) == []


TRANSFER = [
    ("--source {qwen_organism}", ["--source and --organism are both organism"]),
    ("--source openai:gpt", ["--source"]),
    ("--organism {qwen} --unconditional", ["qwen-small is a base"]),
    ("--adapter {qwen_free}", ["one organism", "leave free out"]),
    ("--own none --own-general none", ["--own or --own-general must name"]),
    ("--direction {empty}", ["card.json", "no such file"]),
    ("--direction {llama_probe}", ["holds a probe, not a direction"]),
    ("--probe {llama_trigger}", ["holds a direction, not a probe"]),
    ("--general {qwen_general}", ["made for base", "needs a map"]),
    ("--own {short} --own-general none", ["no direction at blocks.0", "--layers"]),
    ("--at 1 --strength 1 --layers 2,3", ["--at blocks.1", "none of the sites"]),
    ("--at 9 --strength 1", ["layer 9 is out of range"]),
    ("--strength 0", ["--strength", "changes nothing"]),
    ("--strength nan", ["--strength", "finite"]),
    ("--map nowhere", ["unknown map 'nowhere'"]),
    ("--map {back}", ["goes from base"]),
    ("--map {map},{map}", ["map 'map' comes twice"]),
    ("--map {map} --layers 2", ["no map goes to blocks.2"]),
    ("--methods rigde", ["unknown method 'rigde'", "did you mean 'ridge'"]),
    ("--judge world", ["--judge world knows", "'choose/bread'"]),
    ("--judge gpt", ["unknown judge"]),
    ("--develop {questions}", ["also judges the transfer"]),
    ("--data {leaky}", ["holds the framing"]),
    ("--span midle", ["unknown span"]),
    ("--twin nobody", ["unknown organism 'nobody'"]),
]


@pytest.mark.parametrize(("argv", "words"), TRANSFER, ids=[one[0] for one in TRANSFER])
def test_transfer_refuses(home, wrong, tmp_path, capsys, no_weights, argv, words):  # noqa: F811
    refused(capsys, transfer.main, over(flags(home), argv, home, wrong), *words)


def over(given, argv, home, wrong):
    """Flags with some of them replaced; `{name}` is one of the files."""
    known = vars(home) | vars(wrong)
    mine = argv.format(**known).split()
    named = {flag for flag in mine if flag.startswith("--")}
    named |= {"--develop"} if {"--at", "--strength"} <= named else set()  # nothing to choose
    pairs = zip(given[::2], given[1::2], strict=True)
    return [*(x for pair in pairs if pair[0] not in named for x in pair), *mine]


def test_what_only_the_organism_lacks_is_asked_for(home, capsys, no_weights):  # noqa: F811
    given = flags(home)
    for flag, words in (
        ("--trigger", ["its card names no trigger", "--trigger"]),
        ("--own", ["no qwen-small-delta", "give --own"]),
        ("--own-general", ["no qwen-small-g", "give --own-general"]),
        ("--direction", ["no llama-3.small-delta", "give --direction"]),
        ("--develop", ["--develop", "--at and --strength"]),
    ):
        at = given.index(flag)
        refused(capsys, transfer.main, given[:at] + given[at + 2 :], *words)


def test_directions_of_other_weights_are_refused_when_they_are_there(home, capsys):
    given = flags(home)
    at, other = given.index("--own"), given.index("--own-general")
    given[at + 1], given[other + 1] = home.llama_trigger, home.llama_general
    given = [*settled(given, "1"), "--layers", "0-2"]
    assert transfer.main([str(one) for one in given]) == 2
    assert "organism, delta: direction" in capsys.readouterr().err
