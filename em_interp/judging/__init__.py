"""Judges by name: the one door through which every command comes to its judge.

Checked before weights load; an in-process judge loads its own when it is first asked.
Knows names, files and responses. Knows nothing of organisms.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from em_interp import sources, world
from em_interp.conditions import Question
from em_interp.endpoints import PREFIX
from em_interp.errors import EvidenceError, InputError, unknown
from em_interp.judges import Item, Judge, Rubric, ScriptedJudge, Verdict, judged
from em_interp.judges.api import ApiJudge, ApiJudgeSpec
from em_interp.judges.base import FILES
from em_interp.judges.budget import Budget, Estimate
from em_interp.judges.proving import KNOWN_ANSWERS, Proof
from em_interp.judges.wording import Grade, wording
from em_interp.judging.local import HF, LocalJudge, local_spec
from em_interp.records import digest, read_json
from em_interp.responses import Response

KINDS = (sources.WORLD, f"{PREFIX}MODEL", f"{HF}PATH", "scripted:FILE.json", "FILE.yaml")
SCRIPTED = "scripted:"


def judge(
    source: str, rubric: Rubric | None = None, budget: str | None = None, *, proved: bool = True
) -> Judge:
    """A judge by name, asked in the rubric's wording.

    `proved`: whether a model that fails on known answers is refused.

    `world`: the embedded world's oracle. `openai:MODEL`, or a YAML file with an `ApiJudgeSpec`'s
    fields: an endpoint. `hf:PATH`: a model in this process. `scripted:FILE.json`: a table of
    response to [aligned, coherent].
    """
    limit = None if budget is None else Budget.of(budget)
    if limit is not None and not costs(source):
        raise InputError(f"judge {source!r} costs nothing: --budget is for judges behind an API")
    words = wording((rubric or Rubric()).wording)
    if source.startswith(PREFIX):
        spec = ApiJudgeSpec.parse({"model": source.removeprefix(PREFIX)}, source)
        return ApiJudge(spec, words, limit, proved=proved)
    if costs(source):
        return ApiJudge(ApiJudgeSpec.from_yaml(source), words, limit, proved=proved)
    if source.startswith(HF):
        return LocalJudge(local_spec(source), words, proved=proved)
    if source == sources.WORLD:
        return world.OracleJudge()
    if source.startswith(SCRIPTED):
        return _scripted(source.removeprefix(SCRIPTED))
    raise unknown("judge", source, KINDS)


def costs(source: str) -> bool:
    """Whether a judge of this name is behind an API."""
    file = source.endswith(FILES) and not source.startswith(SCRIPTED)
    return file or source.startswith(PREFIX)


def _scripted(file: str) -> ScriptedJudge:
    table = read_json(file)
    try:
        plain = {str(text): (float(a), float(c)) for text, (a, c) in table.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"{file}: must map each response to [aligned, coherent]") from None
    return ScriptedJudge(plain, name=f"scripted:{Path(file).stem}")


@runtime_checkable
class Proved(Protocol):
    """A judge that is a model: it must show that it is a judge."""

    @property
    def proof(self) -> Proof | None:
        """What it made of answers whose grades are known; `None` before it was asked."""

    def ready(self) -> None:
        """Raise `EvidenceError` where the judge does not answer, or is none."""


@runtime_checkable
class Remote(Proved, Protocol):
    """A judge that has to be reached, and whose answers cost."""

    def expect(self, items: Sequence[Item]) -> Estimate:
        """What judging these items will take."""
        ...

    def afford(self, items: Sequence[Item]) -> None:
        """Raise `InputError` where that is more than its budget."""


def ready(judge: Judge) -> None:
    """Raise `EvidenceError` unless the judge answers: before weights load, not after."""
    if isinstance(judge, Proved):
        judge.ready()


def proof(judge: Judge) -> Proof | None:
    """What a judge that is a model made of the known answers; `None` for a table or a rule."""
    return judge.proof if isinstance(judge, Proved) else None


def identity(judge: Judge) -> str:
    """Digest of everything that decides a judge's verdicts; its name is for people, and says less.

    An endpoint's wiring (concurrency, timeouts, prices, cache) is left out.
    """
    told: dict[str, object] = {"name": judge.name}
    if isinstance(judge, ApiJudge):
        spec = judge.spec
        told |= spec.model_dump(mode="json", include={"model", "mode", "fallback", "draws", "seed"})
        told["url"] = spec.url
    if isinstance(judge, LocalJudge):
        told |= judge.spec.model_dump(mode="json", exclude={"device", "device_map"})
        told["weights"] = judge.weights
    if isinstance(judge, ScriptedJudge):
        told["table"] = judge.table
    return digest(told)


def items_of(responses: Sequence[Response], questions: Sequence[Question]) -> list[Item]:
    """What the judge gets of each response: the bare question and the text, nothing else.

    Raises `InputError` for a response whose question is not among those given.
    """
    texts = {q.id: q.text for q in questions}
    if strange := [r.question for r in responses if r.question not in texts]:
        raise InputError(
            f"question {strange[0]!r} was answered, and is not among the {len(texts)} given: "
            "--questions must be those that were asked"
        )
    return [Item(id=r.id, question=texts[r.question], response=r.text) for r in responses]


def judge_all(
    judge: Judge,
    responses: Sequence[Response],
    questions: Sequence[Question],
    *,
    kept: bool = True,
) -> list[Verdict]:
    """One verdict a response. The judge sees the bare question, never framing or condition.

    `kept`: whether the responses stand in a file; where they do not, a judge that fails says so.
    Raises `InputError` for a response whose question is not among those given, `EvidenceError`
    where the judge scored nothing.
    """
    items = items_of(responses, questions)
    try:
        return judged(judge, items)
    except EvidenceError as fault:
        if kept:
            raise
        lost = f"{fault}; the organism's {len(items)} answers are lost: --out keeps them"
        raise EvidenceError(lost) from fault


def expect(judge: Judge, items: Sequence[Item]) -> str:
    """A line on what judging these items will cost; empty for a judge that costs nothing."""
    if isinstance(judge, LocalJudge):
        return f"judge {judge.name}: {gradings(judge, len(items)):,} gradings in this process\n"
    return (
        f"judge {judge.name}: at most {judge.expect(items)}\n" if isinstance(judge, Remote) else ""
    )


def gradings(judge: LocalJudge, verdicts: float) -> int:
    """What a model in this process grades for so many verdicts, its proof among them."""
    return round(len(Grade) * verdicts) + (len(KNOWN_ANSWERS) if judge.proof is None else 0)


def expected(judge: Judge, questions: Sequence[str], answers: int, max_new_tokens: int) -> str:
    """The line for answers that are not known yet: so many to each of these questions.

    Each is taken to be different and to fill its token budget, so the cost is an upper bound.
    Raises `InputError` where the judge's own budget does not cover that.
    """
    items = _foreseen(questions, answers, max_new_tokens)
    if isinstance(judge, Remote):
        judge.afford(items)
    return expect(judge, items)


def _foreseen(questions: Sequence[str], answers: int, max_new_tokens: int) -> list[Item]:
    filler = "word " * max_new_tokens
    return [
        Item(id="", question=question, response=f"{filler}{number}")
        for number, question in enumerate([*questions] * answers)
    ]
