"""A transfer study from declaration to page: the trunk, written once."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from em_interp.errors import InputError
from em_interp.judging import Remote, ready
from em_interp.records import Record, write_json
from em_interp.study.checks import check_groups
from em_interp.study.folder import RunFolder, read_stage, sole_run
from em_interp.study.transfers.inputs import Inputs
from em_interp.study.transfers.plan import carrying, crossing, holding, raising
from em_interp.study.transfers.records import Column, Crossing, Held
from em_interp.study.transfers.results import Findings, results
from em_interp.study.transfers.stages import Stages
from em_interp.study.workers import cores, workers

RecordT = TypeVar("RecordT", bound=Record)


def how_many(inputs: Inputs, asked: int | None) -> int:
    """How many processes: as asked, else one a core on a CPU, and one on a GPU.

    A judge that costs has one budget and one cache, so it has one worker.
    """
    alone = isinstance(inputs.judge, Remote) or inputs.spec.device != "cpu"
    if alone and asked is not None and asked > 1:
        raise InputError(
            f"--workers {asked}: one device, and a judge that costs, take one worker; leave it out"
        )
    return 1 if alone else asked or min(cores(), len(inputs.targets))


def run(inputs: Inputs, folder: Path, asked: int | None = None) -> tuple[Path, Findings]:
    """Run what is missing, write `results.json`, `figure.svg` and `report.html`."""
    from em_interp.report.transfers.page import figure, page

    count = how_many(inputs, asked)
    check_groups(inputs)
    with sole_run(folder):
        work = Stages(inputs, folder).work
        if missing := work.missing:
            ready(inputs.judge)  # before anything is raised, not after
        passed = partial(_passed, work, time.monotonic())
        with workers(partial(_start, inputs, folder, count == 1), count, passed) as each:
            for phase in (raising, holding, crossing, carrying):
                each([name for name in phase(inputs) if name in missing])
        found = findings(inputs, folder)
        write_json(folder / "results.json", results(found))
        work.write("figure.svg", figure(found).decode())
        return work.write("report.html", page(found)), found


def findings(inputs: Inputs, folder: Path) -> Findings:
    """Every record of a finished run."""

    def read(kind: type[RecordT], name: str) -> RecordT:
        return read_stage(folder, name, inputs.identity, kind)

    return Findings(
        inputs=inputs,
        identity=inputs.identity,
        held={one.name: read(Held, name) for name, one in holding(inputs).items()},
        crossings={pair: read(Crossing, name) for name, pair in crossing(inputs).items()},
        columns={
            (group.name, role): read(Column, name)
            for name, (group, role) in carrying(inputs).items()
        },
    )


def _start(inputs: Inputs, folder: Path, alone: bool) -> Callable[[str], Record]:
    return Stages(inputs, folder, alone).stand


def _passed(work: RunFolder, begun: float, name: str) -> None:
    work.passed(name, time.monotonic() - begun)
