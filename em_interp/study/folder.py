"""The run folder: every stage is a file that appears whole, and is skipped when it stands.

A killed run goes on with the first stage whose file is missing, and ends with the same bytes,
since no file holds a time. Each file carries a seal over the run, the stage and what it says; what
does not fit it is refused. Knows files and clocks. Knows nothing of models.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from em_interp.errors import InputError, reading, say
from em_interp.locks import LOCK, sole
from em_interp.progress import Progress, bar, silent
from em_interp.records import Record, digest, read_json, write_json, write_text
from em_interp.training.manifest import Manifest, weights_digest

RecordT = TypeVar("RecordT", bound=Record)
MadeT = TypeVar("MadeT")
SEAL = "seal"


def sole_run(folder: Path) -> AbstractContextManager[None]:
    """One run at a time in a folder; its workers are part of it."""
    return sole(folder / LOCK, folder)


def write_stage(folder: Path, name: str, identity: str, made: Record) -> None:
    """A stage's file, sealed."""
    plain = made.model_dump(mode="json")
    write_json(folder / f"{name}.json", {SEAL: digest([identity, name, plain]), **plain})


def read_stage(folder: Path, name: str, identity: str, kind: type[RecordT]) -> RecordT:
    """A stage's record as it was written. `InputError` names the file to delete otherwise."""
    file = folder / f"{name}.json"
    cure = "delete it and run again: the stage is made anew"
    try:
        plain = read_json(file)
        given = plain.pop(SEAL, None) if isinstance(plain, dict) else None
        with reading(file, "not what this run wrote there"):  # a number without end has no digest
            right = given == digest([identity, name, plain])
        if not right:
            raise InputError(f"{file}: not what this run wrote there")
        return kind.parse(plain, str(file))
    except InputError as fault:
        raise InputError(f"{fault}; {cure}") from None


def check_organism(folder: Path, name: str, identity: str, home: Path) -> Path:
    """An organism's folder, which must hold the weights that its stage raised."""
    if (folder / f"{name}.json").is_file():
        made = read_stage(folder, name, identity, Manifest)
        if made.weights != weights_digest(home):
            raise InputError(
                f"{home}: not the organism that this run raised; delete it and "
                f"{folder / name}.json, and run again"
            )
    return home


class RunFolder:
    """One run's folder, and its progress over all stages.

    `plan` gives each stage its work in answers or forward passes, so that the time left can be
    told from the pace so far; not by one of several workers (`alone`), who knows only its own.
    """

    def __init__(self, path: Path, identity: str, plan: dict[str, int], alone: bool = True) -> None:
        """Claim `path` for the run `identity`; `InputError` where another run lives there."""
        self.path, self.identity, self.plan, self.alone = path, identity, plan, alone
        self._left = {name: work for name, work in plan.items() if not self._file(name).is_file()}
        self._pace: tuple[int, float] = (0, 0.0)
        held = path / "run.json"
        if held.is_file():
            if read_json(held).get("identity") != identity:
                raise InputError(
                    f"{path}: holds another study's run; give another --out, or remove it"
                )
        elif path.is_dir() and any(file.name != LOCK for file in path.iterdir()):
            raise InputError(f"{path}: is not empty and holds no run; give another --out")
        else:
            write_json(held, {"identity": identity})

    @property
    def missing(self) -> list[str]:
        """Stages of the plan without a file."""
        return [name for name in self.plan if not self._file(name).is_file()]

    def stage(
        self,
        name: str,
        what: str,
        kind: type[RecordT],
        make: Callable[[Progress], RecordT],
        scratch: Sequence[Path] = (),
    ) -> RecordT:
        """The record of a stage: read where its file stands, else made and written whole.

        `scratch`: what the stage keeps until then to go on from; the record holds all of it.
        """
        file = self._file(name)
        if file.is_file():
            self._left.pop(name, None)
            made = read_stage(self.path, name, self.identity, kind)
        else:
            made = self.run(name, what, make)
            write_stage(self.path, name, self.identity, made)
        for log in scratch:
            log.unlink(missing_ok=True)
        return made

    def run(self, name: str, what: str, make: Callable[[Progress], MadeT]) -> MadeT:
        """Run a stage's work under its progress line."""
        work = self._left.get(name, 0)
        number = list(self.plan).index(name) + 1
        line = f"[{number}/{len(self.plan)}] {what}"
        say(f"{line}{self._time_left()}")
        start = time.monotonic()
        if work and sys.stderr.isatty():
            with bar(line, work) as progress:
                made = make(progress)
        else:
            made = make(silent)
        self._pace = (self._pace[0] + work, self._pace[1] + time.monotonic() - start)
        self._left.pop(name, None)
        return made

    def _time_left(self) -> str:
        done, seconds = self._pace
        left = sum(self._left.values())
        return f" (about {left * seconds / done:.0f} s left)" if done and self.alone else ""

    def passed(self, name: str, seconds: float) -> None:
        """A stage that a worker made, `seconds` after they all began; says how long is left."""
        self._pace = (self._pace[0] + self._left.pop(name, 0), seconds)
        made = len(self.plan) - len(self.missing)
        line = f"{made} of {len(self.plan)} stages stand{self._time_left()}"
        say(line)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def write(self, name: str, text: str) -> Path:
        """A file of the run that is remade each time from the records (the report)."""
        write_text(self.path / name, text)
        return self.path / name
