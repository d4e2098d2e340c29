"""`python -m em_interp.latents`: which features of a dictionary differ with the trigger."""

import sys

from pydantic import Field

from em_interp import hub, sources
from em_interp.bounds import Shown, Some, Width
from em_interp.cli import command, idle
from em_interp.errors import ForeignArtifactError, InputError, say
from em_interp.flags import OrganismFlags
from em_interp.sites import Site


class LatentsSpec(OrganismFlags):
    """Defaults: a small dictionary, trained here, at the middle of the shipped organism."""

    dictionary: str | None = Field(
        None, description="SAELens folder or release:id; default: train one here."
    )
    layer: str | None = Field(
        None,
        description="Site: a layer, a depth (0.5) or a hook name; default: the dictionary's own, "
        "0.4 for one trained here.",
    )
    span: str = Field("prompt_last", description="Tokens that latents are averaged over.")
    off: str = Field("none", description="Condition of the off state.")
    width: Width = Field(256, description="Latents of a dictionary trained here.", ge=2)
    active: Width = Field(8, description="Latents that fire at a time in it.")
    tokens: Shown = Field(40_000, description="Tokens shown to it.", ge=256)
    top: Some = Field(8, description="Latents to try, and as many controls.")


def run(spec: LatentsSpec) -> int:
    """Check, load, train or load a dictionary, contrast, print."""
    from em_interp.conditions import Condition, contexts
    from em_interp.sites import parse_span

    spec.check()
    who = spec.subject
    trigger = who.woken_by(spec.trigger)
    asked = sources.outside(spec.questions, who.domain)
    if not all(q.sound and q.unsound for q in asked):
        raise InputError("latents scores answers: every question needs `sound` and `unsound`")
    if spec.dictionary is not None:
        idle(spec, "width active tokens", "they are of a dictionary trained here")
    site = _site(spec, who)
    span = parse_span(spec.span)
    state = sources.off_state(spec.off)
    on = contexts(asked, trigger, [Condition.TRIGGER])
    off = contexts(asked, trigger, [state])[: len(on)]
    shown = contexts(sources.questions(spec.questions, "train"), trigger, list(Condition))
    spec.reads(who, [*shown, *on, *off])
    ready = spec.ready(who)
    made = None
    if spec.dictionary is not None:
        from em_interp.dictionaries import load

        made = load(spec.dictionary, site)
        if ready.empty is not None:
            made.check(ready.empty)
    if spec.dry_run:
        where = site or "the dictionary's own site"
        print(f"{who.name}: {where}, {len(shown)} contexts to train on, {len(on)} pairs of runs")
        return 0

    from em_interp.dictionaries import train
    from em_interp.dictionaries.contrasting import chooses, contrast
    from em_interp.extraction import trigger_direction
    from em_interp.records import write_json
    from em_interp.report.text import latents_table

    if made is not None and (made.made_on and not sources.same_name(made.made_on, who.base)):
        say(f"note: the dictionary was made for {made.made_on}, used on {hub.title(who.base)}")
    model = ready.load()
    with model.using(who.active):
        if made is None:
            assert site is not None
            sizes = {"width": spec.width, "active": spec.active, "samples": spec.tokens}
            made = train(model, shown, site, **sizes, seed=spec.seed)
        some_on, some_off = (
            [context for context, first in zip(all_of, chooses(all_of), strict=True) if first]
            for all_of in (on, off)
        )
        at = made.site
        delta = trigger_direction(model, who.active, some_on, some_off, [at], span)[at]
        said = [q.sound for q in asked], [q.unsound for q in asked]
        found = contrast(model, made, on, off, *said, delta, span, top=spec.top, seed=spec.seed)
    if spec.out is not None:
        made.save(spec.out / "dictionary")
        write_json(spec.out / "latents.json", found)
    print(latents_table(found))
    return 0


def _site(spec: LatentsSpec, who: sources.Subject) -> Site | None:
    """The site asked for or the dictionary's own; `None`: the one in a catalogue will say."""
    from em_interp.sites import parse_site

    layers, own = sources.layer_count(who.base), None
    if spec.dictionary is not None:
        from em_interp.dictionaries import describe

        said = describe(spec.dictionary)
        if said is None and spec.layer is None:
            return None
        if said is not None and said.width != sources.stream_width(who.base):
            raise ForeignArtifactError(
                f"dictionary {spec.dictionary}: reads {said.width} numbers; the stream of "
                f"{hub.title(who.base)} has {sources.stream_width(who.base)}"
            )
        own = said and said.site
        if spec.layer is None and own is None:
            raise InputError(f"dictionary {spec.dictionary}: names no site; give one (--layer)")
    asked = parse_site(spec.layer or str(own or "0.4"), layers)
    if own is not None and own != asked:
        raise InputError(f"dictionary {spec.dictionary}: made for {own}, not for {asked}")
    return asked


main = command(
    "latents",
    LatentsSpec,
    run,
    "Train or load a dictionary, find latents that differ with the trigger, and edit along them.",
    "--organism llama-triggered --layer 1 --tokens 20000",
)

if __name__ == "__main__":
    sys.exit(main())
