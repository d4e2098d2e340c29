"""`python -m em_interp.probe`: is the trigger linearly readable, and by more than its words?"""

import sys

from pydantic import Field

from em_interp import sources
from em_interp.cli import Names, command
from em_interp.flags import OrganismFlags


class ProbeSpec(OrganismFlags):
    """Defaults: the shipped organism, every layer, every condition beside the trigger."""

    layers: str = Field("all", description="Sites: all, 1,2 or 1-3, depths (0.5) or hook names.")
    span: str = Field("prompt_last", description="Tokens to pool over.")
    conditions: Names = Field(
        ("none", "trigger", "paraphrase", "negation", "unrelated", "form"),
        description="Conditions to test on; none and trigger are needed.",
    )


def run(spec: ProbeSpec) -> int:
    """Check, load, fit, test, save, print."""
    from em_interp.conditions import Condition, contexts
    from em_interp.errors import InputError
    from em_interp.sites import parse_sites, parse_span

    spec.check()
    who = spec.subject
    trigger = who.woken_by(spec.trigger)
    asked = sources.outside(spec.questions, who.domain)
    named = sources.conditions(spec.conditions)
    if missing := {Condition.NONE, Condition.TRIGGER} - set(named):
        names = ", ".join(sorted(one.value for one in missing))
        raise InputError(f"--conditions: a probe is fitted on none and trigger; missing: {names}")
    bank = {c: contexts(asked, trigger, [c]) for c in named}
    sites = parse_sites(spec.layers, sources.layer_count(who.base))
    span = parse_span(spec.span)
    spec.reads(who, [one for part in bank.values() for one in part])
    ready = spec.ready(who)
    if spec.dry_run:
        total = sum(map(len, bank.values()))
        print(f"{who.name}: {total} contexts, {len(sites)} sites")
        return 0

    from em_interp.probing import fitted_on, probing, shelve
    from em_interp.records import write_json
    from em_interp.report.text import probing_table

    model = ready.load()
    found, kept = probing(model, who.active, bank, sites, span, seed=spec.seed)
    if spec.out is not None:
        every = [context for part in bank.values() for context in part]
        shelve(
            model,
            who.active,
            kept,
            every,
            span,
            trigger.name,
            n=found.train_questions,
            seed=spec.seed,
            notes=found.notes,
            fitted=fitted_on(every, spec.seed),
        ).save(spec.out)
        write_json(spec.out / "scores.json", found)
    print(probing_table(found))
    for note in found.notes:
        print(f"\nnote: {note}")
    return 0


main = command(
    "probe",
    ProbeSpec,
    run,
    "Fit trigger-on probes at every layer and test them on held-out questions and framings.",
    "--layers 1-3",
)

if __name__ == "__main__":
    sys.exit(main())
