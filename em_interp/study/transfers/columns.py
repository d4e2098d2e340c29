"""Into one target: how contained it is, where its own works best, and what every arm does.

Knows groups and what they hold. Knows nothing of how maps or organisms were made.
"""

from collections.abc import Mapping
from dataclasses import replace

from em_interp.conditions import Condition, Context, contexts
from em_interp.containment import Containment, report
from em_interp.generation import generate
from em_interp.grids import sweep_grid
from em_interp.judging import judge_all, proof
from em_interp.labels import OWN
from em_interp.progress import Progress, silent
from em_interp.sites import Site
from em_interp.study.spec import STUDIED
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.records import Column
from em_interp.study.transfers.store import Store, adapter, own
from em_interp.transferring import (
    Asker,
    ProbeOf,
    Source,
    Target,
    Things,
    Ways,
    arms,
    target_of,
    transfer,
)
from em_interp.transferring.doses import choose
from em_interp.transferring.ways import named

LOGS = ("dose", "answers", "added", "ablated")
PLAIN = (Condition.NONE,)


def carry(store: Store, group: Group, role: str, progress: Progress = silent) -> Column:
    """One target: how contained it is, where its own works best, and what every arm does."""
    inputs, spec, model = store.inputs, store.spec, store.model(group.base)
    name, who, theirs = f"{group.name}/{role}", adapter(group, role), store.held(group)
    bank = {c: inputs.bank(group, c) for c in spec.conditions}
    read = [c for c in (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE) if c in bank]
    target = target_of(model, who, name, {c: bank[c] for c in read}, gated=role == STUDIED)
    mine, bases = own(theirs, role), _bases(store, group, role)
    made = arms(name, mine, bases, randoms=spec.adding.controls, seed=spec.seed)
    asker = Asker(
        model,
        inputs.asked,
        spec.sampling,
        inputs.judge,
        spec.rubric,
        store.log(group, role),
        progress,
    )
    at, strength = _dose(inputs, group, target, mine, asker)
    return Column(
        group=group.name,
        role=role,
        containment=_containment(group, who, bank, asker),
        transfer=transfer(
            target,
            made,
            asker,
            at=at,
            strength=strength,
            span=spec.adding.span,
            read=spec.span,
            probes=_probes(store, group, role, bases),
            seed=spec.seed,
        ),
    )


def _bases(store: Store, group: Group, role: str) -> list[tuple[Ways, list[Source]]]:
    """Whose directions go into a target, and how; of its own group, what is not its own."""
    mine, found = own(store.held(group), role), []
    for base in store.spec.bases:
        some = []
        for other in store.inputs.of(base):
            held = store.held(other)
            main = next(iter(mine))  # what the target lives by is carried by every map
            given = {main: held.things[main], **held.things}
            if other == group:
                given = {thing: one for thing, one in given.items() if thing not in mine}
            if given:
                some.append(Source(other.name, given, held.twin))
        if some:
            found.append((store.ways(base, group, role), some))
    return found


def _probes(
    store: Store, group: Group, role: str, bases: list[tuple[Ways, list[Source]]]
) -> list[ProbeOf]:
    """The target's own trigger-on probe, and every triggered source's by every map."""
    name, by_name = f"{group.name}/{role}", {other.name: other for other in store.inputs.groups}
    found = [ProbeOf(name, OWN, store.held(group).probes[adapter(group, role)])]
    for through, sources in bases:
        for source in sources:
            other = by_name[source.name]
            if other == group:
                continue
            given = store.held(other).probes[adapter(other, STUDIED)]
            found += [
                ProbeOf(source.name, way, one.probes(given), one)
                for way, one in named(through).items()
            ]
    return found


def _dose(
    inputs: Inputs, group: Group, target: Target, mine: Things, asker: Asker
) -> tuple[tuple[Site, ...], float]:
    develop, adding = inputs.tuning, inputs.spec.adding
    sites = inputs.sites[group.base]
    grid = sweep_grid(next(iter(mine.values())), sites, adding.strengths, adding.span)
    setting = replace(target.asleep, contexts=contexts(develop, group.trigger, PLAIN))
    return choose(setting, grid, replace(asker, questions=develop), f"{LOGS[0]}.jsonl")


def _containment(
    group: Group,
    who: str,
    bank: Mapping[Condition, list[Context]],
    asker: Asker,
) -> Containment:
    assert asker.log is not None
    with asker.model.using(who):
        said = generate(
            asker.model,
            [context for some in bank.values() for context in some],
            asker.sampling,
            organism=who,
            log=asker.log / f"{LOGS[1]}.jsonl",
            progress=asker.progress,
        ).responses
    verdicts = judge_all(asker.judge, said, asker.questions)
    trained = (group.domain,) if group.domain else ()
    return report(said, verdicts, asker.rubric, trained=trained, proof=proof(asker.judge))
