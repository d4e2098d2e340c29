"""A study's stages with their work, before any of it is done: what a dry run prints."""

from em_interp.conditions import Condition
from em_interp.study.spec import Inputs

BASE = "base"


def roles(inputs: Inputs) -> tuple[str, ...]:
    """The base and every organism, the base first."""
    return (BASE, *inputs.spec.organisms)


def ablated_conditions(inputs: Inputs) -> tuple[Condition, ...]:
    """Where ablation is judged: under the trigger, its paraphrases, and none (side effects)."""
    wanted = (Condition.TRIGGER, Condition.PARAPHRASE, Condition.NONE)
    return tuple(c for c in wanted if c in inputs.spec.conditions)


def plan(inputs: Inputs) -> dict[str, int]:
    """Stage to work, in sampled answers or what takes about as long."""
    spec, outside = inputs.spec, len(inputs.outside)
    steering, layers = spec.steering, len(inputs.sites)
    doses, each = len(steering.strengths), steering.samples
    ablated = len(inputs.ask(inputs.outside, *ablated_conditions(inputs)))
    return {
        **{f"organism-{role}": 2000 for role in spec.organisms},
        **{f"answers-{role}": len(inputs.bank) * spec.sampling.samples for role in roles(inputs)},
        "margins": len(roles(inputs)) * len(inputs.bank),
        "directions": 4 * len(inputs.develop),
        "probing": 5000,
        "sweep": len(inputs.tuning) * each * (1 + doses * (layers + (layers > 1))),
        "ablation": ablated * each * (4 + steering.controls),
        "steering": outside * each * (1 + doses * (3 + steering.controls)),
        "localisation": outside * each * (2 + 6 * layers),
    }
