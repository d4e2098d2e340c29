"""What a dictionary's folder says of itself: every field, and what is done about it.

SAELens passes over fields that it does not know, and reads others' files as if they were its own.
Here a field that changes what is computed is read, or the dictionary is refused by name, from its
`cfg.json`, before weights load. Old and new versions of SAELens write different fields; both stand
here. Knows words and files. Knows nothing of weights.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from em_interp.errors import InputError, unknown
from em_interp.records import read_json
from em_interp.sites import Point, Site, parse_site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
MANY = 1 << 20  # layers that a hook name may have; the model's own number is checked with the model

# Those that write the activation they read, token by token; the rest of SAELens' write another
# place's activation (transcoders) or read the tokens before (temporal).
ARCHITECTURES = ("standard", "gated", "topk", "abstopk", "jumprelu", "matching_pursuit")

READ = frozenset({
    "architecture", "d_in", "d_sae", "dtype", "metadata", "hook_name", "hook_point", "hook_layer",
    "hook_point_layer", "hf_hook_name", "model_name", "em_interp_base", "apply_b_dec_to_input", "k",
    "rescale_acts_by_decoder_norm", "residual_threshold", "max_iterations",
    "stop_on_duplicate_support", "activation_fn_kwargs",
})  # fmt: skip

# Of the training, its data, or where it ran.
HARMLESS = frozenset({
    "device", "context_size", "prepend_bos", "exclude_special_tokens", "seqpos_slice",
    "dataset_path", "dataset_trust_remote_code", "neuronpedia_id", "model_class_name",
    "model_from_pretrained_kwargs", "sae_lens_version", "sae_lens_training_version",
    "l1_coefficient", "lr", "seed", "is_dataset_tokenized", "streaming", "expansion_factor",
})  # fmt: skip

# The values that are taken (beside `None`), and why others are not.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "normalize_activations": (("none", False), "its latents are in other units than the stream's"),
    "reshape_activations": (("none",), "it reads heads one by one"),
    "hook_head_index": ((), "it reads one head"),
    "finetuning_scaling_factor": ((False,), "a scale of its own is not read"),
    "activation_fn": (("relu", "topk"), "not a function that is known here"),
    "activation_fn_str": (("relu", "topk"), "not a function that is known here"),
    "hook_name_out": ((), "it writes another place than it reads"),
    "hook_head_index_out": ((), "it writes another place than it reads"),
    "hf_hook_name_out": ((), "it writes another place than it reads"),
}  # fmt: skip

_BLOCK = re.compile(r"(?:[\w.]+\.)?(?:layers|h|blocks)\.(\d+)")  # a decoder block of transformers


class Statement(NamedTuple):
    """Where a dictionary reads (`None`: it does not say), how many numbers, and of which base.

    `model` is what its maker calls the base, `base` its fingerprint where we made it.
    """

    site: Site | None
    width: int
    model: str
    base: str


def read_folder(folder: Path) -> Statement:
    """What a folder says. Raises `InputError` for another trainer's format, named where known."""
    held = {path.name for path in folder.iterdir()}
    if CONFIG not in held and {"ae.pt", "config.json"} & held:
        raise InputError(
            f"dictionary {folder}: dictionary_learning's format (config.json, ae.pt: a pickle) is "
            f"not read; convert it to SAELens' ({CONFIG}, {WEIGHTS})"
        )
    if CONFIG not in held:
        raise InputError(f"dictionary {folder}: no {CONFIG} there; expected SAELens' format")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG}: expected an object, not {type(config).__name__}")
    if "sae.safetensors" in held or "num_latents" in config:
        raise InputError(
            f"dictionary {folder}: sparsify's format ({CONFIG}, sae.safetensors) is not read; "
            f"convert it to SAELens' ({CONFIG}, {WEIGHTS})"
        )
    if WEIGHTS not in held:
        raise InputError(f"dictionary {folder}: no {WEIGHTS} there; expected SAELens' format")
    return read_fields(config, f"dictionary {folder}")


def read_fields(config: dict[str, Any], where: str) -> Statement:
    """What a configuration says. Raises `InputError` for what is not read as it is meant.

    Its `metadata` may tell anything of the training; what is refused is so there too.
    """
    own = config.get("metadata") or {}
    if not isinstance(own, dict):
        raise InputError(f"{where}: metadata must be an object, not {type(own).__name__}")
    said = {name: value for name, value in (own | config).items() if value is not None}
    if (kind := said.get("architecture", "standard")) not in ARCHITECTURES:
        raise unknown("architecture", kind, ARCHITECTURES, where=where)
    for name in ("d_in", "d_sae"):
        if not isinstance(size := said.get(name), int) or not 1 <= size < MANY << 8:
            raise InputError(f"{where}: {name} must be a size of 1 or more, not {size!r}")
    for name, value in said.items():
        if name in REFUSED:
            taken, why = REFUSED[name]
            if not any(value == one and type(value) is type(one) for one in taken):
                raise InputError(f"{where}: {name}={value!r} is not read: {why}")
        elif name in config and name not in READ | HARMLESS and value not in (False, "", [], {}):
            raise InputError(f"{where}: {CONFIG} says {name}={value!r}, which is not known here")
    names = (str(said.get(name, "")) for name in ("model_name", "em_interp_base"))
    return Statement(_site(said, where), said["d_in"], *names)


def _site(said: dict[str, Any], where: str) -> Site | None:
    """The site that a hook name means: TransformerLens' names, or a block of transformers."""
    name = said.get("hook_name", said.get("hook_point", said.get("hf_hook_name")))
    if name is None:
        return None
    if match := _BLOCK.fullmatch(str(name)):
        site = Site(int(match[1][:9]), Point.RESID_POST)
    else:
        try:
            site = parse_site(str(name), MANY)
        except InputError:
            raise InputError(
                f"{where}: its hook name {name!r} is not read; expected blocks.2.hook_resid_post, "
                "or a whole block of transformers (model.layers.2)"
            ) from None
    layer = said.get("hook_layer", said.get("hook_point_layer", site.layer))
    if layer != site.layer:
        raise InputError(f"{where}: contradicts itself: hook {name!r}, but hook_layer {layer!r}")
    return site
