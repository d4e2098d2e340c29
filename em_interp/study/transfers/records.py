"""What a transfer study's stages find, each a frozen record in a file of its own."""

from em_interp.containment import Containment
from em_interp.maps.shelf import Leg
from em_interp.records import Record
from em_interp.transferring import Transfer
from em_interp.transferring.ways import Alike


class Held(Record):
    """What a group has to carry, site by site: cosine of delta and g, and natural differences.

    Differences are fractions of the mean residual norm. The directions stand in the run's folder.
    """

    group: str
    delta_g: dict[str, float]
    delta: dict[str, float]
    general: dict[str, float]


class Crossing(Record):
    """From one base to another: CKA of their layers (source by target), maps, and likenesses.

    `maps`: the legs of every map by name, the first the one that nulls go through. `alike`: by the
    source's group, then the target's organism.
    """

    source: str
    target: str
    cka: tuple[tuple[float, ...], ...]
    prompts: int
    rows: int
    maps: dict[str, tuple[Leg, ...]]
    nulls: tuple[str, ...]
    alike: dict[str, dict[str, Alike]]


class Column(Record):
    """Everything carried into one organism, and how contained it is by itself."""

    group: str
    role: str
    transfer: Transfer
    containment: Containment
