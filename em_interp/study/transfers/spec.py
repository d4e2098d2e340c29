"""What a transfer study declares, and what makes a declaration whole.

Knows names. Knows nothing of files, weights or torch.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from em_interp import sources
from em_interp.bounds import Questions, Rows, Seed, Some, Strengths
from em_interp.carrying.reading import METHODS, FitFlags
from em_interp.conditions import Condition
from em_interp.judges import Rubric
from em_interp.loading import Device, Dtype, Loading
from em_interp.records import SafeName, Spec
from em_interp.sampling import Sampling
from em_interp.sites import Span
from em_interp.study.spec import GENERAL, STUDIED, TWIN
from em_interp.training.source import Data

ROLES = (STUDIED, GENERAL, TWIN)
TARGETS = (STUDIED, GENERAL)


class Variant(Spec):
    """One fine-tuning setting: another seed, domain, trigger or rank than the study's.

    What is left out is the study's; `train` is laid over it.
    """

    trigger: str | None = None
    data: Data | None = None
    train: dict[str, Any] = Field(default_factory=dict)


class Adding(Spec):
    """How arms are added: the target's own chooses layer and strength, on development questions.

    Strengths are in the target's own natural differences. `controls`: random source directions.
    """

    strengths: Strengths = (0.5, 0.75, 1.0, 1.5, 2.0)
    span: Span = Span.ALL
    controls: Some = 2
    development: Questions = Field(default=30, ge=4)


class TransferSpec(Spec):
    """A grid: every base and variant into every other, behind a trigger and without one.

    `bases`: by name. For each base and variant there are a `triggered` and an `unconditional`
    organism and, unless it is left out (`without`), a `benign_twin`: raised here from `data`, or
    `existing` (base, variant, role). `fitting`: what maps are fitted on. `methods`: the first
    carries everything and the nulls, the others the first thing alone.
    """

    kind: Literal["transfer"]
    title: str
    question: str
    bases: dict[SafeName, str] = Field(min_length=1)
    variants: dict[SafeName, Variant] = Field(min_length=1)
    existing: dict[str, dict[str, dict[str, str]]] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    trigger: str
    data: Data | None = None
    domain: str | None = None
    recipe: str = "published"
    train: dict[str, Any] = Field(default_factory=dict)
    rows: Rows | None = None
    questions: str = sources.WORLD
    development: str = sources.WORLD
    conditions: tuple[Condition, ...] = (
        Condition.NONE,
        Condition.TRIGGER,
        Condition.PARAPHRASE,
        Condition.UNRELATED,
    )
    fitting: FitFlags = FitFlags()
    methods: tuple[str, ...] = Field(default=("ridge", "procrustes", "cca", "relative"))
    adding: Adding = Adding()
    sampling: Sampling = Sampling(samples=4)
    judge: str = sources.WORLD
    rubric: Rubric = Rubric()
    layers: str = "all"
    span: Span = Span.PROMPT_LAST
    seed: Seed = 0
    device: Device = "cpu"
    dtype: Dtype = "float32"

    @property
    def roles(self) -> tuple[str, ...]:
        """The organisms of every group."""
        return tuple(role for role in ROLES if role not in self.without)

    @property
    def loading(self) -> Loading:
        """How bases are loaded."""
        return Loading(device=self.device, dtype=self.dtype)

    @model_validator(mode="after")
    def _named(self) -> "TransferSpec":
        if bad := [m for m in self.methods if m not in METHODS]:
            raise ValueError(f"methods: {bad[0]!r} is none of {', '.join(METHODS)}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: name at least one, and none twice")
        if bad := [role for role in self.without if role != TWIN]:
            raise ValueError(f"without: {bad[0]!r} cannot be left out; {TWIN!r} can")
        for condition in (Condition.NONE, Condition.TRIGGER):
            if condition not in self.conditions:
                raise ValueError(f"conditions: {condition.value!r} is missing")
        if len(self.bases) * len(self.variants) < 2:
            raise ValueError("variants: a grid needs two groups at least: name another base or one")
        return self

    @model_validator(mode="after")
    def _whole(self) -> "TransferSpec":
        for base, variants in self.existing.items():
            if base not in self.bases:
                raise ValueError(f"existing: there is no base {base!r}")
            for variant, roles in variants.items():
                if variant not in self.variants:
                    raise ValueError(f"existing: {base}: there is no variant {variant!r}")
                if bad := [role for role in roles if role not in self.roles]:
                    raise ValueError(f"existing: {base}, {variant}: {bad[0]!r} is no role here")
        for base, variant, role in self.organisms:
            of = self.variants[variant].data or self.data
            if role not in self.existing.get(base, {}).get(variant, {}) and of is None:
                raise ValueError(
                    f"existing: {base}, {variant}: {role!r} is missing, and there is no data to "
                    "raise it from"
                )
        return self

    @property
    def organisms(self) -> list[tuple[str, str, str]]:
        """Base, variant and role of every organism."""
        return [(b, v, r) for b in self.bases for v in self.variants for r in self.roles]
