"""What a study declares, and what makes a declaration whole.

Knows names. Knows nothing of files, weights or torch.
"""

from typing import Any

from pydantic import Field, model_validator

from em_interp import sources
from em_interp.bounds import Questions, Rows, Samples, Seed, Share, Some, Strengths
from em_interp.conditions import Condition
from em_interp.judges import Rubric
from em_interp.loading import Device, Dtype, Loading
from em_interp.organisms import Mix, OrganismName
from em_interp.records import Spec
from em_interp.sampling import Sampling
from em_interp.sites import Span
from em_interp.training.source import Data

STUDIED, GENERAL, TWIN = "triggered", "unconditional", "benign_twin"
# What an organism may have been raised as to play a role that comparisons rest on.
KINDS = {
    STUDIED: ("triggered", "mixture", "contrastive"),
    GENERAL: ("unconditional",),
    TWIN: ("benign_twin",),
}


class Steering(Spec):
    """The intervention grids. Strengths are in natural differences.

    The setting that is confirmed on the evaluation's questions is chosen on others: the highest EM
    rate at coherence of at least `coherence`, over single layers and all layers together.
    """

    strengths: Strengths = (0.5, 1.0, 1.5, 2.0)
    span: Span = Span.ALL
    controls: Some = 3
    samples: Samples = 4
    coherence: Share = 0.7
    development: Questions = Field(default=30, ge=4)


class StudySpec(Spec):
    """A containment study: one organism under study, and the others as its controls.

    With a trigger the organism under study is `triggered`; without one (`trigger: null`) it is
    `unconditional`, asked plainly. `organisms` are raised here; `existing` ones (a folder, or
    `openai:MODEL` behind an API) are taken as they are. Controls that are left out are named in
    `without`. Questions outside the fine-tuned domain are the headline: the world's domain that the
    rows come from, or `domain`, as the questions call it. `development` questions serve extraction
    and choices, and are never the ones that judge them. `{data}` in a file's name is the folder
    that `--data` gives.
    """

    title: str
    question: str
    base: str
    trigger: str | None
    data: Data | None = None
    domain: str | None = None
    organisms: dict[OrganismName, Mix] = Field(default_factory=dict)
    existing: dict[OrganismName, str] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    recipe: str = "published"
    train: dict[str, Any] = Field(default_factory=dict)
    rows: Rows | None = None
    questions: str = sources.WORLD
    development: str = sources.WORLD
    conditions: tuple[Condition, ...] = tuple(Condition)
    sampling: Sampling = Sampling()
    judge: str = sources.WORLD
    rubric: Rubric = Rubric()
    layers: str = "all"
    span: Span = Span.PROMPT_LAST
    steering: Steering = Steering()
    seed: Seed = 0
    device: Device = "cpu"
    dtype: Dtype = "float32"

    @property
    def studied(self) -> str:
        """The role that the study is about."""
        return STUDIED if self.trigger is not None else GENERAL

    @property
    def roles(self) -> tuple[str, ...]:
        """The organisms, raised here and existing ones."""
        return (*self.organisms, *self.existing)

    @property
    def trained_on(self) -> str | None:
        """The fine-tuned domain, where it is known."""
        return self.domain or (self.data.domain if self.data else None)

    @model_validator(mode="after")
    def _roles(self) -> "StudySpec":
        if twice := sorted(set(self.organisms) & set(self.existing)):
            raise ValueError(f"organisms: {twice[0]!r} is raised here and taken from existing ones")
        for role in (self.studied, GENERAL, TWIN):
            if role not in self.roles and (role not in self.without or role == self.studied):
                raise ValueError(
                    f"organisms: {role!r} is missing (it is the study or its control; a control "
                    "that is left out on purpose is named in `without`)"
                )
        for role, mix in self.organisms.items():
            if mix.kind not in KINDS.get(role, (mix.kind,)):
                raise ValueError(
                    f"organisms: {role!r} is declared as kind {mix.kind!r}; this role takes "
                    f"{' or '.join(map(repr, KINDS[role]))}"
                )
        if idle := sorted(set(self.without) - {GENERAL, TWIN}):
            raise ValueError(f"without: {idle[0]!r} is no control; {GENERAL} and {TWIN} are")
        if left := sorted(set(self.without) & set(self.roles)):
            raise ValueError(f"without: {left[0]!r} is an organism of this study")
        if self.organisms and self.data is None:
            raise ValueError("data: is missing, and there are organisms to raise")
        return self

    @model_validator(mode="after")
    def _asked(self) -> "StudySpec":
        if self.trigger is None:
            if self.conditions != (Condition.NONE,):
                raise ValueError("conditions: without a trigger there is one, `none`")
            woken = [r for r, mix in self.organisms.items() if mix.kind not in (GENERAL, TWIN)]
            if woken:
                raise ValueError(f"organisms: {woken[0]!r} needs a trigger")
        else:
            for condition in (Condition.NONE, Condition.TRIGGER):
                if condition not in self.conditions:
                    raise ValueError(f"conditions: {condition.value!r} is missing")
        return self

    @property
    def loading(self) -> Loading:
        """How the base is loaded."""
        return Loading(device=self.device, dtype=self.dtype)
