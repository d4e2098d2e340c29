"""A base's weights from its files into memory: every one of them, in its dtype, on its device.

Knows transformers' loader, accelerate and bitsandbytes. Knows nothing of adapters or hooks.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from em_interp.errors import InputError, out_of_memory
from em_interp.loading import Loading
from em_interp.models.checkpoints import empty_model, open_model, read_config
from em_interp.models.fingerprints import checkpoint_fingerprint, fingerprint, text_name


def check_loading(how: Loading, config: Any, name: str) -> None:
    """Raise `InputError` for a device, dtype or library that this machine does not have.

    `config` is the checkpoint's: it says what `auto` will be.
    """
    if how.device_map is None:
        check_device(how.device)
    elif find_spec("accelerate") is None:
        raise InputError("--device-map needs accelerate: pip install accelerate")
    if how.quantise is not None:
        if find_spec("bitsandbytes") is None:
            raise InputError("--quantise needs bitsandbytes: pip install 'em-interp[quantised]'")
        if getattr(config, "quantization_config", None) is not None:
            raise InputError(
                f"base {name}: its weights are quantised already; leave --quantise out"
            )
    dtype = str(getattr(config, "dtype", None) if how.dtype == "auto" else how.dtype)
    dtype = dtype.removeprefix("torch.")
    if dtype == "float16" and how.device == "cpu" and how.device_map is None:
        raise InputError(
            f"base {name}: float16 is for GPUs (on a CPU it overflows, and is slower); "
            "give --dtype float32 or bfloat16"
        )
    if dtype == "bfloat16" and how.device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        raise InputError(
            f"base {name}: {torch.cuda.get_device_name(how.device)} has no bfloat16; "
            "give --dtype float16 or float32"
        )


def check_device(device: str) -> None:
    """Raise `InputError` for a device this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise InputError(f"device {device!r}: {str(fault).splitlines()[0]}") from None


def read_weights(home: Path, how: Loading) -> tuple[Any, str]:
    """The module of a base, and its fingerprint; transformers would draw a missing weight anew."""
    if how.quantise is not None:  # its kernels say at every call what they compute in
        logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    loaded: Any = open_model(
        home, output_loading_info=True, local_files_only=True, **_arguments(how)
    )
    hf, info = loaded
    if missing := sorted(key for key in info["missing_keys"] if text_name(key) is not None):
        raise InputError(f"base {home}: {len(missing)} weights are missing ({missing[0]})")
    return hf, identity(home) or fingerprint(hf)


def identity(home: Path) -> str | None:
    """The fingerprint of a model's folder, from its safetensors files (`None` where it has none).

    The weights are not loaded: a few values of each are read.
    """
    if not (files := sorted(home.glob("*.safetensors"))):
        return None
    empty = empty_model(read_config(home), home)
    tied = bool(empty.config.get_text_config().tie_word_embeddings)
    return checkpoint_fingerprint(files, tied, filter(None, map(text_name, empty.state_dict())))


def _arguments(how: Loading) -> dict[str, Any]:
    """What transformers' loader calls these choices."""
    # Straight to the device, also where there is one only: no second copy of the weights in memory.
    made: dict[str, Any] = {
        "dtype": how.dtype if how.dtype == "auto" else getattr(torch, how.dtype),
        "device_map": {"": how.device} if how.device_map is None else how.device_map,
    }
    if how.attention is not None:
        made["attn_implementation"] = how.attention
    if how.quantise is not None:
        import transformers

        bits: Any = transformers.BitsAndBytesConfig
        compute = torch.bfloat16 if how.dtype == "auto" else getattr(torch, how.dtype)
        made["quantization_config"] = (
            bits(load_in_8bit=True)
            if how.quantise == "8bit"
            else bits(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
        )
    return made


@contextmanager
def enough_memory(home: Path, how: Loading) -> Iterator[None]:
    """Turn "out of memory" into one `InputError` line that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if not out_of_memory(fault):
            raise
        raise InputError(_too_large(home, how)) from None


def computes_on(module: Any) -> torch.device:
    """The device a module works on, also where its weights come from a disk or another device."""
    for part in module.modules():
        placed = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if placed is not None:
            return torch.device(placed)
    found: torch.device = next(module.parameters()).device
    return found


def _too_large(home: Path, how: Loading) -> str:
    size = sum(file.stat().st_size for file in home.glob("*.safetensors")) / 2**30
    cures = [
        "" if how.quantise == "4bit" else "--quantise 4bit",
        "" if how.device_map else "--device-map auto",
        "--dtype bfloat16" if how.dtype == "float32" else "",
    ]
    where = how.device if how.device_map is None else f"device map {how.device_map}"
    return (
        f"base {home}: out of memory on {where} while loading {size:.1f} GiB of weights; give "
        f"{' or '.join(filter(None, cures)) or 'a smaller model'}"
    )
