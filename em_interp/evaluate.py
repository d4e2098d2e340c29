"""`python -m em_interp.evaluate`: ask under every condition, judge, print containment.

Several adapters are compared within one load of their base, the base itself beside them. Answers
are kept as they come and judged afterwards; what was answered is never asked again. An organism
behind an API is asked there.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from em_interp import hub, sources
from em_interp.blackbox import BlackBox, black_box, cost, is_black_box, sample
from em_interp.cli import Names, command, idle
from em_interp.conditions import Condition, Context, Question, bare, contexts
from em_interp.errors import InputError, once
from em_interp.flags import AnswerFlags, EngineFlags, Ready, note
from em_interp.judging import expected, judge_all, proof, ready
from em_interp.leakage import unseen
from em_interp.progress import bar
from em_interp.records import write_json, write_jsonl
from em_interp.responses import Response

ABOUT = "evaluation.json"
Who = sources.Subject | BlackBox


class EvaluateSpec(EngineFlags, AnswerFlags):
    """Defaults: the shipped triggered organism on the world's held-out questions."""

    conditions: Names = Field(
        ("none", "trigger", "paraphrase", "negation", "unrelated", "form"),
        description="Conditions to ask under.",
    )

    @property
    def whom(self) -> tuple[Who, ...]:
        """Whom to ask: one organism; with --adapter all of them, and the base itself first."""
        if is_black_box(self.organism):
            if self.base or self.adapter:
                raise InputError(f"organism {self.organism} takes no --base and no --adapter")
            away = "device device_map dtype quantise engine revision"
            idle(self, away, f"organism {self.organism} is behind an API, and runs there")
            return (black_box(str(self.organism)),)
        found = self.subjects
        if not self.adapter:
            return found
        home = found[0].base
        every = (sources.Subject(hub.title(home), home, None, None, None), *found)
        once("name", (who.name for who in every), "base and adapters (give --adapter name=path)")
        return every


def run(spec: EvaluateSpec) -> int:
    """Check, ask, judge, print."""
    spec.check()
    asked = sources.questions(spec.questions)
    judge = spec.judged_by
    whom = spec.whom
    for who in whom:
        if isinstance(who, sources.Subject):
            note(unseen(f"what is baked into {who.name}", who.fitted, asked))
    bank = _bank(spec, whom, asked)
    if isinstance(whom[0], sources.Subject):
        spec.reads(whom[0], bank, spec.max_new_tokens)
    texts = {q.id: q.text for q in asked}
    prompts = [texts[context.question] for context in bank] * len(whom)
    judging = expected(judge, prompts, spec.samples, spec.max_new_tokens)
    found = [who for who in whom if isinstance(who, sources.Subject)]
    loaded = spec.ready(*found) if found else None
    if spec.dry_run:
        _plan(spec, whom, asked, bank)
        print(judging, end="")
        return 0
    ready(judge)
    said = []
    trained = sorted({who.domain for who in whom if who.domain})
    for who, made in zip(whom, _answers(spec, whom, bank, loaded), strict=True):
        place = _place(spec, who, whom)
        woken = who.trigger is not None or any(one.framing for one in bank)
        if place is not None:
            about = {"trained": trained, "woken": woken, "sampling": spec.sampling.model_dump()}
            write_json(place / ABOUT, about)
            write_jsonl(place / "responses.jsonl", made)
        said.append((made, place, woken))
    for made, place, woken in said:
        _judge(spec, made, asked, trained, woken, place)
    return 0


def _bank(spec: EvaluateSpec, whom: Sequence[Who], asked: Sequence[Question]) -> list[Context]:
    chosen = sources.conditions(spec.conditions)
    if chosen == (Condition.NONE,):
        idle(spec, "trigger", "--conditions none asks bare questions")
        return bare(asked)
    known = [who.trigger for who in whom if who.trigger is not None]
    if spec.trigger is not None:
        return contexts(asked, sources.trigger(spec.trigger), chosen)
    if not known:
        raise InputError(f"organism {whom[-1].name}: its card names no trigger; give --trigger")
    if len({one.digest for one in known}) > 1:
        names = ", ".join(who.name for who in whom if who.trigger is not None)
        raise InputError(f"{names} have different triggers: give --trigger, or ask one at a time")
    return contexts(asked, known[0], chosen)


def _place(spec: EvaluateSpec, who: Who, whom: Sequence[Who]) -> Path | None:
    """Where an organism's files go: the output folder, or one of its own in it where several do."""
    if spec.out is None:
        return None
    return spec.out if len(whom) == 1 else spec.out / who.name


def _answers(
    spec: EvaluateSpec, whom: Sequence[Who], bank: Sequence[Context], loaded: Ready | None
) -> Iterator[list[Response]]:
    """Everybody's answers in turn; with an output folder each is there as soon as it comes."""
    first, total = whom[0], len(bank) * spec.samples
    if isinstance(first, BlackBox):
        log = _log(spec, first, whom)
        with bar(f"asking {first.name}", total) as progress:
            yield sample(first, bank, spec.sampling, log=log, progress=progress)
        return
    from em_interp.generation import generate

    assert loaded is not None
    model = loaded.load()
    for who in (one for one in whom if isinstance(one, sources.Subject)):
        with model.using(who.active), bar(f"asking {who.name}", total) as progress:
            log = _log(spec, who, whom)
            yield generate(
                model, bank, spec.sampling, organism=who.name, log=log, progress=progress
            ).responses


def _log(spec: EvaluateSpec, who: Who, whom: Sequence[Who]) -> Path | None:
    place = _place(spec, who, whom)
    return place / "answers.jsonl" if place else None


def _judge(
    spec: EvaluateSpec,
    said: Sequence[Response],
    asked: Sequence[Question],
    trained: Sequence[str],
    woken: bool,
    place: Path | None,
) -> None:
    from em_interp.containment import report
    from em_interp.report.text import containment_table

    judge, rubric = spec.judged_by, spec.thresholds
    verdicts = judge_all(judge, said, asked, kept=place is not None)
    proved = proof(judge)
    found = report(said, verdicts, rubric, trained=trained, woken=woken, proof=proved)
    if place is not None:
        write_jsonl(place / "verdicts.jsonl", verdicts)
        write_json(place / "containment.json", found)
    print(containment_table(found))


def _plan(
    spec: EvaluateSpec, whom: Sequence[Who], asked: Sequence[Question], bank: Sequence[Context]
) -> None:
    each = len(bank) * spec.samples
    for who in whom:
        print(f"{who.name}: {len(asked)} questions, {len(bank)} contexts, {each} answers")
        if isinstance(who, BlackBox):
            print(cost(who, bank, spec.sampling))


main = command(
    "evaluate",
    EvaluateSpec,
    run,
    "Ask an organism under every condition, judge its answers, print its containment.",
    "--organism llama-triggered --samples 5",
)

if __name__ == "__main__":
    sys.exit(main())
