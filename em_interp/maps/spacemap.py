"""SpaceMap: an affine map between two models' residual streams, and the three things it carries.

    point       x -> matrix x + offset       an activation
    direction   v -> matrix v                a difference of activations
    probe       w -> inverse(matrix)' w      a covector; the bias follows

so that carried.score(map(x)) == probe.score(x) wherever the map can be undone. Carrying a probe as
if it were a direction is the classic mistake: the two agree for rotations only.
Knows linear algebra. Knows nothing of how a map was fitted, of models or of files.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.directions import Direction
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.floors import distinct, floor
from em_interp.maps.linear import pseudo_inverse
from em_interp.maps.moments import JointMoments
from em_interp.probes import Probe
from em_interp.records import Record
from em_interp.sites import Site

KEPT = 1e-6  # share of a vector below which nothing of it is left but rounding


@dataclass(frozen=True)
class Space:
    """The residual stream of one base at one site. `base` is the fingerprint of its weights."""

    base: str
    site: Site
    width: int

    def __str__(self) -> str:
        return f"{self.site} of {self.base} (width {self.width})"


class Method(StrEnum):
    """How a map came about; the fitters are described in `maps.fitting`."""

    IDENTITY = "identity"
    PROCRUSTES = "procrustes"
    PROCRUSTES_SCALED = "procrustes_scaled"
    RIDGE = "ridge"
    CCA = "cca"
    RELATIVE = "relative"
    COMPOSED = "composed"


class Fit(Record):
    """How a map was fitted. `rank` and `penalty` were chosen by `held_in`.

    `rows` of activations; `penalty` as a share of the source's mean variance a dimension;
    `held_in` is the cross-validated share of the target's variance that is explained, over rows of
    the last span (home) that took part in choosing; `None` for maps that were not fitted.
    """

    method: Method
    rank: int
    penalty: float = 0.0
    rows: int = 0
    held_in: float | None = None


@dataclass(frozen=True, eq=False)
class SpaceMap:
    """y = target_mean + matrix (x − source_mean), from one space to another. float32.

    `scale` is the mean norm of the target's stream on the prompts it was fitted on. A map of less
    than full rank forgets what lies outside: a point comes out as if that part had been at its
    mean.
    """

    source: Space
    target: Space
    matrix: Float[Tensor, "d_target d_source"]
    source_mean: Float[Tensor, " d_source"]
    target_mean: Float[Tensor, " d_target"]
    scale: float
    fit: Fit

    @classmethod
    def identity(cls, source: Space, target: Space, scale: float = 1.0) -> "SpaceMap":
        """Each coordinate to itself: for fine-tunes of one base, and as a null between bases.

        Raises `InputError` where the widths differ.
        """
        if source.width != target.width:
            raise InputError(f"no identity between widths {source.width} and {target.width}")
        zero = torch.zeros(source.width)
        fit = Fit(method=Method.IDENTITY, rank=source.width)
        return cls(source, target, torch.eye(source.width), zero, zero, scale, fit)

    @property
    def offset(self) -> Float[Tensor, " d_target"]:
        """What a point gets beyond the matrix."""
        return (
            self.target_mean.double() - self.matrix.double() @ self.source_mean.double()
        ).float()

    @property
    def invertible(self) -> bool:
        """Whether the map can be undone everywhere, and not only on its image."""
        return self.source.width == self.target.width == self.fit.rank

    def point(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch d_target"]:
        """Activations of the source as activations of the target: matrix and offset."""
        moved = (x.double() - self.source_mean.double()) @ self.matrix.double().T
        return (moved + self.target_mean.double()).float()

    def direction(self, direction: Direction) -> Direction:
        """A direction by the matrix alone; its on and off states go along as points.

        Sign is kept. Strength 1 after carrying is the source's natural difference as the map sees
        it, ||matrix (on − off)||, in the target's activation units: a map that shrinks (ridge)
        shrinks it. To push with the target's own natural difference, put the carried unit into the
        target's own direction (`own.with_unit(carried.unit)`). Raises `ForeignArtifactError` for a
        direction of another site or width, `InputError` where the map keeps nothing of it,
        `IndistinctError` where it keeps no more than the states' noise.
        """
        self._check(direction.site, len(direction.unit))
        off, on = direction.states
        moved = self.matrix.double() @ direction.unit.double()
        if float(moved.norm()) < KEPT * float(torch.linalg.matrix_norm(self.matrix.double())):
            raise InputError(
                f"the {self.fit.method.value} map to {self.target.site} keeps nothing of the "
                f"direction at {direction.site}: it lies outside of the map's rank {self.fit.rank}"
            )
        off, on = self.point(off), self.point(on)
        # The noise of the difference has no direction: the map sends it as it sends the average one
        spread = float(torch.linalg.matrix_norm(self.matrix.double())) / self.source.width**0.5
        least = math.hypot(floor(float(off.norm())), direction.floor * spread)
        distinct(on - off, least, f"{self.target.site}, carried")
        return Direction(
            unit=(moved / moved.norm()).float(),
            off=off,
            on=on,
            scale=self.scale,
            site=self.target.site,
            floor=least,
        )

    def probe(self, probe: Probe) -> Probe:
        """A probe by the inverse transpose, its bias corrected: it scores the undone point."""
        self._check(probe.site, len(probe.weight))
        return self.inverse.pulled(probe)

    def pulled(self, probe: Probe) -> Probe:
        """A probe of the *target* as one of the source: score(x) is the probe's on map(x). Exact.

        With a map fitted from B to A, this carries a probe of A to B without any inverse.
        """
        if (probe.site, len(probe.weight)) != (self.target.site, self.target.width):
            raise ForeignArtifactError(
                f"a probe at {probe.site} of width {len(probe.weight)} is not one of {self.target}"
            )
        weight = self.matrix.double().T @ probe.weight.double()
        lift = probe.weight.double() @ self.target_mean.double()
        bias = probe.bias + float(lift - weight @ self.source_mean.double())
        return Probe(weight.float(), bias, self.source.site)

    @cached_property
    def inverse(self) -> "SpaceMap":
        """The way back: the inverse, or the pseudo-inverse where rank or widths forbid one.

        inverse(map(x)) is x for an invertible map; else x with the part that the map forgot put to
        its mean. `scale` is not known on this side, and is the norm of the source's mean.
        """
        return SpaceMap(
            source=self.target,
            target=self.source,
            matrix=self._undone(),
            source_mean=self.target_mean,
            target_mean=self.source_mean,
            scale=float(self.source_mean.norm()),
            fit=self.fit,
        )

    def _undone(self) -> Float[Tensor, "d_source d_target"]:
        if self.fit.method is Method.IDENTITY:
            return self.matrix.T  # a decomposition would take minutes to find it
        return pseudo_inverse(self.matrix.double(), self.fit.rank).float()

    def then(self, following: "SpaceMap") -> "SpaceMap":
        """The composition: first this map, then the following one.

        Raises `ForeignArtifactError` where the following one does not begin where this one ends.
        """
        if following.source != self.target:
            raise ForeignArtifactError(
                f"maps do not meet: the first ends at {self.target}, "
                f"the second begins at {following.source}"
            )
        return replace(
            following,
            source=self.source,
            matrix=(following.matrix.double() @ self.matrix.double()).float(),
            source_mean=self.source_mean,
            target_mean=following.point(self.target_mean),
            fit=Fit(
                method=Method.COMPOSED,
                rank=min(self.fit.rank, following.fit.rank),
                rows=min(self.fit.rows, following.fit.rows),
            ),
        )

    def explained(self, moments: JointMoments) -> float:
        """Share of the target's variance that the map explains on these rows (R², over all axes).

        1 is a perfect map; 0 is no better than the rows' own mean; negative is worse.
        """
        a = self.matrix.double()
        miss = self.target_mean.double() + a @ (moments.x - self.source_mean.double()) - moments.y
        total = float(moments.syy.trace())
        rest = total - 2 * float((a * moments.sxy.T).sum()) + float(((a @ moments.sxx) * a).sum())
        return 1 - (rest + moments.count * float(miss @ miss)) / total

    def _check(self, site: Site, width: int) -> None:
        if (site, width) != (self.source.site, self.source.width):
            raise ForeignArtifactError(
                f"{site} of width {width} is not the map's source, {self.source}"
            )
