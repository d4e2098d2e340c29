"""The KV cache of a batch whose rows come and go, and how many rows a device's memory holds.

Every row's tokens are contiguous and end at the batch's last column, so a new prompt joins by being
written to the left of the next column. Columns are reserved ahead: a token costs one column's
write, where a cache that grows by concatenation copies everything it holds.
Knows tensors of keys and values. Knows nothing of sampling or edits.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from em_interp.models import Model
from em_interp.models.weights import computes_on

SLACK = 64  # columns beyond the longest row, so that dead ones are cleared away only now and then
SHARE = 0.8  # of the free memory; the rest is for activations
ON_CPU, CPU_BYTES = 256, 1 << 31  # rows: more are no faster; and what they may hold together
AT_MOST = 512  # rows on an accelerator: by then it computes, and memory no longer holds it back

Keys = Float[Tensor, "batch head pos d_head"]


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values: the first `used` of `reserved` columns hold something.

    Layers of a sliding window keep every column too; their masks still leave out what is beyond
    the window.
    """

    keys: Any  # None until the first prompts are here
    values: Any

    def __init__(self, reserved: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reserved, self.used = reserved, 0

    def start(self, like: Tensor, rows: int, columns: int) -> None:
        """A layer for this many rows, at least as wide as `like`, its first prompts."""
        shape = (rows, like.shape[1], self.reserved, like.shape[3])
        # Zeros: attention weighs what is masked by zero, and zero times garbage may be no number.
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.dtype, self.device = like.dtype, like.device
        self.used, self.is_initialized = max(columns, like.shape[2]), True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns and return all that hold something."""
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        """Columns that hold something."""
        return self.used


class RowCache(Cache):
    """Keys and values of all layers: `rows` rows with `reserved` columns each, empty at first."""

    def __init__(self, layers: int, rows: int, reserved: int) -> None:
        self.mine = [_Layer(reserved) for _ in range(layers)]
        super().__init__(layers=[*self.mine])
        self.rows, self.reserved = rows, reserved

    def join(
        self,
        slots: Int[Tensor, " n"],
        prompts: DynamicCache,
        which: Int[Tensor, " n"],
        columns: int = 0,
    ) -> None:
        """Row `which[i]` of the prompts' cache becomes row `slots[i]`, ending at the last column.

        What else the row's columns held stays, and must be masked. An empty cache begins with
        `columns`, or with as many as these prompts have.
        """
        layers: list[Any] = prompts.layers
        for mine, theirs in zip(self.mine, layers, strict=True):
            if not mine.is_initialized:
                mine.start(theirs.keys, self.rows, columns)
            for into, new in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
                place = into[:, :, mine.used - new.shape[2] : mine.used]
                chosen = new.index_select(0, which.to(new.device))
                place.index_copy_(0, slots.to(into.device), chosen)

    def reframe(self, rows: Int[Tensor, " n"], used: int) -> None:
        """Keep these rows, and of each its last `used` columns; layer by layer, to spare memory.

        Where it has fewer, they stand behind empty ones.
        """
        self.rows = len(rows)
        for layer in self.mine:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(self.rows, old.shape[1], self.reserved, old.shape[3])
                kept = min(used, layer.used)
                held = old[rows.to(old.device), :, layer.used - kept : layer.used]
                new[:, :, used - kept : used] = held
                setattr(layer, name, new)
            layer.used = used


def bytes_per_token(model: Model) -> dict[torch.device, int]:
    """What one token of one row holds in the cache, by device (a large model lies on several)."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found: dict[torch.device, int] = {}
    for block in model.blocks:
        weight = next(block.parameters())
        size = weight.element_size() if weight.is_floating_point() else 2  # quantised: half floats
        device = computes_on(block)  # its weights may be kept elsewhere
        found[device] = found.get(device, 0) + 2 * heads * width * size
    return found


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a CUDA device, what torch holds in reserve included."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + int(held)


def rows_that_fit(
    model: Model, columns: int, free: Callable[[torch.device], int] = free_bytes
) -> int:
    """Rows of `columns` tokens whose keys, values and logits fit beside the model; at least 1.

    On a CPU a modest number. Each row's logits are held in float32 and drawn from in float64.
    """
    on_cpu = model.device.type != "cuda"
    logits = int(model.config.vocab_size) * 16
    fits = [
        (CPU_BYTES if on_cpu else int(SHARE * free(device)))
        // ((columns + SLACK) * per_token + logits)
        for device, per_token in bytes_per_token(model).items()
    ]
    return max(1, min(*fits, ON_CPU if on_cpu else AT_MOST))
