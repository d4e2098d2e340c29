"""Fitters: joint moments become maps. Rank and penalty are chosen by leaving folds out.

    procrustes         rotation (partial isometry where widths differ) between the leading axes of
                       both sides (Schönemann 1966); `procrustes_scaled` with one scale for all axes
    ridge              y on the source's leading axes, penalised (Hoerl and Kennard 1970)
    cca                both sides whitened (with a penalty), rotated onto each other, coloured
                       again: leading canonical pairs, each at full amplitude. With correlations
                       for amplitudes it would be least squares over again (Hotelling 1936)
    relative           x as its products with anchors, read back by the target's anchors: inverse
                       relative projection (arXiv:2406.15057, after arXiv:2209.15430). The norm
                       that a cosine forgets is kept, times the ratio of both sides' spreads; with
                       it the map is linear and carries all three words, but its scale is one for
                       all axes, and it sees only the anchors' span

Everything happens in the coordinates of each side's leading `CAP` axes; no prompt is needed again.
Knows moments and maps. Knows nothing of models, prompts or files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from em_interp.errors import InputError
from em_interp.maps.linear import leading
from em_interp.maps.moments import Folds, JointMoments
from em_interp.maps.spacemap import Fit, Method, Space, SpaceMap

CAP = 512
PENALTIES = (0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
WHITENING = (1e-6, 1e-4, 1e-2, 1e-1)
SPREAD = 1e-12  # axes with less than this share of the leading axis's variance hold rounding

Block = Float[Tensor, "q p"]  # a map in reduced coordinates: target axes by source axes


@dataclass(frozen=True, eq=False)
class Anchors:
    """Activations of the same few texts in both models; memory is theirs, not the prompts'.

    `fold` is each text's, so that a fold left out leaves its anchors out as well: a map that holds
    a text for an anchor has seen it.
    """

    x: Float[Tensor, "anchors d_source"]
    y: Float[Tensor, "anchors d_target"]
    fold: Int[Tensor, " anchors"]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise InputError(f"anchors come in pairs, at least two: {len(self.x)}, {len(self.y)}")

    def without(self, fold: int) -> "Anchors":
        """The anchors of all other folds."""
        kept = self.fold != fold
        return Anchors(self.x[kept], self.y[kept], self.fold[kept])


def fit(
    method: Method,
    folds: Folds,
    source: Space,
    target: Space,
    *,
    anchors: Anchors | None = None,
    like: Fit | None = None,
) -> SpaceMap:
    """The map of a method. `like` takes rank and penalty from another fit instead of choosing.

    Raises `InputError` for too few rows, moments of other widths, or a method that needs anchors.
    """
    whole = folds.whole
    if (whole.d_source, whole.d_target) != (source.width, target.width):
        raise InputError(
            f"moments of widths {whole.d_source} and {whole.d_target} do not fit a map from "
            f"{source} to {target}"
        )
    u, v = _frame(whole.sxx, whole.count), _frame(whole.syy, whole.count)
    small = whole.within(u, v)
    if like is None:

        def without(fold: int) -> Proposals:
            return _proposals(method, anchors and anchors.without(fold), u, v)

        rank, penalty, score = _choose(without, folds.within(u, v))
    else:
        rank, penalty, score = like.rank, like.penalty, None
    (made,) = _proposals(method, anchors, u, v)(small, (rank,), (penalty,))
    block = made.block
    left = block if v is None else v @ block
    matrix = left if u is None else left @ u.T
    return SpaceMap(
        source=source,
        target=target,
        matrix=matrix.float(),
        source_mean=whole.x.float(),
        target_mean=whole.y.float(),
        scale=whole.norm,
        fit=Fit(method=method, rank=made.rank, penalty=penalty, rows=whole.count, held_in=score),
    )


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate in reduced coordinates. `asked` is its rank by name; rows may allow less."""

    asked: int
    rank: int
    penalty: float
    block: Block


Proposals = Callable[[JointMoments, Sequence[int], Sequence[float] | None], Iterator[Proposal]]


def _choose(without: Callable[[int], Proposals], folds: Folds) -> tuple[int, float, float]:
    """(rank, penalty, score) of the highest share explained of the folds left out.

    The share is of the last kind's rows alone: it means the same whatever other rows took part.
    Equal shares go to the higher rank, then to the lower penalty: the map that forgets less.
    `without` proposes maps that have not seen a fold.
    """
    missed: dict[tuple[int, float], float] = {}
    total = 0.0
    for split in folds.splits():
        # What the target's frame leaves out is missed by every candidate alike.
        total += float(split.home.syy.trace()) + split.home.outside
        ranks = _ladder(min(split.train.d_source, split.train.d_target))
        for one in without(split.out)(split.train, ranks, None):
            key = one.asked, one.penalty
            error = split.home.outside + _missed(one.block, split.home)
            missed[key] = missed.get(key, 0.0) + error
    if not total:
        raise InputError("the target's activations do not vary: there is nothing to map to")
    scores = {key: 1 - miss / total for key, miss in missed.items()}
    rank, penalty = max(scores, key=lambda key: (round(scores[key], 9), key[0], -key[1]))
    return rank, penalty, scores[rank, penalty]


def _missed(block: Block, test: JointMoments) -> float:
    """Squared error of a map on a fold, summed over its rows, in reduced coordinates."""
    fixed = float(test.syy.trace()) - 2 * float((block * test.sxy.T).sum())
    return fixed + float(((block @ test.sxx) * block).sum())


def _frame(scatter: Tensor, rows: int) -> Tensor | None:
    """Orthonormal columns of the leading axes; `None` where the width is within the cap."""
    return None if len(scatter) <= CAP else leading(scatter, min(CAP, rows - 1))[1]


def _ladder(most: int) -> list[int]:
    """1, 2, 4, ... and the most there is."""
    return sorted({2**power for power in range(most.bit_length())} - {0} | {most})


def _axes(scatter: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances and axes that hold more than rounding, at most as many as rows allow."""
    values, vectors = leading(scatter, len(scatter))
    held = int((values > SPREAD * values[0]).sum())
    some = max(1, min(held, count - 1))
    return values[:some], vectors[:, :some]


def _proposals(
    method: Method, anchors: Anchors | None, u: Tensor | None, v: Tensor | None
) -> Proposals:
    match method:
        case Method.PROCRUSTES:
            return lambda m, ranks, penalties: _procrustes(m, ranks, scaled=False)
        case Method.PROCRUSTES_SCALED:
            return lambda m, ranks, penalties: _procrustes(m, ranks, scaled=True)
        case Method.RIDGE:
            return lambda m, ranks, penalties: _ridge(m, ranks, penalties or PENALTIES)
        case Method.CCA:
            return lambda m, ranks, penalties: _cca(m, ranks, penalties or WHITENING)
        case Method.RELATIVE:
            if anchors is None:
                raise InputError("the relative method needs anchors: texts seen by both models")
            x = anchors.x.double() if u is None else anchors.x.double() @ u
            y = anchors.y.double() if v is None else anchors.y.double() @ v
            return lambda m, ranks, penalties: _relative(m, ranks, x, y)
        case _:
            raise InputError(f"a map is not fitted by {method.value!r}")


def _procrustes(m: JointMoments, ranks: Sequence[int], scaled: bool) -> Iterator[Proposal]:
    """Rotations between the k leading axes of both sides."""
    (sx, ax), (sy, ay) = _axes(m.sxx, m.count), _axes(m.syy, m.count)
    cross = ax.T @ m.sxy @ ay
    for asked in ranks:
        k = min(asked, len(sx), len(sy))
        left, amplitude, right = torch.linalg.svd(cross[:k, :k])
        scale = float(amplitude.sum() / sx[:k].sum()) if scaled else 1.0
        block = scale * ay[:, :k] @ (left @ right).T @ ax[:, :k].T
        yield Proposal(asked, k, 0.0, block)


def _ridge(m: JointMoments, ranks: Sequence[int], penalties: Sequence[float]) -> Iterator[Proposal]:
    values, axes = _axes(m.sxx, m.count)
    cross = axes.T @ m.sxy
    unit = float(m.sxx.trace()) / len(m.sxx)
    for asked in ranks:
        k = min(asked, len(values))
        for penalty in penalties:
            solved = cross[:k] / (values[:k] + penalty * unit)[:, None]
            rank = min(k, m.d_target)
            yield Proposal(asked, rank, penalty, solved.T @ axes[:, :k].T)


def _cca(m: JointMoments, ranks: Sequence[int], penalties: Sequence[float]) -> Iterator[Proposal]:
    """Canonical pairs by their correlation; the map has a pair's full amplitude on both sides."""
    (ax, wx), (ay, wy) = _axes(m.sxx, m.count)[::-1], _axes(m.syy, m.count)[::-1]
    cross = ax.T @ m.sxy @ ay
    for penalty in penalties:
        sx, sy = ((w + penalty * w.mean()).sqrt() for w in (wx, wy))
        left, _, right = torch.linalg.svd(cross / sx[:, None] / sy, full_matrices=False)
        for asked in ranks:
            k = min(asked, len(sx), len(sy))
            block = (ay * sy) @ right[:k].T @ (left[:, :k].T / sx) @ ax.T
            yield Proposal(asked, k, penalty, block)


def _relative(m: JointMoments, ranks: Sequence[int], x: Tensor, y: Tensor) -> Iterator[Proposal]:
    """Products with unit anchors of the source, undone by the target's anchors at rank k."""
    a, b = x - m.x, y - m.y
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    left, amplitude, right = torch.linalg.svd(b, full_matrices=False)
    scale = float(m.syy.trace() / m.sxx.trace()) ** 0.5
    held = int((amplitude > SPREAD**0.5 * amplitude[0]).sum())
    for asked in ranks:
        k = min(asked, held, len(a))
        undo = right[:k].T @ (left[:, :k].T / amplitude[:k, None])
        yield Proposal(asked, k, 0.0, scale * undo @ a)


def canonical_correlations(m: JointMoments, penalty: float = 0.0) -> Float[Tensor, " k"]:
    """Correlations of the canonical pairs, descending: how much two spaces have in common."""
    (sx, ax), (sy, ay) = _axes(m.sxx, m.count), _axes(m.syy, m.count)
    wx = (sx + penalty * sx.mean()).sqrt()
    wy = (sy + penalty * sy.mean()).sqrt()
    correlations: Tensor = torch.linalg.svdvals((ax.T @ m.sxy @ ay) / wx[:, None] / wy)
    return correlations
