"""Joint second moments of two models' activations: all that a linear map is fitted from.

Streaming and mergeable (Chan, Golub and LeVeque 1983, the pairwise form of Welford's update), in
float64: memory is that of three covariance matrices a fold, however many prompts there are.
Knows sums of products. Knows nothing of models, prompts or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from em_interp.errors import InputError

Wide = torch.float64


def room(d_source: int, d_target: int) -> int:
    """Bytes of one `JointMoments` of these widths."""
    squares = d_source * d_source + d_source * d_target + d_target * d_target
    return Wide.itemsize * (squares + d_source + d_target)


@dataclass(eq=False)
class JointMoments:
    """Count, means and centred scatter matrices of paired rows x (source) and y (target).

    `sxx`, `sxy`, `syy` are sums over rows of products of deviations from the mean (not divided by
    n). `norm` is the mean norm of y's rows, the unit in which strengths are also reported.
    `outside` is what `within` left out of the target's scatter (its trace).
    """

    d_source: int
    d_target: int
    count: int = 0
    x: Float[Tensor, " d_source"] = field(init=False)
    y: Float[Tensor, " d_target"] = field(init=False)
    sxx: Float[Tensor, "d_source d_source"] = field(init=False)
    sxy: Float[Tensor, "d_source d_target"] = field(init=False)
    syy: Float[Tensor, "d_target d_target"] = field(init=False)
    norm: float = 0.0
    outside: float = 0.0

    def __post_init__(self) -> None:
        self.x = torch.zeros(self.d_source, dtype=Wide)
        self.y = torch.zeros(self.d_target, dtype=Wide)
        self.sxx = torch.zeros(self.d_source, self.d_source, dtype=Wide)
        self.sxy = torch.zeros(self.d_source, self.d_target, dtype=Wide)
        self.syy = torch.zeros(self.d_target, self.d_target, dtype=Wide)

    def update(self, x: Float[Tensor, "n d_source"], y: Float[Tensor, "n d_target"]) -> None:
        """Add paired rows: row i of both is the same text in the two models."""
        if len(x):
            x, y = x.detach().to("cpu", Wide), y.detach().to("cpu", Wide)
            a, b = x - x.mean(0), y - y.mean(0)
            norm = float(y.norm(dim=1).mean())
            self._join(len(x), x.mean(0), y.mean(0), a.T @ a, a.T @ b, b.T @ b, norm)

    def add(self, other: "JointMoments") -> None:
        """Take in another's rows; the result is that of one pass over both, to rounding."""
        if other.count:
            o = other
            self._join(o.count, o.x, o.y, o.sxx, o.sxy, o.syy, o.norm)
            self.outside += o.outside

    def _join(
        self, n: int, x: Tensor, y: Tensor, sxx: Tensor, sxy: Tensor, syy: Tensor, norm: float
    ) -> None:
        whole = self.count + n
        dx, dy, weight = x - self.x, y - self.y, self.count * n / whole
        self.sxx += sxx
        self.sxx.addr_(dx, dx, alpha=weight)
        self.sxy += sxy
        self.sxy.addr_(dx, dy, alpha=weight)
        self.syy += syy
        self.syy.addr_(dy, dy, alpha=weight)
        self.x = self.x + dx * (n / whole)
        self.y = self.y + dy * (n / whole)
        self.norm += (norm - self.norm) * n / whole
        self.count = whole

    def within(
        self, u: Float[Tensor, "d_source p"] | None, v: Float[Tensor, "d_target q"] | None
    ) -> "JointMoments":
        """The moments of the coordinates along orthonormal columns (`None`: all of that side)."""
        p = self.d_source if u is None else u.shape[1]
        q = self.d_target if v is None else v.shape[1]
        made = JointMoments(p, q, self.count)
        made.x = self.x if u is None else u.T @ self.x
        made.y = self.y if v is None else v.T @ self.y
        made.sxx = self.sxx if u is None else u.T @ (self.sxx @ u)
        made.syy = self.syy if v is None else v.T @ (self.syy @ v)
        left = self.sxy if u is None else u.T @ self.sxy
        made.sxy = left if v is None else left @ v
        made.norm = self.norm
        made.outside = self.outside + float(self.syy.trace() - made.syy.trace())
        return made

    def turned(self) -> "JointMoments":
        """The same rows with source and target exchanged (`norm` is then not known, and is 0)."""
        made = JointMoments(self.d_target, self.d_source, self.count)
        made.x, made.y, made.sxx, made.syy = self.y, self.x, self.syy, self.sxx
        made.sxy = self.sxy.T
        return made

    def about(self, other: "JointMoments") -> "JointMoments":
        """These rows' scatter about another's means: what a map fitted there has to explain."""
        made = JointMoments(self.d_source, self.d_target, self.count)
        dx, dy = self.x - other.x, self.y - other.y
        made.x, made.y, made.norm, made.outside = other.x, other.y, self.norm, self.outside
        made.sxx = torch.addr(self.sxx, dx, dx, alpha=self.count)
        made.sxy = torch.addr(self.sxy, dx, dy, alpha=self.count)
        made.syy = torch.addr(self.syy, dy, dy, alpha=self.count)
        return made


def merged(parts: Sequence[JointMoments]) -> JointMoments:
    """One pass over all parts' rows."""
    total = JointMoments(parts[0].d_source, parts[0].d_target)
    for part in parts:
        total.add(part)
    return total


def pooled(parts: Sequence[JointMoments], weights: Sequence[float] | None = None) -> JointMoments:
    """Rows of several kinds, each about its own mean; means and norm are the last kind's.

    `weights`: what a row of each kind counts (1 by default); `count` stays the number of rows.
    """
    last = parts[-1]
    made = JointMoments(last.d_source, last.d_target, sum(part.count for part in parts))
    made.x, made.y, made.norm = last.x, last.y, last.norm
    for part, weight in zip(parts, weights or [1.0] * len(parts), strict=True):
        made.sxx.add_(part.sxx, alpha=weight)
        made.sxy.add_(part.sxy, alpha=weight)
        made.syy.add_(part.syy, alpha=weight)
        made.outside += weight * part.outside
    return made


@dataclass(frozen=True, eq=False)
class Split:
    """One fold left out: its number, all other rows, and its own rows of the last kind (`home`).

    What is scored on lies about the means of what is fitted on.
    """

    out: int
    train: JointMoments
    home: JointMoments


class Folds:
    """Joint moments kept apart by fold, so that any fold can be left out afterwards, and by kind.

    A fold is a group of prompts: rows of one prompt must carry one fold, or a prompt would judge
    the map that it fitted. A kind of row (a text span) is centred by itself: that the end of a
    prompt differs from its middle is so in every model, and would make all maps look alike. The
    last kind's means are those that a map's points are about, and maps are scored on its rows. No
    kind weighs more than it, measured by the target's variance: twenty words a prompt would else
    drown its end, which directions are carried at.
    """

    def __init__(self, d_source: int, d_target: int, folds: int = 4, kinds: int = 1) -> None:
        self.parts = [
            [JointMoments(d_source, d_target) for _ in range(kinds)] for _ in range(folds)
        ]

    def update(
        self,
        x: Float[Tensor, "n d_source"],
        y: Float[Tensor, "n d_target"],
        fold: Int[Tensor, " n"],
        kind: int = 0,
    ) -> None:
        """Add paired rows of one kind, each to its fold."""
        for number, part in enumerate(self.parts):
            part[kind].update(x[fold == number], y[fold == number])

    @property
    def whole(self) -> JointMoments:
        """All rows, each kind about its own mean."""
        return pooled([merged(kind) for kind in zip(*self.parts, strict=True)], self._weights)

    @property
    def last(self) -> JointMoments:
        """All rows of the last kind."""
        return merged([part[-1] for part in self.parts])

    def within(
        self, u: Float[Tensor, "d_source p"] | None, v: Float[Tensor, "d_target q"] | None
    ) -> "Folds":
        """The same folds in the coordinates along orthonormal columns (see `JointMoments`)."""
        if u is None and v is None:
            return self
        parts = [[kind.within(u, v) for kind in part] for part in self.parts]
        made = Folds(1, 1, len(parts), len(parts[0]))
        made.parts = parts
        return made

    @property
    def _weights(self) -> list[float]:
        """What a row of each kind counts: 1, or less where the kind varies more than the last."""
        kinds = [merged(kind) for kind in zip(*self.parts, strict=True)]
        spread = [float(kind.syy.trace()) + kind.outside for kind in kinds]
        return [min(1.0, spread[-1] / one) if one else 0.0 for one in spread]

    def splits(self) -> Iterator[Split]:
        """Every fold that can be left out, against the others.

        Raises `InputError` where rows or folds are too few.
        """
        filled = [part for part in self.parts if all(kind.count for kind in part)]
        rows = sum(kind.count for part in filled for kind in part)
        if len(filled) < 2 or rows < 8:
            raise InputError(
                f"{rows} rows in {len(filled)} folds are too few to choose a map's rank on: at "
                "least 8 rows in 2 folds"
            )
        weights = self._weights
        for number, out in enumerate(self.parts):
            if not any(out is part for part in filled):
                continue
            train = [
                merged(kind) for kind in zip(*(p for p in filled if p is not out), strict=True)
            ]
            yield Split(number, pooled(train, weights), out[-1].about(train[-1]))
