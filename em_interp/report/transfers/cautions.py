"""What to know before believing a grid: counted from the records, said whatever the answer is."""

from em_interp.conditions import Condition
from em_interp.report.cautions import MEANINGFUL, sentence
from em_interp.report.numbers import count, points
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    ADDED,
    SYMBOLS,
    Grid,
    Relation,
    gate,
    main_of,
)
from em_interp.study.spec import TWIN
from em_interp.study.transfers.spec import TARGETS
from em_interp.transferring import Thing


def cautions(grid: Grid) -> list[str]:
    """What to know before believing the grid, each counted from the records."""
    return [*_missing(grid), *_native(grid), *_nulls(grid), *_organisms(grid)]


def _missing(grid: Grid) -> list[str]:
    notes, spec = [], grid.spec
    gone = [g.name for g in grid.groups for role in TARGETS if grid.column(g, role) is None]
    if gone:
        notes.append(f"{count(len(gone), 'target')} of the declared grid were not run.")
    if len(spec.variants) == 1:
        notes.append("One fine-tune a base: nothing here says what carries over within a base.")
    if len(grid.bases) == 1:
        notes.append("One base: nothing here says what carries over between bases.")
    if TWIN not in spec.roles:
        notes.append(
            "There is no benign twin: no null shows what the trigger’s words alone carry over."
        )
    if Condition.PARAPHRASE not in spec.conditions:
        notes.append("No paraphrase was asked: a read-out may know the trigger’s words alone.")
    unscored = [
        one
        for role in TARGETS
        for thing in Thing
        for relation in Relation
        for effect in (ABLATED, ADDED)
        for one in grid.effects(role, thing, relation, effect)
        if one.change is None
    ]
    if unscored:
        notes.append(
            f"In {count(len(unscored), 'carried effect')} nothing was scored on both sides; they "
            "stand in no count."
        )
    return notes


def _native(grid: Grid) -> list[str]:
    """Targets in which there is nothing to compare with."""
    notes = []
    for role in TARGETS:
        thing = main_of(role)
        for effect in (ABLATED, ADDED):
            none = [
                one.target.group
                for one in grid.native(role, thing, effect)
                if one.effect.change is None or one.effect.change.low <= 0 <= one.effect.change.high
            ]
            if none:
                notes.append(
                    f"{ACTS[effect].capitalize()} the target’s own {SYMBOLS[thing]} does nothing "
                    f"that is told from 0 in {', '.join(none)} ({gate(role)}): nothing can "
                    "transfer there."
                )
    return notes


def _nulls(grid: Grid) -> list[str]:
    """Targets in which some null does a large share of what the target's own direction does."""
    notes = []
    for role in TARGETS:
        thing = main_of(role)
        for effect in (ABLATED, ADDED):
            told = []
            for target in grid.groups:
                own = grid.shown(grid.own(target, role, thing), target, role, effect)
                some = [
                    null
                    for source in grid.groups
                    for null in grid.nulls(
                        source.base, target, role, thing, grid.via(source, target)
                    )
                ]
                top = grid.strongest(some, target, role, effect)
                if own is None or not own.change or top is None or top.change is None:
                    continue
                if top.change / own.change >= MEANINGFUL:
                    told.append(f"{target.name} {points(top.change)} of {points(own.change)}")
            if told:
                notes.append(
                    f"{ACTS[effect].capitalize()} {SYMBOLS[thing]}, {gate(role)} organisms: the "
                    f"strongest null does at least a third of the native effect in "
                    f"{len(told)} of {len(grid.groups)} targets ({'; '.join(told)} points), so "
                    "little room is left to show transfer."
                )
    return notes


def _organisms(grid: Grid) -> list[str]:
    """The organisms' own cautions, said once each."""
    by_note: dict[str, list[str]] = {}
    for group in grid.groups:
        for role in TARGETS:
            column = grid.column(group, role)
            for note in column.containment.cautions if column else ():
                by_note.setdefault(note, []).append(f"{group.name} {gate(role)}")
    return [sentence(f"{', '.join(who)}: {note}") for note, who in by_note.items()]
