"""A study's stages: which there are, how much each does, and why one is left out.

Counts are exact: they are the grids and the condition bank, multiplied out before any work.
"""

from em_interp.conditions import Condition
from em_interp.labels import Thing
from em_interp.organisms import BASE
from em_interp.study.inputs import Inputs
from em_interp.study.spec import GENERAL

DELTA, G = Thing.DELTA, Thing.GENERAL
TRIALS = ("sweep", "ablation", "steering", "localisation")


def roles(inputs: Inputs) -> tuple[str, ...]:
    """The base and every organism, the base first."""
    return (BASE, *inputs.spec.roles)


def axes(inputs: Inputs) -> tuple[Thing, ...]:
    """The directions that can be had, the one under study first.

    `delta` needs a trigger, `g` an unconditional organism.
    """
    found = [DELTA] if inputs.trigger is not None else []
    return (*found, G) if GENERAL in inputs.spec.roles else tuple(found)


def awake(inputs: Inputs) -> Condition:
    """The condition under which the organism under study is misaligned, if it is at all."""
    return Condition.NONE if inputs.trigger is None else Condition.TRIGGER


def ablated_conditions(inputs: Inputs) -> tuple[Condition, ...]:
    """Where ablation is judged: under the trigger, its paraphrases, and none (side effects)."""
    wanted = (Condition.TRIGGER, Condition.PARAPHRASE, Condition.NONE)
    return tuple(c for c in wanted if c in inputs.spec.conditions)


def patched(inputs: Inputs) -> Condition:
    """The condition that the trigger's stream is copied into: an unrelated framing, else none."""
    unrelated = Condition.UNRELATED in inputs.spec.conditions
    return Condition.UNRELATED if unrelated else Condition.NONE


def skipped(inputs: Inputs) -> dict[str, str]:
    """Stages that this study leaves out, and why."""
    if inputs.boxes:
        why = "the models are behind an API: no weights to read or to edit"
        return dict.fromkeys(("margins", "directions", "probing", *TRIALS), why)
    found = {}
    if not all(q.sound and q.unsound for q in inputs.outside):
        found["margins"] = "the questions name no sound and unsound answers to score"
    if inputs.trigger is None:
        found["probing"] = "there is no trigger for a probe to read"
    return found


def plan(inputs: Inputs) -> dict[str, int]:
    """Stage to work, in sampled answers or what takes about as long."""
    left_out = skipped(inputs)
    work = {
        **{f"organism-{role}": 2000 for role in inputs.spec.organisms},
        **answers(inputs),
        "margins": len(roles(inputs)) * len(inputs.bank),
        "directions": 2 * len(axes(inputs)) * len(inputs.develop),
        "probing": 5000,
        **trials(inputs),
    }
    return {name: count for name, count in work.items() if name not in left_out}


def answers(inputs: Inputs) -> dict[str, int]:
    """Answers sampled from each model, by stage."""
    samples = inputs.spec.sampling.samples
    return {f"answers-{role}": len(inputs.bank) * samples for role in roles(inputs)}


def trials(inputs: Inputs) -> dict[str, int]:
    """Answers sampled under interventions, by stage."""
    each, outside = inputs.spec.steering.samples, len(inputs.outside)
    ablated = len(inputs.ask(inputs.outside, *ablated_conditions(inputs)))
    contexts = {"sweep": len(inputs.tuning), "ablation": ablated, "steering": outside}
    rows = interventions(inputs)
    counts = {name: contexts[name] * each * rows[name] for name in contexts}
    both = rows["necessity"] + rows["sufficiency"]
    return {**counts, "localisation": outside * each * both}


def interventions(inputs: Inputs) -> dict[str, int]:
    """Rows of each grid, its baseline included (see `em_interp.grids`)."""
    steering, layers, named = inputs.spec.steering, len(inputs.sites), len(axes(inputs))
    doses = len(steering.strengths)
    rest = 1 if named == 2 else 0  # delta without g
    return {
        "sweep": 1 + doses * (layers + (layers > 1)),
        "ablation": 1 + named + 1 + steering.controls,
        "steering": 1 + doses * (named + rest + steering.controls),
        "necessity": 1 + 4 * layers,
        "sufficiency": 1 + 2 * layers,
    }
