"""What a transfer needs, checked before weights load: its flags, and the plan that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from em_interp import hub, sources
from em_interp.align import METHODS, FitFlags, fitting_prompts
from em_interp.cli import Names
from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.errors import InputError, unknown
from em_interp.flags import AnswerFlags
from em_interp.leakage import guard
from em_interp.organisms import Trigger
from em_interp.sites import Site, Span, parse_sites, parse_span

DEVELOP = 30
GIVEN, OWN = ("--direction", "--general"), ("--own", "--own-general")


class TransferSpec(FitFlags, AnswerFlags):
    """Defaults: from the shipped Llama-shaped organism into the Qwen2-shaped one."""

    source: str = Field("llama-triggered", description="Organism whose directions are carried.")
    organism: str | None = Field("qwen2-triggered", description="Organism they are carried into.")
    unconditional: bool = Field(
        False,
        description="The organism is misaligned without a trigger (default: if its card says so): "
        "directions are added to its base, and ablated in it without a trigger.",
    )
    direction: str | None = Field(None, description="Source's direction; default <base>-delta.")
    general: str | None = Field(None, description="Source's g, or none; default <base>-g.")
    own: str | None = Field(None, description="Target's own direction; default <base>-delta.")
    own_general: str | None = Field(None, description="Target's own g, or none; default <base>-g.")
    twin: str | None = Field(
        None, description="Source's benign twin; default <base>-benign-twin where it is shelved."
    )
    map: Names = Field((), description="Folders of maps (see align); default: fitted here.")
    methods: Names = Field(("ridge", "procrustes", "cca"), description=f"{', '.join(METHODS)}.")
    layers: str = Field("all", description="Sites of the target that are mapped and ablated.")
    at: str | None = Field(
        None,
        description="Sites to add at, the first also to read at; default: chosen with the target's "
        "own direction on development questions.",
    )
    strength: float | None = Field(
        None, description="Of the addition, in the target's own differences; chosen with --at."
    )
    develop: str | None = Field(
        None, description="JSONL of development questions; default: the world's, for its own."
    )
    span: str = Field("all", description="Tokens to edit.")
    controls: int = Field(2, ge=1, description="Random source directions through the first map.")
    samples: int = Field(4, ge=1, description="Answers per question and arm.")


@dataclass(frozen=True)
class Folders:
    """Where an organism's directions lie. One of the two may be missing."""

    delta: Path | None
    general: Path | None


@dataclass(frozen=True)
class Plan:
    """What is known before weights load.

    `gated`: whether a trigger wakes the target. `develop`: what its dose is chosen on; `at` and
    `strength` are `None` where they are to be chosen. `reach`: the source's development questions,
    of which its twin's trigger shift is made.
    """

    source: sources.Subject
    target: sources.Subject
    twin: sources.Subject | None
    trigger: Trigger
    gated: bool
    asked: Sequence[Question]
    develop: Sequence[Question]
    reach: Sequence[Question]
    prompts: Sequence[Context]
    bank: dict[Condition, list[Context]]
    sites: tuple[Site, ...]
    at: tuple[Site, ...] | None
    strength: float | None
    span: Span
    given: Folders
    own: Folders
    maps: tuple[Path, ...]


def plan(spec: TransferSpec) -> Plan:
    """Everything checked, nothing loaded; raises `InputError`."""
    spec.check()
    for name in spec.methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    target, source = spec.subject, sources.subject(spec.source)
    if source == target:
        raise InputError(
            f"--source and --organism are both {target.name}; its own direction in itself is what "
            "`steer` shows"
        )
    gated = not (spec.unconditional or target.unconditional)
    if not gated and target.active is None:
        raise InputError(
            f"--unconditional: {target.name} is a base; what is misaligned without a trigger is an "
            "adapter on one"
        )
    trigger = (target if gated else source).woken_by(spec.trigger)
    asked = sources.outside(spec.questions, target.domain)
    conditions = [Condition.NONE, Condition.TRIGGER]
    conditions += [Condition.PARAPHRASE] if trigger.paraphrases else []
    prompts = fitting_prompts(spec, spec.seed)
    guard(prompts, [trigger, *([source.trigger] if source.trigger else [])], asked)
    layers = sources.layer_count(target.base)
    twin, chosen = _twin(spec, source), spec.at is None or spec.strength is None
    if chosen and spec.develop is None and spec.questions != sources.WORLD:
        raise InputError("give --develop (questions to choose on), or both --at and --strength")
    return Plan(
        source=source,
        target=target,
        twin=twin,
        trigger=trigger,
        gated=gated,
        asked=asked,
        develop=_few(_development(spec, target, asked)) if chosen else (),
        reach=_development(spec, source, asked) if twin else (),
        prompts=prompts,
        bank={c: contexts(asked, trigger, [c]) for c in conditions},
        sites=parse_sites(spec.layers, layers),
        at=None if spec.at is None else parse_sites(spec.at, layers),
        strength=spec.strength,
        span=parse_span(spec.span),
        given=_folders(source, not source.unconditional, spec.direction, spec.general, GIVEN),
        own=_folders(target, gated, spec.own, spec.own_general, OWN),
        maps=tuple(sources.shelved(name, sources.PROBES, "map") for name in spec.map),
    )


def _folders(
    who: sources.Subject,
    gated: bool,
    delta: str | None,
    general: str | None,
    flags: tuple[str, str],
) -> Folders:
    """The directions named or shelved; without a gate there is no delta to look for."""
    delta = "none" if delta is None and not gated else delta
    found = Folders(
        None if delta == "none" else sources.direction(delta, who, "delta", flags[0]),
        None if general == "none" else sources.direction(general, who, "g", flags[1]),
    )
    if found == Folders(None, None):
        raise InputError(f"{who.name}: {flags[0]} or {flags[1]} must name a direction")
    return found


def _development(
    spec: TransferSpec, who: sources.Subject, asked: Sequence[Question]
) -> Sequence[Question]:
    """Questions on which dose, place and the twin's shift are found; none judges the transfer."""
    found = sources.outside(spec.develop or sources.WORLD, who.domain, "train")
    judged = {q.id for q in asked} | {q.text for q in asked}
    if both := [q.id for q in found if q.id in judged or q.text in judged]:
        raise InputError(f"--develop: question {both[0]!r} also judges the transfer")
    return found


def _few(questions: Sequence[Question]) -> Sequence[Question]:
    return questions[:: max(1, len(questions) // DEVELOP)][:DEVELOP]


def _twin(spec: TransferSpec, source: sources.Subject) -> sources.Subject | None:
    """The source's benign twin: the one named, else the one shelved for its base.

    Without a gate of its own, a source has no trigger shift that another's could be a null of.
    """
    if spec.twin is None and source.unconditional:
        return None
    name = spec.twin or f"{hub.title(source.base)}-benign-twin"
    if spec.twin is None and not (sources.CHECKPOINTS / name).is_dir():
        return None
    return sources.subject(name, str(source.base))
