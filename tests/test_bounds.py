"""Numbers have bounds, the same in specs and flags: every numeric field of every spec is tried."""

import importlib
import math
import pkgutil
import typing
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from test_architecture import FLAGS

import em_interp
from em_interp.errors import InputError
from em_interp.records import Record, Spec
from em_interp.sampling import Sampling
from em_interp.study.spec import Steering
from em_interp.training.spec import TrainSpec

for module in pkgutil.walk_packages(em_interp.__path__, "em_interp."):
    if "inspecting" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)

# What is no setting: places of tokens, what was measured, counts of rows on a card, device numbers.
MEASURED = {
    "Context.framing",
    "Loading.device_map",
    "Provenance.arms",
    "Manipulation.touched",
    "Manipulation.moved",
    "Manipulation.before",
    "Manipulation.after",
}
ZERO = {  # names for which nothing is something
    *("seed", "temperature", "top_k", "retries", "backoff", "patience", "price_in", "price_out"),
    *("dropout", "warmup", "warmup_steps", "weight_decay", "dollars", "requests", "layers"),
    *("benign_share", "coherence", "aligned_below", "coherent_above"),
}
BACK = {"strength", "strengths", "layers"}  # a direction, and a list of layers, go both ways
ABSURD = 10**30


def leaves(kind: Any):
    if typing.get_origin(kind) is typing.Literal:
        return
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is Annotated:
        inner = inner[:1]
    yield from (leaf for one in inner for leaf in leaves(one))
    if not inner:
        yield kind


def below(kind: type[BaseModel]):
    for one in kind.__subclasses__():
        yield one
        yield from below(one)


FIELDS = {
    f"{kind.__name__}.{name}": (field, kind)
    for kind in sorted(set(below(Spec)), key=lambda kind: kind.__qualname__)
    if not issubclass(kind, Record) and kind.__module__.startswith("em_interp")
    for name, field in kind.model_fields.items()
    if {int, float} & set(leaves(field.annotation)) and name in kind.__annotations__
}
FIELDS = {name: found for name, found in FIELDS.items() if name not in MEASURED}


def bad(name: str, shares: bool):
    yield from (math.inf, -math.inf, math.nan, ABSURD, True)
    if name not in BACK:
        yield -1
    if name not in ZERO and not shares:
        yield 0


@pytest.mark.parametrize("path", FIELDS)
def test_a_senseless_number_is_refused_in_every_spec(path):
    (field, kind), name = FIELDS[path], path.split(".")[1]
    adapter = TypeAdapter(Annotated[field.annotation, Field(), *field.metadata])
    many = "tuple" in str(field.annotation)
    shares = kind.__name__ in ("CorpusSpec", "Domain", "Rule") or name == "controls"
    for value in bad(name, shares):
        with pytest.raises(ValidationError):
            adapter.validate_python((value,) if many else value)


def test_there_are_fields_to_try_and_every_exemption_exists():
    assert len(FIELDS) > 80
    every = {f"{kind.__name__}.{name}" for kind in set(below(Spec)) for name in kind.model_fields}
    assert every >= MEASURED


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Steering, {"strengths": [1, 2, 1.0]}, "1 comes twice"),
        (Steering, {"strengths": [0.5, 0]}, "0 changes nothing"),
        (Steering, {"strengths": []}, "at least 1 item"),
        (Sampling, {"temperature": 1e-300}, "0 is greedy"),
        (Sampling, {"samples": 10**7}, "at most 100,000: so many answers .* weeks"),
        (Sampling, {"max_new_tokens": 10**8}, "at most 1,000,000: .* gigabytes"),
        (Sampling, {"samples": True}, "a number is wanted"),
        (TrainSpec, {"seed": 2**32}, "less than 4294967296"),
        (TrainSpec, {"seed": -1}, "greater than or equal to 0"),
        (TrainSpec, {"learning_rate": math.inf}, "finite"),
    ],
)
def test_the_reason_is_said_in_one_line(kind, fields, said):
    with pytest.raises(InputError, match=rf"^[^\n]*{said}[^\n]*$"):
        kind.parse(fields, "study.yaml")


def test_layers_stay_what_they_were_given_as():
    (first, depth, last) = TrainSpec(layers=(0, 1.0, -1)).layers
    assert (type(first), type(depth), last) == (int, float, -1)


def numeric_flags():
    for verb in FLAGS:
        path = {"study": "study.__main__", "world": "world.__main__"}.get(verb, verb)
        module = importlib.import_module(f"em_interp.{path}")
        (spec,) = [
            one
            for name, one in vars(module).items()
            if isinstance(one, type) and issubclass(one, Spec) and not issubclass(one, Record)
            if name.endswith(("Spec", "Command")) and "dry_run" in one.model_fields
            if set(FLAGS[verb].split()) <= {n.replace("_", "-") for n in one.model_fields}
        ] or [None]
        for name, field in (spec.model_fields if spec else {}).items():
            if {int, float} & set(leaves(field.annotation)):
                yield verb, module.main, name.replace("_", "-")


VERBS = [(verb, flag) for verb, _, flag in numeric_flags()]
MAINS = {verb: main for verb, main, _ in numeric_flags()}


@pytest.mark.parametrize("number", range(len(VERBS)), ids=lambda at: "-".join(VERBS[at]))
def test_a_senseless_number_is_one_line_at_every_flag(number, capsys):
    verb, flag = VERBS[number]
    senseless = ["nan", "inf", str(ABSURD), *([] if flag in BACK else ["-1"])]
    assert MAINS[verb]([f"--{flag}", senseless[number % len(senseless)]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag in line


def test_every_verb_with_numbers_is_tried():
    verbs = set(MAINS)
    assert verbs >= {"align", "bake", "evaluate", "latents", "localize", "patch", "probe", "steer"}
    assert verbs >= {"study", "train", "transfer", "world", "extract"}
