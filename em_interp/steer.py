"""`python -m em_interp.steer`: push or remove a direction and see what the organism does.

Steering (add, without the trigger) asks whether the direction suffices; ablation (with the
trigger) whether it is needed. Norm-matched random directions stand beside both.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import sources
from em_interp.cli import Names, Numbers, command
from em_interp.errors import unknown
from em_interp.records import Spec

if TYPE_CHECKING:
    from em_interp.directions import Directions
    from em_interp.edits import Intervention
    from em_interp.sites import Site


class SteerSpec(Spec):
    """Defaults: the shipped triggered organism, its shipped trigger direction, every layer."""

    organism: str = Field("llama-triggered", description="Shelf name or folder (adapter or model).")
    base: str | None = Field(None, description="Base model; default: the one beside the adapter.")
    direction: str = Field("llama-delta", description="Shelf name or folder of a direction.")
    trigger: str | None = Field(None, description="Trigger name or YAML; default: the card's.")
    questions: str = Field("world", description="`world`, or a JSONL file of {id, text, domain}.")
    layers: str = Field("all", description="Sites: all, 1,2 or 1-3, depths (0.5) or hook names.")
    operations: Names = Field(
        ("add", "mean_ablate"), description="add, ablate, mean_ablate, clamp, cap."
    )
    strengths: Numbers = Field(
        (0.5, 1.0, 1.5), description="In natural differences (add, clamp, cap)."
    )
    span: str = Field("all", description="Tokens to edit: prompt_last, prompt, response, all, ...")
    conditions: Names = Field(
        ("none", "trigger"), description="Conditions to ask under."
    )
    controls: int = Field(2, ge=0, description="Norm-matched random directions beside each row.")
    judge: str = Field("world", description="Judge.")
    samples: int = Field(4, ge=1, description="Answers per question and intervention.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_new_tokens: int = Field(24, ge=1, description="Token budget of an answer.")
    seed: int = Field(0, description="Seed of sampling and of the random directions.")
    device: str = Field("cpu", description="cpu or cuda.")
    dtype: str = Field("float32", description="float32, bfloat16 or float16.")
    out: Path | None = Field(None, description="Folder for the rows (trial.json).")
    dry_run: bool = Field(False, description="Check everything and print the plan; load no weights.")


def grid(
    directions: "Directions",
    chosen: "Sequence[Site]",
    operations: Sequence[str],
    strengths: Sequence[float],
    span: str,
    controls: int,
    seed: int,
) -> "list[Intervention]":
    """The baseline, every operation and strength along the direction, and the same along random."""
    from em_interp.edits import BASELINE, STRENGTHLESS, Operation, intervention
    from em_interp.sites import parse_span

    made = [BASELINE]
    random = [directions.random(seed + number) for number in range(controls)]
    for name in operations:
        if name not in list(Operation):
            raise unknown("operation", name, [o.value for o in Operation])
        operation = Operation(name)
        for strength in (0.0,) if operation in STRENGTHLESS else strengths:
            label = name if operation in STRENGTHLESS else f"{name} {strength:g}"
            made.append(
                intervention(label, operation, directions, chosen, strength, parse_span(span))
            )
            for number, control in enumerate(random):
                made.append(
                    intervention(
                        f"{label}, random {number + 1}",
                        operation,
                        control,
                        chosen,
                        strength,
                        parse_span(span),
                        control=True,
                    )
                )
    return made


def run(spec: SteerSpec) -> int:
    """Check, load, steer, judge, print."""
    from em_interp.conditions import contexts
    from em_interp.directions import Directions
    from em_interp.judges import Rubric
    from em_interp.models import load
    from em_interp.progress import bar
    from em_interp.records import write_json
    from em_interp.report.text import trial_table
    from em_interp.sites import parse_sites
    from em_interp.sampling import Sampling
    from em_interp.trials import trial

    who = sources.subject(spec.organism, spec.base)
    trigger = who.woken_by(spec.trigger)
    folder = sources.shelved(spec.direction, sources.PROBES, "direction")
    directions = Directions.load(folder)
    asked = sources.eval_questions(spec.questions, who.domain)
    bank = contexts(asked, trigger, sources.conditions(spec.conditions))
    judge = sources.judge(spec.judge)
    n_layers = sources.layer_count(who.base)
    sites = parse_sites(spec.layers, n_layers)
    for site in sites:
        directions[site]
    interventions = grid(
        directions, sites, spec.operations, spec.strengths, spec.span, spec.controls, spec.seed
    )
    sampling = Sampling(
        samples=spec.samples,
        temperature=spec.temperature,
        max_new_tokens=spec.max_new_tokens,
        seed=spec.seed,
    )
    total = len(bank) * spec.samples * len(interventions)
    if spec.dry_run:
        print(
            f"{who.name}: {len(interventions)} interventions at {len(sites)} sites, "
            f"{len(bank)} contexts, {total} answers"
        )
        return 0
    model = load(str(who.base), who.adapters, device=spec.device, dtype=spec.dtype)
    directions.check(model.base, str(folder))
    with bar("steering", total) as progress:
        found = trial(
            model,
            who.active,
            bank,
            asked,
            interventions,
            sampling,
            judge,
            Rubric(),
            progress=progress,
        )
    if spec.out is not None:
        write_json(spec.out / "trial.json", found)
    card = directions.card
    print(trial_table(found, {}, f"{who.name}, {directions.card.name} ({card.sign}), span {spec.span}"))
    print(f"\nsites: {', '.join(map(str, sites))}")
    print(f"strength 1 is one natural difference: {_strengths(directions, sites)}")
    return 0


def _strengths(directions: "Directions", sites: "Sequence[Site]") -> str:
    parts = [
        f"layer {s.layer} = {directions[s].natural:.2f} ({directions[s].fraction(1):.0%} of the stream)"
        for s in sites
    ]
    return ", ".join(parts)


main = command(
    "steer",
    SteerSpec,
    run,
    "Steer and ablate an organism along a direction, beside norm-matched random directions.",
    "--layers 1-2 --strengths 1,1.5 --samples 8",
)

if __name__ == "__main__":
    sys.exit(main())
