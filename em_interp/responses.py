"""A response: what an organism said, in one context, under one intervention; and the log of a run.

Knows files. Knows nothing of models or of how answers are made.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from em_interp.conditions import Condition
from em_interp.errors import InputError
from em_interp.locks import take
from em_interp.records import Record, Spec, canonical_json, digest, iter_jsonl

CURE = "delete the file (its answers are asked for anew), or that line and all after it"


class Response(Record):
    """One sampled answer. `intervention` is "" where the stream was left alone.

    `sample` counts answers of one context; `finish` is "stop" where the model ended its turn and
    "length" where the token budget cut it off, "filtered" where an API's content filter did (then
    the text may be empty). `(organism, intervention, context, sample)` is
    unique.
    """

    organism: str
    intervention: str = ""
    context: str
    question: str
    domain: str
    condition: Condition
    variant: str
    sample: int
    text: str
    tokens: tuple[int, ...] = ()
    finish: Literal["stop", "length", "filtered"]

    @property
    def id(self) -> str:
        """Key that joins a response with its verdict."""
        return f"{self.organism}|{self.intervention}|{self.context}|{self.sample}"


class Finished(Record):
    """A response and what its intervention did on the way to it.

    `did`: tokens touched, the edited coordinate summed over them before and after, and the size of
    its change. A prompt's tokens count with the first sample alone.
    """

    response: Response
    did: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Run(Spec):
    """First line of a log: the digest of everything that decides the answers in it."""

    run: str


class Log:
    """Finished answers of one run, appended as they come: a killed run loses what was on its way.

    JSON lines, each with a seal over itself and all before it; a half-written last one is dropped
    on opening. One process has the file at a time. Raises `InputError` for another run's file or
    one that is in use, for a line that is not what was written, and a file that cannot be written.
    Answers stand in the order they finished; `em_interp.generation.generate` puts them in order.
    """

    BLOCK = 64  # answers between two waits for the disk

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._unsaved, self._seal = path, 0, run
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out: BinaryIO = path.open("ab")
        except OSError as fault:
            raise InputError(f"{path}: cannot be written ({fault.strerror})") from None
        try:
            take(self._out, path)
            whole = _drop_half_line(path)
            self.finished = list(self._read(run)) if whole else []
            if not whole:
                self._write([Run(run=run).model_dump()])
        except BaseException:
            self._out.close()
            raise

    def _read(self, run: str) -> Iterator[Finished]:
        lines = self._lines()
        number, first = next(lines, (1, None))  # blank lines alone are damage too
        if first is None:
            raise self._damaged(number)
        header = Run.parse(first, f"{self.path}:{number}")
        if header.run != run:
            raise InputError(
                f"{self.path}: answers of another run ({header.run}, this one is {run}): model, "
                "adapter, contexts, interventions or sampling differ; move it, or choose another"
            )
        for number, value in lines:
            given = value.pop("seal", None) if isinstance(value, dict) else None
            try:
                right = given == self._sealed(value)["seal"]
            except ValueError:  # a number without end, which has no digest
                right = False
            if not right:
                raise self._damaged(number)
            yield Finished.parse(value, f"{self.path}:{number}")

    def _lines(self) -> Iterator[tuple[int, Any]]:
        try:
            yield from iter_jsonl(self.path)
        except InputError as fault:
            raise InputError(f"{fault}; {CURE}") from None

    def _damaged(self, line: int) -> InputError:
        return InputError(f"{self.path}:{line}: not what was written there; {CURE}")

    def _sealed(self, row: Any) -> dict[str, Any]:
        """A line with the seal that ties it to the run and to every line before it."""
        self._seal = digest([self._seal, row])
        return {"seal": self._seal, **row} if isinstance(row, dict) else {"seal": self._seal}

    def append(self, rows: Sequence[Finished]) -> None:
        """Write finished answers; they outlive this process at once, the machine in blocks."""
        self._write([self._sealed(row.model_dump(mode="json")) for row in rows])
        self._unsaved += len(rows)
        if self._unsaved >= self.BLOCK:
            self._unsaved = 0
            os.fsync(self._out.fileno())

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        lines = (canonical_json(row) + "\n" for row in rows)
        try:
            self._out.write("".join(lines).encode())
            self._out.flush()
        except OSError as fault:
            raise InputError(f"{self.path}: cannot be written ({fault.strerror})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.fsync(self._out.fileno())
        self._out.close()


def _drop_half_line(path: Path) -> int:
    """Cut off what follows the last line end; returns the bytes that stay (0 without a file)."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
    return whole
