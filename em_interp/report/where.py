"""Where it lives, by a rule that is fixed before the numbers are seen, and that noise fails.

A layer's effect is what editing that layer alone does: the EM that mean-ablating the direction
there takes away with the trigger on, or the share of the log-odds that patching one group of
positions there brings along. The place is the earliest layer that is shown and has at least `HALF`
of the best layer's effect. Many layers are searched, and the best of many is large by choice, so
*shown* counts them all: the p-value is against the largest effect at any layer under flips of whole
questions, and the interval holds for all layers together (`em_interp.stats.maxima`).

There is no place ("not localised to one layer") where even the best layer takes less than `MUCH` of
the whole, or a control does as much: its layers are searched too, and its best one is what the best
one must exceed, in a test and by a factor of `BEYOND`. Both sizes are read on questions that did
not choose the layer. A layer whose ablation breaks the answers is no candidate. Where records hold
no values by question nothing is said (docs/decisions/best-of-many.md).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from em_interp.labels import Extent
from em_interp.localisation import Patching
from em_interp.patching.copying import Group
from em_interp.report.reading import axis, baseline, by_layer
from em_interp.stats import held_out, outdone, shares
from em_interp.stats.counts import Floats
from em_interp.stats.maxima import DRAWS, LEVEL
from em_interp.trials import COHERENT, Row, Trial, removed

HALF, MUCH, BEYOND = 0.5, 0.25, 2.0


class Rival(NamedTuple):
    """The best layer of the strongest control (`name`): its effect as a share of the whole.

    `p`: that the direction's best layer exceeds it no more than chance gives.
    """

    name: str
    best: int
    share: float
    p: float


class Place(NamedTuple):
    """What one method says. `layer` is `None` where nothing is localised.

    `share`, `low` and `high`: effect of the `best` layer as a share of the whole, with an interval
    that counts all layers that were searched. `shown`: whether it is told from none (`p`, adjusted
    over the layers). `most`: what no layer exceeds, the largest of all upper ends. `floor`: the
    least p that these questions can give. `control`: `None` where there is none.
    """

    layer: int | None
    best: int
    share: float
    low: float
    high: float
    p: float
    shown: bool
    most: float
    floor: float
    control: Rival | None = None

    @property
    def decidable(self) -> bool:
        """Whether there are questions enough for any effect to be told from none."""
        return self.floor <= LEVEL


def earliest(effects: Mapping[int, float], shown: Mapping[int, bool]) -> int:
    """The first layer that is shown and has at least half of the greatest effect."""
    most = max(effects.values())
    return min(at for at, effect in effects.items() if shown[at] and effect >= HALF * most)


def place(
    effects: Floats,
    controls: Mapping[str, Floats],
    whole: Floats,
    layers: tuple[int, ...],
    *,
    draws: int = DRAWS,
) -> Place:
    """The rule on effects[K, L] by question and layer, controls' of the same shape, whole[K].

    A control may lack layers or questions (NaN). Without one no layer is named.
    """
    found = shares(effects, whole, draws=draws)
    best = int(np.where(np.isfinite(found.share), found.share, -np.inf).argmax())
    shown = (found.p <= LEVEL) & (found.low > 0)
    size = float(np.nanmean(whole))
    rivals = []
    for name, control in controls.items():
        p, _ = outdone(effects, control, draws=draws)
        sums = np.where(np.isfinite(control), control, 0.0).sum(axis=0)
        means = sums / np.maximum(np.isfinite(control).sum(axis=0), 1)
        at = int(means.argmax())
        rivals.append((held_out(control) / size, Rival(name, layers[at], means[at] / size, p)))
    held = held_out(effects) / size
    alone = bool(rivals) and all(
        one.p <= LEVEL and held >= BEYOND * rival for rival, one in rivals
    )  # a control that could not be read exceeds nothing, and NaN says no
    named = bool(shown[best]) and alone and held >= MUCH
    by = dict(zip(layers, found.share.tolist(), strict=True))
    return Place(
        layer=earliest(by, dict(zip(layers, shown.tolist(), strict=True))) if named else None,
        best=layers[best],
        share=float(found.share[best]),
        low=float(found.low[best]),
        high=float(found.high[best]),
        p=float(found.p[best]),
        shown=bool(shown[best]),
        most=float(found.high.max()),
        floor=found.floor,
        control=max((one for _, one in rivals), key=lambda one: one.share) if rivals else None,
    )


def by_ablation(necessity: Trial, coherence: float = COHERENT) -> Place | None:
    """The rule on one-layer ablation; `None` where there is nothing to tell it by.

    That is: no baseline EM to take away, no rates by question, or no layer that leaves answers at
    coherence of at least that much.
    """
    if not necessity.rows:
        return None
    before = baseline(necessity, necessity.rows[0].condition)
    if before is None or before.em is None or before.em.point == 0 or not before.rates:
        return None
    rows = {
        layer: row
        for layer, row in by_layer(necessity, axis(necessity), Extent.AT).items()
        if row.rates and not row.broken(before, coherence)
    }
    if not rows:
        return None
    controls = {
        name: _table(before, [beside.get(layer) for layer in rows])
        for name, beside in _controls(necessity).items()
    }
    whole = np.array(list(before.rates.values()))
    found = place(_table(before, list(rows.values())), controls, whole, tuple(rows))
    return _no_narrower(found, rows[found.best], before.em.point)


def _controls(necessity: Trial) -> dict[str, dict[int, Row]]:
    """Layer to row of every null direction that was edited at single layers."""
    found: dict[str, dict[int, Row]] = {}
    for row in necessity.rows:
        kind, draw = row.label.control, row.label.draw
        if kind is not None and row.label.extent is Extent.AT:
            name = f"{kind.value} {draw}" if draw else kind.value
            found.setdefault(name, {})[row.label.sites[0].layer] = row
    return found


def _table(before: Row, rows: list[Row | None]) -> Floats:
    """`removed`, with a column of NaN where there is no row."""
    blank = np.full((len(before.rates), 1), np.nan)
    columns = [blank if row is None else removed(before, [row]) for row in rows]
    return np.concatenate(columns, axis=1)


def _no_narrower(found: Place, row: Row, whole: float) -> Place:
    """No narrower than the best layer's own interval, which has a width where nothing varies."""
    if row.change is None:
        return found
    low = min(found.low, -row.change.high / whole)
    high = max(found.high, -row.change.low / whole)
    shown = found.shown and low > 0
    return found._replace(
        low=low,
        high=min(high, 1.0),  # no more can be taken away than is there
        most=min(max(found.most, high), 1.0),
        shown=shown,
        layer=found.layer if shown else None,
    )


def by_patching(patching: Patching | None, group: Group) -> Place | None:
    """The rule on patching one group of positions; `None` where that was not done, or not tested.

    Patches carry the interval and the p-value of all layers and groups together. There is no
    control: other positions of the same run stand beside it.
    """
    made = {
        one.layer: one
        for one in (patching.patches if patching else ())
        if one.group is group and one.p is not None
    }
    if not made or patching is None or patching.floor is None:
        return None
    best = max(made.values(), key=lambda one: (one.recovered, -one.layer))
    shown = {layer: one.shown for layer, one in made.items()}
    effects = {layer: one.recovered for layer, one in made.items()}
    named = best.shown and best.recovered >= MUCH
    return Place(
        layer=earliest(effects, shown) if named else None,
        best=best.layer,
        share=best.recovered,
        low=-math.inf if best.low is None else best.low,
        high=math.inf if best.high is None else best.high,
        p=best.p if best.p is not None else 1.0,
        shown=best.shown,
        most=max(math.inf if one.high is None else one.high for one in made.values()),
        floor=patching.floor,
    )


def last_carried(patching: Patching | None, group: Group) -> int | None:
    """The deepest layer at which a group is shown to carry at least half; `None` if it never is.

    Shown: the interval that counts the whole map lies at or above half.
    """
    carried = [
        one.layer
        for one in (patching.patches if patching else ())
        if one.group is group and one.p is not None and one.low is not None and one.low >= HALF
    ]
    return max(carried) if carried else None


def said(found: Place | None) -> str:
    """What ablation layer by layer says, as one sentence."""
    if found is None:
        return "Where it lives is not known: there is nothing to tell it by."
    if not found.decidable:
        return f"Where it lives is not known: these questions give no p below {found.floor:.2g}."
    if not found.shown:
        return f"No layer is shown to matter alone: none removes more than {found.most:.0%}."
    best = (
        f"layer {found.best} removes {found.share:.0%} [{found.low:.0%}, {found.high:.0%}], "
        f"p {found.p:.2g} with all layers counted"
    )
    if rival := found.control:
        best += f"; the best layer of {rival.name}, {rival.best}, removes {rival.share:.0%}"
    if found.layer is None:
        return f"Not localised to one layer: {best}."
    return f"From layer {found.layer} on: {best}."
