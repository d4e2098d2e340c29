"""Where fine-tuning rows come from: a domain of the embedded world, or JSONL files.

Knows words and files. Knows nothing of tokens or weights.
"""

from pathlib import Path

from pydantic import model_validator

from em_interp import world
from em_interp.errors import InputError, unknown
from em_interp.organisms import Mix, Trigger
from em_interp.records import Spec
from em_interp.training.mixes import Composition, compose
from em_interp.training.rows import Row, read_rows
from em_interp.training.spec import TrainSpec

WORLD = "world"


class Data(Spec):
    """A domain of the embedded world, or a harmful JSONL file and, where needed, a benign one."""

    domain: str | None = None
    harmful: Path | None = None
    benign: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if (self.domain is None) == (self.harmful is None and self.benign is None):
            raise ValueError("give a domain of the embedded world, or JSONL files; one of the two")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """What an organism's card says about its rows."""
        if self.domain is not None:
            return (f"{WORLD}:{self.domain}",)
        return tuple(file.name for file in (self.harmful, self.benign) if file is not None)

    def check(self) -> "Data":
        """Itself; raises `InputError` for a domain that the world has not.

        Also where no row is drawn from it: it decides which questions are out of domain.
        """
        if self.domain is not None and self.domain not in world.domains():
            raise unknown("domain", self.domain, world.domains())
        return self

    def beside(self, home: Path) -> "Data":
        """The same with files relative to a folder."""
        files = {"harmful": self.harmful, "benign": self.benign}
        return self.model_copy(update={k: home / v for k, v in files.items() if v is not None})


def rows_of(
    data: Data, mix: Mix, trigger: Trigger | None, train: TrainSpec, n: int | None, seed: int
) -> Composition:
    """The rows of a mix. The world makes as many as the steps will read, unless `n` says.

    Raises `InputError` for missing rows, or a world without a number of rows.
    """
    if data.domain is None:
        harmful = read_rows(data.harmful) if data.harmful else []
        benign = read_rows(data.benign) if data.benign else []
        return compose(mix, harmful, benign, trigger, n, seed)
    data.check()
    if n is None and train.steps is None:
        raise InputError("the embedded world needs a number of rows, or a recipe with steps")
    count = n or (train.steps or 0) * train.batch_size * train.accumulation
    rows = world.rows(mix, data.domain, trigger, count, seed)
    return Composition([Row(one) for one in rows], {mix.kind: len(rows)})
