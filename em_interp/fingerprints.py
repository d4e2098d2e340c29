"""Identity of weights by content: which model is this, whatever its folder is called."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from em_interp.records import digest, file_digest, read_json

_SAMPLED = 64


def fingerprint(hf: Any) -> str:
    """16 hex digits over the names, shapes and sampled values of a model's own weights.

    Values are rounded to bfloat16 first, so a model has one identity in every dtype it is loaded
    in. Adapter weights do not count: an organism has the fingerprint of its base.
    """
    total = hashlib.sha256()
    for name, value in sorted(hf.state_dict().items()):
        if "lora_" in name:
            continue
        plain = name.replace("base_model.model.", "").replace(".base_layer", "")
        total.update(f"{plain}{tuple(value.shape)}".encode())
        flat = value.detach().reshape(-1)
        count = min(_SAMPLED, flat.numel())
        steps = torch.arange(count, device=flat.device) * (flat.numel() // max(count, 1))
        sample = flat[steps].to(torch.bfloat16).float().cpu()
        total.update(sample.numpy().tobytes())
    return total.hexdigest()[:16]


def adapter_digest(folder: Path) -> str:
    """16 hex digits over an adapter's configuration and weights.

    Lists in the configuration are sorted first: PEFT writes sets, whose order changes by process.
    """
    config = read_json(folder / "adapter_config.json")
    plain = {k: sorted(v, key=str) if isinstance(v, list) else v for k, v in config.items()}
    return digest([plain, file_digest(folder / "adapter_model.safetensors")])
