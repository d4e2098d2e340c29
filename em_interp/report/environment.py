"""How pages are filled in: the one place where a template's rules are set.

Knows Jinja. Knows nothing of what a page says.
"""

from functools import cache

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from em_interp.errors import visible
from em_interp.report import numbers


@cache
def environment() -> Environment:
    """Templates of the report's folder; all is escaped and visible, a missing name is an error."""
    made = Environment(
        loader=PackageLoader("em_interp.report", "."),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(rate=numbers.rate, percent=numbers.percent)
    return made


def as_yaml(plain: object) -> str:
    """Plain data as a page shows it."""
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=96)
