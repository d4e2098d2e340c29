"""`python -m em_interp.adopt`: another tool's file becomes a direction of ours.

Not "import", which Python keeps for itself, nor "convert": such files do not say which way they
point or whose they are, and whoever adopts one vouches for both.
"""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import Field

from em_interp.cli import command
from em_interp.errors import InputError, say
from em_interp.records import Spec, check_writable


class AdoptSpec(Spec):
    """A file that carries our card (written by `export`) needs neither --base nor --sign."""

    file: Path | None = Field(
        None, description="File to read: .gguf, .pt (persona-vectors) or .safetensors."
    )
    out: Path | None = Field(None, description="Folder that gets the direction.")
    base: str | None = Field(
        None, description="Model it was made for: shelf name, folder, hub id, or its fingerprint."
    )
    sign: str | None = Field(
        None, description="Which way it points: trigger, general, or a text 'from ... to ...'."
    )
    flip: bool = Field(False, description="Turn the vectors around first.")
    layers: str | None = Field(None, description="Sites; default: all that are beyond doubt.")
    name: str | None = Field(None, description="Name on the card; default: the output folder's.")


def run(spec: AdoptSpec) -> int:
    """Check, read, save, print."""
    if spec.file is None:
        raise InputError("--file is missing: name the file to read (.gguf, .pt or .safetensors)")
    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the direction")
    if (spec.out / "card.json").exists():
        raise InputError(f"{spec.out}: holds an artifact already; give another --out")
    check_writable(spec.out)

    from em_interp.exchange import CAUTION, adopt, file_format
    from em_interp.export import base_shape, fingerprint_of
    from em_interp.report.text import directions_table
    from em_interp.sites import parse_sites

    file_format(spec.file)
    base: str | Callable[[], str] | None = spec.base
    shape = None
    if spec.base is not None and not re.fullmatch(r"[0-9a-f]{16}", spec.base):
        base, shape = partial(fingerprint_of, spec.base), base_shape(spec.base)
    sites = parse_sites(spec.layers, shape.n_layers if shape else 10**6) if spec.layers else None
    made, left = adopt(
        spec.file,
        spec.name or spec.out.name,
        base=base,
        sign=spec.sign,
        flip=spec.flip,
        sites=sites,
        shape=shape,
    )
    made.save(spec.out)
    for site, why in left.items():
        print(f"left out {site}: {why} (--layers {site.layer} adopts it all the same)")
    for note in made.card.notes:
        if note.startswith(CAUTION):
            say(note)
    print(directions_table(made))
    print(f"\nwritten: {spec.out}")
    return 0


main = command(
    "adopt",
    AdoptSpec,
    run,
    "Adopt a direction from a file of repeng, llama.cpp or persona-vectors.",
    "runs/delta.gguf --out runs/again",
    positional="file",
)

if __name__ == "__main__":
    sys.exit(main())
