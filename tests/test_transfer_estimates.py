"""A transfer study's plan: what it counts is what a run asks, reads and holds; the rest is laws."""

import json
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
import yaml
from loopback import PROOF
from small import QUESTIONS, tiny_model
from test_commands import no_weights, refused  # noqa: F401
from test_transfer_study import home, inputs_of  # noqa: F401
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from em_interp import capture, responses
from em_interp.conditions import bare
from em_interp.maps import (
    Anchors,
    Fit,
    Folds,
    JointMoments,
    Method,
    Nulls,
    Space,
    SpaceMap,
    fit,
    fitting,
    room,
)
from em_interp.models.sizes import size
from em_interp.records import read_yaml
from em_interp.sites import Site, Span
from em_interp.study import __main__ as study
from em_interp.study import estimates as containment
from em_interp.study.folder import RunFolder
from em_interp.study.inputs import resolve as resolve_one
from em_interp.study.pace import MACHINES
from em_interp.study.spec import StudySpec
from em_interp.study.tokens import reader
from em_interp.study.transfers.costs import Shape, sketched
from em_interp.study.transfers.estimates import Estimator
from em_interp.study.transfers.inputs import resolve
from em_interp.study.transfers.plan import answers, carrying, crossing, holding, plan, raising
from em_interp.study.transfers.showing import plan_text
from em_interp.study.transfers.spec import TransferSpec
from em_interp.study.transfers.store import Store
from em_interp.transferring import alignment
from em_interp.transferring.alignment import Alignment, Side, similarity


def estimator(inputs, machine="cpu"):
    homes = {base: inputs.of(base)[0].home for base in inputs.spec.bases}
    sizes = {base: size(one) for base, one in homes.items()}
    return Estimator(
        inputs, sizes, MACHINES[machine], {base: reader(one) for base, one in homes.items()}
    )


def changed(home, **fields):  # noqa: F811
    """The same study with other fields."""
    plain = read_yaml(home / "study.yaml")
    for name, value in fields.items():
        plain[name] = {**plain[name], **value} if isinstance(value, dict) else value
    return resolve(TransferSpec.parse(plain, "changed"), home)


SMALLER = {"methods": ["ridge"], "layers": "1.0", "fitting": {"prompts": 32}}


@pytest.fixture(scope="module")
def counted(home):  # noqa: F811
    """A whole run by one worker: answers sampled, tokens captured and bases held, by stage."""
    file = home / "smaller.yaml"
    file.write_text(yaml.safe_dump(read_yaml(home / "study.yaml") | SMALLER))
    sampled, read, held, now = Counter(), Counter(), {}, [""]
    with pytest.MonkeyPatch.context() as patch:

        def wrap(owner, name, after):
            real = getattr(owner, name)

            def wrapped(*args, **more):
                made = real(*args, **more)
                after(made, *args)
                return made

            patch.setattr(owner, name, wrapped)

        begin = RunFolder.run
        patch.setattr(
            RunFolder,
            "run",
            lambda self, name, *rest: (now.append(name), begin(self, name, *rest))[1],
        )
        wrap(responses.Log, "append", lambda _, log, rows: sampled.update({now[-1]: len(rows)}))
        for name in ("pool", "states"):  # the two passes that capture makes
            wrap(
                capture,
                name,
                lambda _, model, batch, *__: read.update({now[-1]: int(batch.mask.sum())}),
            )
        wrap(Store, "model", lambda _, store, *__: held.update({now[-1]: tuple(store._loaded)}))
        assert study.main([str(file), "--out", str(home / "counted"), "--workers", "1"]) == 0
    return sampled, read, held


def test_answers_that_a_run_samples_are_the_plans(home, counted):  # noqa: F811
    inputs = changed(home, **SMALLER)
    planned = {stage.name: stage for stage in estimator(inputs).stages()}
    assert list(planned) == list(plan(inputs))
    assert {name: one.answers for name, one in planned.items() if one.answers} == counted[0]
    for name, (group, role) in carrying(inputs).items():
        assert planned[name].answers == planned[name].verdicts == answers(inputs, group, role)
        assert planned[name].written == 3 * planned[name].answers


def test_tokens_that_a_run_captures_are_the_plans(home, counted):  # noqa: F811
    inputs = changed(home, **SMALLER)
    made = estimator(inputs)
    for stage in made.stages():
        if stage.name in raising(inputs):
            continue
        asked = 0
        if stage.name in carrying(inputs):
            group, role = carrying(inputs)[stage.name]
            asked = sum(one.read for one in made.parts(group, role, made.pace(group.base)).values())
        assert stage.read - asked == counted[1][stage.name] > 0


def test_bases_that_a_run_holds_are_the_plans(home, counted):  # noqa: F811
    inputs = changed(home, **SMALLER)
    loads = estimator(inputs).loads()
    used = {name: held for name, held in loads.items() if name not in raising(inputs)}
    assert used == counted[2]
    assert {loads[name] for name in raising(inputs)} == {()}


def tensors(value):
    """Every tensor that is held, however deep."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Folds):
        return tensors(value.parts)
    if isinstance(value, JointMoments):
        return tensors([getattr(value, field.name) for field in fields(value)])
    return [t for one in value for t in tensors(one)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("spans", [(Span.PROMPT_LAST,), (Span.QUESTION, Span.PROMPT_LAST)])
@pytest.mark.parametrize(("width", "folds"), [(48, 2), (32, 3)])
def test_moments_weigh_what_is_allocated(spans, width, folds):
    one, other = tiny_model("llama"), tiny_model("qwen2", hidden_size=width)
    pairs = [(Site(0), Site(0)), (Site(2), Site(1))]
    read = Alignment(Side(one), Side(other), pairs, spans, folds=folds).read(bare(QUESTIONS))
    held = tensors([read.moments, read.shuffled, read._kept])
    shape = Shape(one.d_model, width, len(pairs), folds, (len(QUESTIONS),) * len(spans))
    assert shape.moments == sum(t.nbytes for t in held)
    maps = [read.fit(Method.RIDGE)] if folds == 2 and len(spans) == 2 else []
    weigh = [t for some in maps for m in some.values() for t in tensors([*vars(m).values()])]
    assert shape.maps(len(maps)) == sum(t.nbytes for t in weigh)


def test_moments_of_similarity_weigh_what_is_allocated(monkeypatch):
    made = []
    monkeypatch.setattr(
        alignment, "JointMoments", lambda *widths: made.append(JointMoments(*widths)) or made[-1]
    )
    sides = tiny_model("llama"), tiny_model("qwen2", hidden_size=160, num_hidden_layers=2)
    similarity(Side(sides[0]), Side(sides[1]), bare(QUESTIONS))
    widths = sketched((3, 2), (32, 160))
    assert widths == (3 * 32, 2 * 128)
    assert room(*widths) == sum(t.nbytes for t in tensors(made))


@pytest.mark.parametrize(("p", "q", "rank"), [(100, 80, 4), (48, 32, 32)])
def test_products_of_what_follows_a_fit_are_those_that_torch_counts(p, q, rank):
    x, y = (torch.randn(300, width, generator=torch.Generator().manual_seed(1)) for width in (p, q))
    moments = JointMoments(p, q)
    moments.update(x, y)
    ends = [Space("a", Site(0), p), Space("b", Site(0), q)]
    block = torch.randn(q, rank) @ torch.randn(rank, p)
    made = SpaceMap(*ends, block, x.mean(0), y.mean(0), 1.0, Fit(method=Method.RIDGE, rank=rank))
    shape = Shape(p, q, 1, 2, (300,))
    for planned, does in (
        (shape.chance + shape.agreeing, lambda: Nulls(made, moments)),
        (shape.inverse(rank), lambda: made.inverse),
    ):
        with FlopCounterMode(display=False) as counter:
            does()
        assert 0.75 < planned.products / counter.get_total_flops() < 1.3


@pytest.mark.parametrize("method", [Method.RIDGE, Method.PROCRUSTES, Method.CCA, Method.RELATIVE])
@pytest.mark.parametrize(("p", "q", "cap"), [(100, 80, 16), (48, 32, 512), (40, 120, 64)])
def test_products_of_a_fit_are_those_that_torch_counts(method, p, q, cap, monkeypatch):
    monkeypatch.setattr(fitting, "CAP", cap)
    rows, dice = 400, torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, width, generator=dice) for width in (p, q))
    fold = torch.arange(rows) % 3
    folds = Folds(p, q, 3, 2)
    for kind in (0, 1):
        folds.update(x, y + x[:, :1], fold, kind)
    anchors = Anchors(x[:256], y[:256], fold[:256])
    with FlopCounterMode(display=False) as counter:
        fit(method, folds, Space("a", Site(0), p), Space("b", Site(0), q), anchors=anchors)
    planned = Shape(p, q, 1, 3, (rows, rows)).fit(method).products
    assert 0.75 < planned / counter.get_total_flops() < 1.3


def test_more_is_never_less(home):  # noqa: F811
    plain = {one.name: one for one in estimator(inputs_of(home)).stages()}

    def grown(**fields):
        return {one.name: one for one in estimator(changed(home, **fields)).stages()}

    samples = grown(sampling={"samples": 3})
    arms = grown(adding={"controls": 3})
    prompts = grown(fitting={"prompts": 128})
    folds = grown(fitting={"folds": 8})
    inputs = inputs_of(home)
    for name, one in plain.items():
        if name in carrying(inputs):
            assert samples[name].answers == 3 * one.answers
            assert samples[name].read == one.read  # samples share their prefill
            assert samples[name].seconds > one.seconds
            assert arms[name].answers > one.answers
            assert arms[name].read > one.read
            assert prompts[name] == one
        if name in holding(inputs):
            assert one == samples[name] == arms[name] == prompts[name] == folds[name]
        if name in crossing(inputs):
            assert prompts[name].read > 1.5 * one.read
            assert prompts[name].seconds > one.seconds
            assert prompts[name].memory <= 1.2 * one.memory  # anchors alone are more
            assert folds[name].memory >= one.memory  # comparing layers may be the fullest moment
            a, b = crossing(inputs)[name]
            assert folds[name].seconds > one.seconds or a == b  # nothing is chosen within a base
            assert samples[name] == arms[name] == one


def test_a_device_of_its_own_leaves_moments_to_the_computer(home):  # noqa: F811
    inputs = inputs_of(home)
    here, there = estimator(inputs), estimator(changed(home, device="cuda"), "cuda")
    device = {one.name: one for one in there.stages()}
    for one in here.stages():
        other = device[one.name]
        if one.name in crossing(inputs):
            bases = [there.pace(base).weights for base in there.loads()[one.name]]
            assert len(bases) == 2
            assert other.memory == sum(bases)
            assert one.memory == other.memory + other.host
            shape = there._shape(*crossing(inputs)[one.name])
            assert other.host > shape.moments
        if one.name in raising(inputs):
            assert (one.host, other.host) == (0, 0)


def test_both_kinds_of_study_agree_where_they_do_the_same(home, tmp_path):  # noqa: F811
    inputs = inputs_of(home)
    planned = estimator(inputs)
    group = inputs.of("near")[0]
    plain = read_yaml(home / "study.yaml")
    for name, some in (("questions", inputs.asked), ("development", inputs.develop)):
        lines = [json.dumps(q.model_dump(mode="json")) for q in some]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    same = ("title", "question", "trigger", "data", "recipe", "train", "conditions", "sampling")
    spec = {name: plain[name] for name in same} | {
        "base": plain["bases"]["near"],
        "organisms": {role: {"kind": role} for role in group.roles},
        "questions": "questions.jsonl",
        "development": "development.jsonl",
    }
    one = resolve_one(StudySpec.parse(spec, "same"), tmp_path)
    alone = containment.Estimator(one, size(one.home), MACHINES["cpu"], reader(one.home))
    theirs = {stage.name: stage for stage in alone.stages()}
    ours = {stage.name: stage for stage in planned.stages()}
    for role in group.roles:
        stage = ours[f"organism-near-first-{role}"]
        assert replaced(stage, f"organism-{role}") == theirs[f"organism-{role}"]
    for role in ("triggered", "unconditional"):
        part = planned.parts(group, role, planned.pace("near"))["containment"]
        assert replaced(part, f"answers-{role}") == theirs[f"answers-{role}"]
        both = planned.parts(group, role, planned.pace("near", ["far", "near"]))["containment"]
        assert both.memory == part.memory + planned.pace("far").weights
        assert both.seconds == part.seconds


def replaced(stage, name):
    return stage.model_copy(update={"name": name})


def test_a_faster_machine_takes_less_and_a_smaller_one_does_not_fit(home, capsys, no_weights):  # noqa: F811
    file, more = str(home / "study.yaml"), {}
    for flags in ([], ["--tflops", "7", "--bandwidth", "900"], ["--memory", "0.001"]):
        assert study.main([file, "--dry-run", *flags]) == 0
        more[" ".join(flags)] = capsys.readouterr().out
    plain, fast, small = more.values()
    inputs = inputs_of(home)
    for name in (*plan(inputs), "all", "tokens counted by the tokenizer", "--workers"):
        assert name in plain
    assert "assumed: 0.1 TFLOP/s and 10 GB/s sustained, 16 GB on cpu" in plain
    assert "assumed: 7 TFLOP/s and 900 GB/s" in fast
    assert "does not fit" in small
    assert "does not fit" not in plain
    machine = MACHINES["cpu"]
    quick = machine.model_copy(update={"tflops": 7.0, "bandwidth": 900.0})
    slow = estimator(inputs)
    for one, other in zip(slow.stages(), replace(slow, machine=quick).stages(), strict=True):
        assert other.seconds < one.seconds
        assert (other.answers, other.read, other.memory) == (one.answers, one.read, one.memory)


def test_a_dry_run_takes_local_copies_and_another_device(home, capsys, no_weights):  # noqa: F811
    file = str(home / "study.yaml")
    copy = home / "copy"
    copy.mkdir()
    for one in (home / "near").glob("config.json"):
        (copy / one.name).write_bytes(one.read_bytes())
    given = [file, "--dry-run", "--base", f"near={copy}", "--device", "cuda"]
    assert study.main(given) == 0
    out = capsys.readouterr().out
    assert "characters / 4" in out  # the copy has no tokenizer
    assert "140 GB on cuda" in out
    assert "its own memory" in out
    refused(capsys, study.main, [*given, "--workers", "2"], "--workers 2", "one worker")


def test_a_judge_that_costs_is_counted_once_an_answer(home):  # noqa: F811
    inputs = changed(home, judge="openai:gpt-4o-2024-08-06")
    text = plan_text(inputs, MACHINES["cpu"])
    asked = sum(one.answers for one in estimator(inputs).stages())
    line = next(line for line in text.splitlines() if line.startswith("judge openai:gpt-4o"))
    assert f"at most {PROOF + 2 * asked:,} requests" in line  # alignment and coherence
    assert f"{2 * asked:,}" in next(row for row in text.splitlines() if row.startswith("all "))
    assert "--workers" not in text


def test_wrong_machines_and_cells_are_refused(home, capsys, no_weights):  # noqa: F811
    file = str(home / "study.yaml")
    for flag in ("tflops", "bandwidth", "memory"):
        for value in ("0", "-3", "fast"):
            refused(capsys, study.main, [file, "--dry-run", f"--{flag}={value}"], flag)
    refused(capsys, study.main, [file, "--dry-run", "--cell", "a"], "--cell", "leave it out")
    assert yaml.safe_load((home / "study.yaml").read_text())["kind"] == "transfer"
