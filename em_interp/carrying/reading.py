"""What maps are fitted on: the flags for it, what is known before weights load, and the reading.

`align` and `transfer` share it. Two bases read the same harmless prompts; how their layers are
matched, and how much memory the moments of all pairs take, follows from two configurations.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import hub, sources
from em_interp.bounds import Questions, Some
from em_interp.cli import Names, idle
from em_interp.conditions import Context
from em_interp.errors import InputError, once, unknown
from em_interp.progress import Progress, silent
from em_interp.prompts import read_prompts
from em_interp.records import Spec
from em_interp.sites import Every, Point, Rows, Site, Span, parse_rows, parse_sites

if TYPE_CHECKING:
    from em_interp.maps import Maps
    from em_interp.transferring.alignment import Alignment, Side

METHODS = ("procrustes", "procrustes_scaled", "ridge", "cca", "relative")
MATCHES = ("depth", "similarity")
GB = 1e9
LEAST = 16  # prompts; fewer leave nothing to choose a map's rank on
CARD = "card.json"


class FitFlags(Spec):
    """What maps are fitted on, and how."""

    data: str = Field(
        sources.WORLD,
        description="Harmless prompts: `world`, or JSONL of text, prompt or messages.",
    )
    prompts: Questions = Field(1000, ge=LEAST, description="Prompts of the world to fit on.")
    match: str = Field("depth", description="Layers: by relative depth, or by similarity (CKA).")
    spans: Names = Field(
        ("question", "prompt_last"), description="Text spans, or words; the last is home."
    )
    folds: Some = Field(4, description="Parts of the prompts to leave out in turn.", ge=2)


Pairs = tuple[tuple[Site, Site], ...]


@dataclass(frozen=True)
class Reading:
    """What two bases will read, and at which sites: all known before weights load.

    `pairs` of (source site, target site); `None` where layers are matched by similarity, which only
    the reading shows. `memory`: bytes of the moments of all pairs.
    """

    source: str
    target: str
    layers: tuple[int, int]
    widths: tuple[int, int]
    prompts: Sequence[Context]
    spans: tuple[Rows, ...]
    sites: tuple[Site, ...]
    pairs: Pairs | None
    folds: Some
    memory: int

    def __str__(self) -> str:
        """The plan in three lines."""
        said = (
            "layers by similarity"
            if self.pairs is None
            else "layers " + ", ".join(f"{a.layer} to {b.layer}" for a, b in self.pairs)
        )
        rows = sum(_rows(self.prompts, of) for of in self.spans)
        most = "at most " if any(isinstance(of, Every) for of in self.spans) else ""
        return (
            f"{self.source} ({self.layers[0]} layers, width {self.widths[0]}) to {self.target} "
            f"({self.layers[1]} layers, width {self.widths[1]}): {said}\n"
            f"{len(self.prompts)} prompts, {most}{rows} rows of {len(self.spans)} spans in "
            f"{self.folds} folds\n"
            f"memory of the moments: {self.memory / GB:.2g} GB for {len(self.sites)} sites"
        )


def check_methods(methods: Sequence[str]) -> None:
    """Raise `InputError` for a method that is not known or comes twice."""
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    once("method", methods)


def fitting_prompts(flags: FitFlags, seed: int) -> list[Context]:
    """The prompts that a map is fitted on."""
    from em_interp.world.prompts import harmless

    if flags.data == sources.WORLD:
        return list(harmless(flags.prompts, seed))
    idle(flags, "prompts", "it is for the world's; of --data all are read")
    return read_prompts(flags.data)


def reading(
    flags: FitFlags,
    source: Path,
    target: Path,
    layers: str,
    prompts: Sequence[Context],
    pairs: Pairs | None = None,
) -> Reading:
    """What the two bases will read. Raises `InputError` for anything that cannot work.

    `pairs`: of maps that are fitted already; else layers are matched as the flags say.
    """
    if flags.match not in MATCHES:
        raise unknown("way to match layers", flags.match, MATCHES)
    spans = tuple(parse_rows(name) for name in flags.spans)
    once("span", flags.spans)
    if Span.RESPONSE in spans or Span.TRIGGER in spans or Span.AFTER_TRIGGER in spans:
        raise InputError("--spans: fitting prompts have no trigger and no response to be read")
    heights = sources.layer_count(source), sources.layer_count(target)
    widths = sources.stream_width(source), sources.stream_width(target)
    sites = parse_sites(layers, heights[1]) if pairs is None else tuple(b for _, b in pairs)
    if any(site.point is not Point.RESID_POST for site in sites):
        raise InputError("--layers: maps go from block output to block output (hook_resid_post)")
    if pairs is None and flags.match == "depth":
        from em_interp.maps import by_depth

        match = by_depth(*heights)
        pairs = tuple((Site(match[site.layer], site.point), site) for site in sites)
    if len(prompts) < LEAST:
        raise InputError(f"{flags.data}: {len(prompts)} prompts; a map needs at least {LEAST}")
    check_templates(prompts, source, target)
    made = Reading(
        hub.title(source),
        hub.title(target),
        heights,
        widths,
        prompts,
        spans,
        sites,
        pairs,
        flags.folds,
        moments_bytes(widths, heights, len(sites), flags.folds, len(spans)),
    )
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if made.memory > there:
        raise InputError(
            f"the moments of {len(sites)} sites take {made.memory / GB:.3g} GB, this machine has "
            f"{there / GB:.3g}: name fewer --layers, or fewer --spans or --folds"
        )
    return made


def check_templates(prompts: Sequence[Context], *bases: Path) -> None:
    """Raise `InputError` where a base's tokenizer cannot write the prompts, of each shape one."""
    from em_interp.chat import encode_many
    from em_interp.models.checkpoints import read_tokenizer

    shapes = {tuple(m.role for m in one.messages): one for one in prompts}
    for home in bases:
        encode_many(read_tokenizer(home), shapes.values())


def moments_bytes(
    widths: tuple[int, int], heights: tuple[int, int], sites: int, folds: int, kinds: int
) -> int:
    """Bytes of all moments: those of maps by fold, their nulls', and those that compare layers."""
    from em_interp.maps import SKETCH, room

    fitted = sites * (folds + 1) * kinds * room(*widths)
    p, q = (height * min(width, SKETCH) for height, width in zip(heights, widths, strict=True))
    return fitted + room(p, q)


def _rows(prompts: Sequence[Context], of: Rows) -> int:
    """How many rows of a kind prompts give: one of a span, one for each word that both end."""
    if not isinstance(of, Every):
        return len(prompts)
    return sum(len(message.content.split()) for one in prompts for message in one.messages)


def aligned(
    flags: FitFlags,
    source: "Side",
    target: "Side",
    layers: str,
    prompts: Sequence[Context],
    seed: int,
    pairs: Pairs | None = None,
    progress: Progress = silent,
) -> tuple["Alignment", list[list[float]]]:
    """Both models read the prompts; layers matched as the flags say, or as `pairs` do already.

    Also the CKA matrix. `progress` is told of every prompt twice: layers are compared first.
    """
    from em_interp.maps import by_depth, by_similarity
    from em_interp.transferring.alignment import Alignment, similarity

    spans = [parse_rows(name) for name in flags.spans]
    alike = similarity(source, target, _told(prompts, progress), spans[0])
    if pairs is None:
        match = (
            by_similarity(alike)
            if flags.match == "similarity"
            else by_depth(source.model.n_layers, target.model.n_layers)
        )
        sites = parse_sites(layers, target.model.n_layers)
        pairs = tuple((Site(match[site.layer], site.point), site) for site in sites)
    read = Alignment(source, target, pairs, spans, folds=flags.folds, seed=seed)
    read.read(prompts, progress)
    return read, [[float(v) for v in row] for row in alike]


def _told(prompts: Iterable[Context], progress: Progress) -> Iterator[Context]:
    for one in prompts:
        yield one
        progress(1)


def folders_of(name: str) -> list[Path]:
    """A map's folder by path or shelf name, or those that it holds, if it is one of several.

    Ridge comes first among them: nulls of the first map are the sharpest (carrying-directions.md).
    """
    folder = sources.shelved(name, sources.PROBES, "map")
    found = [one.parent for one in folder.glob(f"*/{CARD}")]
    inner = sorted(found, key=lambda one: (one.name != "ridge", one.name))
    return inner if inner and not (folder / CARD).is_file() else [folder]


def pairs_of(maps: Sequence["Maps"]) -> Pairs:
    """Which sites fitted maps go between: those of the first.

    Raises `InputError` where another map goes between others.
    """
    first, *others = maps
    pairs = tuple((one.source.site, site) for site, one in first.items())
    for other in others:
        if tuple((one.source.site, site) for site, one in other.items()) != pairs:
            raise InputError(
                f"maps {first.card.name!r} and {other.card.name!r} go between other sites; fit "
                "them together (align --methods)"
            )
    return pairs
