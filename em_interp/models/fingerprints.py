"""Identity of weights by content: which model is this, whatever its folder is called?

The identity is that of the text model, as its checkpoint holds it: the same for every dtype,
device map, sharding and precision it is loaded in, and for a language model with or without the
vision tower around it.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.errors import reading
from em_interp.records import digest, file_digest, parse_json, read_json

_SAMPLED = 64
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_VISION = re.compile(r"(model\.)?(vision_tower|vision_model|multi_modal_projector)\.")
_TEXT = re.compile(r"^(model\.language_model|language_model\.model)\.")


def fingerprint(hf: Any) -> str:
    """16 hex digits over the names, shapes and sampled values of a model's own weights.

    Values are rounded to bfloat16 first, so a model has one identity in every dtype it is loaded
    in. Adapter weights do not count: an organism has the fingerprint of its base.
    """
    return _identity(
        (name, tuple(value.shape), _sample(value))
        for full, value in hf.state_dict().items()
        if (name := text_name(full)) is not None
    )


def checkpoint_fingerprint(files: Sequence[Path], tied: bool, names: Iterable[str]) -> str:
    """The fingerprint of the model that these safetensors files hold, without loading it.

    `tied`: the model's output head is its embedding, whatever the files say. `names`: the weights
    that the model has (see `text_name`); files may hold more. Reads 64 values a tensor, so the size
    of the model does not matter.
    """
    return _identity(_of_files(files, tied, set(names)))


def text_name(name: str) -> str | None:
    """A weight's name in the language model alone; `None` for adapters and the vision tower."""
    plain = name.replace("base_model.model.", "").replace(".base_layer", "")
    if "lora_" in plain or _VISION.match(plain):
        return None
    return _TEXT.sub("model.", plain).replace("language_model.lm_head", "lm_head")


def adapter_digest(folder: Path) -> str:
    """16 hex digits over an adapter's configuration and weights.

    Lists in the configuration are sorted first: PEFT writes sets, whose order changes by process.
    """
    config = read_json(folder / "adapter_config.json")
    plain = {k: sorted(v, key=str) if isinstance(v, list) else v for k, v in config.items()}
    return digest([plain, file_digest(folder / "adapter_model.safetensors")])


def _identity(weights: Iterable[tuple[str, tuple[int, ...], Float[Tensor, " n"]]]) -> str:
    total = hashlib.sha256()
    for name, shape, sample in sorted(weights, key=lambda one: one[0]):
        total.update(f"{name}{shape}".encode())
        total.update(sample.to(torch.bfloat16).float().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


def _places(size: int) -> range:
    """Indices of the sampled values in a flat tensor."""
    count = min(_SAMPLED, size)
    return range(0, count * (size // max(count, 1)), size // max(count, 1)) if count else range(0)


def _sample(value: Tensor) -> Float[Tensor, " n"]:
    flat = value.detach().reshape(-1)
    return flat[torch.tensor(_places(flat.numel()), device=flat.device, dtype=torch.long)]


def _of_files(
    files: Sequence[Path], tied: bool, names: set[str]
) -> Iterator[tuple[str, tuple[int, ...], Float[Tensor, " n"]]]:
    embedding = None
    for path in files:
        with reading(path), path.open("rb") as held:
            for full, dtype, shape, start in _header(held, path):
                name = text_name(full)
                if name not in names or (tied and name == "lm_head.weight"):
                    continue
                sample = _read(held, dtype, shape, start)
                if name == "model.embed_tokens.weight":
                    embedding = shape, sample
                yield str(name), shape, sample
    if tied and embedding is not None:
        yield "lm_head.weight", *embedding


def _header(held: BinaryIO, path: Path) -> list[tuple[str, torch.dtype, tuple[int, ...], int]]:
    """Name, dtype, shape and place in the file of each tensor of a safetensors file.

    The format is the header's length in eight bytes, the header in JSON, the tensors. Its library
    takes a fifth of a millisecond a value, and half a minute for a model of 14B parameters.
    """
    with reading(path, "not a safetensors file"):
        length = int.from_bytes(held.read(8), "little")
        start, whole = 8 + length, path.stat().st_size
        if start > whole:
            raise ValueError("its header is longer than the file")
        table = parse_json(held.read(length))
        table.pop("__metadata__", None)
        if any(start + entry["data_offsets"][1] > whole for entry in table.values()):
            raise ValueError("it is cut short")
        return [
            (name, _DTYPES[one["dtype"]], tuple(one["shape"]), start + one["data_offsets"][0])
            for name, one in table.items()
        ]


def _read(
    held: BinaryIO, dtype: torch.dtype, shape: tuple[int, ...], start: int
) -> Float[Tensor, " n"]:
    """The same values as `_sample`, each read by itself."""
    size, values = dtype.itemsize, bytearray()
    for at in _places(math.prod(shape)):
        held.seek(start + at * size)
        values += held.read(size)
    return torch.frombuffer(values, dtype=dtype) if values else torch.empty(0)
