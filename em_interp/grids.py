"""Grids: the sets of interventions that answer one question each, controls included.

Necessity asks with the trigger on (does removing the direction remove the behaviour?), sufficiency
without it (does adding the direction bring it?). A null direction stands beside every row.
Knows directions and edits. Knows nothing of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from em_interp.directions import Direction, Directions
from em_interp.edits import BASELINE, Edit, Intervention, intervention, matched
from em_interp.errors import InputError
from em_interp.labels import STRENGTHLESS, Control, Extent, Label, Operation, Thing
from em_interp.sites import Point, Site, Span


def strengths_grid(
    directions: Directions,
    sites: Sequence[Site],
    operations: Sequence[Operation],
    strengths: Sequence[float],
    span: Span,
    nulls: "Nulls",
) -> list[Intervention]:
    """The baseline, then every operation at every strength along the direction, nulls beside it."""
    made = [BASELINE]
    for operation in operations:
        for strength in (0.0,) if operation in STRENGTHLESS else strengths:
            made.append(intervention(Label(), operation, directions, sites, strength, span))
            made += nulls.beside(operation, directions, sites, strength, span)
    return made


@dataclass(frozen=True)
class Nulls:
    """The null directions beside a grid's own: how many a row, from which draws.

    Kinds take turns (see `labels.Control`). Beside an edit that sets the coordinate: random,
    covariance-drawn, matched; beside an addition, which every kind matches in size: random,
    covariance-drawn. `drawn`: vectors of the stream's covariance by site, several draws
    (`extraction.covariance_draws`). Without them (a plan, before there is a model) random ones
    stand in, so that counts are right.
    """

    count: int
    seed: int
    drawn: Sequence[Mapping[Site, Tensor]] = ()

    def labels(self, operation: Operation) -> list[Label]:
        """Kind and number of each."""
        kinds = (Control.RANDOM, Control.COVARIANCE, Control.MATCHED)
        some = kinds[:2] if operation is Operation.ADD else kinds
        return [
            Label(control=some[at % len(some)], draw=1 + at // len(some))
            for at in range(self.count)
        ]

    def beside(
        self,
        operation: Operation,
        axis: Directions,
        sites: Sequence[Site],
        strength: float = 1.0,
        span: Span = Span.ALL,
    ) -> list[Intervention]:
        """The nulls of one edit along `axis`."""
        made = []
        for label in self.labels(operation):
            seed, one = self.seed + label.draw - 1, axis
            if label.control is Control.COVARIANCE and self.drawn:
                one = axis.beside(self.drawn[(label.draw - 1) % len(self.drawn)])
            elif label.control is not Control.MATCHED:
                one = axis.random(seed)
            edited = intervention(label, operation, one, sites, strength, span)
            if label.control is Control.MATCHED:
                edited = matched(edited, edited.label, seed)
            made.append(edited)
        return made


def necessity_grid(
    directions: Directions,
    sites: Sequence[Site],
    span: Span,
    seed: int,
    axis: Thing = Thing.DELTA,
) -> list[Intervention]:
    """Mean-ablation at each site alone and from each on, of a direction (`axis`).

    Beside each a control that moves the stream as far (`Control.MATCHED`): ablating along an
    isotropic direction hardly moves it.
    """
    made = [BASELINE]
    for at, site in enumerate(sites):
        for extent, where in ((Extent.AT, [site]), (Extent.FROM, sites[at:])):
            label = Label(thing=axis, extent=extent)
            one = intervention(label, Operation.MEAN_ABLATE, directions, where, span=span)
            null = one.label.model_copy(update={"thing": None, "control": Control.MATCHED})
            made += [one, matched(one, null, seed)]
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
    nulls: Nulls,
) -> list[Intervention]:
    """Ablation at all sites (layerwise): each axis to the off state, the first to zero, nulls.

    `axes`: the one under study first, which the nulls are matched to.
    """
    mean, zero = Operation.MEAN_ABLATE, Operation.ABLATE
    first = next(iter(axes))
    named = [(Label(thing=thing), one) for thing, one in axes.items()]
    return [
        BASELINE,
        *(intervention(label, mean, one, sites, span=span) for label, one in named),
        intervention(Label(thing=first), zero, axes[first], sites, span=span),
        *nulls.beside(mean, axes[first], sites, span=span),
    ]


def dose_grid(
    axes: Mapping[Thing, Directions],
    sites: Sequence[Site],
    strengths: Sequence[float],
    span: Span,
    nulls: Nulls,
) -> list[Intervention]:
    """Addition at the sites at every strength: each axis, delta without g, and nulls."""
    named = dict(axes)
    if Thing.DELTA in axes and Thing.GENERAL in axes:
        delta, general = axes[Thing.DELTA], axes[Thing.GENERAL]
        rest = {site: delta[site].without(general[site]) for site in sites}
        named[Thing.REST] = Directions(rest, delta.card)
    first, add = next(iter(axes.values())), Operation.ADD
    beside = [nulls.beside(add, first, sites, strength, span) for strength in strengths]
    return [
        BASELINE,
        *(
            intervention(Label(thing=thing), add, one, sites, strength, span)
            for thing, one in named.items()
            for strength in strengths
        ),
        *(one for some in zip(*beside, strict=True) for one in some),
    ]
