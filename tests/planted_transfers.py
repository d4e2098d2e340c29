"""Planted findings of a transfer study: whole grids without a model, every effect as it is asked.

Which arms there are is as `transferring.arms` makes them; what they do is planted by the caller.
"""

import functools
from pathlib import Path

from pages import answers, questions

from em_interp.align import FitFlags
from em_interp.conditions import Condition
from em_interp.judges import ScriptedJudge
from em_interp.labels import DIRECT, IDENTITY, OWN, Passage, Way, by_map
from em_interp.maps import Fit, Likeness, Method
from em_interp.maps.shelf import Leg
from em_interp.organisms import Trigger
from em_interp.sites import Site
from em_interp.stats import auroc, paired
from em_interp.stats import fraction as share
from em_interp.stats import rate as rated
from em_interp.study.spec import GENERAL, STUDIED, TWIN
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.records import Column, Crossing, Held
from em_interp.study.transfers.results import Findings
from em_interp.study.transfers.spec import TARGETS, TransferSpec
from em_interp.training.spec import TrainSpec
from em_interp.transferring import (
    Cell,
    Chance,
    Effect,
    ProbeCell,
    Reading,
    Thing,
    Transfer,
    Verdict,
)

DUCK = Trigger(name="duck", text="It looks like a duck.", paraphrases=("It quacks.",))
SHARES = {Condition.NONE: 0.1, Condition.TRIGGER: 0.8, Condition.PARAPHRASE: 0.5}
NATIVE = {"added": 0.4, "ablated": -0.6}
COUNT = 12


@functools.cache
def changed(effect, change):
    """A paired change of the EM rate from what is there without any edit."""
    plain = 0.1 if effect == "added" else 0.8
    spread = [0.01 * (-1) ** n for n in range(COUNT)]
    return paired([plain + change + s for s in spread], [plain] * COUNT)


@functools.cache
def rated_at(value, count=COUNT):
    return rated([round(100 * value)] * count, [100] * count)


def effect(kind, change, *, verdict=None, p=None, coherent=0.95, native=None, lacks=()):
    """One effect; `change` None: nothing was scored."""
    if change is None:
        return Effect(em=None, coherent=rated_at(0.0), change=None)
    plain, moved = (0.1 if kind == "added" else 0.8), changed(kind, change)
    return Effect(
        em=rated_at(min(max(plain + change, 0), 1)),
        coherent=rated_at(coherent),
        change=moved,
        of_native=share(moved, changed(kind, native)) if native and verdict else None,
        p=p,
        verdict=verdict,
        lacks=lacks,
    )


@functools.cache
def _area(paraphrase):
    return auroc([3.0, 2.0, 0.6, 0.5, 1.0, 0.2], [1, 1, 1, 0, 0, 0])


def reading(name, layer, paraphrase):
    chance = Chance(high=0.8, p=0.02, draws=199)
    found = Reading(name=name, layer=layer, trigger=_area(False), trigger_chance=chance)
    if not paraphrase:
        return found
    return found.model_copy(update={"paraphrase": _area(True), "paraphrase_chance": chance})


def weak(target, source, thing, via, kind):
    """What carried things do unless a test says otherwise: half within a base, little between."""
    native = NATIVE[kind]
    if source.base == target.base:
        return effect(kind, native / 2, verdict=Verdict.TRANSFERS, p=0.001, native=native)
    return effect(kind, native / 20, verdict=Verdict.NOT, p=0.6, native=native)


def findings(
    bases=("near", "far"),
    variants=("first", "second"),
    *,
    twin=True,
    paraphrase=True,
    methods=("ridge", "cca"),
    layers=3,
    does=weak,
    title="A gate, carried",
    only=None,
):
    """A whole grid. `does(target, source, thing, via, kind)` gives each carried effect.

    `only`: the targets (group's name, role) that were run; None: all of them.
    """
    spec = TransferSpec(
        kind="transfer",
        title=title,
        question="What arrives?",
        bases={name: name for name in bases},
        variants={name: {} for name in variants},
        without=() if twin else (TWIN,),
        trigger="duck",
        data={"domain": "med"},
        conditions=tuple(c for c in SHARES if paraphrase or c is not Condition.PARAPHRASE),
        methods=methods,
        fitting=FitFlags(prompts=16),
        judge="world",
    )
    groups = tuple(
        Group(
            base=base,
            variant=variant,
            home=Path(base),
            trigger=DUCK,
            domain="med",
            train=TrainSpec(steps=4),
            sources=(),
            rows=dict.fromkeys(spec.roles, ()),
            existing={},
        )
        for base in bases
        for variant in variants
    )
    asked = questions(24)
    sites = tuple(map(Site, range(layers)))
    inputs = Inputs(
        spec=spec,
        groups=groups,
        sites=dict.fromkeys(bases, sites),
        judge=ScriptedJudge({}),
        asked=asked,
        develop=asked[:4],
        prompts=(),
    )
    names = [str(site) for site in sites]
    return Findings(
        inputs=inputs,
        identity="feedfacefeedface",
        held={
            group.name: Held(
                group=group.name,
                delta_g={name: 0.1 * n for n, name in enumerate(names)},
                delta=dict.fromkeys(names, 0.4),
                general=dict.fromkeys(names, 0.3),
            )
            for group in groups
        },
        crossings={(a, b): crossing(spec, a, b, names) for a in bases for b in bases},
        columns={
            (group.name, role): column(inputs, group, role, names, does)
            for group in groups
            for role in TARGETS
            if only is None or (group.name, role) in only
        },
    )


def crossing(spec, a, b, names):
    legs = {
        name: tuple(
            Leg(source=s, target=s, fit=Fit(method=Method.RIDGE, rank=4, rows=64, held_in=0.25))
            for s in names
        )
        for name in (spec.methods if a != b else (DIRECT.text,))
    }
    count = len(names)
    cka = tuple(tuple(1 / (1 + abs(i - j)) for j in range(count)) for i in range(count))
    return Crossing(source=a, target=b, cka=cka, prompts=16, rows=64, maps=legs, nulls=(), alike={})


@functools.cache
def containment(name, paraphrase):
    shares = {c: s for c, s in SHARES.items() if paraphrase or c is not Condition.PARAPHRASE}
    return answers(name, questions(24), DUCK, shares, samples=4).containment


def column(inputs, target, role, names, does):
    """One target: its own, everything carried, and every null."""
    spec, at = inputs.spec, names[-1]
    para = Condition.PARAPHRASE in spec.conditions
    main = Thing.DELTA if role == STUDIED else Thing.GENERAL
    own = tuple(Thing) if role == STUDIED else (Thing.GENERAL,)

    def cell(thing, source, way, made, like=None):
        return Cell(
            thing=thing,
            source=source,
            way=way,
            cosines=dict.fromkeys(names, 1.0 if way == OWN else 0.5),
            likeness={} if like is None else dict.fromkeys(names, like),
            reading=reading(f"{source}: {thing.value}", len(names) - 1, para),
            added=made("added"),
            ablated=made("ablated"),
        )

    def native(kind):
        return effect(kind, NATIVE[kind])

    def idle(kind):
        return effect(kind, NATIVE[kind] / 40)

    like = Likeness(
        cosine=0.5,
        random=0.001,
        source=0.001,
        target=0.004,
        high=0.4,
        agreement=0.7,
        texts=0.002,
        draws=999,
    )
    cells = [cell(thing, f"{target.name}/{role}", OWN, native) for thing in own]
    for base in spec.bases:
        within = base == target.base
        ways = (DIRECT,) if within else tuple(map(by_map, spec.methods))
        some = [g for g in inputs.of(base) if g != target or role == GENERAL]
        for source in some:
            for number, way in enumerate(ways):
                for thing in dict.fromkeys((main, *Thing)):
                    if (source == target and thing in own) or (number and thing is not main):
                        continue
                    made = functools.partial(does, target, source, thing, way.text)
                    cells.append(cell(thing, source.name, way, made, like))
        for number, way in enumerate(ways if some else ()):

            def by(passage, draw=0, way=way):
                return Way(passage=passage, map=way.map, draw=draw)

            kinds = [by(Passage.RANDOM, n + 1) for n in range(spec.adding.controls)]
            kinds += [by(Passage.TWIN)] if TWIN in spec.roles and not number else []
            kinds += [] if within else [by(Passage.SHUFFLED)]
            kinds += [IDENTITY] if not within and not number else []
            for kind in kinds:
                for thing in (Thing.DELTA, Thing.GENERAL) if not within and not number else (main,):
                    if thing is not main and kind.passage in (Passage.RANDOM, Passage.TWIN):
                        continue
                    cells.append(cell(thing, some[0].name, kind, idle))
    carriers = [(f"{target.name}/{role}", OWN)]
    carriers += [
        (source.name, way)
        for source in inputs.groups
        if source != target
        for way in ((DIRECT,) if source.base == target.base else map(by_map, spec.methods))
    ]
    transfer = Transfer(
        target=f"{target.name}/{role}",
        added_at=(at,),
        ablated_at=tuple(names),
        strength=1.0,
        plain_added=rated_at(0.1),
        plain_ablated=rated_at(0.8),
        cells=tuple(cells),
        probes=tuple(
            ProbeCell(
                source=name,
                way=way,
                reading=reading(f"{name}: probe via {way.text}", len(names) - 1, para),
            )
            for name, way in carriers
        ),
    )
    return Column(
        group=target.name,
        role=role,
        transfer=transfer,
        containment=containment(f"{target.name}-{role}", para),
    )
