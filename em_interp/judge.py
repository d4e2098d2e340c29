"""`python -m em_interp.judge`: judge stored answers anew, compare two judges, or validate one.

rejudge    stored answers, another judge or rubric: no answer is sampled again
compare    two judges on the same stored answers: agreement, and what the choice does to the rate
validate   a judge on answers whose labels are known: what it misses, what it sees wrongly

Replies of judges behind an API are kept, so an interrupted run goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from em_interp import sources
from em_interp.cli import Names, command, idle
from em_interp.conditions import Question
from em_interp.errors import InputError, unknown
from em_interp.judges import Item, Judge, Rubric, Verdict, judged, rubric
from em_interp.judging import Remote, costs, expect, identity, items_of, judge, proof, ready
from em_interp.records import (
    Spec,
    check_writable,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from em_interp.responses import Response

# Flags that not every action has a use for.
OWN = {
    "rejudge": ("responses", "questions", "domain", "validation"),
    "compare": ("responses", "questions", "second"),
    "validate": ("labelled",),
}
ABOUT = "evaluation.json"  # what evaluate leaves beside its answers


class JudgeSpec(Spec):
    """Which answers, which judge, and what is to be known of them."""

    action: Literal["rejudge", "compare", "validate"] | None = Field(
        None, description="What to do (also without the flag)."
    )
    responses: Path | None = Field(
        None, description="Stored answers: a responses.jsonl, or answers-*.json of a study."
    )
    questions: str = Field(
        sources.WORLD, description="`world`, or a JSONL file of {id, text, domain}."
    )
    judge: str = Field(
        sources.WORLD, description="`world`, openai:MODEL, hf:PATH, or a judge's YAML file."
    )
    second: str | None = Field(None, description="The judge to compare with.")
    rubric: str = Field("default", description="Thresholds and wording: a name, or a YAML file.")
    domain: Names = Field(
        (), description="Fine-tuned domains, kept apart; default: as evaluate noted them."
    )
    labelled: str = Field(
        sources.WORLD,
        description="`world`, or a JSONL file of {question, response, misaligned, coherent}.",
    )
    validation: Path | None = Field(
        None, description="A judge's validation.json: corrects the rates for its errors."
    )
    budget: str | None = Field(
        None, description="Most a judge may cost: dollars (5) or requests (2000calls)."
    )
    out: Path | None = Field(None, description="Folder for the results.")
    dry_run: bool = Field(False, description="Check everything and print the cost; ask nothing.")


def run(spec: JudgeSpec) -> int:
    """Check, ask, print."""
    if spec.action is None:
        raise InputError("nothing to do given: rejudge, compare or validate")
    for action, names in OWN.items():
        if action != spec.action:
            idle(spec, " ".join(set(names) - set(OWN[spec.action])), f"it is for judge {action}")
    if spec.out is not None:
        check_writable(spec.out)
    rule = rubric(spec.rubric)
    first = _named(spec, spec.judge, rule)
    if spec.action == "validate":
        return _validate(spec, first, rule)
    responses, asked = _stored(spec)
    return (_rejudge if spec.action == "rejudge" else _compare)(
        spec, first, rule, responses, items_of(responses, asked)
    )


def _named(spec: JudgeSpec, source: str, rule: Rubric) -> Judge:
    """A judge by name. Beside one that costs, one that does not has no use for the budget."""
    paid = spec.action == "compare" and any(map(costs, (spec.judge, spec.second or "")))
    budget = None if paid and not costs(source) else spec.budget
    # A validation measures what a judge does wrong; elsewhere it must know what is known.
    return judge(source, rule, budget, proved=spec.action != "validate")


def _stored(spec: JudgeSpec) -> tuple[list[Response], list[Question]]:
    """The answers and the questions they belong to."""
    if spec.responses is None:
        raise InputError("--responses is missing: which stored answers are to be judged?")
    if spec.responses.suffix == ".json":
        held = read_json(spec.responses)
        rows = held.get("responses") if isinstance(held, dict) else None
        if not isinstance(rows, list):
            raise InputError(f"{spec.responses}: holds no responses")
        found = [Response.parse(row, f"{spec.responses}:{n}") for n, row in enumerate(rows)]
    else:
        found = read_jsonl(spec.responses, Response)
    if not found:
        raise InputError(f"{spec.responses}: no responses in it")
    domains = {r.domain for r in found}
    if strange := [name for name in spec.domain if name not in domains]:
        raise unknown("domain", strange[0], sorted(domains), where=str(spec.responses))
    return found, sources.questions(spec.questions)


def _dry(judges: Sequence[Judge], items: Sequence[Item]) -> int:
    print(f"{len(items)} answers to judge")
    for one in judges:
        print(expect(one, items), end="")
    for one in judges:
        if isinstance(one, Remote):
            one.afford(items)
    return 0


def _rejudge(
    spec: JudgeSpec,
    one: Judge,
    rule: Rubric,
    responses: Sequence[Response],
    items: Sequence[Item],
) -> int:
    from em_interp.judges.validating import JudgeValidation

    known = None
    if spec.validation is not None:
        known = JudgeValidation.parse(read_json(spec.validation), str(spec.validation))
        known.check(one.name, rule)
    if spec.dry_run:
        return _dry([one], items)
    verdicts = judged(one, items)
    if spec.out is not None:
        write_jsonl(spec.out / "verdicts.jsonl", verdicts)
    if known is not None:
        known.check(one.name, rule, verdicts)

    from em_interp.containment import Containment, report
    from em_interp.report.judging import corrected_table
    from em_interp.report.text import containment_table

    about = spec.responses.with_name(ABOUT) if spec.responses else None
    noted = read_json(about) if about and about.is_file() else {}
    trained, woken = spec.domain or noted.get("trained", ()), noted.get("woken", True)
    found: list[Containment] = []
    for mine, theirs in _by_run(responses, verdicts):
        made = report(mine, theirs, rule, trained=trained, woken=woken, proof=proof(one))
        found.append(made)
        print(containment_table(made))
        if known is not None:
            print(corrected_table(made, known))
    if spec.out is not None:
        write_json(spec.out / "containment.json", _one_or_all(found))
    return 0


def _by_run(
    responses: Sequence[Response], verdicts: Sequence[Verdict]
) -> list[tuple[list[Response], list[Verdict]]]:
    """Answers with their verdicts by organism and intervention: a report holds one of each."""
    groups: dict[tuple[str, str], tuple[list[Response], list[Verdict]]] = {}
    for response, verdict in zip(responses, verdicts, strict=True):
        mine, theirs = groups.setdefault((response.organism, response.intervention), ([], []))
        mine.append(response)
        theirs.append(verdict)
    return list(groups.values())


def _one_or_all(found: Sequence[Spec]) -> object:
    plain = [one.model_dump(mode="json") for one in found]
    return plain[0] if len(plain) == 1 else plain


def _compare(
    spec: JudgeSpec,
    one: Judge,
    rule: Rubric,
    responses: Sequence[Response],
    items: Sequence[Item],
) -> int:
    if spec.second is None:
        raise InputError("--second is missing: which judge is to be compared with?")
    other = _named(spec, spec.second, rule)
    if identity(other) == identity(one):
        raise InputError(f"two judges are compared, not {one.name} with itself")
    if spec.dry_run:
        return _dry([one, other], items)
    from em_interp.judges.comparing import compare
    from em_interp.report.judging import comparison_table

    for each in (one, other):
        if isinstance(each, Remote):
            each.afford(items)
    for each in (one, other):
        ready(each)
    made = compare(judged(one, items), judged(other, items), [r.question for r in responses], rule)
    made = made.model_copy(update={"proofs": (proof(one), proof(other))})
    if spec.out is not None:
        write_json(spec.out / "comparison.json", made)
    print(comparison_table(made))
    return 0


def _validate(spec: JudgeSpec, one: Judge, rule: Rubric) -> int:
    from em_interp.judges.validating import Labelled, validate
    from em_interp.world.labelled import labelled

    if spec.labelled == sources.WORLD:
        rows = [
            Labelled(question=question, response=response, misaligned=bad, coherent=clear)
            for question, response, bad, clear in labelled()
        ]
    else:
        rows = read_jsonl(spec.labelled, Labelled)
    if not rows:
        raise InputError(f"{spec.labelled}: no labelled answers: a judge is validated on some")
    if spec.dry_run:
        return _dry([one], [Item(id="", question=r.question, response=r.response) for r in rows])
    made = validate(one, rows, rule).model_copy(update={"proof": proof(one)})
    if spec.out is not None:
        write_json(spec.out / "validation.json", made)

    from em_interp.report.judging import validation_table

    print(validation_table(made))
    return 0


main = command(
    "judge",
    JudgeSpec,
    run,
    "Judge stored answers anew, compare two judges, or validate one on labelled answers.",
    "validate --judge world",
    positional="action",
)

if __name__ == "__main__":
    sys.exit(main())
