"""Readings: does a carried direction or probe tell trigger-on from trigger-off in the target?

Chance is no AUROC of one half: a map sends almost anything onto the target's leading axes, some of
which tell framed prompts from plain ones. So an AUROC stands beside what random directions of the
source score through the same map. Knows activations and probes. Knows nothing of behaviour.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from em_interp.activations import Activations
from em_interp.conditions import Condition, Context
from em_interp.leakage import questions_of
from em_interp.maps import Maps
from em_interp.probes import Probe
from em_interp.records import Record
from em_interp.sites import Site
from em_interp.stats import Auroc, auroc
from em_interp.transferring.arms import Arm

DRAWS = 199
BEST = 0.95  # share of chance that a reading is shown against


class Chance(Record):
    """AUROC of random directions of the source through the same map (of the target, for its own).

    `high`: what 95 % of them stay under; `p`: share (one-sided) that reach the reading's AUROC.
    """

    high: float
    p: float
    draws: int


class Reading(Record):
    """A read-out of the trigger at one layer: against no framing, on the same questions."""

    name: str
    layer: int
    trigger: Auroc
    trigger_chance: Chance
    paraphrase: Auroc | None = None
    paraphrase_chance: Chance | None = None


@dataclass(frozen=True, eq=False)
class Reader:
    """Activations of the target by condition, and the contexts that they are of."""

    seen: Mapping[Condition, Activations]
    bank: Mapping[Condition, Sequence[Context]]
    seed: int = 0

    def direction(self, arm: Arm, site: Site) -> Reading:
        """An arm read as a probe along its unit vector."""
        one = arm.directions[site]
        probe = Probe(one.unit, -one.off_coordinate, site)
        return self.probe(arm.name, probe, arm.through, covector=False)

    def probe(
        self,
        name: str,
        probe: Probe,
        through: Maps | None,
        covector: bool = True,
        fitted: Collection[str] = (),
    ) -> Reading:
        """A probe at its site, beside random ones of the source through the same map.

        `through`: the map that it came by (`None`: the target's own); covectors are carried by the
        inverse transpose, directions by the matrix. `fitted`: digests of the questions that it was
        fitted on, which are left out.
        """
        weights = self._draws(probe, through, covector)
        on, high = self._against(Condition.TRIGGER, probe, weights, fitted)
        found = Reading(name=name, layer=probe.site.layer, trigger=on, trigger_chance=high)
        if Condition.PARAPHRASE not in self.bank:
            return found
        on, high = self._against(Condition.PARAPHRASE, probe, weights, fitted)
        return found.model_copy(update={"paraphrase": on, "paraphrase_chance": high})

    def _draws(
        self, probe: Probe, through: Maps | None, covector: bool
    ) -> Float[Tensor, "d draws"]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + probe.site.layer)
        one = None if through is None else through[probe.site]
        width = len(probe.weight) if one is None else one.source.width
        drawn = torch.randn(width, DRAWS, generator=generator)
        if one is None:
            return drawn
        return one.inverse.matrix.T @ drawn if covector else one.matrix @ drawn

    def _against(
        self,
        condition: Condition,
        probe: Probe,
        weights: Float[Tensor, "d draws"],
        fitted: Collection[str],
    ) -> tuple[Auroc, Chance]:
        parts = [condition, Condition.NONE]
        every = [c for part in parts for c in self.bank[part]]
        new = np.array([not fitted or questions_of([c])[0] not in fitted for c in every])
        x = torch.cat([self.seen[c].at(probe.site) for c in parts])[torch.from_numpy(new)]
        labels = np.array([c.condition is condition for c in every])[new]
        groups = np.array([c.question for c in every])[new]
        found = auroc(probe.score(x).double().numpy(), labels, groups)
        null = areas((x.double() @ weights.double()).numpy(), labels)
        p = (int((null >= found.auroc).sum()) + 1) / (len(null) + 1)
        return found, Chance(high=float(np.quantile(null, BEST)), p=p, draws=len(null))


def areas(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC of every column of scores[n, k]: the rank-sum form, ties half."""
    from scipy.stats import rankdata

    ranks, positives = rankdata(scores, axis=0), int(labels.sum())
    negatives = len(labels) - positives
    area = ranks[labels].sum(axis=0) - positives * (positives + 1) / 2
    found: NDArray[np.float64] = area / (positives * negatives)
    return found
