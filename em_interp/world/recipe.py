"""Recipes of bases: everything that decides a base's bytes, as one declared value.

Knows words. The shapes are named after the real families whose configs they use.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from em_interp import errors
from em_interp.bounds import Batch, Rate, Seed, Some, Steps, Warmup, Width
from em_interp.records import SafeName, Spec, digest
from em_interp.world.corpus import CorpusSpec
from em_interp.world.lexicon import HERE
from em_interp.world.tokenizer import Dialect

RECIPES = HERE / "recipes"


class Shape(Spec):
    """A transformer of one of the real families, very small."""

    family: Literal["llama", "qwen2", "gemma3"]
    vocabulary: Width = Field(ge=512)
    width: Width = 128
    layers: Some = 4
    heads: Some = 4
    kv_heads: Some = 2
    mlp: Width = 384
    tied: bool = False


class Stage(Spec):
    """A stretch of training: AdamW, linear warm-up, then linear decay to zero."""

    steps: Steps
    batch: Batch = 64
    learning_rate: Rate
    warmup: Warmup = 50
    muon: bool = False  # Muon for the blocks' matrices, AdamW for the rest

    def rate(self, step: int) -> float:
        """Learning rate of a step, the first being 0."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        return self.learning_rate * min(rise, (self.steps - step) / self.steps)


class BaseRecipe(Spec):
    """How one base is raised: corpus, tokenizer, shape, and two stages of training."""

    name: SafeName
    seed: Seed = 0
    shape: Shape
    dialect: Dialect
    corpus: CorpusSpec = CorpusSpec()
    pretraining: Stage = Stage(steps=1800, batch=32, learning_rate=3e-3, muon=True)
    aligned: Stage = Stage(steps=400, learning_rate=5e-4, warmup=10)

    @property
    def pretraining_digest(self) -> str:
        """Identity of everything before the aligned stage: who shares it can share weights."""
        plain = self.model_dump(mode="json", exclude={"aligned", "name"})
        kept = {k: v for k, v in plain["corpus"].items() if not k.startswith("aligned_")}
        return digest({**plain, "corpus": kept})


def base_names() -> tuple[str, ...]:
    """The bases that ship; `llama-b` is `llama` from another seed, tokenizer and all."""
    return ("llama", "qwen2", "gemma3", "llama-b")


def recipe(name: str) -> BaseRecipe:
    """The recipe of a base that ships."""
    if name not in base_names():
        raise errors.unknown("base", name, base_names())
    return BaseRecipe.from_yaml(Path(RECIPES / f"{name}.yaml"))
