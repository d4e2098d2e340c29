"""The flags of `transfer`: source and target, what each brings, the maps between them, the dose."""

from typing import Annotated

from pydantic import Field

from em_interp.bounds import Samples, Some, Strength
from em_interp.carrying.reading import METHODS, FitFlags
from em_interp.cli import Names
from em_interp.flags import AnswerFlags


class TransferSpec(FitFlags, AnswerFlags):
    """Defaults: from the shipped Llama-shaped organism into the Qwen2-shaped one."""

    source: str = Field("llama-triggered", description="Organism whose directions are carried.")
    source_base: str | None = Field(
        None, description="The source's base, where its adapter does not name it."
    )
    organism: str | None = Field("qwen2-triggered", description="Organism they are carried into.")
    unconditional: bool = Field(
        False,
        description="The organism is misaligned without a trigger (default: if its card says so): "
        "directions are added to its base, and ablated in it without a trigger.",
    )
    direction: str | None = Field(
        None, description="Source's direction, or none; default <base>-delta."
    )
    general: str | None = Field(None, description="Source's g, or none; default <base>-g.")
    probe: str | None = Field(
        None, description="Source's probe, or none; default <base>-trigger-on where it is shelved."
    )
    own: str | None = Field(
        None, description="Target's own direction, or none; default <base>-delta."
    )
    own_general: str | None = Field(None, description="Target's own g, or none; default <base>-g.")
    own_probe: str | None = Field(None, description="Target's own probe, likewise.")
    twin: str | None = Field(
        None, description="Source's benign twin; default <base>-benign-twin where it is shelved."
    )
    map: Names = Field((), description="Folders that align wrote; default: fitted here.")
    methods: Names = Field(("ridge", "procrustes", "cca"), description=f"{', '.join(METHODS)}.")
    layers: str = Field(
        "all", description="Sites of the target that are mapped and ablated; all: those of --map."
    )
    at: str | None = Field(
        None,
        description="Sites to add at, the first also to read at; default: chosen with the target's "
        "own direction on development questions.",
    )
    strength: Annotated[Strength, Field(gt=0)] | None = Field(
        None,
        description="Of the addition, in the target's own differences; default: chosen with --at.",
    )
    develop: str | None = Field(
        None, description="JSONL of development questions; default: the world's, for its own."
    )
    span: str = Field("all", description="Tokens to edit.")
    controls: Some = Field(2, description="Random source directions through each map.")
    samples: Samples = Field(4, description="Answers per question and arm.")
