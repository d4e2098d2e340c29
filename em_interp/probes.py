"""Probes: linear read-outs of "the trigger is on", in raw coordinates, and their controls.

Polarity: score >= 0 means trigger-on. Threshold and standardisation are folded into weight and
bias, so a probe needs nothing but the raw activation.
Knows linear algebra and scikit-learn. Knows nothing of transformers, tokens or text.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from em_interp.artifacts import SiteTable, read_artifact, write_artifact
from em_interp.errors import InputError
from em_interp.sites import Site

PROBE_SIGN = "score >= 0 means trigger-on"


@dataclass(frozen=True, eq=False)
class Probe:
    """score(x) = x . weight + bias on a raw activation x at one site."""

    weight: Float[Tensor, " d_model"]
    bias: float
    site: Site

    def score(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """Signed scores; >= 0 means trigger-on."""
        return x.float() @ self.weight + self.bias


class Probes(SiteTable[Probe]):
    """One fitter's probes over sites, and the folder they live in."""

    def save(self, folder: Path) -> None:
        """Write the folder (see `artifacts`)."""
        columns = {
            "weight": torch.stack([p.weight for p in self.table.values()]),
            "bias": torch.tensor([p.bias for p in self.table.values()], dtype=torch.float64),
        }
        write_artifact(folder, self.card, list(self.table), columns)

    @classmethod
    def load(cls, folder: Path) -> "Probes":
        """Read a folder. Raises `InputError` for a missing, damaged or foreign file."""
        card, sites, columns = read_artifact(folder, "probe", {"weight": 2, "bias": 1})
        table = {
            site: Probe(columns["weight"][row], float(columns["bias"][row]), site)
            for row, site in enumerate(sites)
        }
        return cls(table, card)


def fit_logistic(
    x: Float[Tensor, "n d_model"],
    on: Bool[Tensor, " n"],
    site: Site,
    c: float = 0.1,
    *,
    one_scale: bool = False,
) -> Probe:
    """Logistic regression on standardised activations, folded back to raw coordinates.

    `c` is the inverse regularisation strength on the standardised scale (scikit-learn's C). Each
    coordinate has its own scale, which serves a read-out; with `one_scale` all share one, which
    keeps angles: folding coordinates of tiny variance back would turn the weight towards them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _two_classes(on, site)
    raw = x.double().numpy()
    scaler = StandardScaler().fit(raw)
    scale = np.sqrt(scaler.var_.mean()) if one_scale else scaler.scale_
    fitted = LogisticRegression(C=c, max_iter=2000).fit((raw - scaler.mean_) / scale, on.numpy())
    weight = fitted.coef_[0] / scale
    bias = float(fitted.intercept_[0] - weight @ scaler.mean_)
    return Probe(torch.from_numpy(weight).float(), bias, site)


def fit_mass_mean(x: Float[Tensor, "n d_model"], on: Bool[Tensor, " n"], site: Site) -> Probe:
    """Difference of class means, thresholded half-way (mass-mean probe, arXiv:2310.06824)."""
    _two_classes(on, site)
    plus, minus = x[on].double().mean(0), x[~on].double().mean(0)
    weight = plus - minus
    return Probe(weight.float(), float(-(weight @ (plus + minus)) / 2), site)


def random_probe(
    x: Float[Tensor, "n d_model"], on: Bool[Tensor, " n"], site: Site, seed: int
) -> Probe:
    """A control: a random direction of the mass-mean probe's norm, thresholded half-way.

    Its sign is chosen on the training rows, as a fitter would, so it is not handicapped.
    """
    like = fit_mass_mean(x, on, site)
    generator = torch.Generator().manual_seed(seed * 10_007 + site.layer)
    weight = torch.randn(x.shape[1], generator=generator)
    weight *= like.weight.norm() / weight.norm()
    gap = (x[on].float().mean(0) - x[~on].float().mean(0)) @ weight
    weight = weight if gap >= 0 else -weight
    middle = (x[on].float().mean(0) + x[~on].float().mean(0)) / 2
    return replace(like, weight=weight, bias=float(-(weight @ middle)))


def shuffled_within(on: Bool[Tensor, " n"], groups: NDArray[Any], seed: int) -> Bool[Tensor, " n"]:
    """Labels turned round in every other question: keeps pairing and base rates, no meaning left.

    Which half is turned is drawn; that it is a half is not, or a few dozen pairs would often keep
    most of their meaning by luck.
    """
    rng = np.random.default_rng(seed)
    turned = rng.permutation(np.unique(groups))[::2]
    labels = torch.from_numpy(np.isin(groups, turned))
    return on ^ labels


def split_questions(
    questions: NDArray[Any], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row indices of a training and a test part; a question is wholly in one of them."""
    names = np.unique(questions)
    if len(names) < 4:
        raise InputError(f"a grouped split needs at least 4 questions, not {len(names)}")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(names)[: max(2, min(len(names) - 2, round(share * len(names))))]
    train = np.isin(questions, chosen)
    return np.flatnonzero(train), np.flatnonzero(~train)


def _two_classes(on: Bool[Tensor, " n"], site: Site) -> None:
    if not on.any() or on.all():
        raise InputError(f"{site}: a probe needs both trigger-on and trigger-off rows")
