"""The two sides of a transfer: who they are, and which directions and probes they bring.

Artifacts are read before any weights: what was made for another base, or lacks a site, is refused
while that still costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from em_interp import hub, sources
from em_interp.cards import Card
from em_interp.conditions import Question
from em_interp.errors import ForeignArtifactError, InputError, say
from em_interp.leakage import question_digest, unseen
from em_interp.sites import Site

if TYPE_CHECKING:
    from em_interp.probes import Probes
    from em_interp.transferring import Thing, Things

NONE = "none"  # in a flag's place: leave this one out


@dataclass(frozen=True)
class Asked:
    """What the flags of one side name, and how those flags are called."""

    delta: str | None
    general: str | None
    probe: str | None
    flags: tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Side:
    """An organism, its directions (the main one first) and its trigger-on probes.

    `gated`: whether a trigger wakes it.
    """

    who: sources.Subject
    gated: bool
    things: "Things"
    probe: "Probes | None"

    @property
    def base(self) -> str:
        """Fingerprint of the base that its directions were made for."""
        return next(iter(self.things.values())).card.base

    def check(self, sites: Sequence[Site], flag: str) -> None:
        """Raise `InputError` where a direction lacks one of the sites, or its states."""
        for thing, one in self.things.items():
            if lacking := [site for site in sites if site not in one]:
                raise InputError(
                    f"{flag}: {thing.value} of {self.who.name} has no direction at {lacking[0]} "
                    f"(there are: {', '.join(map(str, one))}); extract it there, or name --layers"
                )
            for site in sites:
                _ = one[site].states  # an adopted vector has none, and says so


def side(who: sources.Subject, gated: bool, asked: Asked) -> Side:
    """What an organism brings: delta unless it has no gate, g, the remainder, a probe.

    Raises `InputError` where neither direction is there, `ForeignArtifactError` where they were
    made for different bases.
    """
    from em_interp.directions import Directions
    from em_interp.transferring import Thing, things

    named = {
        Thing.DELTA: NONE if asked.delta is None and not gated else asked.delta,
        Thing.GENERAL: asked.general,
    }
    found = {}
    for (thing, name), default, flag in zip(
        named.items(), ("delta", "g"), asked.flags[:2], strict=True
    ):
        if name != NONE:
            found[thing] = Directions.load(sources.direction(name, who, default, flag))
    if not found:
        raise InputError(f"{who.name}: {asked.flags[0]} or {asked.flags[1]} must name a direction")
    held = things(*found.values()) if len(found) == len(named) else found
    if not gated:  # its main one is g, whatever else was named
        held = dict(sorted(held.items(), key=lambda item: item[0] is not Thing.GENERAL))
    _check_whose(who, next(iter(held)), next(iter(held.values())).card, asked)
    base = next(iter(held.values())).card.base
    probe = _probe(who, gated, asked.probe)
    if probe is not None:
        probe.check(base, asked.flags[2])
    return Side(who, gated, held, probe)


def _check_whose(who: sources.Subject, thing: "Thing", card: Card, asked: Asked) -> None:
    """A main direction must be the organism's own, or be named by hand, which is then said.

    What is shelved for a base was extracted from one organism of it, and is no other's.
    """
    if _is_of(who, card):
        return
    number = 1 if thing.value == "g" else 0
    flag = asked.flags[number]
    if (asked.delta, asked.general)[number] is None:
        kind = ("trigger", "general")[number]
        raise InputError(
            f"{hub.title(who.base)}-{card.name} in {sources.PROBES.name}/ was extracted from "
            f"{card.organism!r}, not from {who.name}: give {flag}, a folder that `extract "
            f"--organism {who.name} --kind {kind} --out` wrote"
        )
    say(f"note: {flag}: {card.name} was extracted from {card.organism!r}, not from {who.name}")


def _is_of(who: sources.Subject, card: Card) -> bool:
    """Whether an artifact was made from this organism's activations."""
    from em_interp.models.fingerprints import adapter_digest

    return card.adapter == ("" if who.adapter is None else adapter_digest(who.adapter))


def _probe(who: sources.Subject, gated: bool, name: str | None) -> "Probes | None":
    """The probe named, else the organism's own where one is shelved for its base."""
    from em_interp.probes import Probes

    shelf = sources.PROBES / f"{hub.title(who.base)}-trigger-on"
    if name == NONE or (name is None and not (gated and shelf.is_dir())):
        return None
    if name is not None:
        return Probes.load(sources.shelved(name, sources.PROBES, "probe"))
    found = Probes.load(shelf)
    return found if _is_of(who, found.card) else None


def same(one: sources.Subject, other: sources.Subject) -> bool:
    """Whether two names stand for one organism."""
    places = [[path and path.resolve() for path in (who.base, who.adapter)] for who in (one, other)]
    return places[0] == places[1]


def distinct(source: sources.Subject, target: sources.Subject) -> sources.Subject:
    """The source under a name that is not the target's. Raises `InputError` for one organism."""
    if same(source, target):
        raise InputError(
            f"--source and --organism are both {target.name}; what its direction does in itself is "
            "what `steer` shows"
        )
    for name in (source.name, f"{source.name} of {hub.title(source.base)}"):
        if name != target.name:
            return replace(source, name=name)
    return replace(source, name=f"{source.name}, source")


def check_questions(side: Side, asked: Sequence[Question]) -> tuple[str, ...]:
    """Refuse directions that were fitted on questions that judge them; notes on what is not known.

    A probe's own questions are left out of its read-out instead, as long as two others remain.
    """
    notes: list[str] = []
    for one in side.things.values():
        what = f"direction {one.card.name!r} of {side.who.name}"
        notes += unseen(what, one.card.questions, asked)
    if side.probe is not None:
        fitted = fitted_on(side.probe.card)
        seen = [q.id for q in asked if question_digest(q.text) in fitted]
        if seen and len(asked) - len(seen) < 2:
            unseen(f"the probe of {side.who.name}", tuple(fitted), asked)
        if seen:
            notes.append(
                f"the probe of {side.who.name} was fitted on {len(seen)} of these {len(asked)} "
                "questions; it is read on the others"
            )
    return tuple(dict.fromkeys(notes))  # a remainder has its direction's card


def fitted_on(card: Card) -> frozenset[str]:
    """Digests of the questions that an artifact is known to have been fitted on."""
    return frozenset(card.questions or ())


def check_base(side: Side, base: str) -> None:
    """Refuse directions that were made for other weights than those that were loaded."""
    for thing, one in side.things.items():
        try:
            one.check(base)
        except ForeignArtifactError as fault:
            raise ForeignArtifactError(f"{side.who.name}, {thing.value}: {fault}") from None
