"""A GGUF control vector, as repeng and llama.cpp read it (`general.architecture` "controlvector").

`direction.N` is added to the output of block N, counted from 0, by both: repeng wraps
`model.layers[N]`, llama.cpp adds it right after block N's last residual addition. llama.cpp has no
place for block 0 and rejects a file with `direction.0`, so block 0 cannot be exported. (Its own
`cvector-generator` writes what it measured after block N − 1 as `direction.N`; a file made by it is
read here as what llama.cpp does with it.) Coefficients are ours: strength 1 is scale 1.
Sources: repeng `extract.py`; llama.cpp `common.cpp` (loader), `llama-adapter.cpp` (where it is
added), `cvector-generator/mean.hpp`.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from em_interp.errors import InputError, printable, reading
from em_interp.exchange import Shape, Vectors, post
from em_interp.exchange.statements import CARD, unread
from em_interp.exchange.tensors import card
from em_interp.records import canonical_json, write_bytes
from em_interp.sites import Point, Site

ARCHITECTURE = "controlvector"


def refuses(site: Site, shape: Shape) -> str:
    """Block outputs only, and not block 0's."""
    del shape
    if site.point is not Point.RESID_POST:
        return "a control vector is added to a block's output (hook_resid_post)"
    if site.layer == 0:
        return "llama.cpp has no control vector at block 0 and rejects the whole file"
    return ""


def write(path: Path, vectors: Vectors, shape: Shape) -> None:
    """One float32 `direction.N` a block. Other tools pass over the card that is added."""
    gguf = _library()
    assert vectors.card is not None
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "vector.gguf"
        writer = gguf.GGUFWriter(whole, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", shape.kind)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors.table))
        writer.add_string(CARD, canonical_json(vectors.card.model_dump(mode="json")))
        for site, vector in sorted(vectors.table.items()):
            writer.add_tensor(f"direction.{site.layer}", vector.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_bytes(path, whole.read_bytes())


def read(path: Path) -> Vectors:
    """Vectors by block. Raises `InputError` for a damaged file, or another kind of GGUF."""
    reader = _reader(path)
    kind = _text(reader, path, "general.architecture")
    if kind != ARCHITECTURE:
        raise InputError(f"{path}: a GGUF of architecture {kind!r}; expected {ARCHITECTURE!r}")
    with reading(path, "not a whole GGUF file"):
        cautions = unread(path, [str(name) for name in reader.fields])
    table: dict[Site, torch.Tensor] = {}
    for tensor in reader.tensors:
        word, _, number = tensor.name.partition(".")
        if word != "direction" or not (number.isascii() and number.isdecimal()):
            raise InputError(
                f"{path}: tensor {printable(tensor.name, 80)!r}; expected direction.1, "
                "direction.2 …"
            )
        if tensor.tensor_type.name != "F32" or len(tensor.shape) != 1:
            raise InputError(f"{path}: {tensor.name} is not one float32 vector")
        if len(number) > 7 or (site := post(int(number))) in table:
            raise InputError(f"{path}: {printable(tensor.name, 80)!r} names no block of its own")
        table[site] = torch.tensor(tensor.data)
    count = _field(reader, path, f"{ARCHITECTURE}.layer_count")
    if count is not None and (isinstance(count, bool) or count != len(table)):
        raise InputError(
            f"{path}: its layer_count says {printable(count, 80)}, and it holds {len(table)} "
            "vectors; a part of it is missing or was added"
        )
    found = _text(reader, path, CARD) or None
    return Vectors(
        dict(sorted(table.items())),
        card(found, path),
        family=_text(reader, path, f"{ARCHITECTURE}.model_hint"),
        cautions=cautions,
    )


def _reader(path: Path) -> Any:
    gguf = _library()
    # The reader maps the file and trusts its lengths: a file cut short fails in many ways.
    with reading(path, "not a whole GGUF file"):
        return gguf.GGUFReader(path)


def _field(reader: Any, path: Path, key: str) -> Any:
    with reading(path, "not a whole GGUF file"):
        field = reader.get_field(key)
        return None if field is None else field.contents()


def _text(reader: Any, path: Path, key: str) -> str:
    found = _field(reader, path, key)
    if not isinstance(found, str | None):
        raise InputError(f"{path}: its {key} is no text: {printable(found, 80)}")
    return found or ""


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise InputError(
            "GGUF files need the gguf package: pip install 'em-interp[gguf]'"
        ) from None
    return gguf
