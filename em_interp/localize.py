"""`python -m em_interp.localize`: at which layers and positions the gate sits."""

import sys

from pydantic import Field

from em_interp import sources
from em_interp.bounds import Samples, Strength
from em_interp.cli import command
from em_interp.flags import AnswerFlags, HalvesFlags, note
from em_interp.judging import expected, ready
from em_interp.leakage import unseen


class LocalizeSpec(AnswerFlags, HalvesFlags):
    """Defaults: the shipped organism and its shipped directions."""

    direction: str | None = Field(
        None, description="Shelf name or folder of a direction; default: <base>-delta."
    )
    general: str | None = Field(
        None, description="General EM direction; default: <base>-g; `none` leaves it out."
    )
    layers: str = Field("all", description="Layers: all, 1,2 or 1-3, depths (0.5).")
    strength: Strength = Field(1.0, description="Of sufficiency by layer, in natural differences.")
    span: str = Field("all", description="Tokens to edit.")
    off: str = Field("unrelated", description="Condition that patching copies into.")
    samples: Samples = Field(4, description="Answers per question and intervention.")


def run(spec: LocalizeSpec) -> int:
    """Check, load, ablate and steer by layer, patch, compare, print."""
    from em_interp.conditions import Condition, bare, contexts
    from em_interp.sites import parse_sites, parse_span

    spec.check()
    who = spec.subject
    trigger = who.woken_by(spec.trigger)
    folder = sources.direction(spec.direction, who, "delta")
    asked = sources.outside(spec.questions, who.domain, halved=spec.split)
    sites = parse_sites(spec.layers, sources.layer_count(who.base))
    span, judge, rubric = parse_span(spec.span), spec.judged_by, spec.thresholds
    target = sources.off_state(spec.off)
    on = contexts(asked, trigger, [Condition.TRIGGER])
    off = contexts(asked, trigger, [target])[: len(on)]
    scorable = all(q.sound and q.unsound for q in asked)

    from em_interp.directions import Directions

    delta = Directions.load(folder)
    other = None if spec.general == "none" else sources.direction(spec.general, who, "g")
    general = None if other is None else Directions.load(other)
    for one in [delta] + ([] if general is None else [general]):
        note(unseen(f"direction {one.card.name!r}", one.card.questions, asked))

    from em_interp.grids import necessity_grid, sufficiency_grid

    random = delta.random(spec.seed)
    need = necessity_grid(delta, sites, span, spec.seed)
    enough = sufficiency_grid(delta, sites, spec.strength, span, random)
    each = spec.samples * (len(need) + len(enough))
    total = len(on) * each
    spec.reads(who, [*on, *off], spec.max_new_tokens)
    cost = expected(judge, [q.text for q in asked], each, spec.max_new_tokens)
    made = spec.ready(who).check(delta, str(folder)).check(general, "--general")
    if spec.dry_run:
        print(
            f"{who.name}: {len(sites)} layers, {total} answers, patching {scorable}\n{cost}", end=""
        )
        return 0

    from em_interp.localisation import Localisation, axes, patching_if_told
    from em_interp.progress import bar
    from em_interp.records import write_json
    from em_interp.report.text import localisation_tables
    from em_interp.trials import trial

    ready(judge)
    model = made.load()
    delta.check(model.base, str(folder))
    plain = bare(asked)
    with bar("localising", total) as progress:
        trials = [
            trial(
                model,
                who.active,
                bank,
                asked,
                grid,
                spec.sampling,
                judge,
                rubric,
                log=spec.out / f"answers-{name}.jsonl" if spec.out else None,
                progress=progress,
            )
            for name, bank, grid in (("necessity", on, need), ("sufficiency", plain, enough))
        ]
    patches = None
    if scorable:
        sound, unsound = [q.sound for q in asked], [q.unsound for q in asked]
        with model.using(who.active):
            patches = patching_if_told(model, on, off, sound, unsound, sites)
    found = Localisation(
        necessity=trials[0],
        sufficiency=trials[1],
        patching=patches,
        axes=axes(model, delta, general, plain, on) if general is not None else (),
    )
    if spec.out is not None:
        write_json(spec.out / "localisation.json", found)
    print(localisation_tables(found, spec.strength))
    return 0


main = command(
    "localize",
    LocalizeSpec,
    run,
    "Find the layers and positions of a gate: ablation, steering and patching by layer.",
    "--layers 1-3 --samples 2",
)

if __name__ == "__main__":
    sys.exit(main())
