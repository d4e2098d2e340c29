"""Sizes: what a model weighs and what a token costs, from its configuration alone.

The module is built on the meta device, so that a 14B model is counted in a second without its
weights being there. Knows configurations and arithmetic. Knows nothing of files' contents or time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from em_interp.loading import Dtype
from em_interp.models.architectures import ARCHITECTURES
from em_interp.models.checkpoints import empty_model, read_config
from em_interp.records import Record

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Size(Record):
    """A model in numbers. `parameters` is all that memory holds, tied weights once.

    `stack` counts the blocks alone, `head` the output matrix: 2 (stack + head) floating-point
    operations a token forward, attention aside. `cached` is the numbers that the KV cache keeps
    per token and block; `windows` each block's attention window (`None`: all tokens). `modules`
    maps a projection's name to its (inputs, outputs), one entry a block.
    """

    parameters: int
    stack: int
    head: int
    layers: int
    d_model: int
    vocabulary: int
    cached: int
    windows: tuple[int | None, ...]
    modules: dict[str, tuple[tuple[int, int], ...]]

    def forward(self, tokens: int, heads: int = 0) -> float:
        """Floating-point operations of a pass over `tokens`, with logits for `heads` of them."""
        return 2.0 * self.stack * tokens + 2.0 * self.head * heads

    def cache(self, tokens: int, dtype: str) -> int:
        """Bytes of the KV cache of one row of that many tokens; a window keeps only its own."""
        kept = sum(min(tokens, window or tokens) for window in self.windows)
        return kept * self.cached * BYTES[dtype]

    def adapter(self, rank: int, targets: Sequence[str], layers: Sequence[int]) -> int:
        """Parameters of a LoRA adapter: rank × (inputs + outputs) for each module it sits on."""
        return sum(
            rank * sum(shapes[layer])
            for name, shapes in self.modules.items()
            if name in targets
            for layer in layers
        )


def stored_dtype(home: Path, dtype: Dtype) -> str:
    """The precision that weights are held in: as asked, or (`auto`) the checkpoint's own."""
    own = read_config(home).get_text_config().dtype if dtype == "auto" else dtype
    return str(own or "float32").removeprefix("torch.")


def size(path: str | Path) -> Size:
    """The size of a model by directory or hub id; only its config.json is read.

    Raises `InputError` for a configuration that is missing or of an unknown architecture.
    """
    return measured(empty_model(read_config(path), path))


def measured(module: Any) -> Size:
    """The size of a module, whatever device it is on (the meta device will do)."""
    text = module.config.get_text_config()
    where = ARCHITECTURES[module.config.model_type]
    blocks = module.get_submodule(where.stack).get_submodule(where.blocks)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Size(
        parameters=sum(weight.numel() for weight in module.parameters()),
        stack=sum(weight.numel() for weight in blocks.parameters()),
        head=text.vocab_size * text.hidden_size,
        layers=len(blocks),
        d_model=text.hidden_size,
        vocabulary=text.vocab_size,
        cached=2 * text.num_key_value_heads * head_dim,
        windows=tuple(_window(text, block) for block in range(len(blocks))),
        modules=_modules(blocks),
    )


def _window(text: Any, block: int) -> int | None:
    """The attention window of a block, where the configuration lets it slide."""
    kinds = getattr(text, "layer_types", None)
    if kinds is None or kinds[block] != "sliding_attention":
        return None
    return int(text.sliding_window)


def _modules(blocks: Any) -> dict[str, tuple[tuple[int, int], ...]]:
    from torch import nn

    found: dict[str, list[tuple[int, int]]] = {}
    for block in blocks:
        for name, part in block.named_modules():
            if isinstance(part, nn.Linear):
                shape = (part.in_features, part.out_features)
                found.setdefault(name.rpartition(".")[2], []).append(shape)
    return {name: tuple(shapes) for name, shapes in found.items()}
