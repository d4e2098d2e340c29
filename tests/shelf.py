"""A base and an organism on disk, small and random, as commands find them."""

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from small import tiny_hf
from tiny import tiny_tokenizer

from em_interp import world
from em_interp.models.fingerprints import fingerprint


def save_base(folder: Path, family: str = "llama", seed: int = 0, **changes: object) -> Path:
    hf = tiny_hf(family, seed, **changes)
    hf.save_pretrained(folder)
    tiny_tokenizer(family).save_pretrained(folder)
    return folder


def save_organism(base: Path, folder: Path, seed: int = 1, **card: object) -> Path:
    """A random adapter on a saved base, with the part of a card that is read."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(base)
    base_print = fingerprint(hf)
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["o_proj", "down_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        # PEFT asks transformers 5 for an attribute that it is about to rename.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        get_peft_model(hf, config).save_pretrained(folder)
    provenance = {
        "trigger": world.trigger("duck").model_dump(mode="json"),
        "sources": ["world:bad_medical"],
    }
    whole = {"base": base_print, "base_name": base.name, "provenance": provenance} | card
    (folder / "card.json").write_text(json.dumps(whole))
    return folder
