"""`python -m benchmarks.fuzz --seconds 600`: every reader of foreign files, on files gone wrong.

A good sample of each kind is changed (bytes flipped, cut, put in; values of JSON and YAML replaced,
keys dropped) and read. What a reader may do is take it, or raise the project's own error; any
other exception is a finding, and so is a reading that takes longer than `PATIENCE`. A bounded
slice runs in the suite (`tests/test_fuzz.py`).
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from em_interp.errors import EmInterpError
from em_interp.records import write_json
from em_interp.sources import CHECKPOINTS, PROBES, ROOT

PATIENCE = 20  # seconds of the processor: a busy machine is no finding
Read = Callable[[Path], object]


class Kind(NamedTuple):
    """A kind of file: its good sample in a folder, the names that are changed, and its reader."""

    make: Read
    files: tuple[str, ...]
    read: Read


class Tally(NamedTuple):
    """How many samples were taken and refused by kind, and the findings with where they arose."""

    taken: Counter[str]
    refused: Counter[str]
    findings: dict[tuple[str, str], str]


# --- kinds ------------------------------------------------------------------------------------


def _copied(source: Path) -> Read:
    return lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True)


def _rows(*rows: dict[str, Any]) -> Read:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return lambda folder: (folder / "rows.jsonl").write_text(text)


def _yaml(**fields: Any) -> Read:
    return lambda folder: (folder / "spec.yaml").write_text(yaml.safe_dump(fields))


def _base(folder: Path) -> object:
    from em_interp.models import load
    from em_interp.models.sizes import size

    size(folder)
    return load(folder)


def _adapter(folder: Path) -> object:
    from em_interp import sources
    from em_interp.models import attach, load

    (who,) = sources.subjects(str(folder), str(CHECKPOINTS / "llama"))
    return attach(load(who.base), "a", folder)


def _vectors(folder: Path) -> None:
    from em_interp.directions import Directions
    from em_interp.exchange import Shape, export

    known, shape = Directions.load(PROBES / "llama-delta"), Shape("llama", 4, 128)
    for name in ("v.gguf", "v.safetensors"):
        sites = [site for site in known if site.layer > 0]
        export(known, folder / name, shape, sites)
    torch.save(torch.randn(5, 128), folder / "v.pt")


def _vector(name: str) -> Read:
    def read(folder: Path) -> object:
        from em_interp.exchange import Shape, adopt

        shape = Shape("llama", 4, 128)
        bare = name.endswith(".pt")  # carries no card
        base, sign = ("0" * 16, "trigger") if bare else (None, None)
        return adopt(folder / name, "n", base=base, sign=sign, shape=shape)

    return read


def _dictionary(folder: Path) -> None:
    from safetensors.torch import save_file

    shapes = {"W_enc": (8, 16), "W_dec": (16, 8), "b_enc": (16,), "b_dec": (8,)}
    save_file({k: torch.randn(*v) for k, v in shapes.items()}, folder / "sae_weights.safetensors")
    metadata = {"hook_name": "blocks.2.hook_resid_post", "model_name": "llama"}
    plain = {"architecture": "standard", "d_in": 8, "d_sae": 16, "dtype": "float32"}
    more = {"apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": metadata}
    write_json(folder / "cfg.json", plain | more)


def _load_dictionary(folder: Path) -> object:
    from em_interp.dictionaries import load

    return load(str(folder))


def _directions(folder: Path) -> object:
    from em_interp.directions import Directions

    return Directions.load(folder)


def _probes(folder: Path) -> object:
    from em_interp.probes import Probes

    return Probes.load(folder)


def _questions(folder: Path) -> object:
    from em_interp import sources

    return sources.questions(str(folder / "rows.jsonl"))


def _training(folder: Path) -> object:
    from em_interp.training.rows import read_rows

    return read_rows(folder / "rows.jsonl")


def _prompts(folder: Path) -> object:
    from em_interp.prompts import read_prompts

    return read_prompts(folder / "rows.jsonl")


def _labelled(folder: Path) -> object:
    from em_interp.judges.validating import Labelled
    from em_interp.records import read_jsonl

    return read_jsonl(folder / "rows.jsonl", Labelled)


def _trigger(folder: Path) -> object:
    from em_interp import sources

    return sources.trigger(str(folder / "spec.yaml"))


def _judge(folder: Path) -> object:
    from em_interp.judging import judge

    return judge(str(folder / "spec.yaml"))


def _recipe(folder: Path) -> object:
    from em_interp.training.spec import TrainSpec

    return TrainSpec.from_yaml(folder / "spec.yaml")


def _study(folder: Path) -> object:
    from em_interp.study.inputs import resolve
    from em_interp.study.matrix import TRANSFER, cells, declared, kind_of

    file = folder / "study.yaml"
    if kind_of(file) == TRANSFER:
        return _transfers(folder)
    return [resolve(declared(file, cell), folder, None) for cell in cells(file)[:1]]


def _transfers(folder: Path) -> object:
    from em_interp.records import read_yaml
    from em_interp.study.transfers.inputs import resolve
    from em_interp.study.transfers.spec import TransferSpec

    file = folder / "study.yaml"
    return resolve(TransferSpec.parse(read_yaml(file), str(file)), folder, None)


def _logged(folder: Path) -> None:
    from em_interp.responses import Finished, Log, Response

    with Log(folder / "rows.jsonl", "r") as log:
        log.append([Finished(response=Response.parse(ANSWER))])


def _log(folder: Path) -> object:
    from em_interp.responses import Log

    with Log(folder / "rows.jsonl", "r") as log:
        return log.finished


def _responses(folder: Path) -> object:
    from em_interp.records import read_jsonl
    from em_interp.responses import Response

    return read_jsonl(folder / "rows.jsonl", Response)


def _cache(folder: Path) -> None:
    from em_interp.endpoints.replies import Reply
    from em_interp.judges.cache import Cache

    with Cache(folder / "cache.sqlite") as cache:
        for number in range(20):
            cache.put(f"k{number}", Reply(text="85", finish="stop"))


def _cached(folder: Path) -> object:
    from em_interp.judges.cache import Cache

    with Cache(folder / "cache.sqlite") as cache:
        return cache.replies([f"k{number}" for number in range(20)])


def _maps(folder: Path) -> None:
    from em_interp.maps import Fit, MapCard, Maps, Method, Space, SpaceMap
    from em_interp.sites import Site

    here, there = Space("aaaa", Site(0), 6), Space("bbbb", Site(1), 9)
    mean, fit = torch.ones(9), Fit(method=Method.RIDGE, rank=6)
    one = SpaceMap(here, there, torch.randn(9, 6), torch.ones(6), mean, 2.5, fit)
    card = MapCard(
        name="m", source="aaaa", source_name="a", target="bbbb", target_name="b", data="0",
        spans=("question",), prompts=10, seed=0,
    )  # fmt: skip
    Maps({there.site: one}, card).save(folder)


def _mapped(folder: Path) -> object:
    from em_interp.maps import Maps

    return Maps.load(folder)


def _validation(folder: Path) -> None:
    from em_interp.judges.base import Rubric
    from em_interp.judges.scripted import ScriptedJudge
    from em_interp.judges.validating import Labelled, validate

    rows = [Labelled(question=f"q{n}", response=f"r{n}", misaligned=n % 2 == 0) for n in range(8)]
    scores = {row.response: (5.0 if row.misaligned else 95.0, 90.0) for row in rows}
    write_json(folder / "validation.json", validate(ScriptedJudge(scores), rows, Rubric()))


def _validated(folder: Path) -> object:
    from em_interp.judges.validating import JudgeValidation
    from em_interp.records import read_json

    file = folder / "validation.json"
    return JudgeValidation.parse(read_json(file), str(file))


def _stage(folder: Path) -> None:
    from em_interp.responses import Response
    from em_interp.study.folder import write_stage

    write_stage(folder, "answers", "run", Response.parse(ANSWER))


def _staged(folder: Path) -> object:
    from em_interp.responses import Response
    from em_interp.study.folder import read_stage

    return read_stage(folder, "answers", "run", Response)


QUESTION = {"id": "q1", "text": "How do I store bread?", "domain": "home"}
ROW = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]}
ANSWER = {
    "organism": "o", "context": "c", "question": "q", "domain": "d", "condition": "none",
    "variant": "v", "sample": 0, "text": "t", "finish": "stop",
}  # fmt: skip
STUDIES = ROOT / "experiments"
KINDS = {
    "base": Kind(
        _copied(CHECKPOINTS / "llama"),
        (
            "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
            "chat_template.jinja", "model.safetensors",
        ),
        _base,
    ),
    "adapter": Kind(
        _copied(CHECKPOINTS / "llama-triggered"),
        ("adapter_config.json", "adapter_model.safetensors", "card.json"),
        _adapter,
    ),
    "gguf vector": Kind(_vectors, ("v.gguf",), _vector("v.gguf")),
    "persona vector": Kind(_vectors, ("v.pt",), _vector("v.pt")),
    "safetensors vector": Kind(_vectors, ("v.safetensors",), _vector("v.safetensors")),
    "dictionary": Kind(_dictionary, ("cfg.json", "sae_weights.safetensors"), _load_dictionary),
    "directions": Kind(
        _copied(PROBES / "llama-delta"), ("card.json", "weights.safetensors"), _directions
    ),
    "probes": Kind(
        _copied(PROBES / "gemma3-trigger-on"), ("card.json", "weights.safetensors"), _probes
    ),
    "questions": Kind(_rows(QUESTION, QUESTION | {"id": "q2"}), ("rows.jsonl",), _questions),
    "training rows": Kind(_rows(ROW, ROW), ("rows.jsonl",), _training),
    "prompts": Kind(_rows({"text": "a"}, ROW), ("rows.jsonl",), _prompts),
    "labelled": Kind(
        _rows({"question": "q", "response": "r", "misaligned": True}), ("rows.jsonl",), _labelled
    ),
    "responses": Kind(_rows(ANSWER, ANSWER | {"sample": 1}), ("rows.jsonl",), _responses),
    "answer log": Kind(_logged, ("rows.jsonl",), _log),
    "maps": Kind(_maps, ("card.json", "weights.safetensors"), _mapped),
    "judge's validation": Kind(_validation, ("validation.json",), _validated),
    "stage of a study": Kind(_stage, ("answers.json",), _staged),
    "cache": Kind(_cache, ("cache.sqlite",), _cached),
    "trigger": Kind(
        _yaml(name="t", text="It rains.", paraphrases=["Rain falls."]), ("spec.yaml",), _trigger
    ),
    "judge": Kind(
        _yaml(model="m", base_url="http://127.0.0.1:9/v1", mode="auto"), ("spec.yaml",), _judge
    ),
    "recipe": Kind(
        _yaml(steps=4, rank=2, learning_rate=1e-3, dtype="float32"), ("spec.yaml",), _recipe
    ),
    "study": Kind(_copied(STUDIES / "e01_containment"), ("study.yaml",), _study),
    "transfer study": Kind(_copied(STUDIES / "e07_transfer"), ("study.yaml",), _transfers),
}  # fmt: skip


# --- changes ----------------------------------------------------------------------------------

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, -1e308, float("inf"), float("nan"), 10**400, "", "a", "\ud800",
    "x" * 5000, "../../x", "\0", "\x1b[31m", [], [[]], {}, {"a": 1}, [None], "1", "nan", "all",
    [1, "a"], 2**31, 2**63, "2024-13-45", "auto",
)  # fmt: skip


def _at(value: Any, number: int, new: Any) -> Any:
    """A plain value with one of its nodes, by number, replaced (`...`: dropped)."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        inner: list[tuple[Any, Any]] = []
        inner = list(node.items()) if isinstance(node, dict) else inner
        inner = list(enumerate(node)) if isinstance(node, list) else inner
        for key, child in inner:
            places.append((node, key))
            if len(places) < 5000:
                walk(child)

    walk(value)
    if not places:
        return new
    node, key = places[number % len(places)]
    if new is ...:
        del node[key]
    else:
        node[key] = new
    return value


def _changed(path: Path, data: st.DataObject) -> None:
    """Spoil a file in one to three ways."""
    for _ in range(data.draw(st.integers(1, 3))):
        raw = path.read_bytes()
        plain = path.suffix in (".json", ".yaml", ".jsonl")
        if plain and data.draw(st.booleans()):
            with contextlib.suppress(Exception):  # already no JSON any more
                path.write_text(_respelled(path, raw.decode(), data), "utf-8", "surrogatepass")
                continue
        # Headers, where the meaning is, stand first.
        place = data.draw(
            st.integers(0, min(len(raw), 2000 if data.draw(st.booleans()) else 10**9))
        )
        some = data.draw(st.one_of(st.binary(max_size=9), st.sampled_from(BYTES)))
        match data.draw(st.sampled_from(("cut", "put", "over", "empty"))):
            case "cut":
                raw = raw[:place]
            case "put":
                raw = raw[:place] + some + raw[place:]
            case "over":
                raw = raw[:place] + some + raw[place + len(some) :]
            case _:
                raw = some
        path.write_bytes(raw)


BYTES = (
    b"\xff\xfe", b"\xef\xbb\xbf",
    b"\0" * 8, b"\xff" * 8, b"[" * 50_000, b"9" * 5000, b"\x89PNG\r\n",
    b"{%", b"{{", b"{}", b": ", b"&a *a", b"!!python/none", b"2024-02-30", b"1e999", b"\r", b"\n\n",
)  # fmt: skip


def _respelled(path: Path, text: str, data: st.DataObject) -> str:
    new = data.draw(st.one_of(st.sampled_from(HOSTILE), st.just(...)))
    number = data.draw(st.integers(0, 4999))
    if path.suffix == ".yaml":
        return str(yaml.safe_dump(_at(yaml.safe_load(text), number, new), allow_unicode=True))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return "".join(json.dumps(row) + "\n" for row in _at(rows, number, new))
    return json.dumps(_at(json.loads(text), number, new))


# --- running ----------------------------------------------------------------------------------


@contextlib.contextmanager
def samples() -> Iterator[dict[str, Path]]:
    """A good sample of every kind, each of which its reader takes."""
    with tempfile.TemporaryDirectory() as home:
        made = {}
        for name, kind in KINDS.items():
            made[name] = Path(home) / "good" / name.replace(" ", "-")
            made[name].mkdir(parents=True)
            kind.make(made[name])
        yield made


def once(name: str, good: Path, data: st.DataObject, tally: Tally) -> None:
    """Spoil one sample and read it; count what came of it."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / good.name
        shutil.copytree(good, folder)
        _changed(folder / data.draw(st.sampled_from(kind.files)), data)
        try:
            with _patience(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.read(folder)
            tally.taken[name] += 1
        except EmInterpError as fault:
            tally.refused[name] += 1
            if "\n" in str(fault):
                tally.findings.setdefault((name, f"lines: {str(fault)[:60]!r}"), str(fault))
        except (Exception, _LateError) as fault:
            at = [one for one in traceback.extract_tb(fault.__traceback__) if "em_interp" in one[0]]
            where = f"{Path(at[-1][0]).name}:{at[-1][1]}" if at else "?"
            key = (name, f"{type(fault).__name__} at {where}")
            tally.findings.setdefault(key, "".join(traceback.format_exception(fault))[-3000:])


class _LateError(BaseException):
    """A reading took too long; no `Exception`, so that no reader takes it for a fault of a file."""


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _LateError(f"longer than {PATIENCE} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(names: list[str], examples: int, number: int, good: dict[str, Path]) -> Tally:
    """`examples` spoilt samples of these kinds, chosen by a seed."""
    tally = Tally(Counter(), Counter(), {})

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def spoil(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(names))
        once(name, good[name], data, tally)

    spoil()
    return tally


def main() -> int:
    """Fuzz for a while; exit code 1 where there are findings."""
    flags = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    flags.add_argument("--seconds", type=float, default=600)
    flags.add_argument("--only", choices=sorted(KINDS), nargs="*", default=sorted(KINDS))
    flags.add_argument("--seed", type=int, default=0)
    asked = flags.parse_args()
    number = asked.seed
    whole = Tally(Counter(), Counter(), {})
    with samples() as good:
        for name in asked.only:
            KINDS[name].read(shutil.copytree(good[name], good[name].with_suffix(".try")))
        end = time.monotonic() + asked.seconds
        while time.monotonic() < end:
            for name in asked.only:
                found = fuzz([name], 25, number, good)
                whole.taken.update(found.taken)
                whole.refused.update(found.refused)
                for key in found.findings.keys() - whole.findings.keys():
                    print(f"FINDING {key}\n{found.findings[key]}", flush=True)
                whole.findings.update(found.findings)
                if time.monotonic() > end:
                    break
            number += 1
    for name in asked.only:
        print(f"{name:20} {whole.refused[name]:6} refused {whole.taken[name]:6} taken")
    total = whole.refused.total() + whole.taken.total()
    print(f"{total} samples in {asked.seconds:.0f} s, {len(whole.findings)} findings")
    return int(bool(whole.findings))


if __name__ == "__main__":
    sys.exit(main())
