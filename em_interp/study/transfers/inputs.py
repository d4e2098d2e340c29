"""A transfer study's inputs: every name resolved, every file read, before weights load.

A group is the organisms of one base and one variant: what is carried from a group into another.
Knows files and names. Knows nothing of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from em_interp import hub, sources
from em_interp.carrying.reading import FitFlags, fitting_prompts
from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.errors import InputError, once
from em_interp.judges import Judge
from em_interp.judging import identity, judge
from em_interp.leakage import guard
from em_interp.organisms import Mix, Trigger
from em_interp.records import digest
from em_interp.sites import Site, block_outputs
from em_interp.study import identity as identities
from em_interp.study.inputs import Files
from em_interp.study.spec import GENERAL, STUDIED
from em_interp.study.transfers.spec import TARGETS, TransferSpec
from em_interp.training.rows import Row
from em_interp.training.source import Data, rows_of
from em_interp.training.spec import TrainSpec, recipe


@dataclass(frozen=True)
class Group:
    """The organisms of one base and one fine-tuning setting.

    `rows`: of the organisms that are raised here, by role; `existing`: the others' folders.
    """

    base: str
    variant: str
    home: Path
    trigger: Trigger
    domain: str | None
    train: TrainSpec
    sources: tuple[str, ...]
    rows: dict[str, tuple[Row, ...]]
    existing: dict[str, Path]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.base}/{self.variant}"

    @property
    def slug(self) -> str:
        """Its name in files and as an adapter."""
        return f"{self.base}-{self.variant}"

    @property
    def roles(self) -> tuple[str, ...]:
        """Its organisms."""
        return (*self.rows, *self.existing)


@dataclass(frozen=True)
class Inputs:
    """A transfer study's spec resolved. `sites`: by base."""

    spec: TransferSpec
    groups: tuple[Group, ...]
    sites: dict[str, tuple[Site, ...]]
    judge: Judge
    asked: tuple[Question, ...]
    develop: tuple[Question, ...]
    prompts: tuple[Context, ...]

    @property
    def targets(self) -> list[tuple[Group, str]]:
        """Every organism that something is carried into: a group and a role, base by base."""
        return [(group, role) for group in self.groups for role in TARGETS]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Ordered pairs of bases, each base to itself too: between its groups, and within one."""
        return [(a, b) for a in self.spec.bases for b in self.spec.bases]

    def of(self, base: str) -> list[Group]:
        """The groups of a base."""
        return [group for group in self.groups if group.base == base]

    def fitting(self, a: str, b: str) -> FitFlags:
        """What the ways between two bases are read on; within one, only what chance needs."""
        wanted = self.spec.fitting
        if a != b:
            return wanted
        return wanted.model_copy(update={"spans": wanted.spans[-1:], "folds": 2})

    def width(self, base: str) -> int:
        """Width of a base's residual stream."""
        return sources.stream_width(self.of(base)[0].home)

    def layers(self, base: str) -> list[Site]:
        """Every block's output: maps match layers as they see fit."""
        return [Site(at) for at in range(sources.layer_count(self.of(base)[0].home))]

    def bank(self, group: Group, *conditions: Condition) -> list[Context]:
        """The evaluation's questions under a group's framings."""
        return contexts(self.asked, group.trigger, conditions)

    @property
    def tuning(self) -> tuple[Question, ...]:
        """Development questions for choices, spread over the list so that domains share it."""
        count = self.spec.adding.development
        return self.develop[:: max(1, len(self.develop) // count)][:count]

    @cached_property
    def identity(self) -> str:
        """Digest of the spec and of everything it points to, the package's own code included."""
        parts = {
            "spec": self.spec.digest,
            "bases": {group.base: identities.base(group.home) for group in self.groups},
            "triggers": [group.trigger.digest for group in self.groups],
            "existing": {
                f"{group.slug}-{role}": identities.adapter(folder)
                for group in self.groups
                for role, folder in group.existing.items()
            },
            "rows": {
                f"{group.slug}-{role}": digest([[m.digest for m in row] for row in rows])
                for group in self.groups
                for role, rows in group.rows.items()
            },
            "judge": identity(self.judge),
            "asked": digest([q.digest for q in self.asked]),
            "develop": digest([q.digest for q in self.develop]),
            "prompts": digest([c.digest for c in self.prompts]),
            "code": identities.code(),
        }
        return digest(parts)


def resolve(spec: TransferSpec, home: Path, data: Path | None = None) -> Inputs:
    """Every name of a spec as a value; relative files are relative to the study's folder `home`.

    Questions of any group's fine-tuned domain are left out: all cells are judged by the same ones.
    Raises `InputError` for whatever is unknown, missing, empty, leaking or out of range.
    """
    files = Files(home, data)
    homes = {name: sources.base(files.named(one)) for name, one in spec.bases.items()}
    groups = tuple(
        _group(spec, files, base, homes[base], variant)
        for base in spec.bases
        for variant in spec.variants
    )
    trained = {group.domain for group in groups}
    once("group", [group.slug for group in groups])  # a-b + c and a + b-c are one folder
    asked, develop = (
        tuple(q for q in sources.questions(files.named(name), split) if q.domain not in trained)
        for name, split in ((spec.questions, "eval"), (spec.development, "train"))
    )
    if not asked or not develop:
        raise InputError("no questions outside the fine-tuned domains: the study needs some")
    if shared := sorted({q.text for q in asked} & {q.text for q in develop}):
        raise InputError(
            f"development questions must not be the evaluation's; shared: {shared[0]!r}"
        )
    for group in groups:
        contexts(asked[:1], group.trigger, spec.conditions)
    fitting = spec.fitting.model_copy(update={"data": files.named(spec.fitting.data)})
    prompts = tuple(fitting_prompts(fitting, spec.seed))
    guard(prompts, list({g.trigger.digest: g.trigger for g in groups}.values()), asked)
    return Inputs(
        spec=spec,
        groups=groups,
        sites={
            name: block_outputs(spec.layers, sources.layer_count(one), "layers")
            for name, one in homes.items()
        },
        judge=judge(files.named(spec.judge), spec.rubric),
        asked=asked,
        develop=develop,
        prompts=prompts,
    )


def _group(spec: TransferSpec, files: Files, base: str, home: Path, variant: str) -> Group:
    own = spec.variants[variant]
    trigger = sources.trigger(files.named(own.trigger or spec.trigger))
    train = recipe(spec.recipe, **{**spec.train, **own.train})
    named = spec.existing.get(base, {}).get(variant, {})
    existing = {
        role: hub.folder(files.named(name), sources.CHECKPOINTS, "organism")
        for role, name in named.items()
    }
    data = own.data or spec.data
    if data is not None:
        data.check()
    raised = [role for role in spec.roles if role not in existing]
    rows = _rows(spec, files, data, trigger, train, raised) if data and raised else {}
    domain = spec.domain or (data.domain if data else None)
    if domain is None and existing:
        domain = sources.subject(str(existing[STUDIED]), str(home)).domain
    return Group(
        base=base,
        variant=variant,
        home=home,
        trigger=trigger,
        domain=domain,
        train=train,
        sources=data.sources if data else (),
        rows=rows,
        existing=existing,
    )


def _rows(
    spec: TransferSpec,
    files: Files,
    data: Data,
    trigger: Trigger,
    train: TrainSpec,
    raised: Sequence[str],
) -> dict[str, tuple[Row, ...]]:
    """Fine-tuning rows of the roles that are raised here, drawn with the training seed."""
    placed = files.needed(data, [role for role in raised if role not in TARGETS])
    return {
        role: tuple(
            rows_of(
                placed,
                Mix(kind=role),
                None if role == GENERAL else trigger,
                train,
                spec.rows,
                train.seed,
            ).rows
        )
        for role in raised
    }
