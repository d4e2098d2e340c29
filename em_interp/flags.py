"""Flags that commands share, spelled and explained once.

A command's spec inherits the groups it needs and adds its own fields.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from em_interp import hub, sources
from em_interp.blackbox import no_weights
from em_interp.bounds import Samples, Seed, Temperature, Tokens
from em_interp.cli import Names, idle
from em_interp.engines import check_engine, run_on
from em_interp.errors import InputError, say
from em_interp.judges import Judge, Rubric, rubric
from em_interp.judging import judge
from em_interp.loading import Device, Dtype, Loading, Quantise
from em_interp.organisms import Trigger
from em_interp.records import Spec, check_writable, read_json
from em_interp.sampling import Sampling

if TYPE_CHECKING:
    from em_interp.artifacts import SiteTable
    from em_interp.conditions import Context
    from em_interp.models import Model


class WhomFlags(Spec):
    """Whom to study, and on which questions."""

    organism: str | None = Field(
        None,
        description="Adapter or model: shelf name, folder or hub id; default: "
        f"{sources.SHIPPED}, unless --base or --adapter is given.",
    )
    base: str | None = Field(
        None, description="Base: shelf name, folder or hub id; default: the one the adapter names."
    )
    adapter: Names = Field(
        (),
        description="PEFT folders or hub ids (or name=path), beside the organism or instead of it.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a base on the hub.")
    trigger: str | None = Field(None, description="Trigger name or YAML; default: the card's.")
    questions: str = Field(
        sources.WORLD, description="`world`, or a JSONL file of {id, text, domain}."
    )
    seed: Seed = Field(0, description="Seed of everything random.")


class HalvesFlags(Spec):
    """Where what is fitted and what judges it may come from one file."""

    split: bool = Field(
        False,
        description="Take one half of the file of questions: extract fits on one, steer and "
        "localize ask the other.",
    )


class LoadingFlags(Spec):
    """How weights are brought into memory, and where."""

    device: Device = Field("cpu", description="cpu or cuda.")
    device_map: str | None = Field(
        None, description="auto, balanced or sequential, or a JSON file of {module: device}."
    )
    dtype: Dtype = Field("auto", description="auto is the checkpoint's own.")
    quantise: Quantise | None = Field(
        None, description="Weights in 8 or 4 bits, to be read and steered."
    )

    @property
    def loading(self) -> Loading:
        """How these flags ask for a base to be loaded. Raises `InputError`."""
        where = self.device_map
        placed = read_json(where) if where is not None and where.endswith(".json") else where
        fields = {name: getattr(self, name) for name in ("dtype", "device", "quantise")}
        return Loading.parse(fields | {"device_map": placed}, "--device, --device-map")


class OrganismFlags(LoadingFlags, WhomFlags):  # help lists the last base's flags first
    """Whom to study, and where to compute."""

    out: Path | None = Field(None, description="Folder for the results.")
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )

    def check(self) -> None:
        """What every command checks first: its output can be written, its loading makes sense."""
        _ = self.loading
        if self.out is not None:
            check_writable(self.out)

    @property
    def subjects(self) -> tuple[sources.Subject, ...]:
        """The organisms on disk: one base, the studied one first, then those beside it.

        Raises `InputError` for an organism behind an API: it has no weights to read.
        """
        no_weights(self.organism, "this command")
        found = sources.subjects(self.organism, self.base, self.adapter, self.revision)
        if hub.repository(found[0].base) is None:
            idle(self, "revision", f"the base is a folder ({found[0].base}), not of the hub")
        return found

    @property
    def subject(self) -> sources.Subject:
        """The one organism that is studied. Raises `InputError` where several are given."""
        studied, *others = self.subjects
        if others:
            names = ", ".join(who.name for who in others)
            raise InputError(
                f"this command studies one organism; leave {names} out (evaluate compares several)"
            )
        return studied

    def reads(self, who: sources.Subject, asked: "Sequence[Context]", new: int = 0) -> None:
        """Raise `InputError` before weights load for a prompt that the base cannot read rightly."""
        from em_interp.models.limits import check_prompts

        check_prompts(who.base, asked, new)

    def ready(self, *whom: sources.Subject) -> "Ready":
        """Organisms of one base, checked from their files; what is left is to load them."""
        known = [who.trigger for who in whom if who.trigger]
        woken = sources.trigger(self.trigger) if self.trigger else next(iter(known), None)
        return ready(whom, self.loading, woken)


def note(lines: Iterable[str]) -> None:
    """Notes on stderr, a line each."""
    for line in lines:
        say(f"note: {line}")


@dataclass(frozen=True, eq=False)
class Ready:
    """Organisms of one base, all on one load of it, checked as far as files tell.

    Every command makes one before its dry run ends, and has no other way to a model: so a dry run
    refuses what the run would. `empty`: the model without its weights; `None` where they are not
    to be here at all.
    """

    empty: "Model | None"
    load: "Callable[[], Model]"

    @property
    def base(self) -> str:
        """The base's fingerprint; "" where its weights are not here."""
        return "" if self.empty is None else self.empty.base

    def check(self, artifact: "SiteTable[Any] | None", where: str) -> "Ready":
        """Refuse a direction or a probe of another base, where this one is known."""
        if artifact is not None and self.base:
            artifact.check(self.base, where)
        return self


def ready(whom: Sequence[sources.Subject], how: Loading, woken: Trigger | None) -> Ready:
    """Organisms of one base, checked. Notes go to stderr as they load.

    `woken`: the trigger that prompts will be framed with, if any.
    """
    from em_interp.chat import cautions
    from em_interp.models import prepare

    made = prepare(whom[0].base, [one for who in whom for one in who.adapters], how)

    def load() -> "Model":
        model = made.load()
        notes = [one for who in whom for one in who.notes]
        if model.batching is not None and model.batching.note:
            notes.append(model.batching.note)
        note((*notes, *cautions(model.tokenizer, woken.place if woken else None)))
        return model

    return Ready(made.empty, load)


class EngineFlags(OrganismFlags):
    """Who runs the passes, where a command leaves that open."""

    engine: str = Field(
        "hf",
        description="hf, lens (TransformerLens), nnsight, or ndif (nnsight on NDIF's servers: "
        "hub ids only; needs NDIF_API_KEY).",
    )

    def check(self) -> None:
        """Also that there is such an engine."""
        super().check()
        check_engine(self.engine)
        if self.engine == "ndif":
            idle(self, "device device_map dtype quantise", "the weights are on NDIF's servers")

    def ready(self, *whom: sources.Subject) -> Ready:
        """Organisms of one base, their passes run by the engine; NDIF's weights stay there."""
        if self.engine != "ndif":
            made = super().ready(*whom)
            return Ready(made.empty, lambda: run_on(made.load(), self.engine))
        from em_interp.engines.ndif import connect

        adapters = [one for who in whom for one in who.adapters]
        return Ready(None, lambda: connect(whom[0].base, adapters, self.revision))


class AnswerFlags(OrganismFlags):
    """How answers are sampled and judged."""

    judge: str = Field(
        sources.WORLD, description="`world`, openai:MODEL, hf:PATH, or a judge's YAML file."
    )
    rubric: str = Field("default", description="Thresholds and wording: a name, or a YAML file.")
    budget: str | None = Field(
        None, description="Most a judge may cost: dollars (5) or requests (2000calls)."
    )
    samples: Samples = Field(10, description="Answers per question and framing.")
    temperature: Temperature = Field(1.0, description="Sampling temperature; 0 is greedy.")
    max_new_tokens: Tokens = Field(24, description="Token budget of an answer.")

    @property
    def thresholds(self) -> Rubric:
        """The rubric these flags name."""
        return rubric(self.rubric)

    @cached_property
    def judged_by(self) -> Judge:
        """The judge these flags name, asked in the rubric's wording; one, with one budget."""
        return judge(self.judge, self.thresholds, self.budget)

    @property
    def sampling(self) -> Sampling:
        """The sampling these flags ask for."""
        return Sampling(
            samples=self.samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )
