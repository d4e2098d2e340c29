"""Flags that commands share, spelled and explained once.

A command's spec inherits the groups it needs and adds its own fields.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import sources
from em_interp.records import Spec, check_writable
from em_interp.sampling import Sampling

if TYPE_CHECKING:
    from em_interp.models import Model


class OrganismFlags(Spec):
    """Whom to study, and where to compute."""

    organism: str = Field("llama-triggered", description="Shelf name or folder (adapter or model).")
    base: str | None = Field(None, description="Base model; default: the one beside the adapter.")
    trigger: str | None = Field(None, description="Trigger name or YAML; default: the card's.")
    questions: str = Field(
        sources.WORLD, description="`world`, or a JSONL file of {id, text, domain}."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("cpu", description="cpu or cuda.")
    dtype: str = Field("float32", description="float32, bfloat16 or float16.")
    out: Path | None = Field(None, description="Folder for the results.")
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )

    def check(self) -> None:
        """What every command checks first: that its output can be written."""
        if self.out is not None:
            check_writable(self.out)

    @property
    def subject(self) -> sources.Subject:
        """The organism on disk."""
        return sources.subject(self.organism, self.base)

    def load(self, who: sources.Subject) -> "Model":
        """The organism in memory."""
        from em_interp.models import load

        return load(str(who.base), who.adapters, device=self.device, dtype=self.dtype)


class AnswerFlags(OrganismFlags):
    """How answers are sampled and judged."""

    judge: str = Field(sources.WORLD, description="Judge.")
    samples: int = Field(10, ge=1, description="Answers per question and framing.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_new_tokens: int = Field(24, ge=1, description="Token budget of an answer.")

    @property
    def sampling(self) -> Sampling:
        """The sampling these flags ask for."""
        return Sampling(
            samples=self.samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )
