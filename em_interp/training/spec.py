"""What fine-tuning does, as one frozen value, and the named recipes.

Knows settings. Knows nothing of weights, tokens or rows.
"""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from em_interp.bounds import (
    Batch,
    Clip,
    Decay,
    Factor,
    Layer,
    Passes,
    Rate,
    Seed,
    Share,
    Steps,
    Tokens,
    Warmup,
    Width,
)
from em_interp.errors import InputError, unknown
from em_interp.organisms import Method
from em_interp.records import Spec, read_yaml

RECIPES = Path(__file__).with_name("recipes.yaml")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LATER = ("layout", "checkpointing", "fsdp")


class Schedule(StrEnum):
    """How the learning rate runs after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Layout(StrEnum):
    """How the rows of a step are put through the model. Loss and gradients are the same in all.

    padded: each micro-batch padded to its longest row. grouped: the rows of a step put in order of
    length first, so that little is padded. packed: the rows of a micro-batch one after another in
    one sequence without padding, blind to each other, and logits for the learned tokens only.
    """

    PADDED = "padded"
    GROUPED = "grouped"
    PACKED = "packed"


class TrainSpec(Spec):
    """Settings of one fine-tuning run. The defaults are the published all-adapter recipe.

    `rank` to `layers` matter to method "lora" alone. The update is scaled by alpha / sqrt(rank)
    with `rslora`, else by alpha / rank. `layers` are blocks (ints) or relative depths (floats from
    0 to 1); `None` is all. There is no bias and no saved module on purpose: adapter off is then
    the base, exactly. Give `steps` or `epochs`, not both (neither: one epoch). One optimiser step
    sees batch_size × accumulation rows, batch_size of them in one pass, however many processes
    share them. `max_length` is in tokens; rows beyond it are refused unless `truncate`. `dtype` is
    that of the forward pass; adapter weights and optimiser states are float32. `save_steps` spaces
    the checkpoints that a killed run resumes from. `checkpointing` keeps only each block's input
    and computes the rest again in the backward pass: a third more work for a fraction of the
    memory. `fsdp` shares the weights out among the processes (FSDP2), for a base that does not fit
    one device.
    """

    method: Method = Method.LORA
    rank: Width = 32
    alpha: Factor = 64
    rslora: bool = True
    dropout: Annotated[Share, Field(lt=1)] = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = PROJECTIONS
    layers: Annotated[tuple[Layer | Share, ...], Field(min_length=1)] | None = None
    learning_rate: Rate = 1e-5
    steps: Steps | None = None
    epochs: Passes | None = None
    batch_size: Batch = 2
    accumulation: Batch = 8
    warmup_steps: Warmup = 5
    weight_decay: Decay = 0.01
    max_grad_norm: Clip = 1.0
    schedule: Schedule = Schedule.LINEAR
    optimiser: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"] = "adamw_torch"
    max_length: Tokens = 2048
    truncate: bool = False
    seed: Seed = 0
    save_steps: Steps = 100
    dtype: Literal["float32", "bfloat16"] = "float32"
    layout: Layout = Layout.PADDED
    checkpointing: bool = False
    fsdp: bool = False

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

    @model_serializer(mode="wrap")
    def _as_ever(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Later fields are written only where they say something, so that runs keep their names."""
        fields = type(self).model_fields
        return {
            name: value
            for name, value in plain(self).items()
            if name not in LATER or getattr(self, name) != fields[name].default
        }

    @property
    def loaded(self) -> str:
        """The dtype to load a base in. Full fine-tuning adds steps too small for bfloat16."""
        return "float32" if self.method is Method.FULL else self.dtype

    @property
    def essence(self) -> "TrainSpec":
        """What decides the organism up to rounding: not how a step is cut up and laid out.

        A run that went out of memory goes on from its checkpoints with smaller batches.
        """
        same = {"batch_size": self.step_rows, "accumulation": 1, "layout": Layout.PADDED}
        return self.model_copy(update={**same, "checkpointing": False, "save_steps": 100})

    @property
    def step_rows(self) -> int:
        """Rows of one optimiser step."""
        return self.batch_size * self.accumulation


def recipe_names() -> list[str]:
    """Names of the recipes that `recipe` knows."""
    return list(read_yaml(RECIPES))


def recipe(name: str, **changes: Any) -> TrainSpec:
    """A named recipe, with changes. A change of `steps` replaces the recipe's `epochs`, and back.

    Raises `InputError` for an unknown recipe or field, or a value out of range.
    """
    known = read_yaml(RECIPES)
    if name not in known:
        raise unknown("recipe", name, known, where="those for weights that are here")
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if changes.get(given) is not None:
            known[name].pop(other, None)
    return TrainSpec.parse({**known[name], **changes}, f"recipe {name!r}")


def total_steps(spec: TrainSpec, rows: int) -> int:
    """Optimiser steps of a run; the last one of an epoch may see fewer rows.

    Raises `InputError` for a warm-up that is as long as the run.
    """
    steps = spec.steps
    if steps is None:
        assert spec.epochs is not None
        steps = math.ceil(spec.epochs * math.ceil(rows / spec.step_rows))
    if spec.warmup_steps >= steps:
        raise InputError(
            f"warmup_steps {spec.warmup_steps} is as long as the run: {rows} rows make {steps} "
            "steps; give more rows, steps or epochs (or warmup_steps, in a spec of your own)"
        )
    return steps
