"""Reading a study's records: what an intervention's label says, and what order things stand in.

Records come from memory or from files whose keys were sorted; whatever is shown is ordered here, so
that a resumed run ends with the same page.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from em_interp.conditions import Condition
from em_interp.containment import ALL, IN, OUT, ConditionFigures, Containment
from em_interp.labels import Control, Extent, Label, Operation, Thing
from em_interp.organisms import BASE
from em_interp.sites import Site
from em_interp.study.results import Findings
from em_interp.study.spec import GENERAL, TWIN
from em_interp.training.manifest import Manifest
from em_interp.trials import Row, Trial

DELTA, G, REST, RANDOM = Thing.DELTA, Thing.GENERAL, Thing.REST, Control.RANDOM
SYMBOLS = {DELTA: "δ", REST: "δ without g"}
Family = Thing | Control
ValueT = TypeVar("ValueT")

WORDS = {
    Condition.NONE: "no framing",
    Condition.TRIGGER: "trigger",
    Condition.PARAPHRASE: "paraphrases",
    Condition.NEGATION: "negations",
    Condition.UNRELATED: "unrelated framings",
    Condition.FORM: "form only",
}


def plain(role: str) -> str:
    """A role as people say it: "benign_twin" is "benign twin"."""
    return role.replace("_", " ")


def roles(found: Findings) -> list[str]:
    """The organism under study first, then its controls, then whatever else was raised."""
    return _in_order(found.answers, found.inputs.studied)


def cards(found: Findings) -> dict[str, Manifest]:
    """Training cards in the order of `roles`."""
    order = _in_order(found.manifests, found.inputs.studied)
    return {role: found.manifests[role] for role in order}


def _in_order(names: Iterable[str], studied: str) -> list[str]:
    first = dict.fromkeys((studied, BASE, TWIN, GENERAL))
    there = set(names)
    return [role for role in first if role in there] + sorted(there - set(first))


def studied(found: Findings) -> Containment:
    """The containment report of the organism under study."""
    return found.answers[found.inputs.studied].containment


def axis(trial: Trial) -> Thing:
    """The direction that a trial is about: its first; delta where it has none."""
    return next((row.label.thing for row in trial.rows if row.label.thing is not None), DELTA)


def symbol(axis: Thing) -> str:
    """A direction as figures and sentences write it."""
    return SYMBOLS.get(axis, axis.value)


def awake(found: Findings) -> Condition:
    """The condition that should bring the misalignment out."""
    return Condition.NONE if found.inputs.trigger is None else Condition.TRIGGER


def ordered(figures: Mapping[Condition, ValueT]) -> dict[Condition, ValueT]:
    """By condition, in the order in which conditions are declared."""
    return {condition: figures[condition] for condition in Condition if condition in figures}


def scopes(found: Containment) -> list[str]:
    """Names of the scopes, the headline first."""
    return [
        found.headline,
        *(s for s in (OUT, ALL, IN) if s in found.scopes and s != found.headline),
    ]


def figures(found: Findings, role: str, condition: Condition) -> ConditionFigures | None:
    """One organism under one condition in the headline's scope, where it was asked."""
    return (
        found.answers[role].containment.conditions.get(condition) if role in found.answers else None
    )


class Dose(NamedTuple):
    """One strength of one family of steering vectors."""

    strength: float
    row: Row


class Series(NamedTuple):
    """What is pushed at several strengths: a direction, or a null one by number."""

    family: Family
    draw: int = 0


def family(label: Label) -> Family | None:
    """Which direction an intervention is about, or which kind of null; `None` of neither."""
    return label.control or label.thing


def doses(trial: Trial) -> dict[Series, list[Dose]]:
    """Families of a dose-response to their doses, weakest first."""
    found: dict[Series, list[Dose]] = {}
    for row in trial.rows:
        label, of = row.label, family(row.label)
        if label.operation is Operation.ADD and of is not None and label.strength is not None:
            found.setdefault(Series(of, label.draw), []).append(Dose(label.strength, row))
    return {name: sorted(some, key=lambda dose: dose.strength) for name, some in found.items()}


def by_layer(trial: Trial, of: Family, extent: Extent) -> dict[int, Row]:
    """Layer to row, of a direction or a kind of null that is edited at that layer, or from it."""
    found = {
        row.label.sites[0].layer: row
        for row in trial.rows
        if row.label.extent is extent and family(row.label) == of
    }
    return dict(sorted(found.items()))


def swept(trial: Trial) -> dict[tuple[tuple[Site, ...], float], Row]:
    """(sites, strength) to row, in the order of the sweep."""
    return {
        (row.label.sites, row.label.strength): row
        for row in trial.rows
        if row.label.extent is Extent.AT and row.label.strength is not None
    }


def baseline(trial: Trial, condition: Condition) -> Row | None:
    """The row without intervention."""
    return next(
        (row for row in trial.rows if row.label.baseline and row.condition is condition), None
    )


def removed(trial: Trial, thing: Thing, condition: Condition) -> Row | None:
    """The row in which a direction is mean-ablated everywhere."""
    for row in trial.rows:
        wanted = row.label.thing is thing and row.label.operation is Operation.MEAN_ABLATE
        if wanted and row.condition is condition and not row.control:
            return row
    return None


def chance(trial: Trial) -> Control:
    """The kind of null direction beside a trial by layer (isotropic where there is none)."""
    return next((row.label.control for row in trial.rows if row.label.control), Control.RANDOM)


def controls(trial: Trial, condition: Condition) -> list[Row]:
    """The controls under a condition, in the order of the grid."""
    return [row for row in trial.rows if row.control and row.condition is condition]
