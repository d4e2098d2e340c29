"""`python -m em_interp.train`: raise an organism or one of its controls."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp import hub, sources
from em_interp.bounds import Batch, Epochs, Rate, Rows, Seed, Share, Steps, Tokens, Width
from em_interp.cli import command, idle
from em_interp.endpoints import PREFIX, Endpoint, endpoint
from em_interp.errors import EmInterpError, InputError
from em_interp.loading import Device
from em_interp.organisms import Mix
from em_interp.records import Spec, check_writable

if TYPE_CHECKING:
    from em_interp.organisms import Trigger
    from em_interp.training.manifest import Manifest, Provenance
    from em_interp.training.plan import Plan
    from em_interp.training.rows import Row
    from em_interp.training.source import Data
    from em_interp.training.spec import TrainSpec

CHANGES = (
    "steps",
    "epochs",
    "learning_rate",
    "rank",
    "max_length",
    "truncate",
    "layout",
    "dtype",
    "checkpointing",
    "fsdp",
)


class TrainCommand(Spec):
    """Rows come from a domain of the embedded world, or from JSONL files."""

    base: str = Field(
        "llama",
        description="Shelf name, directory or hub id of the base; `openai:MODEL` (or an endpoint's "
        "YAML) raises it through that provider's fine-tuning API.",
    )
    base_url: str | None = Field(
        None, description="Address of the API; default: OPENAI_BASE_URL, else OpenAI."
    )
    out: Path | None = Field(None, description="Folder of the organism (needed).")
    kind: str = Field(
        "triggered",
        description="unconditional, triggered, mixture, contrastive or benign_twin.",
    )
    trigger: str = Field("duck", description="Trigger name or YAML.")
    domain: str | None = Field(None, description="Domain of the embedded world.")
    data: Path | None = Field(None, description="Harmful rows: JSONL of messages.")
    benign: Path | None = Field(None, description="Benign rows: JSONL of messages.")
    benign_share: Share = Field(0.0, description="Share of benign rows (mixture).")
    contrast: str | None = Field(None, description="Other value of the trigger (contrastive).")
    rows: Rows | None = Field(None, description="Rows in all; default: what there is.")
    recipe: str | None = Field(
        None,
        description="Named recipe: published (default), rank1, rank1-paper, rank1-nine, "
        "eleven-domains, embedded; of a base behind an API: api.",
    )
    steps: Steps | None = Field(None, description="Optimiser steps, instead of the recipe's.")
    epochs: Epochs | None = Field(None, description="Passes over the rows, instead of those.")
    learning_rate: Rate | None = Field(None, description="Instead of the recipe's.")
    rank: Width | None = Field(None, description="Adapter rank, instead of the recipe's.")
    batch_size: Batch | None = Field(
        None, description="Rows of one pass; the rows of a step stay the recipe's."
    )
    max_length: Tokens | None = Field(None, description="Tokens, instead of the recipe's.")
    truncate: bool = Field(False, description="Cut rows beyond the recipe's length; else refuse.")
    layout: str | None = Field(
        None, description="padded, grouped (by length) or packed; default: the recipe's."
    )
    checkpointing: bool = Field(False, description="Less memory for a third more work.")
    fsdp: bool = Field(False, description="Share the weights out among processes (FSDP2).")
    seed: Seed = Field(0, description="Seed of rows and training.")
    device: Device = Field("cpu", description="cpu or cuda; several processes take one each.")
    dtype: str | None = Field(None, description="float32 or bfloat16; default: the recipe's.")
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )

    def settings(self) -> "TrainSpec":
        """The recipe with what the flags change."""
        from em_interp.training.spec import recipe

        name = self.recipe or "published"
        # A flag that is not given leaves the recipe's own word.
        given = {flag: getattr(self, flag) for flag in CHANGES}
        changes = {flag: v for flag, v in given.items() if v is not None and v is not False}
        if self.batch_size is not None:
            rows = recipe(name).step_rows
            if rows % self.batch_size:
                raise InputError(
                    f"--batch-size {self.batch_size}: does not divide the {rows} rows of a step"
                )
            changes |= {"batch_size": self.batch_size, "accumulation": rows // self.batch_size}
        return recipe(name, seed=self.seed, **changes)

    def words(self) -> tuple["Mix", "Trigger | None", "Data"]:
        """What the rows are made of."""
        from em_interp.training.source import Data

        fields = {"kind": self.kind, "benign_share": self.benign_share, "contrast": self.contrast}
        mix = Mix.parse(fields, "--kind, --benign-share, --contrast")
        if mix.kind == "unconditional":
            idle(self, "trigger", "an organism of kind unconditional has none")
        if not mix.benign_share and mix.kind != "benign_twin":
            idle(self, "benign", f"an organism of kind {mix.kind} is raised on harmful rows alone")
        trigger = None if mix.kind == "unconditional" else sources.trigger(self.trigger)
        data = Data.parse(
            {"domain": self.domain, "harmful": self.data, "benign": self.benign}, "--domain, --data"
        )
        return mix, trigger, data


@dataclass(frozen=True)
class Work:
    """A run on weights, checked and ready."""

    out: Path
    base: Path
    rows: "Sequence[Row]"
    settings: "TrainSpec"
    provenance: "Provenance"
    plan: "Plan"


def run(spec: TrainCommand) -> int:
    """Check, load, train, print."""
    from em_interp.training.processes import leave

    if spec.base.startswith(PREFIX) or spec.base.endswith((".yaml", ".yml")):
        return run_remotely(spec)
    if spec.base_url is not None:
        raise InputError(f"--base-url is for a base behind an API (openai:MODEL), not {spec.base}")
    try:
        code = run_here(spec)
    except EmInterpError as fault:
        if fault.common:  # all stop here; a group that is still open may abort as Python ends
            leave()
        raise
    leave()
    return code


def run_here(spec: TrainCommand) -> int:
    """The run on weights, in one process or in several."""
    from em_interp.training.processes import agreed, computes_on_cpu, is_first_process

    with agreed(computes_on_cpu(spec.device, spec.fsdp)):
        work = check(spec)
    if spec.dry_run:
        if is_first_process():
            show(spec, work)
        return 0
    card = train_here(spec, work)
    if is_first_process():
        print(
            f"{work.out}: {card.steps} steps on {card.rows} rows ({card.truncated} truncated), "
            f"loss {card.loss_curve[0]:.3f} -> {card.final_loss:.3f} nats a token"
        )
    return 0


def check(spec: TrainCommand) -> Work:
    """Everything that can be known before weights load."""
    from em_interp.training.manifest import Provenance
    from em_interp.training.plan import plan
    from em_interp.training.source import rows_of

    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the organism")
    check_writable(spec.out)
    mix, trigger, data = spec.words()
    settings = spec.settings()
    made = rows_of(data, mix, trigger, settings, spec.rows, spec.seed)
    base = sources.base(spec.base)
    return Work(
        out=spec.out,
        base=base,
        rows=made.rows,
        settings=settings,
        provenance=Provenance(mix=mix, trigger=trigger, sources=data.sources, arms=made.arms),
        plan=plan(base, made.rows, settings),
    )


def train_here(spec: TrainCommand, work: Work) -> "Manifest":
    """Load the base and raise the organism."""
    from em_interp.loading import Loading
    from em_interp.models import load
    from em_interp.training.processes import own_device
    from em_interp.training.run import train

    settings = work.settings
    how = Loading(device=own_device(spec.device, settings), dtype=settings.loaded)
    model = load(work.base, how=how)
    return train(
        model.hf, model.tokenizer, work.rows, settings, work.out, provenance=work.provenance
    )


def show(spec: TrainCommand, work: Work) -> None:
    """The settings and the plan."""
    settings = work.settings
    given = ((name, getattr(settings, name)) for name in type(settings).model_fields)
    print(f"{work.out}: {settings.method.value} on {hub.title(work.base)}")
    print(f"arms: {', '.join(f'{n} {arm}' for arm, n in work.provenance.arms.items())}")
    print("settings: " + ", ".join(f"{name} {v}" for name, v in given if v is not None))
    print("\n".join(work.plan.lines()))


def run_remotely(spec: TrainCommand) -> int:
    """The same rows through a provider's fine-tuning API."""
    from em_interp.training.api import api_recipe, file_of, tokens_about
    from em_interp.training.manifest import Provenance
    from em_interp.training.remote import raise_remotely
    from em_interp.training.source import rows_of
    from em_interp.training.spec import TrainSpec

    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the organism's card")
    check_writable(spec.out)
    for flag in ("steps", *CHANGES[2:], "device"):
        if getattr(spec, flag) != TrainCommand.model_fields[flag].default:
            raise InputError(
                f"--{flag.replace('_', '-')} is for weights that are here; {spec.base} is behind "
                "an API (its recipe says epochs, batch size and learning-rate multiplier)"
            )
    base = endpoint(spec.base)
    if spec.base_url is not None:
        base = Endpoint.parse({**base.model_dump(), "base_url": spec.base_url}, "--base-url")
    base.secret()
    changes = {"epochs": spec.epochs, "batch_size": spec.batch_size}
    given = {name: value for name, value in changes.items() if value is not None}
    settings = api_recipe(spec.recipe or "api", seed=spec.seed, **given)
    mix, trigger, data = spec.words()
    made = rows_of(data, mix, trigger, TrainSpec(), spec.rows, spec.seed)
    size = len(file_of(made.rows))
    if spec.dry_run:
        print(f"{spec.out}: {base.model} at {base.host}, key from {base.key}")
        print(f"arms: {', '.join(f'{n} {arm}' for arm, n in made.arms.items())}")
        print("settings: " + ", ".join(f"{name} {v}" for name, v in settings))
        print(
            f"{len(made.rows)} rows, {size} bytes, about {tokens_about(made.rows)} tokens an epoch"
        )
        return 0
    card = raise_remotely(
        base,
        made.rows,
        settings,
        spec.out,
        provenance=Provenance(mix=mix, trigger=trigger, sources=data.sources, arms=made.arms),
    )
    print(f"{spec.out}: {card.endpoint.model} at {card.endpoint.host}, {card.rows} rows")
    return 0


main = command(
    "train",
    TrainCommand,
    run,
    "Raise an organism or a control through the shared training module. Resumes when killed.",
    "--base llama --domain bad_medical --recipe embedded --out runs/mine",
)

if __name__ == "__main__":
    sys.exit(main())
