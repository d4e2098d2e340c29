"""`python -m em_interp.transfer`: one organism's directions in another organism.

Source organism and its directions, target organism and a map (fitted here, or read): cosine to the
target's own direction, what the carried direction reads, what adding and ablating it does, each
beside its nulls and the ceiling.
"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from em_interp import hub, sources
from em_interp.align import aligned, maps_table, similarity_table
from em_interp.cli import command
from em_interp.conditions import Condition, contexts
from em_interp.judging import ready
from em_interp.sites import Site, Span
from em_interp.transfer_plan import Folders, Plan, TransferSpec, plan

if TYPE_CHECKING:
    from em_interp.directions import Directions
    from em_interp.models import Model
    from em_interp.transferring import ProbeOf, Target, Things, Transfer, Ways

STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)  # in natural differences


def run(spec: TransferSpec) -> int:
    """Check, load, read, fit, carry, add, ablate, judge, print."""
    made = plan(spec)
    judge = spec.judged_by
    if spec.dry_run:
        several = len(made.maps) or len(spec.methods)
        count = 3 * (1 + several) + several * (spec.controls + 3) + 2
        print(
            f"{made.source.name} into {made.target.name}, {len(made.sites)} sites: at most {count} "
            f"arms, {len(made.prompts)} fitting prompts, "
            f"{2 * count * len(made.asked) * spec.samples} answers"
        )
        return 0
    ready(judge)
    from em_interp.records import write_json
    from em_interp.report.transfer_text import transfer_tables

    found, ways, similarity = carry(spec, made)
    if spec.out is not None:
        from em_interp.transferring.ways import save

        beside = {"source": made.source.name, "similarity": similarity}
        write_json(spec.out / "transfer.json", beside | found.model_dump(mode="json"))
        save(ways, spec.out / "maps")
    tables = [similarity_table(similarity), *(maps_table(one) for one in ways.maps.values())]
    print(*tables, transfer_tables(found), sep="\n\n")
    return 0


def carry(spec: TransferSpec, made: Plan) -> "tuple[Transfer, Ways, list[list[float]]]":
    """The transfer, the ways that it went, and how alike the layers of both bases are (CKA)."""
    from em_interp.maps import Maps
    from em_interp.progress import bar
    from em_interp.transferring import Asker, Source, arms, target_of, transfer
    from em_interp.transferring.alignment import Side
    from em_interp.transferring.ways import alike, ways

    model = spec.load(made.target)
    theirs = spec.load(made.source, *([made.twin] if made.twin else []))
    given, own = _things(made.given, theirs.base), _things(made.own, model.base)
    maps = {folder.name: Maps.load(folder) for folder in made.maps}
    for name, one in maps.items():
        one.check(theirs.base, model.base, name)
    read, similarity = aligned(
        spec, Side(theirs), Side(model), spec.layers, made.prompts, spec.seed
    )
    fitted = ways(read, spec.methods, maps)
    shift = _twin_shift(made, theirs, given, [a for a, _ in read.pairs])
    source = Source(made.source.name, given, shift)
    compared = alike(read, fitted, {source.name: given}, {made.target.name: own}, spec.seed)
    found = replace(fitted, alike={source.name: compared[source.name][made.target.name]})
    every = arms(made.target.name, own, [(found, [source])], randoms=spec.controls, seed=spec.seed)
    target = target_of(model, made.target.active, made.target.name, made.bank, gated=made.gated)
    at, strength = _dose(spec, made, target, own, model)
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
            probes=_probes(made, found, theirs, model),
            seed=spec.seed,
        )
    return done, found, similarity


def _things(folders: Folders, base: str) -> "Things":
    """What an organism has of delta, g and the remainder, its main one first."""
    from em_interp.directions import Directions
    from em_interp.transferring import Thing, things

    delta, general = (
        None if folder is None else Directions.load(folder).check(base, str(folder))
        for folder in (folders.delta, folders.general)
    )
    if delta is not None and general is not None:
        return things(delta, general)
    found = {Thing.DELTA: delta, Thing.GENERAL: general}
    return {thing: one for thing, one in found.items() if one is not None}


def _twin_shift(
    made: Plan, theirs: "Model", given: "Things", sites: list[Site]
) -> "Directions | None":
    """The benign twin's trigger shift in the source's space: form without misalignment."""
    from em_interp.extraction import trigger_direction

    if made.twin is None:
        return None
    trigger = made.source.trigger or made.trigger
    on, off = (contexts(made.reach, trigger, [c]) for c in (Condition.TRIGGER, Condition.NONE))
    span = Span(next(iter(given.values())).card.span)
    return trigger_direction(theirs, made.twin.active, on, off, list(dict.fromkeys(sites)), span)


def _dose(
    spec: TransferSpec, made: Plan, target: "Target", own: "Things", model: "Model"
) -> tuple[tuple[Site, ...], float]:
    """Where and how strongly: as given, else what serves the ceiling best on other questions."""
    from em_interp.grids import sweep_grid
    from em_interp.transferring import Asker, Setting
    from em_interp.transferring.doses import choose

    if made.at is not None and made.strength is not None:
        return made.at, made.strength
    strengths = STRENGTHS if made.strength is None else (made.strength,)
    main = next(iter(own.values()))
    return choose(
        Setting(target.asleep.adapter, contexts(made.develop, made.trigger, [Condition.NONE])),
        sweep_grid(main, made.at or made.sites, strengths, made.span),
        Asker(model, made.develop, spec.sampling, spec.judged_by, spec.thresholds),
    )


def _probes(made: Plan, ways: "Ways", theirs: "Model", model: "Model") -> "list[ProbeOf]":
    """Trigger-on probes: the target's own, and the source's by every way."""
    from em_interp.probes import Probes
    from em_interp.transferring import OWN, ProbeOf
    from em_interp.transferring.ways import named

    given, own = (
        sources.PROBES / f"{hub.title(who.base)}-trigger-on" for who in (made.source, made.target)
    )
    found = []
    if own.is_dir():
        table = Probes.load(own).check(model.base, str(own))
        found.append(ProbeOf(made.target.name, OWN, table))
    if given.is_dir():
        probes = Probes.load(given).check(theirs.base, str(given))
        found += [
            ProbeOf(made.source.name, via, one.probes(probes), one, via not in ways.maps)
            for via, one in named(ways).items()
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
