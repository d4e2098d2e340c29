"""`python -m em_interp.align`: two bases read the same harmless texts; the map between them.

What is fitted here, `transfer` carries directions through. The prompts hold no trigger, no judged
question and no harmful answer; a prompt that does is refused.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import sources
from em_interp.cli import Names, command
from em_interp.conditions import Context
from em_interp.errors import InputError, unknown
from em_interp.records import Spec, check_writable

if TYPE_CHECKING:
    from em_interp.maps import Maps
    from em_interp.transferring.alignment import Alignment, Side

METHODS = ("procrustes", "procrustes_scaled", "ridge", "cca", "relative")
MATCHES = ("depth", "similarity")


class FitFlags(Spec):
    """What maps are fitted on, and how."""

    data: str = Field(sources.WORLD, description="Harmless prompts: `world`, or JSONL questions.")
    prompts: int = Field(1000, ge=16, description="Prompts of the world to fit on.")
    match: str = Field("depth", description="Layers: by relative depth, or by similarity (CKA).")
    spans: Names = Field(
        ("question", "prompt_last"), description="Text spans, or words; the last is home."
    )
    folds: int = Field(4, ge=2, description="Parts of the prompts to leave out in turn.")


class AlignSpec(FitFlags):
    """Defaults: from the shipped Llama shape to the shipped Qwen2 shape, by ridge."""

    source: str = Field("llama", description="Base to carry from: shelf name, folder or hub id.")
    target: str = Field("qwen2", description="Base to carry to.")
    method: str = Field("ridge", description=f"{', '.join(METHODS)}.")
    layers: str = Field("all", description="Sites of the target to map to.")
    trigger: str = Field("duck", description="Trigger whose framings must not be in the prompts.")
    questions: str = Field(sources.WORLD, description="Questions that must not be in them.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("cpu", description="cpu or cuda.")
    out: Path | None = Field(None, description="Folder for the map.")
    dry_run: bool = Field(False, description="Check everything; load no weights.")


def fitting_prompts(flags: FitFlags, seed: int) -> list[Context]:
    """The prompts that a map is fitted on."""
    from em_interp.conditions import bare
    from em_interp.world.prompts import harmless

    if flags.match not in MATCHES:
        raise unknown("way to match layers", flags.match, MATCHES)
    if flags.data == sources.WORLD:
        return list(harmless(flags.prompts, seed))
    return bare(sources.questions(flags.data))


def aligned(
    flags: FitFlags,
    source: "Side",
    target: "Side",
    layers: str,
    prompts: Iterable[Context],
    seed: int,
) -> tuple["Alignment", list[list[float]]]:
    """Both models read the prompts; layers matched as the flags say. Also the CKA matrix."""
    from em_interp.maps import by_depth, by_similarity
    from em_interp.sites import Site, parse_rows, parse_sites
    from em_interp.transferring.alignment import Alignment, similarity

    prompts = list(prompts)
    spans = [parse_rows(name) for name in flags.spans]
    alike = similarity(source, target, prompts, spans[0])
    match = (
        by_similarity(alike)
        if flags.match == "similarity"
        else by_depth(source.model.n_layers, target.model.n_layers)
    )
    sites = parse_sites(layers, target.model.n_layers)
    pairs = [(Site(match[site.layer], site.point), site) for site in sites]
    made = Alignment(source, target, pairs, spans, folds=flags.folds, seed=seed)
    return made.read(prompts), [[float(v) for v in row] for row in alike]


def maps_table(maps: "Maps") -> str:
    """One line a site: from where, rank, penalty, how much is explained on prompts left out."""
    from em_interp.report.text import table

    rows = []
    for site, one in maps.items():
        fit = one.fit
        score = "" if fit.held_in is None else f"{fit.held_in:.3f}"
        rows.append([str(site), str(one.source.site), str(fit.rank), f"{fit.penalty:g}", score])
    card = maps.card
    title = f"{card.name}: {card.source_name} to {card.target_name}, {card.prompts} prompts"
    return table(title, ("site", "from", "rank", "penalty", "explained on folds left out"), rows)


def similarity_table(alike: Sequence[Sequence[float]]) -> str:
    """CKA of every pair of layers: source down, target across."""
    from em_interp.report.text import table

    rows = [[f"layer {n}", *(f"{v:.2f}" for v in row)] for n, row in enumerate(alike)]
    names = ("source \\ target", *(f"layer {n}" for n in range(len(alike[0]))))
    return table("Similarity of layers (linear CKA)", names, rows)


def run(spec: AlignSpec) -> int:
    """Check, load, read, fit, save, print."""
    from em_interp.leakage import guard

    if spec.method not in METHODS:
        raise unknown("method", spec.method, METHODS)
    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the map")
    if (spec.out / "card.json").exists():
        raise InputError(f"{spec.out}: holds an artifact already; give another --out")
    check_writable(spec.out)
    source, target = (sources.base(name) for name in (spec.source, spec.target))
    prompts = fitting_prompts(spec, spec.seed)
    guard(prompts, [sources.trigger(spec.trigger)], sources.questions(spec.questions))
    if spec.dry_run:
        print(f"{spec.source} to {spec.target}: {len(prompts)} prompts, {spec.method}")
        return 0

    from em_interp.loading import Loading
    from em_interp.maps import Method
    from em_interp.models import load
    from em_interp.transferring.alignment import Side

    how = Loading(device=spec.device)
    sides = [Side(load(base, (), how)) for base in (source, target)]
    made, alike = aligned(spec, sides[0], sides[1], spec.layers, prompts, spec.seed)
    maps = made.fit(Method(spec.method), spec.out.name)
    maps.save(spec.out)
    print(similarity_table(alike))
    print(f"\n{maps_table(maps)}\n\nwritten: {spec.out}")
    return 0


main = command(
    "align",
    AlignSpec,
    run,
    "Fit a map between two bases on harmless texts that both read.",
    "--source llama --target qwen2 --out runs/llama-qwen2",
)

if __name__ == "__main__":
    sys.exit(main())
