"""What an adapter says of itself: every field of PEFT's `LoraConfig`, and what is done about it.

A field that changes what the adapter computes is read (by PEFT, into the same logits), or it is
refused by name; none is passed over. A version of PEFT with a new field turns a test red until the
field has its line here; a field of a file that nobody knows is refused unless it says nothing.
Knows the configuration's words. Knows nothing of PEFT, weights or bases.
"""

import math
from pathlib import Path
from typing import Any

from em_interp.errors import InputError
from em_interp.records import read_json

CONFIG = "adapter_config.json"

# Which weights the update is of and how large it is; PEFT reads them, the weights must fit them.
READ = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha",
    "use_rslora", "use_dora", "lora_bias", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "trainable_token_indices", "ensure_weight_tying", "init_lora_weights",
})  # fmt: skip

# How it was trained or made, or a detail of a feature that is refused where it is switched on.
HARMLESS = frozenset({
    "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "velora_config", "megatron_core", "qalora_group_size",
    "runtime_config", "fan_in_fan_out",  # a layout of GPT-2's; PEFT takes it back on these bases
})  # fmt: skip

# Refused unless they say nothing: the value that says nothing beside `None`, and why.
REFUSED: dict[str, tuple[Any, str]] = {
    "bias": ("none", "switching it off would not give the base back"),
    "modules_to_save": ([], "it brings whole modules of its own, not updates of the base's"),
    "alora_invocation_tokens": ([], "an activated LoRA acts from these tokens on, in PEFT's own "
                                    "forward alone"),
    "layer_replication": ([], "it repeats the base's layers, so it is of another model"),
    "target_parameters": ([], "updates of bare parameters are not read"),
    "megatron_config": ({}, "parallel layers of Megatron are not read"),
    "use_qalora": (False, "QALoRA acts on quantised weights, which this base has not"),
    "use_bdlora": ({}, "block-diagonal factors are not read"),
    "arrow_config": ({}, "it routes between several adapters"),
    "kasa_config": ({}, "KaSA cuts the base's own weights"),
    "monteclora_config": ({}, "its update is drawn anew in every pass"),
}  # fmt: skip

# Ways to start that leave the base as it was; others (pissa, olora, corda, loftq, lora_ga, mica)
# move a part of the base into the adapter, and the saved update is one of what was left.
LEAVES_BASE = (True, False, "gaussian", "orthogonal", "eva")


def read_fields(folder: Path) -> dict[str, Any]:
    """An adapter's configuration, checked. Raises `InputError` for what cannot be attached as such.

    That is: no LoRA, a field that is refused or that nobody knows, a rank or scale that is none.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"adapter {folder}: no {CONFIG} there; expected a PEFT adapter's folder")
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object, not {type(config).__name__}")
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        raise InputError(
            f"adapter {folder}: its peft_type is {kind!r}; only 'LORA' can be attached"
        )
    if task not in (None, "CAUSAL_LM"):
        raise InputError(
            f"adapter {folder}: its task_type is {task!r}; only 'CAUSAL_LM' can be attached"
        )
    for name, value in config.items():
        if name in REFUSED:
            nothing, why = REFUSED[name]
            if value is not None and value != nothing:
                raise InputError(f"adapter {folder}: {name}={value!r} is not attached: {why}")
        elif name not in READ | HARMLESS and value not in (None, False, "", [], {}):
            raise InputError(
                f"adapter {folder}: its {CONFIG} says {name}={value!r} (PEFT "
                f"{config.get('peft_version') or 'of unknown version'}), which is not known here"
            )
    if (start := config.get("init_lora_weights", True)) not in LEAVES_BASE:
        raise InputError(
            f"adapter {folder}: init_lora_weights={start!r} moves a part of the base into the "
            "adapter, so it is no update of the base; save it again with PEFT's save_pretrained("
            "…, path_initial_model_for_weight_conversion=…)"
        )
    _check_numbers(config, path)
    return config


def _check_numbers(config: dict[str, Any], path: Path) -> None:
    """Ranks are whole and positive, scales positive and finite: in the patterns too."""
    ranks = {"r": config.get("r", 8), **_pattern(config, "rank_pattern", path)}
    for name, value in ranks.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 20:
            raise InputError(f"{path}: {name} must be a rank of 1 or more, not {value!r}")
    scales = {"lora_alpha": config.get("lora_alpha", 8), **_pattern(config, "alpha_pattern", path)}
    for name, value in scales.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < 1e30 or math.isnan(value) or value == 0:
            raise InputError(f"{path}: {name} must be a finite scale other than 0, not {value!r}")


def _pattern(config: dict[str, Any], field: str, path: Path) -> dict[str, Any]:
    found = config.get(field) or {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: {field} must be an object, not {type(found).__name__}")
    return {f"{field}[{name!r}]": value for name, value in found.items()}
