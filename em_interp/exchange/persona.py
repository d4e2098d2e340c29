"""A persona-vectors `.pt` file: one tensor [layers + 1, d_model], no name, no sign, no model.

Rows are `hidden_states` indices: row 0 the embeddings, row L + 1 the output of block L. Its own
steering code counts rows too and hooks block `row − 1`. The last row is the trap: today's
transformers give `hidden_states[-1]` after the final norm, so what was measured there is not in the
stream's coordinates, yet it is added to the stream. It is adopted only when asked for by name.
Written only on explicit export: the format is a pickle, and read with `weights_only`.
Source: persona_vectors `generate_vec.py`, its issue 12; the layout of arXiv:2507.21509's code.
"""

import io
import pickle
from pathlib import Path

import torch

from em_interp.errors import InputError, reading
from em_interp.exchange import Shape, Vectors, post
from em_interp.records import write_bytes
from em_interp.sites import Point, Site

EMBEDDINGS = Site(0, Point.RESID_PRE)


def refuses(site: Site, shape: Shape) -> str:
    """Block outputs and the embeddings."""
    del shape
    if site == EMBEDDINGS or site.point is Point.RESID_POST:
        return ""
    return "its rows are block outputs (hook_resid_post) and the embeddings"


def write(path: Path, vectors: Vectors, shape: Shape) -> None:
    """Float32 rows 0 to n. Every block must have a vector: a row of zeros would be a silent no-op.

    Row 0 is zero where there is no vector at the embeddings. The last row is the last block's
    output before the final norm, where the vector acts.
    """
    absent = [site for site in map(post, range(shape.n_layers)) if site not in vectors.table]
    if absent:
        raise InputError(
            f"{path}: has a row for every block, but there is no direction at {absent[0]} "
            f"({len(absent)} of {shape.n_layers} are missing); export to .safetensors or .gguf"
        )
    rows = torch.zeros(shape.n_layers + 1, shape.d_model)
    for site, vector in vectors.table.items():
        rows[0 if site == EMBEDDINGS else site.layer + 1] = vector
    out = io.BytesIO()
    torch.save(rows, out)
    write_bytes(path, out.getvalue())


def read(path: Path) -> Vectors:
    """Rows by site; rows of zeros are no vectors. Raises `InputError` for any other content."""
    with reading(path, "not a file of torch.save"):
        try:
            rows = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise InputError(
                f"{path}: holds more than tensors, and is not read: it could run code"
            ) from None
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or not rows.is_floating_point():
        held = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
        raise InputError(f"{path}: holds {held}; expected one tensor [layers + 1, d_model]")
    if len(rows) < 2 or rows.layout != torch.strided or rows.device.type != "cpu":
        raise InputError(
            f"{path}: holds {len(rows)} rows ({rows.layout}, {rows.device}); expected the numbers "
            "of the embeddings and of at least one block"
        )
    last = len(rows) - 2
    sites = [EMBEDDINGS, *map(post, range(last + 1))]
    table = {site: row.float() for site, row in zip(sites, rows, strict=True) if row.any()}
    why = "transformers measure the last row after the final norm: not the stream's coordinates"
    return Vectors(table, doubtful={post(last): why}, n_layers=last + 1)
