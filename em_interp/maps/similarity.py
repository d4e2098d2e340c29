"""Similarity of layers: linear CKA from moments, and which layer of one model is which of another.

Knows moments and layers. Knows nothing of models or maps.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from em_interp.errors import InputError
from em_interp.maps.moments import JointMoments

SKETCH = 128


def cka(moments: JointMoments) -> float:
    """Linear centred kernel alignment (arXiv:1905.00414): ||Sxy||² / (||Sxx|| ||Syy||), Frobenius.

    In [0, 1]; blind to rotation and to one scale, not to the variance of an axis. With fewer rows
    than dimensions unrelated spaces score well above 0, so compare it, or subtract what shuffled
    rows give.
    """
    bottom = float(torch.linalg.matrix_norm(moments.sxx) * torch.linalg.matrix_norm(moments.syy))
    if not bottom:
        raise InputError("similarity of spaces without variance: all rows are equal")
    return float(torch.linalg.matrix_norm(moments.sxy)) ** 2 / bottom


def sketch(x: Float[Tensor, "n layer d_model"], seed: int) -> Float[Tensor, "n wide"]:
    """Every layer on `SKETCH` random axes (itself where it is no wider), layers side by side.

    Keeps inner products in expectation (Johnson and Lindenstrauss), so that the joint moments of
    all pairs of layers fit in memory whatever the width.
    """
    width = x.shape[-1]
    if width > SKETCH:
        generator = torch.Generator().manual_seed(seed)
        axes = torch.randn(width, SKETCH, generator=generator, dtype=torch.float64)
        x = x.double() @ axes / SKETCH**0.5
    return rearrange(x, "n layer wide -> n (layer wide)")


def cka_matrix(moments: JointMoments, widths: tuple[int, int]) -> Float[Tensor, "source target"]:
    """CKA of every pair of layers, from the moments of sketched layers (see `sketch`).

    `widths` are the models' own. Random axes inflate the norm of a layer's own scatter by what
    they overlap; the inflation is known for Gaussian axes, and is taken out.
    """
    p, q = (min(width, SKETCH) for width in widths)
    cross = _blocks(moments.sxy, p, q).pow(2).sum(dim=(2, 3))
    own = []
    for scatter, kept, width in ((moments.sxx, p, widths[0]), (moments.syy, q, widths[1])):
        blocks = torch.stack(list(_blocks(scatter, kept, kept).diagonal(dim1=0, dim2=1).unbind(-1)))
        square = blocks.pow(2).sum(dim=(1, 2))
        if width > SKETCH:
            # For W the sketch of S: E |W|² = (1 + 1/m) |S|² + tr(S)²/m,
            # and E tr(W)² = tr(S)² + 2 |S|²/m.
            m, trace = kept, blocks.diagonal(dim1=1, dim2=2).sum(-1)
            square = (square - trace.pow(2) / m) * m**2 / ((m - 1) * (m + 2))
        own.append(square.sqrt())
    return (cross / (own[0][:, None] * own[1])).float()


def _blocks(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The blocks of a matrix: down, across, row, column."""
    blocks = "(down row) (across column) -> down across row column"
    return rearrange(matrix, blocks, row=rows, column=columns)


def by_depth(source_layers: int, target_layers: int) -> list[int]:
    """For each target layer, the source layer at the same relative depth."""
    most = max(target_layers - 1, 1)
    return [round(layer / most * (source_layers - 1)) for layer in range(target_layers)]


def by_similarity(similarity: Float[Tensor, "source target"]) -> list[int]:
    """For each target layer a source layer, never going back, with the highest sum of similarity.

    Monotone: computation has an order, and a deep layer that happens to resemble an early one is
    not its counterpart. Ties go to the earlier layer.
    """
    best = similarity[:, 0].double()
    back: list[list[int]] = []
    for column in similarity.double().T[1:]:
        peak, at, came = -torch.inf, 0, []
        score = torch.empty_like(best)
        for layer, value in enumerate(best.tolist()):
            if value > peak:
                peak, at = value, layer
            came.append(at)
            score[layer] = peak + column[layer]
        best = score
        back.append(came)
    path = [int(best.argmax())]
    for came in reversed(back):
        path.append(came[path[-1]])
    return path[::-1]
