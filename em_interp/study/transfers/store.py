"""What a run has by now: bases with their organisms in memory, what groups hold, ways, logs.

Knows folders and models. Knows nothing of how any of it was made.
"""

import gc
from dataclasses import replace
from pathlib import Path

from em_interp.directions import Directions
from em_interp.judging import ready
from em_interp.models import Model, load
from em_interp.study.folder import check_organism, read_stage
from em_interp.study.spec import STUDIED
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.records import Crossing
from em_interp.transferring import Thing, Ways
from em_interp.transferring.axes import Axes
from em_interp.transferring.ways import stored

LOADED = 2  # bases held at once: a map needs two


class Store:
    """The run's folder as stages read it. A base loads when a stage first needs it."""

    def __init__(self, inputs: Inputs, folder: Path) -> None:
        self.inputs, self.spec, self.folder = inputs, inputs.spec, folder
        self._loaded: dict[str, Model] = {}

    def model(self, base: str) -> Model:
        """A base with every organism of it, at most `LOADED` at once."""
        if base not in self._loaded:
            ready(self.inputs.judge)
            while len(self._loaded) >= LOADED:
                self._loaded.pop(next(iter(self._loaded)))
                gc.collect()
            groups = self.inputs.of(base)
            adapters = [
                (adapter(group, role), self._raised(group, role))
                for group in groups
                for role in group.roles
            ]
            self._loaded[base] = load(groups[0].home, adapters, self.spec.loading)
        self._loaded[base] = self._loaded.pop(base)  # the last used goes last
        return self._loaded[base]

    def _raised(self, group: Group, role: str) -> Path:
        """An organism's adapter, as it was raised."""
        name, home = f"organism-{group.slug}-{role}", self.organism(group, role)
        return check_organism(self.folder, name, self.inputs.identity, home)

    def organism(self, group: Group, role: str) -> Path:
        """Where an organism's adapter is: in the run folder, or where it was before."""
        if role in group.existing:
            return group.existing[role]
        return self.folder / "organisms" / f"{group.slug}-{role}"

    def forget(self) -> None:
        """Drop every loaded base: training needs their place."""
        self._loaded.clear()
        gc.collect()

    def held(self, group: Group) -> Axes:
        """What a group has to carry."""
        return Axes.load(self.axes(group))

    def ways(self, base: str, group: Group, role: str) -> Ways:
        """The ways from a base into a target, with what is known of likeness."""
        found = stored(self.between(base, group.base))
        name = f"ways-{base}-to-{group.base}"
        crossing = read_stage(self.folder, name, self.inputs.identity, Crossing)
        target = f"{group.name}/{role}"
        alike = {source: by[target] for source, by in crossing.alike.items()}
        return replace(found, alike=alike, whole=len(found.maps) == 1)

    def axes(self, group: Group) -> Path:
        """The folder of what a group has to carry."""
        return self.folder / "held" / group.slug

    def between(self, a: str, b: str) -> Path:
        """The folder of the maps from one base to another."""
        return self.folder / "ways" / f"{a}-to-{b}"

    def log(self, group: Group, role: str) -> Path:
        """The folder that keeps a target's finished answers until its stage is done."""
        return self.folder / "logs" / f"{group.slug}-{role}"


def own(held: Axes, role: str) -> dict[Thing, Directions]:
    """A target's own directions, its main one first: delta behind a gate, else g alone."""
    return held.things if role == STUDIED else {Thing.GENERAL: held.general}


def adapter(group: Group, role: str) -> str:
    """An organism's name on its loaded base."""
    return f"{group.slug}-{role}".replace(".", "_")  # PEFT takes a dot for a path
