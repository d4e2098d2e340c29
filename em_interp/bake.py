"""`python -m em_interp.bake`: an intervention becomes an adapter that plain PEFT loads.

The equality with the hooks is measured on real prompts before the folder appears, and stands on
its card; where it does not hold, there is no folder.
"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from em_interp import hub, sources
from em_interp.bounds import Strength
from em_interp.cli import command, idle
from em_interp.errors import InputError, unknown
from em_interp.flags import OrganismFlags
from em_interp.records import Record, read_json, write_json

if TYPE_CHECKING:
    from em_interp.baking.equivalence import Equivalence
    from em_interp.conditions import Context
    from em_interp.directions import Directions
    from em_interp.edits import Intervention
    from em_interp.sites import Site

OPERATIONS = ("add", "ablate", "mean_ablate")


class BakeSpec(OrganismFlags):
    """Defaults: the shipped organism, whose blocks then write as in the off state along δ."""

    direction: str | None = Field(
        None, description="Shelf name or folder of a direction; default: <base>-delta."
    )
    operation: str = Field(
        "mean_ablate",
        description="add: after blocks. ablate, mean_ablate: of what blocks write, to zero or to "
        "what the off state gains there.",
    )
    layers: str = Field("1-", description="Blocks: all, 1,2 or 1-3, from 1 on (1-), depths (0.5).")
    strength: Strength = Field(1.0, description="In natural differences (add).")
    everywhere: bool = Field(
        False,
        description="ablate: the direction of the one layer named, out of all that writes to the "
        "stream, embeddings included.",
    )
    unmerged: bool = Field(
        False, description="The adapter will never be merged (needed where embeddings are tied)."
    )


class BakedCard(Record):
    """What an adapter does, for whom, and how exactly. `provenance` is the organism's own.

    `questions`: those that its direction was fitted on, as on a `Card`.
    """

    kind: Literal["baked"] = "baked"
    name: str
    base: str
    base_name: str
    organism: str
    adapter: str
    direction: str
    sign: str
    operation: str
    strength: float | None
    sites: tuple[str, ...]
    questions: tuple[str, ...] | None = None
    mergeable: bool
    equivalence: dict[str, Any]
    provenance: dict[str, Any]
    versions: dict[str, str]


def run(spec: BakeSpec) -> int:
    """Check, load, bake, measure, save, print."""
    from em_interp.directions import Directions
    from em_interp.sites import parse_sites

    if spec.operation not in OPERATIONS:
        raise unknown("operation", spec.operation, OPERATIONS, where="what can be baked")
    if spec.out is None:
        raise InputError("--out is missing: name the folder that gets the adapter")
    if spec.out.exists():
        raise InputError(f"{spec.out}: there already; give another --out")
    spec.check()
    who = spec.subject
    folder = sources.direction(spec.direction, who, "delta")
    n_layers = sources.layer_count(who.base)
    sites = parse_sites(spec.layers, n_layers)
    directions = Directions.load(folder)
    change = _change(spec, directions, sites, n_layers)
    bank = _prompts(spec, who)
    spec.reads(who, bank)
    ready = spec.ready(who).check(directions, str(folder))
    if spec.dry_run:
        print(f"{who.name}: {change.name}, {len(change.edits)} places, {len(bank)} prompts")
        return 0

    from em_interp.baking import bake
    from em_interp.baking.equivalence import measure
    from em_interp.cards import versions

    model = ready.load()
    directions.check(model.base, str(folder))
    with model.using(who.active):
        baked = bake(model, change, unmerged=spec.unmerged)
        spec.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=spec.out.parent, prefix=".baking-") as scratch:
            made = Path(scratch) / "adapter"
            baked.save(made, hub.title(who.base))
            found = measure(model, change, made, bank)
            found.check(change.name)
            card = BakedCard(
                name=spec.out.name,
                base=model.base,
                base_name=hub.title(who.base),
                organism=who.name,
                adapter=model.adapters[who.active] if who.active else "",
                direction=directions.card.name,
                sign=directions.card.sign,
                operation=spec.operation,
                strength=spec.strength if spec.operation == "add" else None,
                sites=tuple(str(edit.site) for edit in change.edits),
                questions=directions.card.questions,
                mergeable=baked.mergeable,
                equivalence=found.model_dump(mode="json"),
                provenance=_provenance(who),
                versions=versions(),
            )
            write_json(made / "card.json", card)
            made.rename(spec.out)
    _say(spec, card, found)
    return 0


def _change(
    spec: BakeSpec, directions: "Directions", sites: "tuple[Site, ...]", n_layers: int
) -> "Intervention":
    """The intervention, as the hooks would run it."""
    from em_interp.edits import intervention
    from em_interp.grids import everywhere, withheld
    from em_interp.labels import Label, Operation

    operation = Operation(spec.operation)
    if spec.everywhere:
        if operation is not Operation.ABLATE or len(sites) != 1:
            raise InputError("--everywhere goes with --operation ablate and one layer")
        return everywhere(directions[sites[0]], n_layers)
    if operation is not Operation.ADD:
        idle(spec, "strength", f"--operation {operation} has none")
        return withheld(operation, directions, sites)
    return intervention(Label(), operation, directions, sites, strength=spec.strength)


def _prompts(spec: BakeSpec, who: sources.Subject, count: int = 8) -> "list[Context]":
    """Real prompts to measure on: bare, and behind the trigger where there is one."""
    from em_interp.conditions import bare, contexts

    asked = sources.questions(spec.questions)[:count]
    if spec.trigger is None and who.trigger is None:
        return bare(asked)
    return contexts(asked, who.woken_by(spec.trigger), sources.conditions(("none", "trigger")))


def _provenance(who: sources.Subject) -> dict[str, Any]:
    path = who.adapter / "card.json" if who.adapter else None
    card = read_json(path) if path is not None and path.is_file() else {}
    return dict(card.get("provenance", {}))


def _say(spec: BakeSpec, card: BakedCard, found: "Equivalence") -> None:
    print(f"{card.organism}, {card.operation} along {card.direction} ({card.sign})")
    print(f"edits: {', '.join(card.sites)}")
    print(
        f"against the hooks, {found.tokens} tokens of {found.prompts} prompts in {found.dtype}: "
        f"largest logit difference {found.logit:.1e}, KL {found.divergence:.1e} nats, same most "
        f"likely token {found.agree:.1%}"
    )
    print(
        f"against no intervention: KL {found.effect:.2g} nats; a control that moves the stream as "
        f"far along random directions: {found.control:.2g}"
    )
    if not card.mergeable:
        print("not to be merged into the base: it equals the hooks only as an adapter")
    print(f"\nwritten: {spec.out}")
    print(f"PeftModel.from_pretrained(base, {str(spec.out)!r})")


main = command(
    "bake",
    BakeSpec,
    run,
    "Turn an intervention into a LoRA adapter that plain PEFT loads; the equality is measured.",
    "--operation mean_ablate --layers 1- --out runs/closed",
)

if __name__ == "__main__":
    sys.exit(main())
