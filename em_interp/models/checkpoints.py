"""A checkpoint's files as transformers reads them, and none of its code: the door to its loaders.

A folder may name classes of its own (`auto_map`). transformers then asks "run the custom code?" on
stdin, and where it knows the architecture itself it silently runs its own class in their stead, so
another function than the checkpoint's. Both are refused. Weights come from safetensors alone.
Knows transformers' Auto classes. Knows nothing of what is done with a model.
"""

from pathlib import Path
from typing import Any

from em_interp.hub import check_no_code


def open_config(home: str | Path) -> Any:
    """A configuration. Raises what transformers raises, `InputError` for code."""
    from transformers import AutoConfig

    check_no_code(home)
    return AutoConfig.from_pretrained(home, trust_remote_code=False)


def open_tokenizer(home: str | Path) -> Any:
    """A tokenizer. Raises what transformers raises, `InputError` for code."""
    from transformers import AutoTokenizer

    check_no_code(home)
    return AutoTokenizer.from_pretrained(home, trust_remote_code=False)


def open_model(home: str | Path, **how: Any) -> Any:
    """A causal LM with its weights. Raises what transformers raises, `InputError` for code."""
    from transformers import AutoModelForCausalLM

    check_no_code(home)
    return AutoModelForCausalLM.from_pretrained(
        home, trust_remote_code=False, use_safetensors=True, **how
    )


def empty_model(config: Any) -> Any:
    """A causal LM of a configuration, its weights as they are drawn."""
    from transformers import AutoModelForCausalLM

    build: Any = AutoModelForCausalLM.from_config
    return build(config, trust_remote_code=False)
