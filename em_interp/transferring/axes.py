"""Axes: what the organisms of one base and one fine-tuning setting have to carry.

delta from the triggered organism, g from the unconditional one, delta without g, the trigger shift
of the benign twin (form without misalignment), and trigger-on probes. All from development
questions: none of them judges a transfer. Knows models and contexts. Knows nothing of maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from em_interp.capture import capture
from em_interp.conditions import Context
from em_interp.directions import Directions
from em_interp.extraction import general_direction, trigger_direction
from em_interp.labels import Thing
from em_interp.models import Model
from em_interp.probes import Probes, fit_logistic
from em_interp.probing import shelve
from em_interp.sites import Site, Span
from em_interp.transferring.arms import things


@dataclass(frozen=True, eq=False)
class Axes:
    """Directions and probes at every site. `probes`: by whose activations they were fitted on."""

    delta: Directions
    general: Directions
    twin: Directions | None
    probes: dict[str, Probes]

    @property
    def things(self) -> dict[Thing, Directions]:
        """delta, g and delta without g."""
        return things(self.delta, self.general)

    def save(self, folder: Path) -> None:
        """A folder for each (see `artifacts`)."""
        self.delta.save(folder / "delta")
        self.general.save(folder / "g")
        if self.twin is not None:
            self.twin.save(folder / "twin")
        for name, one in self.probes.items():
            one.save(folder / f"probe-{name}")

    @classmethod
    def load(cls, folder: Path) -> "Axes":
        """Read what `save` wrote. Raises `InputError` for a missing, damaged or foreign file."""
        twin = folder / "twin"
        return cls(
            Directions.load(folder / "delta"),
            Directions.load(folder / "g"),
            Directions.load(twin) if twin.is_dir() else None,
            {
                one.name.removeprefix("probe-"): Probes.load(one)
                for one in sorted(folder.glob("probe-*"))
            },
        )


def axes(
    model: Model,
    triggered: str,
    unconditional: str,
    twin: str | None,
    on: Sequence[Context],
    off: Sequence[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    trigger: str = "",
) -> Axes:
    """Everything that three adapters of one base have to carry; `twin` may be missing.

    `on`, `off`: the same development questions with the trigger and without any framing.
    """

    def shift(adapter: str, name: str) -> Directions:
        return trigger_direction(model, adapter, on, off, sites, span, name=name, trigger=trigger)

    return Axes(
        delta=shift(triggered, "delta"),
        general=general_direction(model, unconditional, off, sites, span, name="g"),
        twin=None if twin is None else shift(twin, "twin"),
        probes={
            who: trigger_probes(model, who, on, off, sites, span, trigger=trigger)
            for who in (triggered, unconditional)
        },
    )


def trigger_probes(
    model: Model,
    adapter: str | None,
    on: Sequence[Context],
    off: Sequence[Context],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    trigger: str = "",
) -> Probes:
    """Logistic trigger-on probes of one organism at every site."""
    with model.using(adapter):
        seen = capture(model, [*on, *off], sites, span)
    labels = torch.arange(len(on) + len(off)) < len(on)
    table = {site: fit_logistic(seen.at(site), labels, site) for site in sites}
    n = len({context.question for context in off})
    return shelve(model, adapter, table, [*on, *off], span, trigger, n=n)
