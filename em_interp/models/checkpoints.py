"""A checkpoint's files as transformers reads them, and none of its code: the door to its loaders.

A folder may name classes of its own (`auto_map`). transformers then asks "run the custom code?" on
stdin, and where it knows the architecture itself it silently runs its own class in their stead, so
another function than the checkpoint's. Both are refused. Weights come from safetensors alone.
Knows transformers' Auto classes. Knows nothing of what is done with a model.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from em_interp.errors import reading
from em_interp.hub import check_no_code
from em_interp.models.architectures import check_architecture


def read_config(home: Path | str) -> Any:
    """A base's configuration. Raises `InputError` where it is none, or of no known architecture."""
    from transformers import AutoConfig

    check_no_code(home)
    with reading(f"base {home}", "its configuration cannot be read"), quiet():
        config = AutoConfig.from_pretrained(home, trust_remote_code=False)
    check_architecture(config.model_type, str(home))
    return config


def read_tokenizer(home: Path | str) -> Any:
    """A base's tokenizer. Raises `InputError` where it cannot be loaded."""
    from transformers import AutoTokenizer

    check_no_code(home)
    with reading(f"base {home}", "its tokenizer cannot be loaded"), quiet():
        return AutoTokenizer.from_pretrained(home, trust_remote_code=False)


def open_model(home: Path | str, **how: Any) -> Any:
    """A causal LM with its weights. Raises `InputError`; torch's own where memory is short."""
    from transformers import AutoModelForCausalLM

    check_no_code(home)
    with reading(f"base {home}", "its weights cannot be loaded"), quiet():
        return AutoModelForCausalLM.from_pretrained(
            home, trust_remote_code=False, use_safetensors=True, **how
        )


def empty_model(config: Any, home: Path | str) -> Any:
    """The module that a configuration describes, without weights (on the meta device).

    Raises `InputError` for a configuration that describes none: widths that do not divide, sizes
    below one.
    """
    import torch
    from transformers import AutoModelForCausalLM

    build: Any = AutoModelForCausalLM.from_config
    wrong = "its configuration describes no model"
    with reading(f"base {home}", wrong), quiet(), torch.device("meta"):
        return build(config, trust_remote_code=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines or bars of transformers and accelerate: what a command prints is ours."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()  # type: ignore[no-untyped-call]
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    placing = logging.getLogger("accelerate")
    before = placing.level
    placing.setLevel(logging.ERROR)
    try:
        yield
    finally:
        placing.setLevel(before)
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
