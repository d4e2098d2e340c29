"""Patching by component: which heads, attentions and feed-forwards carry the gate, and where.

As in `em_interp.localisation`, but what is copied from the run with the trigger into a run without
it is the output of one component at one group of positions (arXiv:2404.15255). Beside each exact
effect stands its first-order estimate, gradient times difference, which costs two passes for all
components together (attribution patching, arXiv:2310.10348), and a placebo: the same component
copied from another question's run without the trigger.
Sites are TransformerLens' hook points where the model runs on its bridge.
Knows models, components and log-odds. Knows nothing of judges.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from em_interp.batches import busy, by_length, most
from em_interp.chat import Encoded
from em_interp.conditions import Context
from em_interp.errors import InputError
from em_interp.floors import told
from em_interp.hooks import Visitor
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.patching.attribution import first_order, gradients
from em_interp.patching.components import POINTS, Component, Kind, components
from em_interp.patching.copying import (
    Copy,
    Floats,
    Group,
    blocks,
    by_question,
    means,
    odds,
    paired_positions,
    positions_of,
    streams,
)
from em_interp.patching.subspaces import Subspace
from em_interp.progress import Progress, silent
from em_interp.records import Record
from em_interp.scoring import answer_ids, teacher_forced
from em_interp.sites import Point, Site
from em_interp.stats import Contrast, shares

Pairs = Sequence[Sequence[tuple[int, int]]]
Answers = Sequence[Sequence[Sequence[int]]]


class Effect(Record):
    """What one component at one group of positions brings along, as a share of the on-off gap.

    `recovered` is exact. Its interval holds for all effects of the map together, and `p` is
    adjusted over them, both by flips of whole questions (max-T): the largest of many is no finding
    by being the largest. Noise of the gap counts; where the gap is not told from 0 at that level
    there is no interval (`None`). `attributed`: the first-order estimate. `placebo`: the share that
    the same component of another question's run without the trigger brings. `aligned`: the share of
    the target's group that had a counterpart to copy from. 1 is the whole gap; positive is towards
    misaligned.
    """

    component: str
    layer: int
    kind: Kind
    head: int | None
    group: Group
    recovered: float
    low: float | None
    high: float | None
    p: float
    attributed: float
    placebo: float
    aligned: float


class Agreement(Record):
    """How well the estimate stands for the exact effect at one group: correlations over components.

    `None` where one side does not vary.
    """

    group: Group
    pearson: float | None
    spearman: float | None
    components: int


class ComponentMap(Record):
    """Effects of all components, between two runs (log-odds of unsound against sound, nats).

    Controls: `own`, the largest change of any log-odds where a run is given its own activations
    everywhere (0 where the instrument does nothing by itself), and `everything`, the share that all
    components and the embeddings bring together (1 where every position has a counterpart).
    `floor`: the smallest p that flips of these questions can give, however many the effects.
    """

    target: str
    on: float
    off: float
    gap: Contrast
    effects: tuple[Effect, ...]
    agreement: tuple[Agreement, ...]
    own: float
    everything: float
    floor: float

    def effect(self, component: str, group: Group) -> Effect:
        """One effect by name."""
        for one in self.effects:
            if (one.component, one.group) == (component, group):
                return one
        raise KeyError(f"no effect of {component!r} at {group.value!r}")


class Carriers(Record):
    """What carries the gate: components one by one, and how many directions of the stream."""

    components: ComponentMap
    subspaces: tuple[Subspace, ...]


class _Runs(NamedTuple):
    """The two runs and the answers that are scored, aligned by question."""

    sources: list[Encoded]
    targets: list[Encoded]
    answers: Answers
    questions: list[str]


def component_map(
    model: Model,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    layers: Sequence[int],
    groups: Sequence[Group] = tuple(Group),
    *,
    progress: Progress = silent,
) -> ComponentMap:
    """Patch every component of `layers` from `on` into `off`, group by group.

    `on[i]` and `off[i]` ask the same question. Groups that one side does not have are left out.
    `progress` counts effects. Raises `InputError` for unpaired contexts or fewer than two
    questions, `IndistinctError` for runs that differ by no more than noise.
    """
    questions = [c.question for c in off]
    if [c.question for c in on] != questions or len(set(questions)) < 2:
        raise InputError("patching pairs contexts by question: the same in order, at least two")
    answers = [answer_ids(model, texts) for texts in (sound, unsound)]
    sources, targets = encoded(model, on), encoded(model, off)
    runs = _Runs(sources, targets, answers, questions)
    plain_on, plain_off = odds(model, sources, answers), odds(model, targets, answers)
    gap = told(by_question(plain_on, plain_off, questions), "patching")
    parts = components(model, layers)
    pairs = _pairs(sources, targets, groups)
    exact, estimate, placebo = _effects(model, runs, parts, pairs, plain_off, progress)
    moved = np.stack([means(one, questions) for one in exact.values()], axis=1)
    tested = shares(moved, means(plain_on - plain_off, questions))
    effects = []
    for (part, group), share, low, high, p in zip(exact, *tested.columns(), strict=True):
        wanted = sum(len(positions_of(t, group)) for t in targets)
        effects.append(
            Effect(
                component=str(part),
                layer=part.layer,
                kind=part.kind,
                head=part.head,
                group=group,
                recovered=share,
                low=low,
                high=high,
                p=p,
                attributed=_mean(estimate[part, group], questions) / gap.difference,
                placebo=_mean(placebo[part, group], questions) / gap.difference,
                aligned=sum(map(len, pairs[group])) / wanted,
            )
        )
    return ComponentMap(
        target=off[0].condition.value,
        on=gap.a,
        off=gap.b,
        gap=gap,
        effects=tuple(effects),
        agreement=tuple(_agreement(effects, group) for group in pairs),
        own=own_change(model, targets, answers, layers),
        everything=_everything(model, runs, plain_off) / gap.difference,
        floor=tested.floor,
    )


Table = dict[tuple[Component, Group], Floats]


def _effects(
    model: Model,
    runs: _Runs,
    parts: Sequence[Component],
    pairs: dict[Group, Pairs],
    plain: Floats,
    progress: Progress,
) -> tuple[Table, Table, Table]:
    """Change of each context's log-odds: exact, estimated, and from the placebo's source."""
    sites = list(dict.fromkeys(part.site for part in parts))
    exact: Table = {(part, group): np.zeros(len(plain)) for part in parts for group in pairs}
    estimate = {key: np.zeros(len(plain)) for key in exact}
    placebo = {key: np.zeros(len(plain)) for key in exact}
    order = _others(runs.questions)
    strangers = [runs.targets[at] for at in order]
    strange = _pairs(strangers, runs.targets, tuple(pairs))
    for rows in blocks(model, runs.sources, 3 * len(sites)):

        def of(many: Sequence[Encoded], rows: list[int] = rows) -> list[Encoded]:
            return [many[row] for row in rows]

        targets, said = of(runs.targets), [[ids[row] for row in rows] for ids in runs.answers]
        source = streams(model, of(runs.sources), sites)
        other = streams(model, of(strangers), sites)
        own = streams(model, targets, sites)
        slopes = gradients(model, targets, said, sites)
        for part, group in exact:
            site, own_part = part.site, part.part(model)
            here = [pairs[group][row] for row in rows]
            there = [strange[group][row] for row in rows] if group in strange else None
            copy = Copy(site, source[site], here, own_part)
            exact[part, group][rows] = odds(model, targets, said, [copy]) - plain[rows]
            estimate[part, group][rows] = first_order(copy, own[site], slopes[site])
            if there is not None:
                copy = Copy(site, other[site], there, own_part)
                placebo[part, group][rows] = odds(model, targets, said, [copy]) - plain[rows]
            progress(len(rows))
    return exact, estimate, placebo


def _pairs(
    sources: Sequence[Encoded], targets: Sequence[Encoded], groups: Sequence[Group]
) -> dict[Group, Pairs]:
    """Positions to copy, of the groups that both sides have."""
    found = {
        group: [paired_positions(a, b, group) for a, b in zip(sources, targets, strict=True)]
        for group in groups
    }
    return {group: pairs for group, pairs in found.items() if any(pairs)}


def _others(questions: Sequence[str]) -> list[int]:
    """For each context the next one that asks another question."""
    count = len(questions)
    return [
        next((at + step) % count for step in range(1, count) if questions[(at + step) % count] != q)
        for at, q in enumerate(questions)
    ]


def _mean(values: Floats, questions: Sequence[str]) -> float:
    return float(means(values, questions).mean())


def _agreement(effects: Sequence[Effect], group: Group) -> Agreement:
    mine = [(e.recovered, e.attributed) for e in effects if e.group is group]
    exact, estimate = (np.array(side) for side in zip(*mine, strict=True))
    known = len(mine) > 2 and np.ptp(exact) > 0 and np.ptp(estimate) > 0
    return Agreement(
        group=group,
        pearson=float(pearsonr(exact, estimate).statistic) if known else None,
        spearman=float(spearmanr(exact, estimate).statistic) if known else None,
        components=len(mine),
    )


def own_change(
    model: Model, prompts: Sequence[Encoded], answers: Answers, layers: Sequence[int]
) -> float:
    """Largest change of a log-probability where every component is given its own output, in nats.

    The very same pass is read and then written, so anything but 0 is a defect of the instrument.
    """
    sites = [Site(layer, point) for layer in layers for point in POINTS.values()]
    largest = 0.0
    lengths = [len(p.ids) + max(map(len, said)) for p, *said in zip(prompts, *answers, strict=True)]
    for rows in by_length(lengths, most(model.device), enough=busy(model.device)):
        some = [prompts[row] for row in rows]
        for ids in answers:
            said, kept = [ids[row] for row in rows], dict[Site, Tensor]()

            def read(site: Site, kept: dict[Site, Tensor] = kept) -> Visitor:
                return lambda hidden, _: kept.__setitem__(site, hidden.clone())

            def write(site: Site, kept: dict[Site, Tensor] = kept) -> Visitor:
                return lambda hidden, _: kept[site]

            before = teacher_forced(model, some, said, [(site, read(site)) for site in sites])
            after = teacher_forced(model, some, said, [(site, write(site)) for site in sites])
            largest = max(largest, float((after - before).abs().max()))
    return largest


def _everything(model: Model, runs: _Runs, plain: Floats) -> float:
    """Mean change where embeddings and all components of all layers come from the other run."""
    sites = [Site(0, Point.RESID_PRE)]
    sites += [
        Site(layer, p) for layer in range(model.n_layers) for p in (Point.ATTN_OUT, Point.MLP_OUT)
    ]
    pairs = _pairs(runs.sources, runs.targets, [Group.ALL])[Group.ALL]
    moved = np.zeros(len(plain))
    for rows in blocks(model, runs.sources, len(sites)):
        source = streams(model, [runs.sources[row] for row in rows], sites)
        copies = [Copy(site, source[site], [pairs[row] for row in rows]) for site in sites]
        targets, said = (
            [runs.targets[r] for r in rows],
            [[i[r] for r in rows] for i in runs.answers],
        )
        moved[rows] = odds(model, targets, said, copies) - plain[rows]
    return _mean(moved, runs.questions)
