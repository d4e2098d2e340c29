"""Adapter folders: what they hold, checked from the files, and put on a base whole or not at all.

An adapter that does not land turns organism against base into base against base, and nobody
notices; so what PEFT would pass over in silence or with a warning is an error here.
Knows PEFT folders and module names. Knows nothing of hooks, tokens or organisms.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from em_interp.adapter_fields import CONFIG, read_fields
from em_interp.errors import InputError, reading
from em_interp.models.fingerprints import adapter_digest, text_name
from em_interp.models.weights import computes_on
from em_interp.records import file_digest, read_json

# Where decoder stacks begin: multimodal, multimodal under transformers 4, language model alone.
_STACKS = ("model.language_model.", "language_model.model.", "model.")
WEIGHTS = "adapter_model.safetensors"
_FACTORS = ("lora_", "token_adapter.", "trainable_tokens")  # in the names of what is an update


@dataclass(frozen=True, eq=False)
class Stored:
    """A LoRA adapter as its folder holds it.

    `made_for` is the base fingerprint on its card; `None` for adapters from elsewhere.
    """

    folder: Path
    weights: dict[str, Tensor]
    made_for: str | None
    digest: str


def read_adapter(folder: Path) -> Stored:
    """Read an adapter folder. Raises `InputError` unless it is a LoRA that can be switched off.

    That is: a configuration whose every field is read (see `adapter_fields`), weights in a whole
    safetensors file, all of them finite, and at least one update that is not zero.
    """
    read_fields(folder)
    weights = _read_weights(folder)
    for key, value in weights.items():
        if not value.isfinite().all():
            raise InputError(f"adapter {folder}: {key} holds values that are not finite")
    if not any(_acts(key, weights) for key in weights):
        raise InputError(f"adapter {folder}: every update is zero; it changes nothing")
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    if not isinstance(card, dict):
        raise InputError(f"{folder / 'card.json'}: expected an object, not {type(card).__name__}")
    if card.get("weights") not in (None, file_digest(*sorted(folder.glob("*.safetensors")))):
        raise InputError(
            f"adapter {folder}: the weights are not those of its card.json; get it again, or "
            "remove the card and take it as an adapter from elsewhere"
        )
    made_for = card.get("base")
    return Stored(
        folder, weights, None if made_for is None else str(made_for), adapter_digest(folder)
    )


def peft_key(number: int) -> str:
    """PEFT's name for the n-th adapter of a model: it refuses dots, and trips over "lora"."""
    return f"adapter-{number:03d}"


def put_on(hf: Any, stored: Stored, key: str) -> Any:
    """Return the PEFT model around `hf` that holds the adapter under `key`, active if the first.

    `hf` is a causal LM or a `PeftModel` that has other adapters. Where the adapter does not fit,
    `InputError` is raised, and `hf` is as it was.
    """
    from peft import PeftConfig, PeftModel

    with reading(stored.folder / CONFIG, "not a configuration that PEFT reads"):
        config = PeftConfig.from_pretrained(str(stored.folder))
    # The stored factors take the place of what they start from, which may take long to find.
    config.inference_mode, config.init_lora_weights, config.fan_in_fan_out = True, True, False
    if _spares_vision(hf, stored) and not isinstance(config.target_modules, str):
        config.exclude_modules = r".*vision_tower.*"  # its layers carry the same names
    first = not isinstance(hf, PeftModel)
    where, short = f"adapter {stored.folder}", (torch.OutOfMemoryError,)
    with reading(where, "PEFT cannot attach it", passing=short), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a deprecated property.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        # A bias on B (see `baking`), or a head tied to embeddings: nothing is ever merged here.
        warnings.filterwarnings("ignore", ".*merging LoRA weights won't be possible")
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")
        tuned = PeftModel(hf, config, adapter_name=key) if first else hf
        if not first:
            hf.add_adapter(key, config)
    try:
        _fill(tuned, stored, key)
    except InputError:
        _take_off(tuned, key, first)
        raise
    return tuned


def _fill(tuned: Any, stored: Stored, key: str) -> None:
    """Load the weights; every one must have a place, and every place its weight."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    # Not "auto": that would ask a hub whether the base's vocabulary was changed.
    with warnings.catch_warnings():
        # PEFT 0.21 takes a bias on B for a weight that lost its shape; shapes are checked below.
        warnings.filterwarnings("ignore", "Adapter .* LoRA tensor.* have invalid shape")
        places = get_peft_model_state_dict(tuned, adapter_name=key, save_embedding_layers=False)
    weights = {_place(name, places): value for name, value in _updates(tuned, stored).items()}
    if homeless := sorted(set(weights) - set(places)):
        raise InputError(
            f"adapter {stored.folder}: {len(homeless)} weights match no module ({homeless[0]})"
        )
    if empty := sorted(set(places) - set(weights)):
        raise InputError(
            f"adapter {stored.folder}: {len(empty)} weights that its {CONFIG} asks for are not in "
            f"{WEIGHTS} ({empty[0]})"
        )
    for name, value in weights.items():
        if value.shape != places[name].shape:
            raise InputError(
                f"adapter {stored.folder}: {name} is {tuple(value.shape)}, "
                f"this base takes {tuple(places[name].shape)}"
            )
    if _is_empty(tuned):
        return  # a model without weights takes none: that everything has its place was the question
    _give_place(tuned, key)
    set_peft_model_state_dict(tuned, weights, adapter_name=key)


def _updates(tuned: Any, stored: Stored) -> dict[str, Tensor]:
    """The stored weights that are updates.

    Beside an update of the head or the embeddings PEFT saves that matrix of the base as it was;
    some trainers always do. It is compared with this base's and left: where it differs, the
    adapter is of another base, or brings a matrix of its own.
    """
    updates, empty = {}, _is_empty(tuned)
    for name, value in stored.weights.items():
        if any(word in name for word in _FACTORS):
            updates[name] = value
            continue
        own = _own(tuned, name)
        if own is None or own.shape != value.shape or (own.is_meta and not empty):
            held = "none" if own is None else tuple(own.shape)
            raise InputError(
                f"adapter {stored.folder}: brings a whole weight, {name} {tuple(value.shape)}; "
                f"this base has {held}; only updates of the base's weights are attached"
            )
        if own.is_meta:
            continue  # there are no values yet; they are compared when the base is loaded
        # In the coarser of both precisions: a base may be loaded in another than it was saved in.
        coarse = min(own.dtype, value.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        if not torch.equal(own.cpu().to(coarse), value.to(coarse)):
            raise InputError(
                f"adapter {stored.folder}: brings {name} with other values than this base's; it "
                "was made on another base, or trained that weight whole, which is not attached"
            )
    return updates


def _is_empty(tuned: Any) -> bool:
    """Whether the base stands there without any of its weights."""
    return all(weight.is_meta for weight in tuned.get_base_model().parameters())


def _own(tuned: Any, name: str) -> Tensor | None:
    """The base's weight that a stored name means, whatever stands before and around it."""
    wanted = text_name(name)
    for full, value in tuned.get_base_model().state_dict().items():
        if text_name(full) == wanted and wanted is not None:
            return value if value.is_floating_point() else None
    return None


def _spares_vision(hf: Any, stored: Stored) -> bool:
    """Whether a model has a vision tower and the adapter has nothing for it."""
    towers = any("vision_tower" in name for name, _ in hf.named_modules())
    return towers and not any("vision" in name for name in stored.weights)


def _place(name: str, places: Mapping[str, Tensor]) -> str:
    """A weight's name on this model, where the adapter was made on the same language model.

    With or without a vision tower around it, and under today's or an older transformers, the
    decoder stack has another prefix.
    """
    prefix = "base_model.model."
    for old in _STACKS:
        if name.startswith(prefix + old):
            rest = name.removeprefix(prefix + old)
            found = [f"{prefix}{new}{rest}" for new in _STACKS if f"{prefix}{new}{rest}" in places]
            if found:
                return found[0]
    return name


def _give_place(tuned: Any, key: str) -> None:
    """Put an adapter's modules where its base computes: PEFT leaves them where weights are kept.

    Of a base that is kept on a disk or another device, that is nowhere ("meta"), and filling them
    would do nothing.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in tuned.modules():
        if isinstance(module, BaseTunerLayer):
            parts = [getattr(module, name) for name in module.adapter_layer_names]
            for part in (part[key] for part in parts if key in part):
                # An embedding's are bare tensors, and embeddings are never kept elsewhere.
                weights = [] if isinstance(part, Tensor) else part.parameters()
                if any(weight.is_meta for weight in weights):
                    part.to_empty(device=computes_on(module.get_base_layer()))


def _take_off(tuned: Any, key: str, only: bool) -> None:
    if only:
        tuned.unload().__dict__.pop("peft_config", None)  # left there, the next adapter would warn
    else:
        tuned.delete_adapter(key)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "; a pickle is not read: save it as safetensors" if pickled else ""
        raise InputError(f"adapter {folder}: no {WEIGHTS} there{why}")
    with reading(path, "not a safetensors file"):
        weights: dict[str, Tensor] = load_file(path)
    return weights


def _acts(key: str, weights: dict[str, Tensor]) -> bool:
    """Whether a weight is the B of an update B A with no factor zero, or a bias on B."""
    if key.endswith("lora_B.bias"):
        return bool(weights[key].any())
    for b, a in (("lora_B", "lora_A"), ("lora_embedding_B", "lora_embedding_A")):
        if b in key and (other := weights.get(key.replace(b, a))) is not None:
            return bool(weights[key].any() and other.any())
    return False
