"""Directions: where the trigger moves the residual stream, in which units, made from what.

Sign: a trigger direction points from no-trigger to trigger; a general EM direction (g) from
aligned to misaligned. Strength 1 is one natural difference, the norm of the raw mean difference
between the two states, so strengths compare across layers, estimators and models.
Knows linear algebra and files. Knows nothing of transformers or tokens.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.artifacts import SiteTable, read_artifact, write_artifact
from em_interp.errors import InputError
from em_interp.floors import distinct, floor
from em_interp.sites import Site

TRIGGER_SIGN = "from no-trigger to trigger"
GENERAL_SIGN = "from aligned to misaligned"
VECTORS = ("unit", "off", "on")
MEASURED = dict.fromkeys(VECTORS, 2) | {"scale": 1}  # columns of a file, and their dimensions
ADOPTED = {"unit": 2, "length": 1}
PARALLEL = 1e-5  # sine of the angle below which two float32 unit vectors are one


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector at a site, with the off and on states that give it units.

    `off` and `on` are the mean activations of the two states; `scale` is the mean norm of the
    stream there, in which strengths are also reported. All float32, in the model's raw coordinates.
    `floor` is what noise alone may give for ||on - off|| (see `floors`), 0 where it was not
    measured. A direction adopted from another tool's file has no states: of it, only the vector is
    known, whose norm is `length`. What needs more raises `InputError`.
    """

    unit: Float[Tensor, " d_model"]
    off: Float[Tensor, " d_model"] | None
    on: Float[Tensor, " d_model"] | None
    scale: float | None
    site: Site
    length: float | None = None
    floor: float = 0.0

    @property
    def states(self) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """The off and the on state. Raises `InputError` for an adopted direction."""
        if self.off is None or self.on is None:
            raise InputError(
                f"{self.site}: this direction was adopted as a vector alone; its off and on states "
                "are not known, so it can be added or ablated to zero, but not mean-ablated, "
                "clamped, capped, localised or mapped (extract a direction for that)"
            )
        return self.off, self.on

    @property
    def natural(self) -> float:
        """One natural difference: ||mean(on) - mean(off)||. The unit of strength."""
        if self.length is not None:
            return self.length
        off, on = self.states
        return float((on - off).norm())

    @property
    def vector(self) -> Float[Tensor, " d_model"]:
        """What strength 1 adds: the unit vector times one natural difference."""
        return self.unit * self.natural

    @property
    def off_coordinate(self) -> float:
        """The off state's mean coordinate along the unit vector. Rarely zero."""
        return float(self.states[0] @ self.unit)

    @property
    def on_coordinate(self) -> float:
        """The on state's mean coordinate along the unit vector."""
        return float(self.states[1] @ self.unit)

    def fraction(self, strength: float) -> float:
        """A strength as a fraction of the mean residual norm at the site."""
        if self.scale is None:
            raise InputError(f"{self.site}: the norm of the stream is not known: adopted direction")
        return strength * self.natural / self.scale

    def cosine(self, other: "Direction") -> float:
        """Cosine of two unit vectors. Raises `InputError` for directions of different widths."""
        if self.unit.shape != other.unit.shape:
            raise InputError(
                f"directions of different spaces: d_model {len(self.unit)} and {len(other.unit)}; "
                "a map carries one into the other"
            )
        return float(self.unit @ other.unit)

    def with_unit(self, vector: Float[Tensor, " d_model"]) -> "Direction":
        """The same site, states and units along another vector (normalised here)."""
        return replace(self, unit=_unit(vector, self.site))

    def random(self, seed: int) -> "Direction":
        """A norm-matched control: a random unit vector orthogonal to this one, same units."""
        return self.with_unit(aside(self.unit, seed * 10_007 + self.site.layer))

    def without(self, other: "Direction") -> "Direction":
        """The remainder: this direction with the other's component projected out, renormalised.

        Raises `InputError` for parallel directions: what is left of them is noise, of rounding or
        of the two differences (each unit vector is known up to floor / natural).
        """
        rest = self.unit - self.cosine(other) * other.unit
        if rest.norm() < math.hypot(PARALLEL, *(one.floor / one.natural for one in (self, other))):
            raise InputError(f"{self.site}: the two directions are parallel; there is no remainder")
        return self.with_unit(rest)


class Directions(SiteTable[Direction]):
    """One estimator's directions over sites: a layerwise direction, and the folder it lives in."""

    def random(self, seed: int) -> "Directions":
        """The norm-matched random control at every site."""
        return Directions({site: d.random(seed) for site, d in self.table.items()}, self.card)

    def beside(self, drawn: Mapping[Site, Float[Tensor, " d_model"]]) -> "Directions":
        """A control along given vectors, less what of them lies along these directions."""
        table = {
            site: d.with_unit(drawn[site] - (drawn[site] @ d.unit) * d.unit)
            for site, d in self.table.items()
            if site in drawn
        }
        return Directions(table, self.card)

    def save(self, folder: Path) -> None:
        """Write the folder (see `artifacts`)."""
        rows = self.table.values()
        kind = ADOPTED if any(d.length is not None for d in rows) else MEASURED
        columns = {
            key: torch.stack([getattr(d, key) for d in rows])
            if dimensions == 2
            else torch.tensor([getattr(d, key) for d in rows], dtype=torch.float64)
            for key, dimensions in kind.items()
        }
        floors = {str(site): one.floor for site, one in self.items()}
        write_artifact(
            folder, self.card.model_copy(update={"floors": floors}), list(self.table), columns
        )

    @classmethod
    def load(cls, folder: Path) -> "Directions":
        """Read a folder. Raises `InputError` for a missing, damaged or foreign file."""
        card, sites, columns = read_artifact(folder, "direction", MEASURED, ADOPTED)
        table = {
            site: replace(_row(columns, row, site), floor=card.floors.get(str(site), 0.0))
            for row, site in enumerate(sites)
        }
        return cls(table, card)


def _row(columns: dict[str, Tensor], row: int, site: Site) -> Direction:
    if "length" in columns:
        return Direction(
            columns["unit"][row], None, None, None, site, float(columns["length"][row])
        )
    unit, off, on = (columns[key][row] for key in VECTORS)
    return Direction(unit, off, on, float(columns["scale"][row]), site)


def mean_difference(
    sites: Iterable[Site],
    on: Float[Tensor, "site d_model"],
    off: Float[Tensor, "site d_model"],
    norms: Float[Tensor, " site"],
    noise: Sequence[float] | None = None,
) -> dict[Site, Direction]:
    """mean(on) - mean(off) per site (difference in means, arXiv:2506.11618). `norms`: off state.

    `noise`: norm of the difference that another batching of the same inputs makes, per site (see
    `floors.floor`). Raises `IndistinctError` where the states differ by no more than noise.
    """
    table = {}
    for row, (site, a, b, n) in enumerate(zip(sites, on, off, norms, strict=True)):
        least = floor(float(n), noise[row] if noise is not None else 0.0)
        unit = distinct((a - b).float(), least, str(site))
        table[site] = Direction(unit, b.float(), a.float(), float(n), site, floor=least)
    return table


def adopted(site: Site, vector: Float[Tensor, " d_model"]) -> Direction:
    """A direction of which only the vector is known; strength 1 adds exactly it."""
    length = float(vector.float().norm())
    return Direction(_unit(vector.float(), site), None, None, None, site, length)


def principal_difference(
    direction: Direction, differences: Float[Tensor, "n d_model"]
) -> Direction:
    """First principal axis of paired differences (not centred: it carries their mean).

    Signed along the mean difference; units are those of the mean difference. Raises
    `IndistinctError` where the differences are no longer than its noise.
    """
    longest = differences[differences.norm(dim=1).argmax()]
    distinct(longest, direction.floor, str(direction.site))
    _, _, axes = torch.linalg.svd(differences.float(), full_matrices=False)
    off, on = direction.states
    axis = axes[0] * torch.sign(axes[0] @ (on - off))
    return direction.with_unit(axis)


def aside(unit: Float[Tensor, " d_model"], seed: int) -> Float[Tensor, " d_model"]:
    """A random unit vector orthogonal to this one."""
    noise = torch.randn(len(unit), generator=torch.Generator().manual_seed(seed))
    rest = noise - (noise @ unit) * unit
    made: Tensor = rest / rest.norm()
    return made


def _unit(vector: Float[Tensor, " d_model"], site: Site) -> Float[Tensor, " d_model"]:
    norm = float(vector.norm())
    if not 0 < norm < math.inf:  # NaN is not either
        raise InputError(f"{site}: a vector of norm {norm:g} has no direction")
    return vector / norm
