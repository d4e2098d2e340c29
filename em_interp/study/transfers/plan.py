"""A transfer study's stages: which there are, and how much each does.

Counts are exact: they are the arms and the condition bank, multiplied out before any work.
"""

from em_interp.conditions import variants
from em_interp.study.spec import STUDIED, TWIN
from em_interp.study.transfers.inputs import Group, Inputs

TRAINING, PASS = 2000, 0.2  # in answers: a fine-tuning run of the embedded world, a forward pass


def raising(inputs: Inputs) -> dict[str, tuple[Group, str]]:
    """Organisms that are raised here, by stage."""
    return {
        f"organism-{group.slug}-{role}": (group, role)
        for group in inputs.groups
        for role in group.rows
    }


def holding(inputs: Inputs) -> dict[str, Group]:
    """What each group has to carry, by stage."""
    return {f"held-{group.slug}": group for group in inputs.groups}


def crossing(inputs: Inputs) -> dict[str, tuple[str, str]]:
    """Ways between bases, by stage."""
    return {f"ways-{a}-to-{b}": (a, b) for a, b in inputs.pairs}


def carrying(inputs: Inputs) -> dict[str, tuple[Group, str]]:
    """Every target, by stage."""
    return {f"into-{group.slug}-{role}": (group, role) for group, role in inputs.targets}


def plan(inputs: Inputs) -> dict[str, int]:
    """Stage to work, in sampled answers or what takes about as long."""
    sites = max(map(len, inputs.sites.values()))
    passes = round(PASS * len(inputs.prompts)) * (1 + sites)
    return {
        **dict.fromkeys(raising(inputs), TRAINING),
        **dict.fromkeys(holding(inputs), round(PASS * 8 * len(inputs.develop))),
        **dict.fromkeys(crossing(inputs), passes),
        **{name: answers(inputs, group, role) for name, (group, role) in carrying(inputs).items()},
    }


def answers(inputs: Inputs, group: Group, role: str) -> int:
    """Answers sampled from one target: its containment, the choice of a dose, both effects."""
    spec, asked, samples = inputs.spec, len(inputs.asked), inputs.spec.sampling.samples
    framings = sum(len(variants(group.trigger, c)) for c in spec.conditions)
    tried = len(inputs.tuning) * doses(inputs, group)
    return samples * (asked * framings + tried + 2 * asked * (1 + arms(inputs, group, role)))


def doses(inputs: Inputs, group: Group) -> int:
    """Rows of the sweep that a target's layers and strength are chosen by (see `grids`)."""
    sites = len(inputs.sites[group.base])
    return 1 + len(inputs.spec.adding.strengths) * (sites + (sites > 1))


def arms(inputs: Inputs, group: Group, role: str) -> int:
    """Arms of one target: its own, those of its base's other groups, and those of other bases."""
    spec, own = inputs.spec, 3 if role == STUDIED else 1
    chance, count = spec.adding.controls, len(spec.variants)
    twin, others = int(TWIN in spec.roles), len(spec.methods) - 1
    near = 3 * (count - 1) + (2 if own == 1 else 0)  # delta and the remainder of its own group
    near += chance + twin if near else 0
    # By the first map three things, by the others one; beside them random directions, delta and g
    # on shuffled prompts, the twin's shift; by the others its nulls of one thing.
    far = count * (3 + others) + chance + 2 + twin + others * (chance + 1)
    # Where widths agree, delta and g coordinate by coordinate.
    same = [inputs.width(base) == inputs.width(group.base) for base in spec.bases]
    return own + near + (len(spec.bases) - 1) * far + 2 * (sum(same) - 1)
