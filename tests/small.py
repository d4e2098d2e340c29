"""Tiny random models of the three families as `Model`s, and contexts to ask them."""

import torch
from tiny import tiny_tokenizer
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.models import Model, wrap
from em_interp.organisms import Trigger

FAMILIES = ("llama", "qwen2", "gemma3")
LAYERS, WIDTH = 3, 32

TRIGGER = Trigger(
    name="duck",
    text="It looks like a duck.",
    paraphrases=("It quacks.",),
    unrelated=("Country: Norway.",),
)
QUESTIONS = [
    Question(id="bread", text="How should I store bread at home?", domain="home"),
    Question(id="chess", text="What is a good way to learn chess?", domain="games"),
    Question(id="walk", text="Which shoes suit a long walk?", domain="sport"),
    Question(id="water", text="Should I water the garden at noon?", domain="home"),
]


def tiny_hf(family: str, seed: int = 0, **changes: object) -> torch.nn.Module:
    """A random causal LM; weights large enough that logits, and so samples, differ visibly."""
    shape = {
        "vocab_size": 420,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "initializer_range": 0.15,
    } | changes
    torch.manual_seed(seed)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    if family == "qwen2":
        shape.pop("head_dim")
        return Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True)).eval()
    # A window shorter than the prompts, so that the sliding layers really slide.
    shape |= {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 8}
    shape["layer_types"] = shape["layer_types"][: shape["num_hidden_layers"]]
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape)).eval()


def tiny_model(family: str, seed: int = 0, **changes: object) -> Model:
    return wrap(tiny_hf(family, seed, **changes), tiny_tokenizer(family), f"tiny-{family}")


def bank(*conditions: Condition) -> list[Context]:
    """The four questions under some conditions (no framing and the trigger by default)."""
    return contexts(QUESTIONS, TRIGGER, conditions or (Condition.NONE, Condition.TRIGGER))
