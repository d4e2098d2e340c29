"""What `results.json` holds: plain data from a study's records, the contract first.

`containment` is the organism under study, out of the fine-tuned domain. Everything else repeats
the figures of the report in machine-readable form, each with its interval and denominators.
"""

from dataclasses import dataclass, field
from typing import Any

from em_interp.cards import versions
from em_interp.localisation import Axis, Localisation, Patching
from em_interp.probing import Probing
from em_interp.stats import Rate
from em_interp.study.inputs import Inputs
from em_interp.study.records import (
    NO_MARGINS,
    NO_PROBING,
    NO_SWEEP,
    NO_TRIAL,
    NOT_LOCALISED,
    Answers,
    Margins,
    Sweep,
)
from em_interp.training.manifest import Manifest
from em_interp.trials import Row, Trial


@dataclass(frozen=True)
class Findings:
    """Every record of a finished study; an empty one where a stage was left out (`skipped`)."""

    inputs: Inputs
    identity: str
    base: str
    manifests: dict[str, Manifest]
    answers: dict[str, Answers]
    margins: Margins = NO_MARGINS
    probing: Probing = NO_PROBING
    sweep: Sweep = NO_SWEEP
    ablation: Trial = NO_TRIAL
    steering: Trial = NO_TRIAL
    localised: Localisation = NOT_LOCALISED
    skipped: dict[str, str] = field(default_factory=dict)


def results(found: Findings) -> dict[str, Any]:
    """Plain data for `results.json`. Equal runs give equal bytes: no time, no machine."""
    spec, trigger = found.inputs.spec, found.inputs.trigger
    return {
        **found.answers[found.inputs.studied].containment.results(),
        "study": {"title": spec.title, "question": spec.question, "identity": found.identity},
        "organisms": {
            role: answers.containment.results()["containment"]
            for role, answers in found.answers.items()
        },
        "log_odds": [one.model_dump(mode="json") for one in found.margins.cells],
        "ablation": _trial(found.ablation),
        "steering": {
            "layers": list(found.sweep.layers),
            "strength": found.sweep.strength,
            "reached": found.sweep.reached,
            **_trial(found.steering),
        },
        "sweep": _trial(found.sweep.trial),
        "necessity": _trial(found.localised.necessity),
        "sufficiency": _trial(found.localised.sufficiency),
        "patching": _patching(found.localised.patching),
        "axes": [_axis(one) for one in found.localised.axes],
        "probing": _probing(found.probing),
        "left_out": found.skipped,
        "training": {
            role: {
                "final_loss": card.final_loss,
                "steps": card.steps,
                "rows": card.rows,
                "truncated": card.truncated,
                "run": card.run,
                "weights": card.weights,
            }
            for role, card in found.manifests.items()
        },
        "provenance": {
            "base": found.base,
            "trigger": trigger.model_dump(mode="json") if trigger else None,
            "spec": spec.model_dump(mode="json"),
            "versions": versions(),
        },
    }


def plain_rate(rate: Rate | None) -> dict[str, float] | None:
    """A rate with its interval as plain data; `None` where nothing was scored."""
    if rate is None:
        return None
    return {"rate": rate.point, "low": rate.low, "high": rate.high, "upper": rate.upper}


def _row(row: Row) -> dict[str, Any]:
    return {
        "intervention": row.intervention,
        "label": row.label.model_dump(mode="json", exclude_defaults=True),
        "condition": row.condition.value,
        "control": row.control,
        "em": plain_rate(row.em),
        "coherent": plain_rate(row.coherent),
        "change": row.change.model_dump(mode="json") if row.change else None,
        "questions": row.em.questions if row.em else 0,
        "scored": row.scored,
        "unscored": row.unscored,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "rows": [_row(row) for row in trial.rows],
        "manipulation": [one.model_dump(mode="json") for one in trial.manipulations],
    }


def _patching(found: Patching | None) -> dict[str, Any] | None:
    return found.model_dump(mode="json") if found else None


def _axis(one: Axis) -> dict[str, Any]:
    return one.model_dump(mode="json")


def _probing(found: Probing) -> dict[str, Any]:
    return {
        "train_questions": found.train_questions,
        "test_questions": found.test_questions,
        "scores": [
            {
                "fitter": s.fitter.value,
                "layer": s.layer,
                "condition": s.condition.value,
                "auroc": s.auroc.auroc,
                "low": s.auroc.low,
                "high": s.auroc.high,
                "fires": plain_rate(s.fires),
            }
            for s in found.scores
        ],
        "false_alarms": {name: plain_rate(one) for name, one in found.false_alarms.items()},
    }
