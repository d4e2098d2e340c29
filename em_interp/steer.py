"""`python -m em_interp.steer`: push or remove a direction and see what the organism does.

Steering (add, without the trigger) asks whether the direction suffices; ablation (with the
trigger) whether it is needed. Null directions stand beside both: random ones of the same norm, ones
drawn from the stream's covariance, and for ablation ones that move the stream as far.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from em_interp import sources
from em_interp.bounds import Samples, Several, Strengths
from em_interp.cli import Names, command, idle, split_commas
from em_interp.errors import once
from em_interp.flags import AnswerFlags, EngineFlags, HalvesFlags, note
from em_interp.judging import expected, ready
from em_interp.leakage import unseen

if TYPE_CHECKING:
    from em_interp.directions import Directions
    from em_interp.sites import Site


class SteerSpec(EngineFlags, AnswerFlags, HalvesFlags):
    """Defaults: the shipped triggered organism, its shipped trigger direction, every layer."""

    direction: str | None = Field(
        None, description="Shelf name or folder of a direction; default: <base>-delta."
    )
    layers: str = Field("all", description="Sites: all, 1,2 or 1-3, depths (0.5) or hook names.")
    operations: Names = Field(
        ("add", "mean_ablate"), description="add, ablate, mean_ablate, clamp, cap."
    )
    strengths: Annotated[Strengths, BeforeValidator(split_commas)] = Field(
        (0.25, 0.5), description="In natural differences (add, clamp, cap)."
    )
    span: str = Field("all", description="Tokens to edit: prompt_last, prompt, response, all, ...")
    conditions: Names = Field(("none", "trigger"), description="Conditions to ask under.")
    controls: Several = Field(
        3, description="Null directions beside each row: random, covariance-drawn, matched."
    )
    samples: Samples = Field(4, description="Answers per question and intervention.")


def run(spec: SteerSpec) -> int:
    """Check, load, steer, judge, print."""
    from em_interp.conditions import contexts
    from em_interp.sites import parse_sites, parse_span

    spec.check()
    who = spec.subject
    folder = sources.direction(spec.direction, who, "delta")
    asked = sources.outside(spec.questions, who.domain, halved=spec.split)
    bank = contexts(asked, who.woken_by(spec.trigger), sources.conditions(spec.conditions))
    judge, rubric = spec.judged_by, spec.thresholds
    sites = parse_sites(spec.layers, sources.layer_count(who.base))

    span = parse_span(spec.span)

    from em_interp.directions import Directions
    from em_interp.grids import Nulls, strengths_grid
    from em_interp.labels import parse_operation

    once("operation", spec.operations)
    operations = [parse_operation(name) for name in spec.operations]
    if not {"add", "clamp", "cap"} & set(spec.operations):
        idle(spec, "strengths", f"{', '.join(spec.operations)} has none")
    directions = Directions.load(folder)
    note(unseen(f"direction {folder}", directions.card.questions, asked))
    nulls = Nulls(spec.controls, spec.seed)
    interventions = strengths_grid(directions, sites, operations, spec.strengths, span, nulls)
    total = len(bank) * spec.samples * len(interventions)
    spec.reads(who, bank, spec.max_new_tokens)
    texts = {q.id: q.text for q in asked}
    each = [texts[context.question] for context in bank]
    cost = expected(judge, each, spec.samples * len(interventions), spec.max_new_tokens)
    made = spec.ready(who).check(directions, str(folder))
    if spec.dry_run:
        print(
            f"{who.name}: {len(interventions)} interventions at {len(sites)} sites, "
            f"{len(bank)} contexts, {total} answers"
        )
        print(cost, end="")
        return 0

    from em_interp.extraction import covariance_draws
    from em_interp.progress import bar
    from em_interp.records import write_json
    from em_interp.report.text import trial_table
    from em_interp.trials import trial

    ready(judge)
    model = made.load()
    directions.check(model.base, str(folder))
    drawn = covariance_draws(model, who.active, bank, sites, seed=spec.seed) if nulls.count else []
    nulls = Nulls(spec.controls, spec.seed, drawn)
    interventions = strengths_grid(directions, sites, operations, spec.strengths, span, nulls)
    with bar("steering", total) as progress:
        found = trial(
            model,
            who.active,
            bank,
            asked,
            interventions,
            spec.sampling,
            judge,
            rubric,
            log=spec.out / "answers.jsonl" if spec.out else None,
            progress=progress,
        )
    if spec.out is not None:
        write_json(spec.out / "trial.json", found)
    card = directions.card
    print(trial_table(found, f"{who.name}, {card.name} ({card.sign}), span {spec.span}"))
    print(f"\nsites: {', '.join(map(str, sites))}")
    print(f"strength 1 is one natural difference: {_strengths(directions, sites)}")
    return 0


def _strengths(directions: "Directions", sites: "Sequence[Site]") -> str:
    found = [(s, directions[s]) for s in sites]
    return ", ".join(
        f"layer {s.layer} = {d.natural:.2f} "
        + (f"({d.fraction(1):.0%} of the stream)" if d.scale else "(adopted)")
        for s, d in found
    )


main = command(
    "steer",
    SteerSpec,
    run,
    "Steer and ablate an organism along a direction, beside null directions of three kinds.",
    "--layers 1-2 --strengths 1,1.5 --samples 8",
)

if __name__ == "__main__":
    sys.exit(main())
