"""What fine-tuning does, as one frozen value, and the named recipes.

Knows settings. Knows nothing of weights, tokens or rows.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from em_interp.errors import unknown
from em_interp.organisms import Method
from em_interp.records import Spec, read_yaml

RECIPES = Path(__file__).with_name("recipes.yaml")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Positive = Annotated[int, Field(gt=0)]
Depth = Annotated[float, Field(ge=0, le=1)]


class Schedule(StrEnum):
    """How the learning rate runs after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class TrainSpec(Spec):
    """Settings of one fine-tuning run. The defaults are the published all-adapter recipe.

    `rank` to `layers` matter to method "lora" alone. The update is scaled by alpha / sqrt(rank)
    with `rslora`, else by alpha / rank. `layers` are blocks (ints) or relative depths (floats from
    0 to 1); `None` is all. There is no bias and no saved module on purpose: adapter off is then
    the base, exactly. Give `steps` or `epochs`, not both (neither: one epoch). One optimiser step
    sees batch_size × accumulation × processes rows. `max_length` is in tokens; rows beyond it are
    refused unless `truncate`. `dtype` is that of the forward pass; adapter weights and optimiser
    states are float32. `save_steps` spaces the checkpoints that a killed run resumes from.
    """

    method: Method = Method.LORA
    rank: Positive = 32
    alpha: Annotated[float, Field(gt=0)] = 64
    rslora: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = PROJECTIONS
    layers: Annotated[tuple[int | Depth, ...], Field(min_length=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Positive = 2
    accumulation: Positive = 8
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    schedule: Schedule = Schedule.LINEAR
    optimiser: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"] = "adamw_torch"
    max_length: Positive = 2048
    truncate: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    save_steps: Positive = 100
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("steps") is None and data.get("epochs") is None:
            return {**data, "epochs": 1.0}
        return data

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSpec":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that `recipe` knows."""
    return list(read_yaml(RECIPES))


def recipe(name: str, **changes: Any) -> TrainSpec:
    """A named recipe, with changes. A change of `steps` replaces the recipe's `epochs`, and back.

    Raises `InputError` for an unknown recipe or field, or a value out of range.
    """
    known = read_yaml(RECIPES)
    if name not in known:
        raise unknown("recipe", name, known)
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if changes.get(given) is not None:
            known[name].pop(other, None)
    return TrainSpec.parse({**known[name], **changes}, f"recipe {name!r}")
