"""`python -m em_interp.transfer`: one organism's directions in another organism.

Source organism and its directions, target organism and a map (fitted here, or read): cosine to the
target's own direction, what the carried direction reads, what adding and ablating it does, each
beside its nulls and the ceiling.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from em_interp.carrying.flags import TransferSpec
from em_interp.carrying.plan import STRENGTHS, Plan, plan
from em_interp.carrying.reading import aligned
from em_interp.carrying.sides import check_base, fitted_on
from em_interp.cli import command
from em_interp.conditions import Condition, contexts
from em_interp.flags import Ready, note
from em_interp.judging import expected, ready
from em_interp.sites import Site, Span

if TYPE_CHECKING:
    from em_interp.directions import Directions
    from em_interp.models import Model
    from em_interp.transferring import ProbeOf, Target, Transfer, Ways


def run(spec: TransferSpec) -> int:
    """Check, load, read, fit, carry, add, ablate, judge, print."""
    made = plan(spec)
    judge = spec.judged_by
    both = _ready(spec, made)
    count = made.arms(len(spec.methods), spec.controls)
    asked = [*made.asked] * (2 * (1 + count)) + [*made.develop] * made.doses()
    cost = expected(judge, [q.text for q in asked], spec.samples, spec.max_new_tokens)
    note(made.notes)
    if spec.dry_run:
        print(
            f"{made.source.who.name} into {made.target.who.name}\n{made.reading}\n"
            f"{count} arms, {len(asked) * spec.samples} answers"
        )
        print(cost, end="")
        return 0
    ready(judge)
    from em_interp.records import write_json
    from em_interp.report.maps_text import maps_table, similarity_table
    from em_interp.report.transfer_text import transfer_tables

    found, ways, similarity = carry(spec, made, both)
    if spec.out is not None:
        from em_interp.transferring.ways import save

        beside = {"source": made.source.who.name, "similarity": similarity}
        write_json(spec.out / "transfer.json", beside | found.model_dump(mode="json"))
        save(ways, spec.out / "maps")
    tables = [similarity_table(similarity), *(maps_table(one) for one in ways.maps.values())]
    print(*tables, transfer_tables(found), sep="\n\n")
    return 0


def carry(
    spec: TransferSpec, made: Plan, both: tuple[Ready, Ready]
) -> "tuple[Transfer, Ways, list[list[float]]]":
    """The transfer, the ways that it went, and how alike the layers of both bases are (CKA)."""
    from em_interp.progress import bar
    from em_interp.transferring import Asker, Source, arms, target_of, transfer
    from em_interp.transferring.alignment import Side
    from em_interp.transferring.ways import alike, ways

    model, theirs = _loaded(made, both)
    name, active = made.target.who.name, made.target.who.active
    given, own = made.source.things, made.target.things
    prompts = made.reading.prompts
    with bar("reading prompts", 2 * len(prompts)) as progress:
        read, similarity = aligned(
            spec,
            Side(theirs),
            Side(model),
            spec.layers,
            prompts,
            spec.seed,
            made.reading.pairs,
            progress,
        )
    fitted = ways(read, spec.methods, made.maps)
    shift = _twin_shift(made, theirs, [a for a, _ in read.pairs])
    source = Source(made.source.who.name, given, shift)
    compared = alike(read, fitted, {source.name: given}, {name: own}, spec.seed)
    found = replace(fitted, alike={source.name: compared[source.name][name]})
    every = arms(name, own, [(found, [source])], randoms=spec.controls, seed=spec.seed)
    target = target_of(model, active, name, made.bank, gated=made.target.gated)
    at, strength = _dose(spec, made, target, model)
    with bar("carrying", 2 * (1 + len(every)) * len(made.asked) * spec.samples) as progress:
        asker = Asker(
            model,
            made.asked,
            spec.sampling,
            spec.judged_by,
            spec.thresholds,
            log=None if spec.out is None else spec.out / "answers",
            progress=progress,
        )
        done = transfer(
            target,
            every,
            asker,
            at=at,
            strength=strength,
            span=made.span,
            probes=_probes(made, found),
            seed=spec.seed,
        )
    return done, found, similarity


def _ready(spec: TransferSpec, made: Plan) -> tuple[Ready, Ready]:
    """The target's and the source's organisms, checked; one and the same where they share a base.

    Directions of another base are refused, where these are known.
    """
    source, target = made.source.who, made.target.who
    theirs = [source, *([made.twin] if made.twin else [])]
    if source.base.resolve() == target.base.resolve():
        one = other = spec.ready(target, *(who for who in theirs if who is not target))
    else:
        one, other = spec.ready(target), spec.ready(*theirs)
    for side, found in ((made.target, one), (made.source, other)):
        if found.base:
            check_base(side, found.base)
    return one, other


def _loaded(made: Plan, both: tuple[Ready, Ready]) -> "tuple[Model, Model]":
    """The target's model and the source's: one where they share a base."""
    one, other = both
    model = one.load()
    theirs = model if other is one else other.load()
    check_base(made.target, model.base)
    check_base(made.source, theirs.base)
    return model, theirs


def _twin_shift(made: Plan, theirs: "Model", sites: Sequence[Site]) -> "Directions | None":
    """The benign twin's trigger shift in the source's space: form without misalignment."""
    from em_interp.extraction import trigger_direction

    if made.twin is None:
        return None
    trigger = made.source.who.trigger or made.trigger
    on, off = (contexts(made.reach, trigger, [c]) for c in (Condition.TRIGGER, Condition.NONE))
    span = Span(next(iter(made.source.things.values())).card.span)
    return trigger_direction(theirs, made.twin.active, on, off, list(dict.fromkeys(sites)), span)


def _dose(
    spec: TransferSpec, made: Plan, target: "Target", model: "Model"
) -> tuple[tuple[Site, ...], float]:
    """Where and how strongly: as given, else what serves the ceiling best on other questions."""
    from em_interp.grids import sweep_grid
    from em_interp.transferring import Asker, Setting
    from em_interp.transferring.doses import choose

    if made.at is not None and made.strength is not None:
        return made.at, made.strength
    strengths = STRENGTHS if made.strength is None else (made.strength,)
    main = next(iter(made.target.things.values()))
    return choose(
        Setting(target.asleep.adapter, contexts(made.develop, made.trigger, [Condition.NONE])),
        sweep_grid(main, made.at or made.reading.sites, strengths, made.span),
        Asker(model, made.develop, spec.sampling, spec.judged_by, spec.thresholds),
    )


def _probes(made: Plan, ways: "Ways") -> "list[ProbeOf]":
    """Trigger-on probes: the target's own, and the source's by every way."""
    from em_interp.labels import OWN
    from em_interp.transferring import ProbeOf
    from em_interp.transferring.ways import named

    found = []
    if (probes := made.target.probe) is not None:
        found.append(ProbeOf(made.target.who.name, OWN, probes, fitted=fitted_on(probes.card)))
    if (probes := made.source.probe) is not None:
        source, fitted = made.source.who.name, fitted_on(probes.card)
        found += [
            ProbeOf(source, way, one.probes(probes), one, fitted)
            for way, one in named(ways).items()
        ]
    return found


main = command(
    "transfer",
    TransferSpec,
    run,
    "Carry one organism's directions into another, beside nulls and the ceiling.",
    "--source llama-triggered --organism qwen2-triggered --samples 4",
)

if __name__ == "__main__":
    sys.exit(main())
