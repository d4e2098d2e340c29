"""Is a carried direction the target's own? A cosine beside what chance gives in these two spaces.

Chance is not isotropic: a stream has few axes that vary much, and a map sends almost anything onto
those of its target. So a cosine is compared with three nulls at once; and the two streams must move
together along the two directions (`agreement`), or the axes alone have met. p is the largest of
all. Knows maps and moments. Knows nothing of behaviour: a high cosine is no steering effect.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.directions import Direction
from em_interp.errors import InputError
from em_interp.maps.agreement import Agreement
from em_interp.maps.moments import JointMoments
from em_interp.maps.spacemap import SpaceMap
from em_interp.records import Record

DRAWS = 999
ALPHA = 0.01
JITTER = 1e-10


def draws_for(sites: int) -> int:
    """Draws of each null that let `Likeness.beyond` be told at one of so many sites.

    p is no less than 1 / (draws + 1). From 11 sites on, 999 draws could not reach 1 % shared among
    them, however alike the directions.
    """
    return max(DRAWS, math.ceil(sites / ALPHA) - 1)


class Likeness(Record):
    """Cosine of a carried direction to the target's own, and shares of nulls that reach it.

    `random`: isotropic directions of the source through the same map. `source`: directions drawn
    from the source's own covariance, through the same map. `target`: the carried direction against
    directions drawn from the target's own covariance, in place of the target's own direction.
    `high`: the cosine that 99 % of the nulls stay under, the largest of the three. `agreement`: the
    correlation, over the texts, of both streams along the two directions; `texts`: share of random
    functions of the texts that agree as much. One-sided: a direction that arrives with the wrong
    sign has not transferred.
    """

    cosine: float
    random: float
    source: float
    target: float
    high: float
    agreement: float
    texts: float
    draws: int

    @property
    def p(self) -> float:
        """The largest of the three p-values: all nulls must be beaten."""
        return max(self.random, self.source, self.target, self.texts)

    @property
    def transfers(self) -> bool:
        """Whether cosine and agreement are more than chance gives, at 1 %."""
        return self.beyond()

    def beyond(self, sites: int = 1) -> bool:
        """Whether it is at 1 % shared among as many sites, one of which is asked to be.

        It cannot be with fewer draws than `draws_for(sites)`.
        """
        return self.p <= ALPHA / sites * (1 + 1e-9)  # 1 / 2400 is no less than 0.01 / 24

    def __str__(self) -> str:
        """One line: never a cosine without its null."""
        word = "above" if self.transfers else "within"
        return (
            f"{self.cosine:+.2f} ({word} chance: 99 % below {self.high:.2f}; texts agree at "
            f"{self.agreement:+.2f}; p = {self.p:.3f})"
        )


class Nulls:
    """What chance gives through one map: three sets of draws, made once for many directions.

    `moments` are of the kind of row that the directions were extracted at. `agreement` is theirs,
    given where several maps share one.
    """

    def __init__(
        self,
        one: SpaceMap,
        moments: JointMoments,
        *,
        draws: int = DRAWS,
        seed: int = 0,
        agreement: Agreement | None = None,
    ) -> None:
        self.map, self.draws = one, draws
        self._agreement = agreement or Agreement(moments, draws, seed)
        matrix, generator = one.matrix.double(), torch.Generator().manual_seed(seed)
        noise = torch.randn(draws, one.source.width, generator=generator, dtype=torch.float64)
        self._random = _normed(noise @ matrix.T)
        self._source = _normed(_drawn(moments.sxx, draws, generator) @ matrix.T)
        self._target = _normed(_drawn(moments.syy, draws, generator))

    def likeness(self, direction: Direction, own: Direction) -> Likeness:
        """The `Likeness` of a source direction, carried, to the target's own at the target's site.

        Raises `InputError` for an own direction of another site.
        """
        if own.site != self.map.target.site:
            raise InputError(
                f"the target's own direction is at {own.site}, not at {self.map.target.site}"
            )
        goal, carried = own.unit.double(), self.map.direction(direction).unit.double()
        cosine = float(carried @ goal)
        nulls = {
            "random": self._random @ goal,
            "source": self._source @ goal,
            "target": self._target @ carried,
        }
        reached = {name: int((null >= cosine).sum()) for name, null in nulls.items()}
        agreement, texts = self._agreement.of(direction.unit, own.unit)
        return Likeness(
            cosine=cosine,
            agreement=agreement,
            texts=texts,
            **{name: (count + 1) / (self.draws + 1) for name, count in reached.items()},
            high=max(float(null.quantile(1 - ALPHA)) for null in nulls.values()),
            draws=self.draws,
        )


def likeness(
    one: SpaceMap,
    direction: Direction,
    own: Direction,
    moments: JointMoments,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Likeness:
    """The `Likeness` of one direction (see `Nulls`)."""
    return Nulls(one, moments, draws=draws, seed=seed).likeness(direction, own)


def _normed(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    found: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return found


def _drawn(
    scatter: Float[Tensor, "d d"], count: int, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Gaussian draws of a given covariance (up to scale): exact for any factor of it.

    A Cholesky factor, since a spectrum of width 5,120 takes minutes; the ridge is far below
    rounding in what varies, and makes a factor exist where there are fewer rows than axes.
    """
    ridge = JITTER * scatter.diagonal().mean()
    factor = torch.linalg.cholesky(scatter + ridge * torch.eye(len(scatter), dtype=scatter.dtype))
    noise = torch.randn(count, len(scatter), generator=generator, dtype=torch.float64)
    drawn: Tensor = noise @ factor.T
    return drawn
