"""The page of a transfer study: one HTML file that needs nothing beside it, and its main figure.

Equal records give equal bytes. Knows what stands where on the page. Knows nothing of how a number
came about.
"""

from typing import NamedTuple

from markupsafe import Markup

from em_interp.cards import versions
from em_interp.report.environment import as_yaml, environment
from em_interp.report.picture import Picture
from em_interp.report.tables import Table
from em_interp.report.transfers import arms, tables, ways, words
from em_interp.report.transfers.cards import cards
from em_interp.report.transfers.cautions import cautions
from em_interp.report.transfers.figures import (
    effects,
    holdings,
    layers,
    likeness,
    methods,
    organisms,
    readouts,
    shares,
)
from em_interp.report.transfers.grid import ABLATED, ADDED, Grid, gate
from em_interp.study.spec import GENERAL, STUDIED
from em_interp.study.transfers.records import Column
from em_interp.study.transfers.results import Findings
from em_interp.study.transfers.spec import TARGETS
from em_interp.transferring.effects import LEVEL
from em_interp.transferring.readings import DRAWS
from em_interp.trials import COHERENT


class Target(NamedTuple):
    """One target's tables, folded."""

    name: str
    tables: tuple[Table, ...]


def figure(found: Findings) -> bytes:
    """The main figure as SVG: what carried directions do in gated organisms."""
    return effects.svg(Grid(found), STUDIED)


def page(found: Findings) -> str:
    """The whole page as text. Nothing in it is fetched from anywhere, and no script runs."""
    pages, grid = environment(), Grid(found)
    style = pages.get_template("report.css").render()
    more = pages.get_template("transfers/transfers.css").render()
    return pages.get_template("transfers/transfers.html.jinja").render(
        style=Markup(style + more),  # our own files, not data
        spec=found.inputs.spec,
        found=found,
        groups=found.inputs.groups,
        headline=words.headline(grid),
        cards=cards(grid),
        cautions=cautions(grid),
        figure=_pictures(grid),
        tables=_tables(grid),
        targets=_targets(grid),
        judges=sorted({_judge(column) for column in found.columns.values()}),
        level=LEVEL,
        coherent=COHERENT,
        draws=DRAWS,
        spec_text=as_yaml(found.inputs.spec.model_dump(mode="json")),
        triggers={g.trigger.name: as_yaml(g.trigger.model_dump(mode="json")) for g in grid.groups},
        versions=versions(),
    )


def _judge(column: Column) -> str:
    report = column.containment
    return f"{report.judge} ({report.mode})" if report.mode else report.judge


def _pictures(grid: Grid) -> dict[str, list[Picture]]:
    """Figures by the section they stand in; an empty list where nothing was done."""
    made: dict[str, list[Picture | None]] = {
        "main": [effects.picture(grid, STUDIED)],
        "ungated": [effects.picture(grid, GENERAL)],
        "shares": [shares.picture(grid, STUDIED)],
        "shares_ungated": [shares.picture(grid, GENERAL)],
        "likeness": [likeness.picture(grid)],
        "readouts": [readouts.picture(grid, STUDIED)],
        "readouts_ungated": [readouts.picture(grid, GENERAL)],
        "methods": [methods.picture(grid, STUDIED)],
        "methods_ungated": [methods.picture(grid, GENERAL)],
        "layers": [layers.picture(grid)],
        "held": [holdings.picture(grid)],
        "organisms": [organisms.picture(grid)],
    }
    return {name: [one for one in some if one is not None] for name, some in made.items()}


def _tables(grid: Grid) -> dict[str, Table | None]:
    return {
        "score": tables.score(grid, STUDIED),
        "score_ungated": tables.score(grid, GENERAL),
        "shares": tables.shares(grid, STUDIED),
        "shares_ungated": tables.shares(grid, GENERAL),
        "targets": tables.targets(grid),
        "methods": ways.methods(grid, STUDIED),
        "methods_ungated": ways.methods(grid, GENERAL),
        "maps": ways.maps(grid),
        "legs": ways.legs(grid),
        "organisms": tables.organisms(grid),
        "held": tables.held(grid),
    }


def _targets(grid: Grid) -> list[Target]:
    """Every arm in every target that was run."""
    made = []
    for role in TARGETS:
        for group in grid.groups:
            some = [arms.effects(grid, group, role, effect) for effect in (ABLATED, ADDED)]
            some += [arms.geometry(grid, group, role), arms.readings(grid, group, role)]
            kept = tuple(one for one in some if one is not None)
            if kept:
                made.append(Target(f"{group.name}, {gate(role)}", kept))
    return made
