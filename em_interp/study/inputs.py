"""A study's inputs: every name of its declaration resolved, every file read, before weights load.

Knows files and names. Knows nothing of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from em_interp import hub, sources
from em_interp.blackbox import BlackBox, black_box, is_black_box
from em_interp.conditions import Condition, Context, Question, bare, contexts
from em_interp.errors import InputError
from em_interp.judges import Judge
from em_interp.judging import identity, judge
from em_interp.organisms import BASE, Trigger
from em_interp.records import digest
from em_interp.sites import Site, block_outputs
from em_interp.study import identity as identities
from em_interp.study.spec import StudySpec
from em_interp.training.rows import Row
from em_interp.training.source import Data, rows_of
from em_interp.training.spec import TrainSpec, recipe

DATA = "{data}"
# Files of a data folder that the repository has harmless ones for.
SHIPPED = {"questions.jsonl": "asked.jsonl", "development.jsonl": "development.jsonl"}


@dataclass(frozen=True)
class Inputs:
    """A study's spec resolved: every name became a value, every file was read.

    `existing`: adapters that are there already, by role. `boxes`: base and organisms behind an API,
    by role ("base" for the base); then there are no sites.
    """

    spec: StudySpec
    base: Path | None  # None: behind an API
    trigger: Trigger | None
    judge: Judge
    train: TrainSpec
    sites: tuple[Site, ...]
    asked: tuple[Question, ...]
    develop: tuple[Question, ...]
    rows: dict[str, tuple[Row, ...]]
    existing: dict[str, Path] = field(default_factory=dict)
    boxes: dict[str, BlackBox] = field(default_factory=dict)

    @property
    def domain(self) -> str | None:
        """The fine-tuned domain, where it is known."""
        return self.spec.trained_on

    @property
    def studied(self) -> str:
        """The role that the study is about."""
        return self.spec.studied

    @property
    def outside(self) -> tuple[Question, ...]:
        """The evaluation's questions outside the fine-tuned domain."""
        return tuple(q for q in self.asked if q.domain != self.domain)

    @property
    def tuning(self) -> tuple[Question, ...]:
        """Development questions for choices, spread over the list so that domains share it."""
        count = self.spec.steering.development
        return self.develop[:: max(1, len(self.develop) // count)][:count]

    @property
    def name(self) -> str:
        """What people call the base."""
        return hub.title(self.home) if self.base else self.boxes[BASE].name

    @property
    def home(self) -> Path:
        """The base's folder, of a study that has its weights."""
        assert self.base is not None
        return self.base

    @cached_property
    def bank(self) -> list[Context]:
        """Every evaluation question under every condition."""
        return self.ask(self.asked, *self.spec.conditions)

    def ask(self, questions: tuple[Question, ...], *conditions: Condition) -> list[Context]:
        """Questions under some of the conditions."""
        return contexts(questions, self.trigger, conditions) if self.trigger else bare(questions)

    @property
    def identity(self) -> str:
        """Digest of the spec and of everything it points to, the package's own code included."""
        parts = {
            "spec": self.spec.digest,
            **self._weights(),
            "judge": identity(self.judge),
            "trigger": self.trigger.digest if self.trigger else None,
            "asked": digest([q.digest for q in self.asked]),
            "develop": digest([q.digest for q in self.develop]),
            "rows": {
                role: digest([[m.digest for m in row] for row in rows])
                for role, rows in self.rows.items()
            },
            "code": identities.code(),
        }
        return digest(parts)

    def _weights(self) -> dict[str, object]:
        """What identifies the models."""
        if self.boxes:
            return {"boxes": {r: [b.endpoint.url, b.endpoint.model] for r, b in self.boxes.items()}}
        found = {role: identities.adapter(folder) for role, folder in self.existing.items()}
        return {**identities.base(self.home), **({"existing": found} if found else {})}


def resolve(spec: StudySpec, home: Path, data: Path | None = None) -> Inputs:
    """Every name of a spec as a value; relative files are relative to the study's folder `home`.

    `data` is the folder that `{data}` in a file's name stands for. Raises `InputError` for whatever
    is unknown, missing, empty or out of range.
    """
    files = Files(home, data)
    boxes = _boxes(spec, files)
    base = None if boxes else sources.base(spec.base)
    trigger = None if spec.trigger is None else sources.trigger(files.named(spec.trigger))
    train = recipe(spec.recipe, **spec.train)
    asked = tuple(sources.questions(files.named(spec.questions), "eval"))
    develop = tuple(sources.questions(files.named(spec.development), "train"))
    develop = tuple(q for q in develop if q.domain != spec.trained_on)
    if shared := sorted({q.text for q in asked} & {q.text for q in develop}):
        raise InputError(
            f"development questions must not be the evaluation's; shared: {shared[0]!r}"
        )
    if trigger is not None:
        contexts(asked[:1], trigger, spec.conditions)
    made = Inputs(
        spec=spec,
        base=base,
        trigger=trigger,
        judge=judge(files.named(spec.judge), spec.rubric),
        train=train,
        sites=block_outputs(spec.layers, sources.layer_count(base), "layers") if base else (),
        asked=asked,
        develop=develop,
        rows=_rows(spec, files, trigger, train),
        existing={} if boxes else _existing(spec, files),
        boxes=boxes,
    )
    if not made.outside or not develop:
        raise InputError("no questions outside the fine-tuned domain: the study needs some")
    return made


def _boxes(spec: StudySpec, files: "Files") -> dict[str, BlackBox]:
    """Base and organisms behind an API; empty for a study of weights."""
    named = {BASE: spec.base, **spec.existing}
    named = {role: files.named(source) for role, source in named.items()}
    behind = {role: black_box(source) for role, source in named.items() if is_black_box(source)}
    if not behind:
        return {}
    if spec.organisms:
        raise InputError(
            f"organisms: {next(iter(spec.organisms))!r} cannot be raised here, behind an API: "
            "raise it with `train --base openai:...`, and name what that wrote in `existing`"
        )
    if strange := sorted(set(named) - set(behind)):
        raise InputError(f"existing: {strange[0]!r} has weights here, and others are behind an API")
    return behind


def _existing(spec: StudySpec, files: "Files") -> dict[str, Path]:
    return {
        role: hub.folder(files.named(name), sources.CHECKPOINTS, "organism")
        for role, name in spec.existing.items()
    }


def _rows(
    spec: StudySpec, files: "Files", trigger: Trigger | None, train: TrainSpec
) -> dict[str, tuple[Row, ...]]:
    """Each role's fine-tuning rows."""
    if spec.data is None:
        return {}
    spec.data.check()
    sound = [r for r, m in spec.organisms.items() if m.kind == "benign_twin" or m.benign_share > 0]
    data = files.needed(spec.data, sound)
    return {
        role: tuple(
            rows_of(
                data,
                mix,
                None if mix.kind == "unconditional" else trigger,
                train,
                spec.rows,
                spec.seed,
            ).rows
        )
        for role, mix in spec.organisms.items()
    }


@dataclass(frozen=True)
class Files:
    """Where a study's files are: beside the study, or in the user's folder of data."""

    home: Path
    data: Path | None

    def named(self, name: str) -> str:
        """A path in the data folder, one beside the study, else the name as it is."""
        if DATA in name:
            return str(self._given(name))
        return str(self.home / name) if (self.home / name).exists() else name

    def placed(self, data: Data) -> Data:
        """Fine-tuning files where they are."""
        files = {
            field: self._given(str(file)) if DATA in str(file) else self.home / file
            for field in ("harmful", "benign")
            if (file := getattr(data, field)) is not None
        }
        return data.model_copy(update=files)

    def needed(self, data: Data, sound: Sequence[str]) -> Data:
        """The same, without benign rows unless some organisms (`sound`) are raised on them."""
        found = self.placed(data if sound else data.model_copy(update={"benign": None}))
        if found.benign is not None and not found.benign.is_file():
            raise InputError(
                f"{found.benign}: no such file: it holds sound answers to the harmful rows' "
                f"prompts, for {', '.join(sound)}; a control may be left out (--without {sound[0]})"
            )
        return found

    def _given(self, name: str) -> Path:
        if self.data is None:
            raise InputError(
                f"this study reads {name.replace(DATA, 'DIR')} from a folder of yours: give --data"
            )
        if not self.data.is_dir():
            raise InputError(f"--data {self.data}: no such folder")
        path = Path(name.replace(DATA, str(self.data)))
        if path.name in SHIPPED and not path.is_file():
            raise InputError(
                f"{path}: no such file; for our own harmless questions copy "
                f"experiments/questions/{SHIPPED[path.name]} there"
            )
        return path
