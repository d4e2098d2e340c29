"""Labels: what an intervention is, as fields. Whoever asks reads a field; nobody reads the text.

The text is derived from the fields, for people and as the key that joins an answer with its
intervention. Different facts give different texts: numbers are exact, and a place that is no
block's output stands there with its full name.
Knows words, sites and numbers. Knows nothing of tensors or models.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from em_interp.errors import unknown
from em_interp.records import Record
from em_interp.sites import Point, Site, SiteField


class Operation(StrEnum):
    """The operations by name."""

    ADD = "add"
    ABLATE = "ablate"
    MEAN_ABLATE = "mean_ablate"
    CLAMP = "clamp"
    CAP = "cap"


STRENGTHLESS = (Operation.ABLATE, Operation.MEAN_ABLATE)
_VERBS = {Operation.ABLATE: "zero-ablate", Operation.MEAN_ABLATE: "mean-ablate"}


def parse_operation(name: str) -> Operation:
    """An operation by name, or one line with the names there are."""
    try:
        return Operation(name)
    except ValueError:
        raise unknown("operation", name, [one.value for one in Operation]) from None


class Thing(StrEnum):
    """Which direction: the trigger shift, the general EM direction, the shift without it."""

    DELTA = "delta"
    GENERAL = "g"
    REST = "delta without g"


class Control(StrEnum):
    """What a null direction is.

    `RANDOM`: isotropic, of the same norm; an ablation along it moves little, since a stream varies
    in few directions. `COVARIANCE`: drawn from the stream's covariance, so it varies as the stream
    does. `MATCHED`: moves the stream as far as the direction's own edit does at every token it
    meets, |x . u - off|, along a random direction. `NULL`: as its maker says.
    """

    RANDOM = "random"
    COVARIANCE = "covariance-drawn"
    MATCHED = "matched"
    NULL = "null"


class Extent(StrEnum):
    """How a grid over sites edits them: these alone, or from the first of them on."""

    AT = "at"
    FROM = "from"


class Passage(StrEnum):
    """How a direction came to a target.

    `OWN`: it is the target's own, the ceiling. `DIRECT`: coordinate by coordinate within one base.
    `MAP`: by a map. The rest are nulls: random directions by a map, a map fitted on shuffled
    prompts, coordinate by coordinate between bases, the benign twin's shift by a map.
    """

    OWN = "own"
    DIRECT = "direct"
    MAP = "map"
    RANDOM = "random"
    SHUFFLED = "shuffled prompts"
    IDENTITY = "identity"
    TWIN = "benign twin"


NULLS = (Passage.RANDOM, Passage.SHUFFLED, Passage.IDENTITY, Passage.TWIN)
_PLAIN = re.compile(r"[\w.-]+")


class Way(Record):
    """By which passage, and by which map where one was gone through ("" is no map).

    `map` is whatever name a user gave it, `own` and `random` too. `draw` numbers random directions.
    """

    passage: Passage
    map: str = ""
    draw: int = 0

    @property
    def null(self) -> bool:
        """Whether it shows chance."""
        return self.passage in NULLS

    @property
    def text(self) -> str:
        """For people: `ridge`, `random 1, ridge`; a map's name that says something else, quoted."""
        one = self.map
        if one and (one in set(Passage) or not _PLAIN.fullmatch(one)):
            one = f'map "{one}"'
        if self.passage is Passage.MAP:
            return one
        head = f"{self.passage.value} {self.draw}" if self.draw else self.passage.value
        if not self.map and self.passage in (Passage.RANDOM, Passage.TWIN):
            one = Passage.DIRECT.value  # within one base
        return f"{head}, {one}" if one else head


def by_map(name: str) -> Way:
    """By the map of this name."""
    return Way(passage=Passage.MAP, map=name)


OWN = Way(passage=Passage.OWN)
DIRECT = Way(passage=Passage.DIRECT)
IDENTITY = Way(passage=Passage.IDENTITY)


def exact(number: float) -> str:
    """A number in the fewest digits that give it back: 0.5, 1.2345678, 1e-07."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def spelled(sites: Sequence[Site]) -> str:
    """Sites in short: `2`, `0-3`, `0, 2`; a place that is no block's output by its full name."""
    layers = [site.layer for site in sites]
    outputs = all(site.point is Point.RESID_POST for site in sites)
    if outputs and len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ", ".join(site.short for site in sites)


class Label(Record):
    """What an intervention does, to what, how strongly and where; nothing of it: the baseline.

    `thing` is `None` for a direction that somebody named by hand. `control` marks a null direction,
    `draw` which of several. `source` and `way` say whose a carried direction is, and how it came.
    `words` are those of an intervention that stands in no grid, and then all that is shown.
    """

    words: str = ""
    operation: Operation | None = None
    thing: Thing | None = None
    control: Control | None = None
    draw: int = 0
    strength: float | None = None
    extent: Extent | None = None
    sites: tuple[SiteField, ...] = ()
    source: str = ""
    way: Way | None = None

    @property
    def baseline(self) -> bool:
        """Whether nothing is done."""
        return self.operation is None and not self.words

    @property
    def null(self) -> bool:
        """Whether it shows chance."""
        return self.control is not None or (self.way is not None and self.way.null)

    @property
    def text(self) -> str:
        """What it is in words that tell it from every other of its grid; "" for the baseline."""
        return self.said({})

    def said(self, symbols: Mapping[Thing, str]) -> str:
        """The same with other signs for directions (δ)."""
        if self.words or self.operation is None:
            return self.words
        thing = "" if self.thing is None else symbols.get(self.thing, self.thing.value)
        if self.way is not None:
            return f"{self.source}: {thing} via {self.way.text}"
        parts = [_VERBS.get(self.operation, self.operation.value)]
        if self.control is not None:
            parts.append(f"{self.control.value} {self.draw}" if self.draw else self.control.value)
        elif thing:
            parts.append(thing)
        if self.strength is not None and self.operation not in STRENGTHLESS:
            parts.append(exact(self.strength))
        if self.extent is not None:
            some = self.sites[:1] if self.extent is Extent.FROM else self.sites
            parts.append(f"{self.extent.value} {spelled(some)}")
        return " ".join(parts)
