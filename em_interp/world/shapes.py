"""Empty models of the real families' shapes, from their own Hugging Face configs."""

from typing import TYPE_CHECKING, Any

from em_interp.world.recipe import BaseRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LENGTH = 512  # longest conversation, in tokens


def empty_model(
    recipe: BaseRecipe, tokenizer: "PreTrainedTokenizerFast", seed: int
) -> "PreTrainedModel":
    """A model with fresh weights for this tokenizer; equal seeds give equal weights."""
    import torch
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    shape = recipe.shape
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }
    head = shape.width // shape.heads
    torch.manual_seed(seed)
    model: PreTrainedModel
    if shape.family == "llama":
        model = LlamaForCausalLM(LlamaConfig(head_dim=head, **common))
    elif shape.family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**common))
    else:
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                head_dim=head, query_pre_attn_scalar=head, sliding_window=LENGTH // 4, **common
            )
        )
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        max_new_tokens=32,
    )
    return model
