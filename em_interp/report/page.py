"""The study's page: one HTML file that needs nothing beside it. Equal records give equal bytes."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from em_interp.report import first_screen, numbers
from em_interp.report.cautions import cautions
from em_interp.report.figures import conditions
from em_interp.study.results import Findings


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("em_interp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(rate=numbers.rate, percent=numbers.percent, gap=numbers.gap)
    return made


def page(found: Findings) -> str:
    """The whole page."""
    environment = _environment()
    style = environment.get_template("report.css").render()
    return environment.get_template("study.html.jinja").render(
        style=Markup(style),
        spec=found.inputs.spec,
        found=found,
        headline=first_screen.headline(found),
        cards=first_screen.cards(found),
        main=conditions.picture(found),
        cautions=cautions(found),
    )
