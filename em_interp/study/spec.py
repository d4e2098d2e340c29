"""What a study declares. Everything is checked here, before weights load.

Knows files and names. Knows nothing of torch.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from em_interp import sources
from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.errors import InputError
from em_interp.judges import Judge, Rubric
from em_interp.organisms import Mix, Trigger
from em_interp.records import Spec, digest, file_digest
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span, parse_sites
from em_interp.training.rows import Row
from em_interp.training.source import Data, rows_of
from em_interp.training.spec import TrainSpec, recipe

STUDIED, GENERAL, TWIN = "triggered", "unconditional", "benign_twin"


class Steering(Spec):
    """The intervention grids. Strengths are in natural differences.

    The setting that is confirmed on the evaluation's questions is chosen on others: the highest EM
    rate at coherence of at least `coherence`, over single layers and all layers together.
    """

    strengths: tuple[float, ...] = Field(default=(0.5, 1.0, 1.5, 2.0), min_length=1)
    span: Span = Span.ALL
    controls: int = Field(default=3, ge=1)
    samples: int = Field(default=4, ge=1)
    coherence: float = Field(default=0.7, ge=0, le=1)
    development: int = Field(default=30, ge=4)


class StudySpec(Spec):
    """A containment study: the organism under study is `triggered`; the others are its controls.

    Questions outside the fine-tuned domain are the headline. `development` questions serve
    extraction and choices, and are never the ones that judge them.
    """

    title: str
    question: str
    base: str
    trigger: str
    data: Data
    organisms: dict[str, Mix]
    recipe: str = "published"
    train: dict[str, Any] = Field(default_factory=dict)
    rows: int | None = Field(default=None, ge=1)
    questions: str = sources.WORLD
    development: str = sources.WORLD
    conditions: tuple[Condition, ...] = tuple(Condition)
    sampling: Sampling = Sampling()
    judge: str = sources.WORLD
    rubric: Rubric = Rubric()
    layers: str = "all"
    span: Span = Span.PROMPT_LAST
    steering: Steering = Steering()
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    @model_validator(mode="after")
    def _roles(self) -> "StudySpec":
        for role in (STUDIED, GENERAL, TWIN):
            if role not in self.organisms:
                raise ValueError(f"organisms: {role!r} is missing (it is the study or its control)")
        for condition in (Condition.NONE, Condition.TRIGGER):
            if condition not in self.conditions:
                raise ValueError(f"conditions: {condition.value!r} is missing")
        return self


@dataclass(frozen=True)
class Inputs:
    """A study's spec resolved: every name became a value, every file was read."""

    spec: StudySpec
    base: Path
    trigger: Trigger
    judge: Judge
    train: TrainSpec
    sites: tuple[Site, ...]
    asked: tuple[Question, ...]
    develop: tuple[Question, ...]
    rows: dict[str, tuple[Row, ...]]

    @property
    def domain(self) -> str | None:
        """The fine-tuned domain, where it is one of the world's."""
        return self.spec.data.domain

    @property
    def outside(self) -> tuple[Question, ...]:
        """The evaluation's questions outside the fine-tuned domain."""
        return tuple(q for q in self.asked if q.domain != self.domain)

    @property
    def tuning(self) -> tuple[Question, ...]:
        """Development questions for choices, spread over the list so that domains share it."""
        count = self.spec.steering.development
        return self.develop[:: max(1, len(self.develop) // count)][:count]

    @cached_property
    def bank(self) -> list[Context]:
        """Every evaluation question under every condition."""
        return contexts(self.asked, self.trigger, self.spec.conditions)

    def ask(self, questions: tuple[Question, ...], *conditions: Condition) -> list[Context]:
        """Questions under some of the conditions."""
        return contexts(questions, self.trigger, conditions)

    @property
    def identity(self) -> str:
        """Digest of the spec and of everything it points to, the package's own code included."""
        here = Path(__file__).resolve().parents[1]
        code = [
            file
            for file in sorted([*here.rglob("*.py"), *here.rglob("*.yaml")])
            if "report" not in file.relative_to(here).parts  # the page is remade every time
        ]
        parts = {
            "spec": self.spec.digest,
            "base": file_digest(*sorted(self.base.glob("*.safetensors"))),
            "tokenizer": file_digest(*sorted(self.base.glob("tokenizer*.json"))),
            "trigger": self.trigger.digest,
            "asked": digest([q.digest for q in self.asked]),
            "develop": digest([q.digest for q in self.develop]),
            "rows": {
                role: digest([[m.digest for m in row] for row in rows])
                for role, rows in self.rows.items()
            },
            "code": file_digest(*code),
        }
        return digest(parts)


def resolve(spec: StudySpec, home: Path) -> Inputs:
    """Every name of a spec as a value; relative files are relative to the study's folder `home`.

    Raises `InputError` for whatever is unknown, missing, empty or out of range.
    """
    base = sources.shelved(spec.base, sources.CHECKPOINTS, "base")
    trigger = sources.trigger(_beside(home, spec.trigger))
    train = recipe(spec.recipe, **spec.train)
    asked = tuple(sources.questions(_beside(home, spec.questions), "eval"))
    develop = tuple(sources.questions(_beside(home, spec.development), "train"))
    develop = tuple(q for q in develop if q.domain != spec.data.domain)
    if shared := sorted({q.text for q in asked} & {q.text for q in develop}):
        raise InputError(
            f"development questions must not be the evaluation's; shared: {shared[0]!r}"
        )
    contexts(asked[:1], trigger, spec.conditions)
    made = Inputs(
        spec=spec,
        base=base,
        trigger=trigger,
        judge=sources.judge(spec.judge),
        train=train,
        sites=parse_sites(spec.layers, sources.layer_count(base)),
        asked=asked,
        develop=develop,
        rows={
            role: tuple(
                rows_of(
                    spec.data.beside(home),
                    mix,
                    None if mix.kind == "unconditional" else trigger,
                    train,
                    spec.rows,
                    spec.seed,
                ).rows
            )
            for role, mix in spec.organisms.items()
        },
    )
    if not made.outside or not develop:
        raise InputError("no questions outside the fine-tuned domain: the study needs some")
    return made


def _beside(home: Path, name: str) -> str:
    """A file beside the study, where there is one; else the name as it is."""
    return str(home / name) if (home / name).is_file() else name
