"""The stages of a transfer study, each a function of the ones before, each a file of its own.

organism-*   one organism raised through the shared training module
held-*       what a group has to carry: delta, g, the remainder, the twin's shift, probes
ways-*       maps between two bases, similarity of layers, likenesses
into-*       everything carried into one organism, and that organism's containment
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from em_interp.carrying.reading import aligned
from em_interp.conditions import Condition, contexts
from em_interp.judging import ready
from em_interp.maps import Maps
from em_interp.maps.shelf import Leg
from em_interp.models import load
from em_interp.organisms import Mix
from em_interp.progress import Progress, silent
from em_interp.records import Record
from em_interp.study.folder import RunFolder
from em_interp.study.spec import GENERAL, STUDIED, TWIN
from em_interp.study.transfers.columns import LOGS, carry
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.plan import carrying, crossing, holding, plan, raising
from em_interp.study.transfers.records import Column, Crossing, Held
from em_interp.study.transfers.store import Store, adapter, own
from em_interp.training.manifest import Manifest, Provenance
from em_interp.transferring.alignment import Side
from em_interp.transferring.axes import axes
from em_interp.transferring.ways import alike, named, save, ways


class Stages:
    """The stages over a study's inputs."""

    def __init__(self, inputs: Inputs, folder: Path, alone: bool = True) -> None:
        self.inputs, self.spec, self.folder, self.alone = inputs, inputs.spec, folder, alone
        self.store = Store(inputs, folder)

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
        logs = [self.store.log(group, role) / f"{one}.jsonl" for one in LOGS]
        made = self._stand(name, said, Column, lambda p: carry(self.store, group, role, p), logs)
        if self.store.log(group, role).is_dir():
            self.store.log(group, role).rmdir()
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

    def raise_organism(self, group: Group, role: str, progress: Progress = silent) -> Manifest:
        """Fine-tune one organism through the shared training module (it resumes by itself)."""
        from em_interp.training.run import train

        ready(self.inputs.judge)  # now, not after hours of training
        self.store.forget()
        plain = load(group.home, how=self.spec.loading)
        made = train(
            plain.hf,
            plain.tokenizer,
            list(group.rows[role]),
            group.train,
            self.store.organism(group, role),
            provenance=Provenance(
                mix=Mix(kind=role),
                trigger=None if role == GENERAL else group.trigger,
                sources=group.sources,
            ),
            progress=False,
        )
        progress(made.steps)
        return made

    def hold(self, group: Group, progress: Progress = silent) -> Held:
        """delta, g, the twin's shift and probes of a group, from development questions."""
        develop = self.inputs.develop
        on, off = (
            contexts(develop, group.trigger, [c]) for c in (Condition.TRIGGER, Condition.NONE)
        )
        found = axes(
            self.store.model(group.base),
            adapter(group, STUDIED),
            adapter(group, GENERAL),
            adapter(group, TWIN) if TWIN in group.roles else None,
            on,
            off,
            list(dict.fromkeys([*self.inputs.layers(group.base), *self.inputs.sites[group.base]])),
            self.spec.span,
            trigger=group.trigger.name,
        )
        found.save(self.store.axes(group))
        progress(1)
        delta, general = found.delta, found.general
        return Held(
            group=group.name,
            delta_g={str(s): d.cosine(general[s]) for s, d in delta.items()},
            delta={str(s): d.fraction(1) for s, d in delta.items()},
            general={str(s): d.fraction(1) for s, d in general.items()},
        )

    def cross(self, a: str, b: str, progress: Progress = silent) -> Crossing:
        """Both bases read the harmless prompts; maps by every method, and what chance gives."""
        inputs, layers = self.inputs, ",".join(str(s) for s in self.inputs.sites[b])
        sides = [Side(self.store.model(name)) for name in (a, b)]
        read, cka = aligned(
            inputs.fitting(a, b), sides[0], sides[1], layers, inputs.prompts, self.spec.seed
        )
        found = ways(read, self.spec.methods)
        save(found, self.store.between(a, b))
        progress(len(inputs.prompts))
        targets = {
            f"{group.name}/{role}": own(self.store.held(group), role)
            for group in inputs.of(b)
            for role in (STUDIED, GENERAL)
        }
        givers = {group.name: self.store.held(group).things for group in inputs.of(a)}
        return Crossing(
            source=a,
            target=b,
            cka=tuple(tuple(row) for row in cka),
            prompts=read.prompts,
            rows=next(iter(next(iter(found.maps.values())).values())).fit.rows,
            maps={way.text: _legs(one) for way, one in named(found).items()},
            nulls=tuple(way.text for way in named(found) if way.null),
            alike=alike(read, found, givers, targets, self.spec.seed),
        )


def _legs(maps: Maps) -> tuple[Leg, ...]:
    return tuple(
        Leg(source=str(one.source.site), target=str(site), fit=one.fit)
        for site, one in maps.items()
    )


def _plain(role: str) -> str:
    return role.replace("_", " ")
