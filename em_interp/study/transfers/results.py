"""What a finished transfer study holds, and what of it goes into `results.json`.

Verdicts of single cells are at 5 %; over the whole grid of one kind of effect the false discovery
rate is held at 5 % as well (Benjamini and Hochberg 1995).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from em_interp.cards import versions
from em_interp.labels import Way
from em_interp.records import Record
from em_interp.stats import Auroc
from em_interp.study.results import plain_rate
from em_interp.study.spec import STUDIED
from em_interp.study.transfers.inputs import Inputs
from em_interp.study.transfers.records import Column, Crossing, Held
from em_interp.transferring import Cell, Chance, Effect, Reading, Verdict
from em_interp.transferring.effects import LEVEL

EFFECTS = ("added", "ablated")
Carried = tuple[str, str, str, str, Way]  # effect, target, source, thing, way


@dataclass(frozen=True)
class Findings:
    """Every record of a finished transfer study; `columns` by target group and role."""

    inputs: Inputs
    identity: str
    held: dict[str, Held]
    crossings: dict[tuple[str, str], Crossing]
    columns: dict[tuple[str, str], Column]


def cells(found: Findings) -> Iterator[tuple[Column, Cell]]:
    """Every arm in every target."""
    for column in found.columns.values():
        for cell in column.transfer.cells:
            yield column, cell


def discoveries(found: Findings) -> dict[Carried, float]:
    """q-value of every carried effect: by effect, target, source, thing and way.

    Over all carried arms of one kind of effect that have one. What cannot be a transfer whatever
    its p (broken answers, nothing native to compare with) counts among them with a p of 1, so that
    it makes no other cell look better.
    """
    from scipy.stats import false_discovery_control

    made: dict[Carried, float] = {}
    for effect in EFFECTS:
        rows = [
            (
                (effect, column.transfer.target, cell.source, cell.thing.value, cell.way),
                1.0 if one.verdict in (Verdict.BROKEN, Verdict.NOTHING) else one.p,
            )
            for column, cell in cells(found)
            if (one := getattr(cell, effect)).p is not None
        ]
        if rows:
            adjusted = false_discovery_control([p for _, p in rows])
            made |= {key: float(q) for (key, _), q in zip(rows, adjusted, strict=True)}
    return made


def verdict(effect: Effect, q: float | None) -> Verdict | None:
    """An effect's verdict with the whole grid in mind."""
    if effect.verdict is Verdict.TRANSFERS and (q is None or q > LEVEL):
        return Verdict.NOT
    return effect.verdict


def lacking(effect: Effect, q: float | None) -> list[str]:
    """Why an effect is no transfer, with the whole grid in mind."""
    if verdict(effect, q) is not Verdict.NOT:
        return []
    return [lack.value for lack in effect.lacks] or ["a false discovery may be among so many cells"]


def results(found: Findings) -> dict[str, Any]:
    """Plain data for `results.json`. Equal runs give equal bytes: no time, no machine."""
    spec, q = found.inputs.spec, discoveries(found)
    studied = next(c for (_, role), c in found.columns.items() if role == STUDIED)
    return {
        **studied.containment.results(),
        "study": {"title": spec.title, "question": spec.question, "identity": found.identity},
        "organisms": {
            column.transfer.target: column.containment.results()["containment"]
            for column in found.columns.values()
        },
        "held": [one.model_dump(mode="json") for one in found.held.values()],
        "maps": [_crossing(one) for one in found.crossings.values()],
        "targets": [_target(one) for one in found.columns.values()],
        "cells": [_cell(column, cell, q) for column, cell in cells(found)],
        "probes": [
            {
                "target": column.transfer.target,
                "source": one.source,
                "via": one.via,
                "way": one.way.model_dump(mode="json"),
                "null": one.null,
                **_reading(one.reading),
            }
            for column in found.columns.values()
            for one in column.transfer.probes
        ],
        "provenance": {
            "triggers": {g.name: g.trigger.model_dump(mode="json") for g in found.inputs.groups},
            "spec": spec.model_dump(mode="json"),
            "versions": versions(),
        },
    }


def _crossing(one: Crossing) -> dict[str, Any]:
    plain: dict[str, Any] = one.model_dump(mode="json", exclude={"alike"})
    return plain


def _target(column: Column) -> dict[str, Any]:
    found = column.transfer
    return {
        "target": found.target,
        "added_at": list(found.added_at),
        "ablated_at": list(found.ablated_at),
        "strength": found.strength,
        "plain_added": plain_rate(found.plain_added),
        "plain_ablated": plain_rate(found.plain_ablated),
    }


def _cell(column: Column, cell: Cell, q: dict[Carried, float]) -> dict[str, Any]:
    target = column.transfer.target
    keys = {one: (one, target, cell.source, cell.thing.value, cell.way) for one in EFFECTS}
    return {
        "target": target,
        "source": cell.source,
        "thing": cell.thing.value,
        "via": cell.via,
        "way": cell.way.model_dump(mode="json"),
        "null": cell.null,
        "ceiling": cell.own,
        "cosines": cell.cosines,
        "likeness": {site: one.model_dump(mode="json") for site, one in cell.likeness.items()},
        "reading": _reading(cell.reading),
        **{one: _effect(getattr(cell, one), q.get(keys[one])) for one in EFFECTS},
    }


def _effect(one: Effect, q: float | None) -> dict[str, Any]:
    settled = verdict(one, q)
    return {
        "em": plain_rate(one.em),
        "coherent": plain_rate(one.coherent),
        "change": _plain(one.change),
        "of_native": _plain(one.of_native),
        "beyond": {
            name: {key: getattr(c, key) for key in ("difference", "low", "high", "p")}
            for name, c in one.beyond.items()
        },
        "p": one.p,
        "q": q,
        "verdict": settled.value if settled else None,
        "lacks": lacking(one, q),
    }


def _reading(one: Reading) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "trigger": _auroc(one.trigger, one.trigger_chance),
        "paraphrase": _auroc(one.paraphrase, one.paraphrase_chance),
    }


def _auroc(one: Auroc | None, chance: Chance | None) -> dict[str, Any] | None:
    if one is None or chance is None:
        return None
    found = {"auroc": one.auroc, "low": one.low, "high": one.high}
    return {**found, "chance_high": chance.high, "chance_p": chance.p}


def _plain(one: Record | None) -> dict[str, Any] | None:
    return None if one is None else one.model_dump(mode="json")
