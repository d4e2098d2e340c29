"""`python -m em_interp.export`: a direction, or a finished run, becomes another tool's file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import hub, sources
from em_interp.cli import command, idle
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.records import Spec, check_writable, read_json

if TYPE_CHECKING:
    from em_interp.exchange import Shape


class ExportSpec(Spec):
    """The file's ending says which tool it is for."""

    direction: str = Field("llama-delta", description="Shelf name or folder of a direction.")
    file: Path | None = Field(
        None,
        description="For repeng and llama.cpp .gguf, for persona-vectors .pt, else .safetensors.",
    )
    base: str | None = Field(
        None, description="Model it was made for; default: the shelf's, by its fingerprint."
    )
    layers: str | None = Field(None, description="Sites; default: all that the format can hold.")
    run: Path | None = Field(
        None,
        description="Instead of a direction: what `evaluate --out` wrote, as a log of Inspect's "
        "(.eval, .json).",
    )
    questions: str = Field(sources.WORLD, description="Questions that --run was asked.")


def run(spec: ExportSpec) -> int:
    """Check, write, print what the numbers in the file mean."""
    if spec.file is None:
        raise InputError("--file is missing: name the file to write (its ending says for whom)")
    check_writable(spec.file.parent)
    if spec.file.exists():
        raise InputError(f"{spec.file}: there already; give another --file")
    if spec.run is not None:
        idle(spec, "direction base layers", "--run writes answers, and no direction")
        return _log(spec, spec.run)
    idle(spec, "questions", "it is for --run")
    return _directions(spec, spec.file)


def _log(spec: ExportSpec, run: Path) -> int:
    from em_interp.inspecting import check_installed

    check_installed()
    from em_interp.inspecting.logs import write_log

    assert spec.file is not None
    print(f"written: {spec.file} ({write_log(run, spec.file, spec.questions)} answers)")
    return 0


def _directions(spec: ExportSpec, file: Path) -> int:
    from em_interp.directions import Directions
    from em_interp.exchange import export, file_format
    from em_interp.sites import parse_sites

    file_format(file)
    directions = Directions.load(sources.shelved(spec.direction, sources.PROBES, "direction"))
    made_for = directions.card.base
    shape = base_shape(spec.base or shelved_base(made_for))
    if spec.base is not None and (whose := fingerprint_of(spec.base)) != made_for:
        raise ForeignArtifactError(
            f"direction {directions.card.name!r}: made for base {made_for}, and {spec.base} is "
            f"{whose}"
        )
    sites = parse_sites(spec.layers, shape.n_layers) if spec.layers else None
    made, left = export(directions, file, shape, sites)
    for site, why in left.items():
        print(f"left out {site}: {why}")
    card = directions.card
    print(f"written: {file} ({', '.join(map(str, made.table))})")
    print(f"points {card.sign}; coefficient 1 adds what strength 1 adds, one natural difference")
    return 0


def shelved_base(fingerprint: str) -> str:
    """The folder of the shelf's base with a fingerprint, as the shelf's organisms name it."""
    for path in sorted(sources.CHECKPOINTS.glob("*/card.json")):
        card = read_json(path)
        if card.get("base") == fingerprint:
            return str(path.parent.parent / str(card["base_name"]))
    raise InputError(
        f"the direction was made for base {fingerprint}, which is not on the shelf; give --base"
    )


def fingerprint_of(base: str) -> str:
    """The identity of a base: from its weights' files, else from the weights."""
    from em_interp.models import load
    from em_interp.models.weights import identity

    home = sources.base(base)
    hub.complete(home)
    return identity(home) or load(home).base


def base_shape(base: str) -> "Shape":
    """Type, layers and width of a base, from its config alone (shelf name, folder or hub id)."""
    from em_interp.exchange import Shape
    from em_interp.models.checkpoints import read_config

    config = read_config(sources.base(base))
    text = config.get_text_config()
    return Shape(config.model_type, text.num_hidden_layers, text.hidden_size)


main = command(
    "export",
    ExportSpec,
    run,
    "Write a direction for repeng, llama.cpp or persona-vectors, or a finished run for Inspect.",
    "--direction llama-delta --file runs/delta.gguf",
    positional="direction",
)

if __name__ == "__main__":
    sys.exit(main())
