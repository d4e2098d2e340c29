"""Localisation: at which layers and positions the gate sits, by the residual stream.

Activation patching copies the stream of a run with the trigger into a run without it, at one layer
and one group of positions, and asks how much of the difference in log-odds comes along
(denoising in the sense of arXiv:2404.15255). 1 is all of it, 0 is none; beyond 1 is possible.
Knows models, positions and log-odds. Knows nothing of judges.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from em_interp.capture import batch_noise, capture
from em_interp.conditions import Context
from em_interp.directions import Directions
from em_interp.errors import InputError, say
from em_interp.floors import IndistinctError, distinct, floor, told
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.patching.copying import (
    Copy,
    Group,
    blocks,
    by_question,
    means,
    odds,
    paired_positions,
    positions_of,
    streams,
)
from em_interp.progress import Progress, silent
from em_interp.records import Record
from em_interp.scoring import answer_ids
from em_interp.sites import Point, Site, Span
from em_interp.stats import Contrast, shares
from em_interp.stats.maxima import LEVEL
from em_interp.trials import Trial


class Patch(Record):
    """Share of the on-minus-off log-odds that a patch brings along, mean over questions.

    `recovered` = (patched - off) / mean(on - off) in log-odds of unsound against sound advice;
    `aligned` is the share of the target's group that had a counterpart to copy from. `low` and
    `high` hold for all patches of the map together, and `p` (that the patch does anything) is
    adjusted over them, both by flips of whole questions (max-T); noise of the gap counts. `None`:
    where the gap is not told from 0 at that level there is no interval of a share; records of
    before had no such `p`.
    """

    layer: int
    point: Point = Point.RESID_POST
    group: Group
    recovered: float
    low: float | None
    high: float | None
    aligned: float
    p: float | None = None

    @property
    def shown(self) -> bool:
        """Whether it is told from none, with all that was searched counted, towards the gap."""
        return self.p is not None and self.p <= LEVEL and self.low is not None and self.low > 0

    @property
    def site(self) -> Site:
        """Where the stream was copied."""
        return Site(self.layer, self.point)


class Patching(Record):
    """A map over layers and groups, with the two runs it lies between (log-odds, nats).

    `floor`: the smallest p that flips of these questions can give.
    """

    target: str
    on: float
    off: float
    gap: Contrast
    patches: tuple[Patch, ...]
    floor: float | None = None


@torch.inference_mode()
def patching(
    model: Model,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    sites: Sequence[Site | int],
    *,
    progress: Progress = silent,
) -> Patching:
    """Patch the stream of `on` into `off`, site by site and group by group.

    A layer's number is its block's output.

    `on[i]` and `off[i]` ask the same question. Groups without a position on one of the sides (the
    trigger's, where there is no framing) are left out. Raises `InputError` for unpaired contexts,
    `IndistinctError` where the two runs differ by no more than noise, since a share of nothing
    means nothing. Streams are kept for as many contexts at a time as `STREAMS` holds; `progress`
    counts contexts.
    """
    questions = [c.question for c in off]
    if not questions or [c.question for c in on] != questions:
        raise InputError(
            "patching pairs contexts by question: both lists must ask the same, in order"
        )
    sources, targets = encoded(model, on), encoded(model, off)
    answers = [answer_ids(model, texts) for texts in (sound, unsound)]
    pairs_of = {
        group: pairs
        for group in Group
        if any(
            pairs := [paired_positions(a, b, group) for a, b in zip(sources, targets, strict=True)]
        )
    }
    plain_on = odds(model, sources, answers)
    plain_off = odds(model, targets, answers)
    gap = told(by_question(plain_on, plain_off, questions), "patching")
    where = [Site(one) if isinstance(one, int) else one for one in sites]
    patched = {(site, group): np.zeros(len(off)) for site in where for group in pairs_of}
    for rows in blocks(model, sources, len(where)):
        stored = streams(model, [sources[row] for row in rows], where)
        some, said = [targets[r] for r in rows], [[ids[r] for r in rows] for ids in answers]
        for (site, group), changed in patched.items():
            pairs = [pairs_of[group][row] for row in rows]
            copied = Copy(site, stored[site], pairs)
            changed[rows] = odds(model, some, said, [copied])
        progress(len(rows))
    moved = np.stack([means(one - plain_off, questions) for one in patched.values()], axis=1)
    found = shares(moved, means(plain_on - plain_off, questions))
    patches = []
    for (site, group), share, low, high, p in zip(patched, *found.columns(), strict=True):
        wanted = sum(len(positions_of(t, group)) for t in targets)
        patches.append(
            Patch(
                layer=site.layer,
                point=site.point,
                group=group,
                recovered=share,
                low=low,
                high=high,
                aligned=sum(map(len, pairs_of[group])) / wanted,
                p=p,
            )
        )
    return Patching(
        target=off[0].condition.value,
        on=gap.a,
        off=gap.b,
        gap=gap,
        patches=tuple(patches),
        floor=found.floor,
    )


def patching_if_told(
    model: Model,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    sites: Sequence[Site | int],
) -> Patching | None:
    """`patching`, or `None` and a line on stderr where the log-odds do not differ beyond noise.

    For runs that have more to tell than this map.
    """
    try:
        return patching(model, on, off, sound, unsound, sites)
    except IndistinctError as fault:
        say(f"left out: {fault}")
        return None


class Axis(Record):
    """One site's geometry of the gate against the general EM direction g.

    `cosine`: of delta and g. `base_cosine`: of delta and the base's own trigger shift, which any
    model has (`None` where it is no more than noise). `covered_off`, `covered_on`: how far along
    the base-to-EM axis the organism stands without and with the trigger:
    (mean(organism) - mean(base)) . g / ||g||^2; 0 is the base, 1 the unconditional organism.
    `norm`: ||delta|| as a fraction of the mean residual norm.
    """

    layer: int
    point: Point = Point.RESID_POST
    cosine: float
    base_cosine: float | None
    covered_off: float
    covered_on: float
    norm: float

    @property
    def site(self) -> Site:
        """Where both directions are."""
        return Site(self.layer, self.point)


def axes(
    model: Model,
    delta: Directions,
    general: Directions,
    off: Sequence[Context],
    on: Sequence[Context],
    span: Span = Span.PROMPT_LAST,
) -> tuple[Axis, ...]:
    """Geometry per layer. The base's trigger shift is taken on the same contexts."""
    sites = [site for site in delta if site in general]
    with model.using(None):
        base_on = capture(model, on, sites, span).values.double().mean(0)
        base_off = capture(model, off, sites, span).values.double().mean(0)
        noise = batch_noise(model, off, sites, span)
    found = []
    for row, site in enumerate(sites):
        d, g = delta[site], general[site]
        (d_off, d_on), (g_off, g_on) = d.states, g.states
        axis = (g_on - g_off).double()
        shift = (base_on - base_off)[row]
        least = floor(float(base_off[row].norm()), noise[row])

        def covered(state: Tensor, axis: Tensor = axis, row: int = row) -> float:
            return float((state.double() - base_off[row]) @ axis / (axis @ axis))

        found.append(
            Axis(
                layer=site.layer,
                point=site.point,
                cosine=d.cosine(g),
                base_cosine=(
                    float(distinct(shift, least, str(site)) @ d.unit.double())
                    if float(shift.norm()) > least
                    else None
                ),
                covered_off=covered(d_off),
                covered_on=covered(d_on),
                norm=d.fraction(1.0),
            )
        )
    return tuple(found)


class Localisation(Record):
    """Where the gate is: ablation and steering by layer, patching, geometry against g."""

    necessity: Trial
    sufficiency: Trial
    patching: Patching | None
    axes: tuple[Axis, ...]
