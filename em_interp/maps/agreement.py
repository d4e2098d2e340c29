"""Do two streams move together along two directions on the same texts? A correlation and its null.

A map of least distance sends leading axis to leading axis at full length, however little the two
have to do with each other, and a trigger direction often lies along the leading axis. So a cosine
between a carried direction and the target's own may be close to 1 where nothing was carried; it
knows of directions, and not of what the streams do. A direction that both models share is moved
along by the same texts, to the same side. Needs no map, only joint moments.
Knows moments and vectors. Knows nothing of maps or behaviour.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.maps.moments import JointMoments

NOISE = 1e-2  # share of the mean variance of an axis below which it tells no texts apart


class Agreement:
    """Correlations over the rows of some moments, beside those of random functions of the texts.

    A random function is a read-out w·x with w drawn from N(0, inverse covariance): of all functions
    of the texts that are linear in the stream, each as likely as any other. Draws from the
    covariance itself would be functions of its leading axes over and over, and isotropic ones
    nearly so. Axes of less than `NOISE` of the mean variance are damped.
    """

    def __init__(self, moments: JointMoments, draws: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._moments, self._draws = moments, draws
        self._x = _even(moments.sxx, draws, generator)
        self._y = _even(moments.syy, draws, generator)

    def of(
        self, ours: Float[Tensor, " d_source"], theirs: Float[Tensor, " d_target"]
    ) -> tuple[float, float]:
        """(correlation, p) of x along one direction and y along another; p is the larger of two.

        Each direction in turn is held against random functions of the other stream. One-sided:
        streams that move to opposite sides do not agree. 0 where one of them does not move.
        """
        m = self._moments
        x, y = ours.double() / _spread(ours, m.sxx), theirs.double() / _spread(theirs, m.syy)
        found = float(x @ m.sxy @ y)
        nulls = self._x @ (m.sxy @ y), self._y @ (m.sxy.T @ x)
        reached = max(int((null >= found).sum()) for null in nulls)
        return found, (reached + 1) / (self._draws + 1)


def _spread(direction: Float[Tensor, " d"], scatter: Float[Tensor, "d d"]) -> float:
    """Root of the sum of squares along a direction; infinite where there is none."""
    along = direction.double()
    return float(along @ scatter @ along) ** 0.5 or float("inf")


def _even(
    scatter: Float[Tensor, "d d"], draws: int, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Read-outs of unit spread, drawn from the inverse of a damped covariance."""
    floor = NOISE * float(scatter.diagonal().mean()) or 1.0
    factor = torch.linalg.cholesky(scatter + floor * torch.eye(len(scatter), dtype=scatter.dtype))
    noise = torch.randn(len(scatter), draws, generator=generator, dtype=torch.float64)
    drawn = torch.linalg.solve_triangular(factor.T, noise, upper=True).T
    spread = ((drawn @ scatter) * drawn).sum(1, keepdim=True).sqrt().clamp_min(1e-30)
    made: Tensor = drawn / spread
    return made
