"""Grids: the sets of interventions that answer one question each, controls included.

Necessity asks with the trigger on (does removing the direction remove the behaviour?), sufficiency
without it (does adding the direction bring it?). A null direction stands beside every row.
Knows directions and edits. Knows nothing of models.
"""

from collections.abc import Sequence

from em_interp.directions import Directions
from em_interp.edits import BASELINE, STRENGTHLESS, Intervention, Operation, intervention
from em_interp.sites import Site, Span


def strengths_grid(
    directions: Directions,
    sites: Sequence[Site],
    operations: Sequence[Operation],
    strengths: Sequence[float],
    span: Span,
    controls: Sequence[Directions],
) -> list[Intervention]:
    """The baseline, then every operation at every strength along the direction and each control."""
    made = [BASELINE]
    for operation in operations:
        for strength in (0.0,) if operation in STRENGTHLESS else strengths:
            label = operation.value
            if operation not in STRENGTHLESS:
                label = f"{label} {strength:g}"
            made.append(intervention(label, operation, directions, sites, strength, span))
            for number, one in enumerate(controls, start=1):
                name = f"{label}, random {number}"
                made.append(intervention(name, operation, one, sites, strength, span, control=True))
    return made


def necessity_grid(
    directions: Directions, sites: Sequence[Site], span: Span, control: Directions
) -> list[Intervention]:
    """Mean-ablation at each layer alone ("delta at 2") and from each on ("delta from 2")."""
    made = [BASELINE]
    for at, site in enumerate(sites):
        for name, one in (("delta", directions), ("random", control)):
            for label, where in ((f"{name} at", [site]), (f"{name} from", sites[at:])):
                made.append(
                    intervention(
                        f"{label} {site.layer}",
                        Operation.MEAN_ABLATE,
                        one,
                        where,
                        span=span,
                        control=one is control,
                    )
                )
    return made


def sufficiency_grid(
    directions: Directions,
    sites: Sequence[Site],
    strength: float,
    span: Span,
    control: Directions,
) -> list[Intervention]:
    """Addition at each layer alone ("delta at 2"), at one strength."""
    made = [BASELINE]
    for site in sites:
        for name, one in (("delta", directions), ("random", control)):
            label = f"{name} at {site.layer}"
            made.append(
                intervention(
                    label, Operation.ADD, one, [site], strength, span, control=one is control
                )
            )
    return made
