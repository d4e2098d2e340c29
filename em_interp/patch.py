"""`python -m em_interp.patch`: which heads, attentions and feed-forwards carry the gate.

No judge and no direction is needed, only questions with a sound and an unsound answer.
"""

import sys

from pydantic import Field

from em_interp import sources
from em_interp.bounds import Some
from em_interp.cli import Names, command
from em_interp.errors import InputError, unknown
from em_interp.flags import OrganismFlags


class PatchSpec(OrganismFlags):
    """Defaults: the shipped organism, every layer, from the trigger into no framing."""

    layers: str = Field("all", description="Layers: all, 1,2 or 1-3, depths (0.5).")
    off: str = Field("none", description="Condition that patching copies into.")
    groups: Names = Field(
        ("trigger", "question", "last"),
        description="Positions to copy: trigger, question, template, last, all.",
    )
    top: Some = Field(12, description="Effects to print for each group.")


def run(spec: PatchSpec) -> int:
    """Check, load, patch on TransformerLens' bridge, print, draw."""
    from em_interp.conditions import Condition, contexts
    from em_interp.sites import block_outputs

    spec.check()
    who = spec.subject
    trigger = who.woken_by(spec.trigger)
    asked = sources.outside(spec.questions, who.domain)
    if not all(q.sound and q.unsound for q in asked):
        raise InputError("patch scores answers: every question needs `sound` and `unsound`")
    layers = [
        site.layer for site in block_outputs(spec.layers, sources.layer_count(who.base), "--layers")
    ]
    target = sources.off_state(spec.off)
    on = contexts(asked, trigger, [Condition.TRIGGER])
    off = contexts(asked, trigger, [target])[: len(on)]

    from em_interp.patching.copying import Group

    if strange := [name for name in spec.groups if name not in list(Group)]:
        raise unknown("group", strange[0], [group.value for group in Group])
    groups = [Group(name) for name in spec.groups]
    spec.reads(who, [*on, *off])
    ready = spec.ready(who)
    if spec.dry_run:
        print(f"{who.name}: {len(layers)} layers, {len(groups)} groups, {len(on)} pairs of runs")
        return 0

    from em_interp.engines import run_on
    from em_interp.patching import Carriers, component_map
    from em_interp.patching.components import components
    from em_interp.patching.subspaces import RANKS, subspace
    from em_interp.progress import bar
    from em_interp.records import write_bytes, write_json
    from em_interp.report.components import component_figure, component_tables
    from em_interp.sites import Site

    model = ready.load()
    lens = run_on(model, "lens")
    said = [q.sound for q in asked], [q.unsound for q in asked]
    total = len(on) * len(groups) * len(components(model, layers))
    with bar("patching", total) as progress, lens.using(who.active):
        found = component_map(lens, on, off, *said, layers, groups, progress=progress)
    settings = len(layers) * 2 * (2 * len(RANKS) + 1)
    with bar("subspaces", settings) as progress, model.using(who.active):
        places = tuple(
            subspace(model, on, off, *said, Site(layer), seed=spec.seed, progress=progress)
            for layer in layers
        )
    whole = Carriers(components=found, subspaces=places)
    if spec.out is not None:
        write_json(spec.out / "patching.json", whole)
        write_bytes(spec.out / "patching.svg", component_figure(whole))
    print(component_tables(whole, spec.top))
    return 0


main = command(
    "patch",
    PatchSpec,
    run,
    "Copy single components from a run with the trigger into one without, and score the answers.",
    "--organism llama-triggered --layers 1-2 --groups last",
)

if __name__ == "__main__":
    sys.exit(main())
