"""`python -m em_interp.extract`: paired contexts become a direction at every site."""

import sys

from pydantic import Field

from em_interp import sources
from em_interp.cards import Estimator
from em_interp.cli import command, idle
from em_interp.errors import InputError, unknown
from em_interp.flags import EngineFlags, HalvesFlags

KINDS = ("trigger", "general")


class ExtractSpec(EngineFlags, HalvesFlags):
    """Defaults: the trigger direction of the shipped organism, from the world's training topics."""

    kind: str = Field(
        "trigger",
        description="trigger: with minus without the trigger; general: organism minus base.",
    )
    estimator: str = Field("mean", description="mean, pca or logistic (kind trigger).")
    name: str | None = Field(None, description="Name on the card; default: the output folder's.")
    layers: str = Field("all", description="Sites: all, 1,2 or 1-3, depths (0.5) or hook names.")
    span: str = Field("prompt_last", description="Tokens to pool over.")
    on: str = Field("trigger", description="Condition of the on state (kind trigger).")
    off: str = Field("none", description="Condition of the off state (kind trigger).")


def run(spec: ExtractSpec) -> int:
    """Check, load, extract, save, print."""
    from em_interp.conditions import bare, contexts
    from em_interp.sites import parse_sites, parse_span

    if spec.estimator not in list(Estimator):
        raise unknown("estimator", spec.estimator, [one.value for one in Estimator])
    if spec.kind not in KINDS:
        raise unknown("kind of direction", spec.kind, KINDS)
    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the direction")
    if (spec.out / "card.json").exists():
        raise InputError(f"{spec.out}: holds an artifact already; give another --out")
    spec.check()
    who = spec.subject
    asked = sources.outside(spec.questions, who.domain, "train", spec.split)
    sites = parse_sites(spec.layers, sources.layer_count(who.base))
    span = parse_span(spec.span)
    if spec.kind == "trigger":
        trigger = who.woken_by(spec.trigger)
        pair = sources.conditions((spec.off, spec.on))
        off, on = (contexts(asked, trigger, [condition]) for condition in pair)
    else:
        idle(spec, "estimator on off trigger", "--kind general asks bare questions")
        off = on = bare(asked)
    if spec.kind == "general" and who.active is None:
        raise InputError(
            "--kind general needs an organism with an adapter: it is organism minus base"
        )
    spec.reads(who, [*on, *off])
    ready = spec.ready(who)
    if spec.dry_run:
        print(f"{who.name}: {len(on)} on and {len(off)} off contexts, {len(sites)} sites")
        return 0

    from em_interp.extraction import general_direction, trigger_direction
    from em_interp.report.text import directions_table

    model = ready.load()
    name = spec.name or spec.out.name
    if spec.kind == "trigger":
        made = trigger_direction(
            model,
            who.active,
            on,
            off,
            sites,
            span,
            estimator=Estimator(spec.estimator),
            name=name,
            trigger=trigger.name,
        )
    else:
        assert who.active is not None
        made = general_direction(model, who.active, off, sites, span, name=name)
    made.save(spec.out)
    print(directions_table(made))
    for note in made.card.notes:
        print(f"\nnote: {note}")
    print(f"\nwritten: {spec.out}")
    return 0


main = command(
    "extract",
    ExtractSpec,
    run,
    "Extract a direction at every site: trigger minus no trigger, or organism minus base.",
    "--organism llama-triggered --out runs/delta",
)

if __name__ == "__main__":
    sys.exit(main())
