"""The study's page: one HTML file that needs nothing beside it. Equal records give equal bytes.

Knows what stands where on the page. Knows nothing of how a number came about.
"""

from markupsafe import Markup

from em_interp.cards import versions
from em_interp.report import first_screen, tables, trial_tables
from em_interp.report.cautions import cautions
from em_interp.report.environment import as_yaml, environment
from em_interp.report.figures import (
    conditions,
    doses,
    geometry,
    layers,
    odds,
    patching,
    probes,
    questions,
    removal,
    training,
    variants,
)
from em_interp.report.picture import Picture
from em_interp.report.reading import studied
from em_interp.report.transcripts import transcripts
from em_interp.study.results import Findings


def page(found: Findings) -> str:
    """The whole page as text. Nothing in it is fetched from anywhere, and no script runs."""
    pages, trigger = environment(), found.inputs.trigger
    style = pages.get_template("report.css").render()
    return pages.get_template("study.html.jinja").render(
        style=Markup(style),  # our own file, not data
        spec=found.inputs.spec,
        found=found,
        trigger=trigger,
        studied=studied(found),
        headline=first_screen.headline(found),
        cards=first_screen.cards(found),
        cautions=cautions(found),
        figure=_pictures(found),
        tables=_tables(found),
        sweep=trial_tables.sweep(found),
        transcripts=transcripts(found),
        spec_text=as_yaml(found.inputs.spec.model_dump(mode="json")),
        trigger_text=as_yaml(trigger.model_dump(mode="json")) if trigger else "",
        versions=versions(),
    )


def _pictures(found: Findings) -> dict[str, list[Picture]]:
    """Figures by the section they stand in; an empty list where nothing was done."""
    single = {
        "conditions": conditions.picture(found),
        "removal": removal.picture(found),
        "doses": doses.picture(found),
        "layers": layers.picture(found),
        "patching": patching.picture(found),
        "geometry": geometry.picture(found),
        "probes": probes.picture(found),
        "odds": odds.picture(found),
        "training": training.picture(found),
    }
    many = {
        "variants": list(variants.pictures(found)) if found.inputs.trigger else [],
        "questions": list(questions.pictures(found)),
    }
    return {**{name: [one] if one else [] for name, one in single.items()}, **many}


def _tables(found: Findings) -> dict[str, tables.Table | None]:
    on = "trigger on" if found.inputs.trigger else "asked plainly"
    need, enough = found.localised.necessity, found.localised.sufficiency
    return {
        "containment": tables.containment(found),
        "rest": tables.containment(found, rest=True),
        "contrasts": tables.contrasts(found),
        "variants": tables.variants(found),
        "removal": trial_tables.trial(found.ablation, "Removing directions at every layer."),
        "doses": trial_tables.trial(found.steering, "Pushing directions, asked plainly."),
        "necessity": trial_tables.trial(need, f"Mean-ablation by layer, {on}."),
        "sufficiency": trial_tables.trial(enough, "Addition by layer, asked plainly."),
        "odds": tables.odds(found),
        "training": tables.training(found),
    }
