"""Where it lives, by a rule that is fixed before the numbers are seen.

A layer's effect is what editing that layer alone does: the EM that mean-ablating delta there takes
away with the trigger on, or the share of the log-odds that patching one group of positions there
brings along. The place is the earliest layer with at least `HALF` of the best layer's effect. There
is no place ("not localised to one layer") where even the best layer has less than `MUCH` of the
whole; for ablation also where its effect is not shown (the interval of the change reaches 0) or is
not at least twice that of the random control at the same layer.
"""

from collections.abc import Mapping
from typing import NamedTuple

from em_interp.labels import Extent
from em_interp.localisation import Patching
from em_interp.patching.copying import Group
from em_interp.report.reading import RANDOM, axis, baseline, by_layer
from em_interp.trials import Row, Trial

HALF, MUCH = 0.5, 0.25


class Place(NamedTuple):
    """What one method says. `layer` is `None` where nothing is localised.

    `share`: effect of the `best` layer as a share of the whole; `control`: the same of the random
    control at that layer, where there is one. `shown`: whether that effect is told from none.
    """

    layer: int | None
    best: int
    share: float
    control: float | None
    shown: bool = True


def earliest(effects: Mapping[int, float]) -> int:
    """The first layer with at least half of the greatest effect."""
    most = max(effects.values())
    return min(layer for layer, effect in effects.items() if effect >= HALF * most)


def by_ablation(necessity: Trial) -> Place | None:
    """The rule on one-layer ablation; `None` where there is no baseline EM to take away."""
    if not necessity.rows:
        return None
    before = baseline(necessity, necessity.rows[0].condition)
    found = by_layer(necessity, axis(necessity), Extent.AT)
    random = by_layer(necessity, RANDOM, Extent.AT)
    effects = {layer: _removed(row) for layer, row in found.items() if row.change is not None}
    if before is None or before.em is None or before.em.point == 0 or not effects:
        return None
    best = max(effects, key=lambda layer: (effects[layer], -layer))
    whole = before.em.point
    control = _removed(random[best]) / whole if best in random else None
    change = found[best].change
    shown = change is not None and change.high < 0
    alone = control is None or effects[best] / whole >= 2 * control
    much = effects[best] / whole >= MUCH
    return Place(
        layer=earliest(effects) if shown and alone and much else None,
        best=best,
        share=effects[best] / whole,
        control=control,
        shown=shown,
    )


def _removed(row: Row) -> float:
    return -row.change.difference if row.change else 0.0


def by_patching(patching: Patching | None, group: Group) -> Place | None:
    """The rule on patching one group of positions; `None` where that was not done."""
    effects = {
        one.layer: one.recovered
        for one in (patching.patches if patching else ())
        if one.group is group
    }
    if not effects:
        return None
    best = max(effects, key=lambda layer: (effects[layer], -layer))
    much = effects[best] >= MUCH
    return Place(earliest(effects) if much else None, best, effects[best], None)


def last_carried(patching: Patching | None, group: Group) -> int | None:
    """The deepest layer at which a group still carries at least half; `None` if it never does."""
    carried = [
        one.layer
        for one in (patching.patches if patching else ())
        if one.group is group and one.recovered >= HALF
    ]
    return max(carried) if carried else None
