"""`python -m em_interp.align`: two bases read the same harmless texts; the maps between them.

What is fitted here, `transfer` carries directions through. The prompts hold no trigger, no judged
question and no harmful answer; a prompt that does is refused.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import sources
from em_interp.bounds import Seed
from em_interp.carrying.reading import (
    METHODS,
    FitFlags,
    aligned,
    check_methods,
    fitting_prompts,
    reading,
)
from em_interp.cli import Names, command
from em_interp.errors import InputError
from em_interp.flags import LoadingFlags, ready
from em_interp.leakage import guard
from em_interp.progress import bar
from em_interp.records import check_writable

if TYPE_CHECKING:
    from em_interp.maps import Maps


class AlignSpec(LoadingFlags, FitFlags):
    """Defaults: from the shipped Llama shape to the shipped Qwen2 shape, by ridge."""

    source: str = Field(
        "llama",
        description="Base or organism to carry from: shelf name, folder or hub id (or "
        "id@revision). An organism's prompts are read under its adapter.",
    )
    source_base: str | None = Field(
        None, description="The source's base, where its adapter does not name it."
    )
    target: str = Field("qwen2", description="Base or organism to carry to.")
    target_base: str | None = Field(
        None, description="The target's base, where its adapter does not name it."
    )
    methods: Names = Field(
        ("ridge",),
        description=f"{', '.join(METHODS)}. Several share one reading, with a folder each.",
    )
    layers: str = Field("all", description="Sites of the target to map to.")
    trigger: Names = Field(
        ("duck",), description="Triggers (names or YAML) whose framings must not be in the prompts."
    )
    questions: str = Field(sources.WORLD, description="Questions that must not be in them.")
    seed: Seed = Field(0, description="Seed of everything random.")
    out: Path | None = Field(
        None, description="Folder for the map; for several methods, of a folder each."
    )
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )


def run(spec: AlignSpec) -> int:
    """Check, load, read, fit, save, print."""
    how = spec.loading
    check_methods(spec.methods)
    folders = _folders(spec)
    whom = [
        sources.subject(spec.source, spec.source_base),
        sources.subject(spec.target, spec.target_base),
    ]
    if whom[0].base.resolve() == whom[1].base.resolve():
        raise InputError(
            f"--source and --target have one base, {whom[0].base.name}: within it a direction goes "
            "directly, without a map"
        )
    prompts = fitting_prompts(spec, spec.seed)
    woken = [sources.trigger(name) for name in spec.trigger]
    woken += [who.trigger for who in whom if who.trigger]
    guard(prompts, woken, sources.questions(spec.questions))
    made = reading(spec, whom[0].base, whom[1].base, spec.layers, prompts)
    both = [ready([who], how, None) for who in whom]
    if both[0].base and both[0].base == both[1].base:
        raise InputError(
            "--source and --target are one base (the same weights): within it a direction goes "
            "directly, without a map"
        )
    if spec.dry_run:
        print(f"{made}\n{', '.join(spec.methods)}: {', '.join(map(str, folders.values()))}")
        return 0

    from em_interp.maps import Method
    from em_interp.report.maps_text import maps_table, similarity_table
    from em_interp.transferring.alignment import Side

    sides = [Side(one.load(), who.active) for one, who in zip(both, whom, strict=True)]
    if sides[0].model.base == sides[1].model.base:
        raise InputError(
            "--source and --target are one base (the same weights): within it a direction goes "
            "directly, without a map"
        )
    with bar("reading prompts", 2 * len(prompts)) as progress:
        read, alike = aligned(
            spec, sides[0], sides[1], spec.layers, prompts, spec.seed, made.pairs, progress
        )
    print(similarity_table(alike))
    for method, folder in folders.items():
        maps = _noted(read.fit(Method(method), folder.name), whom)
        maps.save(folder)
        print(f"\n{maps_table(maps)}\n\nwritten: {folder}")
    return 0


def _folders(spec: AlignSpec) -> dict[str, Path]:
    """Where each method's map goes: `--out` itself, or a folder of its own in it."""
    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the map")
    check_writable(spec.out)
    found = {name: spec.out / name for name in spec.methods}
    if len(spec.methods) == 1:
        found = {spec.methods[0]: spec.out}
    for folder in (spec.out, *found.values()):
        if (folder / "card.json").exists():
            raise InputError(f"{folder}: holds an artifact already; give another --out")
    return found


def _noted(maps: "Maps", whom: Sequence[sources.Subject]) -> "Maps":
    """Maps whose card says under which adapters the prompts were read."""
    notes = tuple(
        f"the {side}'s rows were read under adapter {who.name}"
        for side, who in zip(("source", "target"), whom, strict=True)
        if who.active
    )
    return replace(maps, card=maps.card.model_copy(update={"notes": notes}))


main = command(
    "align",
    AlignSpec,
    run,
    "Fit maps between two bases on harmless texts that both read.",
    "--source llama --target qwen2 --out runs/llama-qwen2",
)

if __name__ == "__main__":
    sys.exit(main())
