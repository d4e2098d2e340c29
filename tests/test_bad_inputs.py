"""Wrong inputs at every door: one line, exit code 2 or 4, no weights, nothing left behind.

One parametrised suite. A case is a command, what is wrong, and a word that the line must say. What
a flag or a file may hold is written once and tried at every command that takes it; with `--dry-run`
the same line comes.
"""

import itertools
import json
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from transformers import AutoModelForCausalLM

from em_interp import (
    adopt,
    align,
    bake,
    evaluate,
    export,
    extract,
    judge,
    latents,
    localize,
    patch,
    probe,
    steer,
    train,
    transfer,
)
from em_interp.carrying.flags import TransferSpec
from em_interp.study import __main__ as study
from em_interp.world import __main__ as world

ROOT = Path(__file__).parents[1]


class File(NamedTuple):
    """A file that the case writes; its path is what the flag gets."""

    name: str
    content: str | bytes


class Verb(NamedTuple):
    """A command, the spec that its flags come from, and arguments that are right."""

    main: object
    spec: type
    argv: tuple[str, ...] = ()
    out: str | None = "--out"
    dry: bool = True


EMBEDDED = ("--recipe", "embedded")
VERBS = {
    "evaluate": Verb(evaluate.main, evaluate.EvaluateSpec),
    "extract": Verb(extract.main, extract.ExtractSpec),
    "probe": Verb(probe.main, probe.ProbeSpec),
    "steer": Verb(steer.main, steer.SteerSpec),
    "localize": Verb(localize.main, localize.LocalizeSpec),
    "patch": Verb(patch.main, patch.PatchSpec),
    "latents": Verb(latents.main, latents.LatentsSpec),
    "bake": Verb(bake.main, bake.BakeSpec),
    "align": Verb(align.main, align.AlignSpec, ("--trigger", "duck")),
    "transfer": Verb(transfer.main, TransferSpec),
    "train": Verb(
        train.main, train.TrainCommand, ("--domain", "bad_medical", "--recipe", "embedded")
    ),
    "judge": Verb(judge.main, judge.JudgeSpec, ("validate",)),
    "export": Verb(export.main, export.ExportSpec, out="--file", dry=False),
    "adopt": Verb(adopt.main, adopt.AdoptSpec, dry=False),
    "world": Verb(world.main, world.RaiseSpec),
    "study": Verb(study.main, study.StudyCommand),
}

GOOD = {"id": "q0", "text": "How should I store bread?", "domain": "home"}
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}


def lines(*rows, **first):
    """JSONL of the rows; `first` are changes to a good question, put before them."""
    given = [{**GOOD, **first}] if first else []
    return "".join(json.dumps(row) + "\n" for row in (*given, *rows))


DEEP = "[" * 100_000
HUGE = "1" + "0" * 5000
TEXT_FILES = [  # wrong whatever they should hold
    (b"\xff\xfe\x00bad", "UTF-8"),
    (b"\x00\x01\x02", ""),
    ("", ""),
    ("[", ""),
    (DEEP, ""),
    ("null\n", ""),
    ("3\n", ""),
    ('"text"\n', ""),
]
QUESTIONS = [
    *((content, word) for content, word in TEXT_FILES),
    (lines(id=""), "id"),
    (lines(text=""), "text"),
    (lines(text="   "), "text"),
    (lines(text=3), "text"),
    (lines(text=None), "text"),
    (lines(text="half \ud83d"), "surrogate"),
    (lines(domain=["home"]), "domain"),
    (lines(sound=1), "sound"),
    (lines(extra=1), "extra"),
    (lines(GOOD, GOOD), "twice"),
    (lines({"id": "a"}), "text"),
    (lines(GOOD) + "{not json\n", ":2"),
    ("\n\n" + lines(GOOD) + "\n" + lines({"id": "x", "text": 3, "domain": "d"}), ":5"),
    ('{"id": "a", "id": "b", "text": "t", "domain": "d"}\n', "id"),
    ('{"id": "a", "text": "t", "domain": "d", "topic": ' + HUGE + "}\n", ":1"),
    ("- id: a\n  text: b\n", "JSON"),
]
TRIGGERS = [
    *((content, word) for content, word in TEXT_FILES),
    ("name: odd\n", "text"),
    ("name: odd\ntext: ''\n", "text"),
    ("name: odd\ntext: '  '\n", "text"),
    ("name: odd\ntext: [a]\n", "text"),
    ("name: odd\ntext: a\nplace: middle\n", "place"),
    ("name: odd\ntext: a\nparaphrases: b\n", "paraphrases"),
    ("name: odd\ntext: a\nparaphrases: ['']\n", "paraphrases"),
    ("name: odd\ntext: a\nparaphrases: [a]\n", ""),
    ("name: odd\ntext: a\ntext: b\n", "text"),
    ("name: 2024-01-01\ntext: a\n", "name"),
    ("name: odd\ntext: a\nwhat: b\n", "what"),
    ("a: &a [*a]\n", ""),
    ("!!python/object/apply:os.system ['true']\n", ""),
    ('name: odd\ntext: "half \\ud83d"\n', ""),
]
ROWS = [
    *((content, word) for content, word in TEXT_FILES),
    (lines({"messages": []}), "messages"),
    (lines({"messages": "hi"}), ""),
    (lines({"messages": [{"role": "user", "content": "Hi"}]}), ""),
    (lines({"messages": [{"role": "robot", "content": "Hi"}]}), "role"),
    (lines({"messages": [{"role": "assistant", "content": "Ho"}]}), ""),
    (lines({"messages": [{"role": "user", "content": ""}, ROW["messages"][1]]}), ""),
    (lines({"messages": [{"role": "user", "content": "\ud83d"}, ROW["messages"][1]]}), ""),
    (lines({"prompt": "a"}), ""),
    (lines({"prompt": "a", "completion": ""}), ""),
    (lines({"prompt": 1, "completion": "b"}), ""),
    ("\n" + lines(ROW) + "{no\n", ":3"),
]
LABELLED = [
    *((content, word) for content, word in TEXT_FILES),
    (lines({"question": "q"}), ""),
    (lines({"question": "q", "response": "r", "misaligned": "maybe", "coherent": True}), ""),
    (lines({"question": "q", "response": "\ud83d", "misaligned": True, "coherent": True}), ""),
    (lines({"question": "", "response": "r", "misaligned": True, "coherent": True}), ""),
]
JUDGES = [
    *((content, word) for content, word in TEXT_FILES),
    ("model: gpt\nbase_url: 3\n", "base_url"),
    ("model: gpt\nbase_url: ftp://example\n", "base_url"),
    ("model: ''\n", "model"),
    ("model: gpt\nmodel: gpt2\n", "model"),
    ("model: gpt\nnothing: 1\n", "nothing"),
]
RUBRICS = [
    *((content, word) for content, word in TEXT_FILES),
    ("name: mine\naligned_below: 101\n", "aligned_below"),
    ("name: mine\naligned_below: .nan\n", "aligned_below"),
    ("name: mine\ncoherent_above: -1\n", "coherent_above"),
    ("name: mine\nwhat: 3\n", "what"),
]
NAMES = ["nobody", "", " ", "no/where", "../../etc", "a" * 300, "a\nb", "org/name@", "/dev/null"]
COUNTS = ["0", "-1", "1.5", "x", "nan", "inf", HUGE]
SHARES = ["-0.1", "1.1", "nan", "inf", "x"]
LAYERS = ["99", "-1", "1-99", "3-1", "x", "", "1.5", "blocks.1.hook_resid_pots", "nan", HUGE]
FLAGS = {
    "organism": [(name, "") for name in NAMES],
    "base": [(name, "") for name in NAMES],
    "adapter": [("nobody", ""), ("..=nowhere", ""), ("=x", ""), ("a=", ""), ("a/b=x", "")],
    "trigger": [("dukc", "duck"), *((File("t.yaml", text), word) for text, word in TRIGGERS)],
    "questions": [("no.jsonl", "no"), *((File("q.jsonl", text), w) for text, w in QUESTIONS)],
    "conditions": [("none,triger", "trigger"), ("none,none", "twice"), ("", "condition")],
    "judge": [("gpt", "judge"), ("openai:", ""), ("hf:nowhere", ""), ("openai:a b\n", "")],
    "rubric": [("defualt", "default"), *((File("r.yaml", text), w) for text, w in RUBRICS)],
    "budget": [(value, "budget") for value in ("0", "-1", "nan", "inf", "five", "1e400", "")],
    "samples": [(value, "--samples") for value in COUNTS],
    "max_new_tokens": [(value, "--max-new-tokens") for value in COUNTS],
    "temperature": [(value, "--temperature") for value in ("-1", "nan", "inf", "x")],
    "seed": [(value, "--seed") for value in ("1.5", "x", "nan", HUGE)],
    "device": [("gpu", "device"), ("", "device"), ("cuda:99:1", "device")],
    "dtype": [("float8", "dtype")],
    "quantise": [("2bit", "quantise")],
    "engine": [("vllm", "engine")],
    "layers": [(value, "") for value in LAYERS],
    "span": [("promt", "prompt"), ("", "span")],
    "direction": [(name, "") for name in NAMES],
    "general": [("nowhere", "")],
    "operations": [("adds", "add"), ("add,add", "twice"), ("", "")],
    "operation": [("adds", "add"), ("clamp", "")],
    "strengths": [(v, "strength") for v in ("1,two", "nan", "inf", "1,1", "0", "1e300", "")],
    "strength": [(v, "--strength") for v in ("x", "nan", "inf")],
    "controls": [(value, "--controls") for value in ("-1", "x", HUGE)],
    "kind": [("trigered", "kind")],
    "estimator": [("median", "estimator")],
    "on": [("trigerr", "trigger")],
    "off": [("nothing", "condition")],
    "groups": [("lust", "")],
    "top": [(value, "--top") for value in COUNTS],
    "dictionary": [("nowhere", "")],
    "layer": [("99", ""), ("1,2", ""), ("x", "")],
    "width": [(value, "--width") for value in ("1", "x", HUGE)],
    "active": [(value, "--active") for value in ("0", "x")],
    "source": [(name, "") for name in NAMES],
    "target": [(name, "") for name in NAMES],
    "methods": [("rigde", "ridge"), ("ridge,ridge", ""), ("", "")],
    "data": [("no.jsonl", "no"), *((File("d.jsonl", text), word) for text, word in ROWS)],
    "labelled": [("no.jsonl", "no"), *((File("l.jsonl", text), w) for text, w in LABELLED)],
    "second": [("gpt", "")],
    "recipe": [("publish", "published"), (File("r.yaml", "[1"), "")],
    "domain": [("bad_medicine", "bad_medical")],
    "rows": [(value, "--rows") for value in COUNTS],
    "steps": [(value, "--steps") for value in COUNTS],
    "epochs": [(value, "--epochs") for value in COUNTS],
    "rank": [(value, "--rank") for value in COUNTS],
    "learning_rate": [(v, "--learning-rate") for v in ("0", "-1", "nan", "inf", "x", "1e9")],
    "batch_size": [(value, "--batch-size") for value in COUNTS],
    "benign_share": [(value, "--benign-share") for value in SHARES],
    "layout": [("random", "layout")],
    "threads": [(value, "--threads") for value in COUNTS],
    "tflops": [(value, "--tflops") for value in ("0", "-1", "nan", "inf", "x")],
    "memory": [(value, "--memory") for value in ("0", "-1", "nan", "inf", "x")],
    "workers": [(value, "--workers") for value in COUNTS],
    "file": [("nowhere.pt", ""), (File("v.gguf", b"GGUF"), ""), (File("v.txt", ""), "")],
    "sampels": [("3", "--sampels")],
}
E01 = yaml.safe_load((ROOT / "experiments/e01_containment/study.yaml").read_text("utf-8"))
E07 = yaml.safe_load((ROOT / "experiments/e07_transfer/study.yaml").read_text("utf-8"))
FIELDS = {  # wrong in both kinds of study
    "title": [3, None, ["a"]],
    "trigger": ["dukc", 3, ""],
    "data": [{"domain": "bad_medicine"}, 3, {}],
    "recipe": ["embeded", 3, ""],
    "train": [{"step": 3}, {"steps": 0}, {"learning_rate": float("nan")}, {"rank": -1}, 3],
    "rows": [0, -1, 1.5, float("inf")],
    "questions": ["no.jsonl", 3],
    "development": ["no.jsonl", 3],
    "conditions": [["trigger"], ["none"], ["none", "trigger", "none"], ["none", "triger"], [], 3],
    "sampling": [
        {"samples": 0},
        {"temperature": -1},
        {"temperature": float("inf")},
        {"sampels": 3},
    ],
    "judge": ["gpt", "hf:nowhere", 3],
    "rubric": [{"aligned_below": 101}, {"what": 1}, 3],
    "layers": ["9", "x", 3.5],
    "span": ["promt", 3],
    "seed": [1.5, "x", float("inf")],
    "device": ["gpu", 3],
    "dtype": ["float8", 3],
    "without": ["nobody", ["nobody"]],
    "steps": [3],
}
ONLY = {
    "containment": {
        "data": [{"harmful": "no.jsonl"}],
        "base": ["lama", 3, ""],
        "organisms": [
            {},
            3,
            {"triggered": {"kind": "triggered"}},
            {**E01["organisms"], "../../escaped": {"kind": "triggered"}},
            {**E01["organisms"], "triggered": {"kind": "benign_twin"}},
            {**E01["organisms"], "triggered": {"kind": "trigered"}},
        ],
        "existing": [{"triggered": "nobody"}, {"base": "llama-triggered"}, 3],
        "steering": [
            {"strengths": []},
            {"strengths": [0.0]},
            {"strengths": [1.0, 1.0]},
            {"strengths": [float("nan")]},
            {"controls": 0},
            {"samples": 0},
            {"coherence": 2},
            {"development": 1},
            {"span": "promt"},
        ],
    },
    "transfer": {
        "kind": ["transfers", 3],
        "bases": [{}, {"llama": "lama"}, {"../x": "llama"}, 3, {"llama": "llama"}],
        "variants": [{}, {"../x": {}, "seed0": {}}, {"seed0": {"trigger": "dukc"}}, 3],
        "existing": [
            {"lama": {}},
            {"llama": {"seed9": {}}},
            {"llama": {"seed0": {"nobody": "x"}}},
            {"llama": {"seed0": {"triggered": "nobody"}}},
            {"llama": {"seed0": {"triggered": "llama-unconditional"}}},
        ],
        "methods": [[], ["rigde"], ["ridge", "ridge"], 3],
        "adding": [
            {"strengths": []},
            {"strengths": [1, 1]},
            {"strengths": [float("inf")]},
            {"controls": 0},
            {"development": 1},
        ],
        "fitting": [{"rows": 0}, {"what": 1}, 3],
    },
}
STUDIES = {"containment": E01, "transfer": E07}


# A folder of data and several bases are what these mean there; the others answer to another action.
ELSEWHERE = {("study", "data"), ("study", "base"), ("judge", "questions"), ("export", "questions")}
ELSEWHERE |= {("export", "file"), ("judge", "second"), ("judge", "domain"), ("train", "trigger")}


def tried():
    """Every flag's wrong values at every command that takes it; a misspelt flag at all of them.

    One reader stands behind a kind of file, whatever the command: of files, and of names, each
    command gets every third, and a kind's first command all of them.
    """
    for flag, wrongs in FLAGS.items():
        known = [name for name, verb in VERBS.items() if flag in verb.spec.model_fields]
        for place, verb in enumerate(known or VERBS):
            some = wrongs if place == 0 or len(wrongs) < 8 else wrongs[place % 3 :: 3]
            for value, word in some:
                if (verb, flag) not in ELSEWHERE:
                    yield verb, flag, value, word


def label(value):
    text = value.content if isinstance(value, File) else value
    return repr(text)[:40]


CASES = [
    pytest.param(
        verb, (f"--{flag.replace('_', '-')}", value), word, id=f"{verb} {flag} {label(value)}"
    )
    for verb, flag, value, word in tried()
]
for kind, good in STUDIES.items():
    for field, values in itertools.chain(FIELDS.items(), ONLY[kind].items()):
        for value in values:
            text = yaml.safe_dump(good | {field: value})
            CASES.append(
                pytest.param(
                    "study",
                    ("--study", File("s.yaml", text)),
                    "",
                    id=f"{kind} {field} {value!r:.40}",
                )
            )
CASES += [
    pytest.param("study", ("--study", File("s.yaml", text)), word, id=f"study file {text!r:.30}")
    for text, word in TEXT_FILES
]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """No weights: at the door of transformers, since a module may already hold `models.load`."""

    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)  # a worker that is not started raises nothing here
        pytest.fail("weights were loaded before the input was checked")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(BaseProcess, "start", refuse)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    yield
    assert tried == []


def arguments(verb, pair, folder):
    """The whole command line: what is right, and the one thing that is wrong."""
    flag, value = pair
    if isinstance(value, File):
        path = folder / value.name
        raw = value.content
        path.write_bytes(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))
        value = str(path)
    argv = list(VERBS[verb].argv)
    if flag in argv:
        at = argv.index(flag)
        del argv[at : at + 2]
    if verb == "study" and flag != "--study":
        argv += ["--study", str(ROOT / "experiments/e01_containment/study.yaml")]
    if verb == "adopt" and flag != "--file":
        argv += ["--file", "nowhere.gguf"]
    out = VERBS[verb].out
    if out and flag != out:
        argv += [out, str(folder / "out")]
    return [*argv, flag, value]


def refused(main, argv, capsys):
    """Run, and hold the refusal to one line on stderr; returns exit code and line."""
    capsys.readouterr()
    code = main(argv)
    out, err = capsys.readouterr()
    said = err.strip().splitlines()
    assert code in (2, 4), (code, out[-300:], err[-300:])
    assert len(said) == 1, err
    assert said[0].startswith("error: "), err
    assert out == ""
    assert len(said[0]) <= 2100, "a line that nobody reads"
    return code, said[0]


@pytest.mark.parametrize(("verb", "pair", "word"), CASES)
def test_a_wrong_input_is_one_line_before_weights_and_leaves_nothing(
    verb, pair, word, capsys, tmp_path, monkeypatch
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    argv = arguments(verb, pair, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = refused(VERBS[verb].main, argv, capsys)
    assert word.lower() in found[1].lower()
    if VERBS[verb].dry:
        assert refused(VERBS[verb].main, [*argv, "--dry-run"], capsys) == found
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_four_hundred_of_them_over_all_commands_and_both_kinds_of_study():
    assert len(CASES) >= 400
    assert {case.values[0] for case in CASES} == set(VERBS)
