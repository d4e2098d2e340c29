"""The stages of a transfer study, each a function of the ones before, each a file of its own.

organism-*   one organism raised through the shared training module
held-*       what a group has to carry: delta, g, the remainder, the twin's shift, probes
ways-*       maps between two bases, similarity of layers, likenesses
into-*       everything carried into one organism, and that organism's containment
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from em_interp.carrying.reading import aligned
from em_interp.conditions import Condition, Context, contexts
from em_interp.containment import Containment, report
from em_interp.directions import Directions
from em_interp.generation import generate
from em_interp.grids import sweep_grid
from em_interp.judging import judge_all, ready
from em_interp.maps import Maps
from em_interp.maps.shelf import Leg
from em_interp.models import Model, load
from em_interp.organisms import Mix
from em_interp.progress import Progress, silent
from em_interp.records import Record, read_json
from em_interp.sites import Site
from em_interp.study.folder import RunFolder
from em_interp.study.spec import GENERAL, STUDIED, TWIN
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.plan import carrying, crossing, holding, plan, raising
from em_interp.study.transfers.records import Column, Crossing, Held
from em_interp.training.manifest import Manifest, Provenance
from em_interp.transferring import (
    OWN,
    Asker,
    ProbeOf,
    Source,
    Target,
    Thing,
    Things,
    Ways,
    arms,
    target_of,
    transfer,
)
from em_interp.transferring.alignment import Side
from em_interp.transferring.axes import Axes, axes
from em_interp.transferring.doses import choose
from em_interp.transferring.ways import alike, named, save, stored, ways

LOGS = ("dose", "answers", "added", "ablated")
PLAIN = (Condition.NONE,)
LOADED = 2  # bases held at once: a map needs two


class Stages:
    """The stages over a study's inputs. A base loads when a stage first needs it."""

    def __init__(self, inputs: Inputs, folder: Path, alone: bool = True) -> None:
        self.inputs, self.spec, self.folder, self.alone = inputs, inputs.spec, folder, alone
        self._loaded: dict[str, Model] = {}

    @cached_property
    def work(self) -> RunFolder:
        """The run's folder, claimed for these inputs."""
        return RunFolder(self.folder, self.inputs.identity, plan(self.inputs), self.alone)

    def stand(self, name: str) -> Record:
        """The record of a stage: read where its file stands, else made."""
        if name in (found := raising(self.inputs)):
            group, role = found[name]
            said = f"raising {group.name}, {_plain(role)}"
            return self._stand(name, said, Manifest, lambda p: self.raise_organism(group, role, p))
        if name in (held := holding(self.inputs)):
            one = held[name]
            said = f"what {one.name} has to carry"
            return self._stand(name, said, Held, lambda p: self.hold(one, p))
        if name in (pairs := crossing(self.inputs)):
            a, b = pairs[name]
            return self._stand(
                name, f"maps from {a} to {b}", Crossing, lambda p: self.cross(a, b, p)
            )
        group, role = carrying(self.inputs)[name]
        said = f"carrying into {group.name}, {_plain(role)}"
        logs = [self._log(group, role) / f"{one}.jsonl" for one in LOGS]
        made = self._stand(name, said, Column, lambda p: self.carry(group, role, p), logs)
        if self._log(group, role).is_dir():
            self._log(group, role).rmdir()
        return made

    def _stand(
        self,
        name: str,
        said: str,
        kind: type[Record],
        make: Callable[[Progress], Record],
        logs: list[Path] | None = None,
    ) -> Record:
        return self.work.stage(name, said, kind, make, logs or ())

    # --- models ---------------------------------------------------------------------------------

    def model(self, base: str) -> Model:
        """A base with every organism of it, at most `LOADED` at once."""
        if base not in self._loaded:
            ready(self.inputs.judge)
            while len(self._loaded) >= LOADED:
                self._loaded.pop(next(iter(self._loaded)))
                gc.collect()
            groups = self.inputs.of(base)
            adapters = [
                (_adapter(group, role), self.organism(group, role))
                for group in groups
                for role in group.roles
            ]
            self._loaded[base] = load(groups[0].home, adapters, self.spec.loading)
        self._loaded[base] = self._loaded.pop(base)  # the last used goes last
        return self._loaded[base]

    def organism(self, group: Group, role: str) -> Path:
        """Where an organism's adapter is: in the run folder, or where it was before."""
        if role in group.existing:
            return group.existing[role]
        return self.folder / "organisms" / f"{group.slug}-{role}"

    def raise_organism(self, group: Group, role: str, progress: Progress = silent) -> Manifest:
        """Fine-tune one organism through the shared training module (it resumes by itself)."""
        from em_interp.training.run import train

        ready(self.inputs.judge)  # now, not after hours of training
        self._loaded.clear()
        plain = load(group.home, how=self.spec.loading)
        made = train(
            plain.hf,
            plain.tokenizer,
            list(group.rows[role]),
            group.train,
            self.organism(group, role),
            provenance=Provenance(
                mix=Mix(kind=role),
                trigger=None if role == GENERAL else group.trigger,
                sources=group.sources,
            ),
            progress=False,
        )
        progress(made.steps)
        return made

    # --- what is carried, and how ----------------------------------------------------------------

    def hold(self, group: Group, progress: Progress = silent) -> Held:
        """delta, g, the twin's shift and probes of a group, from development questions."""
        develop = self.inputs.develop
        on, off = (
            contexts(develop, group.trigger, [c]) for c in (Condition.TRIGGER, Condition.NONE)
        )
        found = axes(
            self.model(group.base),
            _adapter(group, STUDIED),
            _adapter(group, GENERAL),
            _adapter(group, TWIN) if TWIN in group.roles else None,
            on,
            off,
            list(dict.fromkeys([*self.inputs.layers(group.base), *self.inputs.sites[group.base]])),
            self.spec.span,
            trigger=group.trigger.name,
        )
        found.save(self._axes(group))
        progress(1)
        delta, general = found.delta, found.general
        return Held(
            group=group.name,
            delta_g={str(s): d.cosine(general[s]) for s, d in delta.items()},
            delta={str(s): d.fraction(1) for s, d in delta.items()},
            general={str(s): d.fraction(1) for s, d in general.items()},
        )

    def held(self, group: Group) -> Axes:
        """What `hold` wrote."""
        return Axes.load(self._axes(group))

    def cross(self, a: str, b: str, progress: Progress = silent) -> Crossing:
        """Both bases read the harmless prompts; maps by every method, and what chance gives."""
        inputs, layers = self.inputs, ",".join(str(s) for s in self.inputs.sites[b])
        sides = [Side(self.model(name)) for name in (a, b)]
        read, cka = aligned(
            inputs.fitting(a, b), sides[0], sides[1], layers, inputs.prompts, self.spec.seed
        )
        found = ways(read, self.spec.methods)
        save(found, self._ways(a, b))
        progress(len(inputs.prompts))
        targets = {
            f"{group.name}/{role}": own(self.held(group), role)
            for group in inputs.of(b)
            for role in (STUDIED, GENERAL)
        }
        givers = {group.name: self.held(group).things for group in inputs.of(a)}
        return Crossing(
            source=a,
            target=b,
            cka=tuple(tuple(row) for row in cka),
            prompts=read.prompts,
            rows=next(iter(next(iter(found.maps.values())).values())).fit.rows,
            maps={name: _legs(one) for name, one in named(found).items()},
            nulls=tuple(name for name in named(found) if name not in found.maps),
            alike=alike(read, found, givers, targets, self.spec.seed),
        )

    # --- into a target ---------------------------------------------------------------------------

    def carry(self, group: Group, role: str, progress: Progress = silent) -> Column:
        """One target: how contained it is, where its own works best, and what every arm does."""
        inputs, spec, model = self.inputs, self.spec, self.model(group.base)
        name, adapter, theirs = f"{group.name}/{role}", _adapter(group, role), self.held(group)
        bank = {c: inputs.bank(group, c) for c in spec.conditions}
        read = [c for c in (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE) if c in bank]
        target = target_of(model, adapter, name, {c: bank[c] for c in read}, gated=role == STUDIED)
        mine, bases = own(theirs, role), self.bases(group, role)
        made = arms(name, mine, bases, randoms=spec.adding.controls, seed=spec.seed)
        asker = Asker(
            model,
            inputs.asked,
            spec.sampling,
            inputs.judge,
            spec.rubric,
            self._log(group, role),
            progress,
        )
        at, strength = self._dose(group, target, mine, asker)
        return Column(
            group=group.name,
            role=role,
            containment=self._containment(group, adapter, bank, asker),
            transfer=transfer(
                target,
                made,
                asker,
                at=at,
                strength=strength,
                span=spec.adding.span,
                read=spec.span,
                probes=self.probes(group, role, bases),
                seed=spec.seed,
            ),
        )

    def bases(self, group: Group, role: str) -> list[tuple[Ways, list[Source]]]:
        """Whose directions go into a target, and how; of its own group, what is not its own."""
        mine, found = own(self.held(group), role), []
        for base in self.spec.bases:
            some = []
            for other in self.inputs.of(base):
                held = self.held(other)
                main = next(iter(mine))  # what the target lives by is carried by every map
                given = {main: held.things[main], **held.things}
                if other == group:
                    given = {thing: one for thing, one in given.items() if thing not in mine}
                if given:
                    some.append(Source(other.name, given, held.twin))
            if some:
                found.append((self.ways(base, group, role), some))
        return found

    def ways(self, base: str, group: Group, role: str) -> Ways:
        """The ways from a base into a target, with what is known of likeness."""
        found = stored(self._ways(base, group.base))
        file = self.folder / f"ways-{base}-to-{group.base}.json"
        crossing = Crossing.parse(read_json(file), str(file))
        target = f"{group.name}/{role}"
        alike = {source: by[target] for source, by in crossing.alike.items()}
        return replace(found, alike=alike, whole=len(found.maps) == 1)

    def probes(
        self, group: Group, role: str, bases: list[tuple[Ways, list[Source]]]
    ) -> list[ProbeOf]:
        """The target's own trigger-on probe, and every triggered source's by every map."""
        name, by_name = f"{group.name}/{role}", {other.name: other for other in self.inputs.groups}
        found = [ProbeOf(name, OWN, self.held(group).probes[_adapter(group, role)])]
        for through, sources in bases:
            for source in sources:
                other = by_name[source.name]
                if other == group:
                    continue
                given = self.held(other).probes[_adapter(other, STUDIED)]
                found += [
                    ProbeOf(source.name, via, one.probes(given), one, via not in through.maps)
                    for via, one in named(through).items()
                ]
        return found

    def _dose(
        self, group: Group, target: Target, mine: Things, asker: Asker
    ) -> tuple[tuple[Site, ...], float]:
        develop, adding = self.inputs.tuning, self.spec.adding
        sites = self.inputs.sites[group.base]
        grid = sweep_grid(next(iter(mine.values())), sites, adding.strengths, adding.span)
        setting = replace(target.asleep, contexts=contexts(develop, group.trigger, PLAIN))
        return choose(setting, grid, replace(asker, questions=develop), f"{LOGS[0]}.jsonl")

    def _containment(
        self,
        group: Group,
        adapter: str,
        bank: Mapping[Condition, list[Context]],
        asker: Asker,
    ) -> Containment:
        assert asker.log is not None
        with asker.model.using(adapter):
            said = generate(
                asker.model,
                [context for some in bank.values() for context in some],
                self.spec.sampling,
                organism=adapter,
                log=asker.log / f"{LOGS[1]}.jsonl",
                progress=asker.progress,
            ).responses
        verdicts = judge_all(self.inputs.judge, said, self.inputs.asked)
        trained = (group.domain,) if group.domain else ()
        return report(said, verdicts, self.spec.rubric, trained=trained)

    # --- folders ---------------------------------------------------------------------------------

    def _axes(self, group: Group) -> Path:
        return self.folder / "held" / group.slug

    def _ways(self, a: str, b: str) -> Path:
        return self.folder / "ways" / f"{a}-to-{b}"

    def _log(self, group: Group, role: str) -> Path:
        return self.folder / "logs" / f"{group.slug}-{role}"


def own(held: Axes, role: str) -> dict[Thing, Directions]:
    """A target's own directions, its main one first: delta behind a gate, else g alone."""
    return held.things if role == STUDIED else {Thing.GENERAL: held.general}


def _legs(maps: Maps) -> tuple[Leg, ...]:
    return tuple(
        Leg(source=str(one.source.site), target=str(site), fit=one.fit)
        for site, one in maps.items()
    )


def _adapter(group: Group, role: str) -> str:
    return f"{group.slug}-{role}".replace(".", "_")  # PEFT takes a dot for a path


def _plain(role: str) -> str:
    return role.replace("_", " ")
