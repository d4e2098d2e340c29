"""How a base is brought into memory: a frozen value, checked before anything loads.

Knows words. Knows nothing of torch, files or weights.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, field_validator, model_validator

from em_interp.records import Spec

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantise = Literal["8bit", "4bit"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]

_KNOWN = re.compile(r"cpu|(cuda|mps|xpu)(:\d{1,3})?")


def _device(text: str) -> str:
    if not _KNOWN.fullmatch(text):
        raise ValueError(f"{text!r} is no device: cpu, cuda, cuda:1 (also mps, xpu)")
    return text


# The name of a device, here or on the machine that a plan is made for.
Device = Annotated[str, AfterValidator(_device)]
MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's words


class Loading(Spec):
    """Which revision of a base, in which precision, and where.

    `revision`: branch, tag or commit, of a base on the hub. `dtype`: `auto` is the checkpoint's
    own. `device_map`: `auto`, `balanced`, `balanced_low_0`, `sequential` (accelerate's words), or
    a device for each module; it places the model in `device`'s stead, also over several devices.
    `quantise`: weights in 8 or 4 bits (bitsandbytes), to be read and steered, never trained; the
    model keeps the identity of the weights it came from. In 8 bits, outliers are sought over the
    whole batch (LLM.int8, arXiv:2208.07339), so an answer may depend a little on what it is batched
    with; in 4 bits (NF4) it does not. `attention`: the kernel; `None` is the
    library's choice.
    """

    revision: str | None = None
    dtype: Dtype = "auto"
    device: Device = "cpu"
    device_map: str | dict[str, int | str] | None = None
    quantise: Quantise | None = None
    attention: Attention | None = None

    @field_validator("device_map", mode="before")
    @classmethod
    def _known_map(cls, value: object) -> object:
        if value is None or isinstance(value, dict) or value in MAPS:
            return value
        raise ValueError(f"must be {', '.join(MAPS)}, or a JSON file of modules and devices")

    @model_validator(mode="after")
    def _one_place(self) -> "Loading":
        if self.device_map is not None and self.device != "cpu":
            raise ValueError(
                f"a device map places the model itself; leave out device {self.device!r}"
            )
        return self
