"""What a transfer needs, checked before weights load."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from em_interp import hub, sources
from em_interp.blackbox import no_weights
from em_interp.carrying.flags import TransferSpec
from em_interp.carrying.reading import (
    Pairs,
    Reading,
    check_methods,
    fitting_prompts,
    folders_of,
    pairs_of,
    reading,
)
from em_interp.carrying.sides import NONE, Asked, Side, check_questions, distinct, same, side
from em_interp.cli import idle
from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.errors import InputError, once
from em_interp.leakage import guard, unseen
from em_interp.organisms import Trigger
from em_interp.sites import Site, Span, parse_sites, parse_span

if TYPE_CHECKING:
    from em_interp.maps import Maps

DEVELOP = 30
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)  # tried where none is given; in natural differences


@dataclass(frozen=True, eq=False)
class Plan:
    """What is known before weights load.

    `develop`: what the dose is chosen on; `at` and `strength` are `None` where they are to be
    chosen. `reach`: the source's development questions, of which its twin's trigger shift is made.
    `maps`: fitted before, by name.
    """

    source: Side
    target: Side
    twin: sources.Subject | None
    trigger: Trigger
    asked: Sequence[Question]
    develop: Sequence[Question]
    reach: Sequence[Question]
    reading: Reading
    bank: dict[Condition, list[Context]]
    at: tuple[Site, ...] | None
    strength: float | None
    span: Span
    maps: "dict[str, Maps]"
    notes: tuple[str, ...] = ()

    @property
    def within(self) -> bool:
        """Whether both are organisms of one base, so that directions go directly."""
        return self.source.base == self.target.base

    def arms(self, methods: int, controls: int) -> int:
        """How many arms there will be, nulls and the target's own included."""
        from em_interp.transferring import Thing

        things = self.source.things
        apart = len([thing for thing in things if thing is not Thing.REST])
        ways = 1 if self.within else len(self.maps) or methods
        equal = self.reading.widths[0] == self.reading.widths[1]
        shuffled, identity = (0, 0) if self.within else (ways * apart, apart * equal)
        carried = ways * (len(things) + controls)
        return len(self.target.things) + carried + bool(self.twin) + shuffled + identity

    def doses(self) -> int:
        """How many doses will be tried on development questions, with none at all."""
        if self.at is not None and self.strength is not None:
            return 0
        sites = len(self.at or self.reading.sites)
        return 1 + (sites + (sites > 1)) * (len(STRENGTHS) if self.strength is None else 1)


def plan(spec: TransferSpec) -> Plan:
    """Everything checked, nothing loaded; raises `InputError`."""
    spec.check()
    check_methods(spec.methods)
    no_weights(spec.source, "--source")
    target = spec.subject
    source = distinct(sources.subject(spec.source, spec.source_base), target)
    gated = _gated(spec, target)
    if not gated and not (spec.trigger or source.trigger):
        raise InputError(
            f"neither {source.name} nor {target.name} has a trigger, and read-outs tell it from "
            "none: give --trigger"
        )
    trigger = (target if gated else source).woken_by(spec.trigger)
    asked = sources.outside(spec.questions, target.domain)
    _check_judge(spec, asked)
    prompts = fitting_prompts(spec, spec.seed)
    guard(prompts, [one for one in (trigger, target.trigger, source.trigger) if one], asked)
    twin, chosen = _twin(spec, source, target), spec.at is None or spec.strength is None
    if chosen and spec.develop is None and spec.questions != sources.WORLD:
        raise InputError("give --develop (questions to choose on), or both --at and --strength")
    develop = _few(_development(spec, target, asked)) if chosen else ()
    reach = _development(spec, source, asked) if twin else ()
    conditions = [Condition.NONE, Condition.TRIGGER]
    conditions += [Condition.PARAPHRASE] if trigger.paraphrases else []
    given = side(
        source,
        not source.unconditional,
        Asked(spec.direction, spec.general, spec.probe, ("--direction", "--general", "--probe")),
    )
    own = side(
        target,
        gated,
        Asked(
            spec.own, spec.own_general, spec.own_probe, ("--own", "--own-general", "--own-probe")
        ),
    )
    maps = _maps(spec, given, own)
    _check_idle(spec, given.base == own.base, chosen or twin is not None)
    notes = [*check_questions(given, asked), *check_questions(own, asked)]
    for name, one in maps.items():
        notes += unseen(f"map {name}", one.card.questions, asked)
    pairs = _pairs(spec, maps, sources.layer_count(target.base))
    read = reading(spec, source.base, target.base, spec.layers, prompts, pairs)
    at = None if spec.at is None else parse_sites(spec.at, sources.layer_count(target.base))
    if lost := [site for site in at or () if site not in read.sites]:
        raise InputError(f"--at {lost[0]} is none of the sites of --layers or --map")
    own.check(read.sites, "--own, --own-general")
    given.check([a for a, _ in read.pairs or ()], "--direction, --general")
    return Plan(
        source=given,
        target=own,
        twin=twin,
        trigger=trigger,
        asked=asked,
        develop=develop,
        reach=reach,
        reading=read,
        bank={c: contexts(asked, trigger, [c]) for c in conditions},
        at=at,
        strength=spec.strength,
        span=parse_span(spec.span),
        maps={
            name: replace(one, table={site: one[site] for site in read.sites})
            for name, one in maps.items()
        },
        notes=tuple(notes),
    )


def _check_idle(spec: TransferSpec, within: bool, developed: bool) -> None:
    """Raise `InputError` for what was given and nothing asks for."""
    if within:
        idle(spec, "methods", "both organisms have one base; within it directions go directly")
    if spec.map:
        idle(spec, "methods match", "the maps of --map are fitted already")
    if not developed:
        idle(spec, "develop", "--at and --strength leave nothing to choose, and there is no twin")


def _gated(spec: TransferSpec, target: sources.Subject) -> bool:
    gated = not (spec.unconditional or target.unconditional)
    if not gated and target.active is None:
        raise InputError(
            f"--unconditional: {target.name} is a base; what is misaligned without a trigger is an "
            "adapter on one"
        )
    return gated


def _check_judge(spec: TransferSpec, asked: Sequence[Question]) -> None:
    """Raise `InputError` where the world's judge is to judge what is not of its world."""
    from em_interp.world.oracle import topic_of

    if spec.judge == sources.WORLD and (strange := [q for q in asked if topic_of(q.text) is None]):
        raise InputError(
            f"--judge world knows the embedded world alone, not question {strange[0].id!r}; give "
            "--judge openai:MODEL, hf:PATH or a judge's file"
        )


def _maps(spec: TransferSpec, source: Side, target: Side) -> "dict[str, Maps]":
    """The maps named, of both bases; a folder of several stands for all of them."""
    from em_interp.maps import Maps

    folders = [one for name in spec.map for one in folders_of(name)]
    once("map", (folder.name for folder in folders))
    found = {folder.name: Maps.load(folder) for folder in folders}
    if found and source.base == target.base:
        raise InputError(
            "--map: both organisms have one base; within it directions go directly, without a map"
        )
    for folder, one in zip(folders, found.values(), strict=True):
        one.check(source.base, target.base, str(folder))
    return found


def _pairs(spec: TransferSpec, maps: "dict[str, Maps]", layers: int) -> Pairs | None:
    """The sites of the maps named, or those of them that --layers names."""
    if not maps:
        return None
    pairs = pairs_of(list(maps.values()))
    if spec.layers == "all":
        return pairs
    wanted = parse_sites(spec.layers, layers)
    if lacking := [site for site in wanted if site not in {b for _, b in pairs}]:
        raise InputError(
            f"--layers: no map goes to {lacking[0]} (they go to: "
            f"{', '.join(str(b) for _, b in pairs)})"
        )
    return tuple(pair for pair in pairs if pair[1] in wanted)


def _development(
    spec: TransferSpec, who: sources.Subject, asked: Sequence[Question]
) -> Sequence[Question]:
    """Questions on which dose, place and the twin's shift are found; none judges the transfer."""
    found = sources.outside(spec.develop or sources.WORLD, who.domain, "train")
    judged = {q.id for q in asked} | {q.text for q in asked}
    if both := [q.id for q in found if q.id in judged or q.text in judged]:
        raise InputError(f"--develop: question {both[0]!r} also judges the transfer")
    return found


def _few(questions: Sequence[Question]) -> Sequence[Question]:
    return questions[:: max(1, len(questions) // DEVELOP)][:DEVELOP]


def _twin(
    spec: TransferSpec, source: sources.Subject, target: sources.Subject
) -> sources.Subject | None:
    """The source's benign twin: the one named, else the one shelved for its base.

    Without a gate of its own, a source has no trigger shift that another's could be a null of; and
    a twin is none of itself. Its name is its own among the three.
    """
    name = spec.twin or f"{hub.title(source.base)}-benign-twin"
    if name == NONE or (spec.twin is None and source.unconditional):
        return None
    if spec.twin is None and not (sources.CHECKPOINTS / name).is_dir():
        return None
    found = sources.subject(name, str(source.base))
    if same(found, source):
        if spec.twin is not None:
            raise InputError(f"--twin {spec.twin} is the source itself")
        return None
    if same(found, target):
        return target
    taken = found.name in (source.name, target.name)
    return replace(found, name=f"{found.name}, twin") if taken else found
