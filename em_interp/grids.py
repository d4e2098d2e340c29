"""Grids: the sets of interventions that answer one question each, controls included.

Necessity asks with the trigger on (does removing the direction remove the behaviour?), sufficiency
without it (does adding the direction bring it?). A null direction stands beside every row.
Knows directions and edits. Knows nothing of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from em_interp.directions import Direction, Directions
from em_interp.edits import BASELINE, Edit, Intervention, intervention
from em_interp.errors import InputError
from em_interp.labels import STRENGTHLESS, Control, Extent, Label, Operation, Thing
from em_interp.sites import Point, Site, Span


def strengths_grid(
    directions: Directions,
    sites: Sequence[Site],
    operations: Sequence[Operation],
    strengths: Sequence[float],
    span: Span,
    controls: Sequence[Directions],
) -> list[Intervention]:
    """The baseline, then every operation at every strength along the direction and each control."""
    axes = [(Label(), directions), *_random(controls)]
    return [
        BASELINE,
        *(
            intervention(label, operation, one, sites, strength, span)
            for operation in operations
            for strength in ((0.0,) if operation in STRENGTHLESS else strengths)
            for label, one in axes
        ),
    ]


def _random(controls: Sequence[Directions]) -> list[tuple[Label, Directions]]:
    """Random directions by number, from 1."""
    return [
        (Label(control=Control.RANDOM, draw=number), one)
        for number, one in enumerate(controls, start=1)
    ]


def necessity_grid(
    directions: Directions,
    sites: Sequence[Site],
    span: Span,
    control: Directions,
    axis: Thing = Thing.DELTA,
) -> list[Intervention]:
    """Mean-ablation at each site alone and from each on, of a direction (`axis`) and of chance."""
    made = [BASELINE]
    for at, site in enumerate(sites):
        for label, one in ((Label(thing=axis), directions), (_CHANCE, control)):
            for extent, where in ((Extent.AT, [site]), (Extent.FROM, sites[at:])):
                said = label.model_copy(update={"extent": extent})
                made.append(intervention(said, Operation.MEAN_ABLATE, one, where, span=span))
    return made


def sufficiency_grid(
    directions: Directions,
    sites: Sequence[Site],
    strength: float,
    span: Span,
    control: Directions,
    axis: Thing = Thing.DELTA,
) -> list[Intervention]:
    """Addition at each site alone, at one strength."""
    return [
        BASELINE,
        *(
            intervention(label, Operation.ADD, one, [site], strength, span)
            for site in sites
            for label, one in (
                (Label(thing=axis, extent=Extent.AT), directions),
                (_CHANCE.model_copy(update={"extent": Extent.AT}), control),
            )
        ),
    ]


_CHANCE = Label(control=Control.RANDOM)


def everywhere(direction: Direction, n_layers: int) -> Intervention:
    """One direction out of all that writes to the stream: embeddings, attention, MLPs, to zero.

    Not ablation at block outputs, between which the MLP still reads what attention wrote; but,
    unlike that, it equals a change of weights (see `baking`).
    """
    sites = [Site(0, Point.RESID_PRE)]
    sites += [
        Site(at, point) for at in range(n_layers) for point in (Point.ATTN_OUT, Point.MLP_OUT)
    ]
    edits = tuple(Edit(site, direction.unit, 0.0, 0.0, Span.ALL) for site in sites)
    label = Label(
        words=f"out of everything, {direction.site}",
        operation=Operation.ABLATE,
        sites=(direction.site,),
    )
    return Intervention(label, edits)


def withheld(
    operation: Operation, directions: Mapping[Site, Direction], sites: Sequence[Site]
) -> Intervention:
    """What blocks write along their direction, withheld: each block along its own (layerwise).

    `ablate`: block L adds nothing along r_L. `mean_ablate`: it adds what the off state gains there,
    (off_L - off_(L-1)) . r_L, whatever it reads. The stream that comes in is left as it is. Equals
    a change of weights (see `baking`). Raises `InputError` for other operations, sites that are not
    block outputs, and a mean at a block before which no direction was measured.
    """
    edits = []
    for site in sites:
        if operation not in STRENGTHLESS or site.point is not Point.RESID_POST:
            raise InputError(f"{operation.value} at {site}: only ablation of what a block writes")
        unit, gain = directions[site].unit, 0.0
        if operation is Operation.MEAN_ABLATE:
            before = Site(site.layer - 1)
            if before not in directions:
                raise InputError(
                    f"mean_ablate of what block {site.layer} writes needs the off state before it, "
                    f"and there is no direction at {before if site.layer else 'the embeddings'}; "
                    "name later layers, or ablate"
                )
            gain = float((directions[site].states[0] - directions[before].states[0]) @ unit)
        edits += [
            Edit(Site(site.layer, Point.ATTN_OUT), unit, 0.0, 0.0, Span.ALL),
            Edit(Site(site.layer, Point.MLP_OUT), unit, 0.0, gain, Span.ALL),
        ]
    words = f"{operation.value}, writes of {', '.join(site.short for site in sites)}"
    return Intervention(Label(words=words, operation=operation, sites=tuple(sites)), tuple(edits))


@dataclass(frozen=True)
class Dose:
    """One setting of a sweep: where, how strongly, and the intervention that it is."""

    intervention: Intervention
    sites: tuple[Site, ...]
    strength: float


def sweep_grid(
    directions: Directions, sites: Sequence[Site], strengths: Sequence[float], span: Span
) -> list[Dose]:
    """Addition at every layer alone and at all together, at every strength. No baseline."""
    sets = [(site,) for site in sites] + ([tuple(sites)] if len(sites) > 1 else [])
    label = Label(extent=Extent.AT)
    return [
        Dose(intervention(label, Operation.ADD, directions, some, one, span), some, one)
        for some in sets
        for one in strengths
    ]


def removal_grid(
    axes: Mapping[Thing, Directions],
    sites: Sequence[Site],
    span: Span,
    controls: Sequence[Directions],
) -> list[Intervention]:
    """Ablation at all sites (layerwise): each axis to the off state, the first to zero, random.

    `axes`: the one under study first.
    """
    mean, zero = Operation.MEAN_ABLATE, Operation.ABLATE
    first = next(iter(axes))
    named = [(Label(thing=thing), one) for thing, one in axes.items()]
    return [
        BASELINE,
        *(intervention(label, mean, one, sites, span=span) for label, one in named),
        intervention(Label(thing=first), zero, axes[first], sites, span=span),
        *(intervention(label, mean, one, sites, span=span) for label, one in _random(controls)),
    ]


def dose_grid(
    axes: Mapping[Thing, Directions],
    sites: Sequence[Site],
    strengths: Sequence[float],
    span: Span,
    controls: Sequence[Directions],
) -> list[Intervention]:
    """Addition at the sites at every strength: each axis, delta without g, and random."""
    named = dict(axes)
    if Thing.DELTA in axes and Thing.GENERAL in axes:
        delta, general = axes[Thing.DELTA], axes[Thing.GENERAL]
        rest = {site: delta[site].without(general[site]) for site in sites}
        named[Thing.REST] = Directions(rest, delta.card)
    every = [*((Label(thing=thing), one) for thing, one in named.items()), *_random(controls)]
    return [
        BASELINE,
        *(
            intervention(label, Operation.ADD, one, sites, strength, span)
            for label, one in every
            for strength in strengths
        ),
    ]
