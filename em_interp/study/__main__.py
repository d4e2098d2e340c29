"""`python -m em_interp.study STUDY.yaml`: run a declared study, resume it, or print its plan.

A file says by `kind` what it declares: a containment study (also without the word), or a transfer
study, whose grid is run by `study.transfers`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp.bounds import Gigabytes, Processes, Speed
from em_interp.cli import Names, command, idle
from em_interp.errors import InputError, reading, unknown
from em_interp.loading import Device
from em_interp.records import Spec, check_writable

if TYPE_CHECKING:
    from em_interp.study.inputs import Inputs
    from em_interp.study.pace import Machine
    from em_interp.study.spec import StudySpec


MACHINE = "tflops bandwidth memory"


class StudyCommand(Spec):
    """A study file, what it is to read, and where its run goes."""

    study: Path | None = Field(None, description="The study's YAML file (also without the flag).")
    cell: Names = Field((), description="Of a matrix: one option of each axis, in their order.")
    data: Path | None = Field(None, description="Folder that {data} in the study stands for.")
    base: str | None = Field(
        None, description="Base instead of the study's: a local copy; of several, name=folder,..."
    )
    without: Names = Field((), description="Controls to leave out, e.g. benign_twin.")
    device: Device | None = Field(None, description="Instead of the study's: cpu or cuda.")
    out: Path | None = Field(
        None, description="Folder of the run; default: runs/<study>-<digest of spec and inputs>."
    )
    tflops: Speed | None = Field(
        None, description="Dry run: sustained speed, 10^12 operations a second."
    )
    bandwidth: Speed | None = Field(
        None, description="Dry run: sustained speed of memory, 10^9 bytes a second."
    )
    memory: Gigabytes | None = Field(None, description="Dry run: memory of the device, 10^9 bytes.")
    workers: Processes | None = Field(
        None, description="Processes of a transfer study; default: one a core on a CPU, else one."
    )
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )


def main_run(spec: StudyCommand) -> int:
    """Check everything, then run what is missing."""
    from em_interp.study.inputs import DATA
    from em_interp.study.matrix import TRANSFER, cells, kind_of

    if spec.study is None:
        raise InputError(
            "no study given: name a study.yaml, e.g. experiments/e01_containment/study.yaml"
        )
    file = spec.study / "study.yaml" if spec.study.is_dir() else spec.study
    kind = kind_of(file)
    if not spec.dry_run:
        idle(spec, MACHINE, "it is for --dry-run")
    with reading(file):
        text = file.read_text("utf-8")
    if DATA not in text:
        idle(spec, "data", f"{file} reads no file in {DATA}")
    if kind == TRANSFER:
        return _transfers(spec, file)
    if spec.workers is not None:
        raise InputError("--workers is for transfer studies; leave it out")
    if spec.dry_run:
        _show(spec, file, [spec.cell] if spec.cell else cells(file))
        return 0
    inputs = _inputs(spec, file, spec.cell)
    folder = spec.out or Path("runs") / "-".join(
        [file.resolve().parent.name, *spec.cell, inputs.identity[:8]]
    )
    check_writable(folder)
    from em_interp.report.text import headline
    from em_interp.study.run import run

    report, found = run(inputs, folder)
    print(headline(found))
    print(f"results: {folder / 'results.json'}\nreport:  {report}")
    return 0


def _transfers(spec: StudyCommand, file: Path) -> int:
    """A transfer study: the same, for a grid."""
    from em_interp.records import read_yaml
    from em_interp.study.transfers.inputs import resolve
    from em_interp.study.transfers.spec import TransferSpec

    if spec.cell:
        raise InputError(f"--cell: {file} is a transfer study, which has none; leave it out")
    study = TransferSpec.parse(read_yaml(file), str(file))
    plain = study.model_dump(mode="json", exclude_unset=True)
    plain |= {"bases": _copies(spec.base, study.bases)} if spec.base else {}
    plain |= {"device": spec.device} if spec.device is not None else {}
    plain |= {"without": [*study.without, *spec.without]} if spec.without else {}
    changed = TransferSpec.parse(plain, "--without, --base, --device")
    inputs = resolve(changed, file.parent, spec.data)
    if spec.dry_run:
        from em_interp.study.checks import check_groups
        from em_interp.study.transfers.run import how_many
        from em_interp.study.transfers.showing import plan_text

        if spec.out is not None:
            check_writable(spec.out)
        how_many(inputs, spec.workers)
        check_groups(inputs, planned=True)
        print(plan_text(inputs, _speeds(spec, changed.device)))
        return 0
    folder = spec.out or Path("runs") / f"{file.resolve().parent.name}-{inputs.identity[:8]}"
    check_writable(folder)
    from em_interp.report.transfers.text import headline
    from em_interp.study.transfers.run import run

    report, found = run(inputs, folder, spec.workers)
    print(headline(found))
    print(f"results: {folder / 'results.json'}\nreport:  {report}")
    return 0


def _copies(given: str, bases: dict[str, str]) -> dict[str, str]:
    """A transfer study's bases, some of them replaced by local copies: `name=folder,...`."""
    changed = dict(bases)
    for one in given.split(","):
        name, equals, folder = one.partition("=")
        if not equals:
            raise InputError(
                f"--base {one}: in a transfer study, name=folder, of {', '.join(bases)}"
            )
        if name not in bases:
            raise unknown("base", name, bases, where="--base")
        changed[name] = folder
    return changed


def _show(spec: StudyCommand, file: Path, chosen: Sequence[tuple[str, ...]]) -> None:
    """The plan of each cell. The run folder's digest is left to the run: it reads the weights."""
    from em_interp.study.checks import check
    from em_interp.study.showing import plan_text

    if spec.out is not None:
        check_writable(spec.out)
    for number, cell in enumerate(chosen):
        inputs = _inputs(spec, file, cell)
        check(inputs, planned=True)
        print("\n" * min(number, 1) + plan_text(inputs, _speeds(spec, inputs.spec.device)))


def _speeds(spec: StudyCommand, device: str) -> "Machine":
    """The machine that a dry run assumes."""
    from em_interp.study.showing import machine

    return machine(device, tflops=spec.tflops, bandwidth=spec.bandwidth, memory=spec.memory)


def _inputs(spec: StudyCommand, file: Path, cell: tuple[str, ...]) -> "Inputs":
    """A cell's study with what the command line says instead, resolved."""
    from em_interp.study.inputs import resolve
    from em_interp.study.matrix import declared

    made = resolve(_changed(declared(file, cell), spec), file.parent, spec.data)
    if made.boxes:
        idle(spec, f"device {MACHINE}", "the models of this study are behind an API")
    return made


def _changed(study: "StudySpec", spec: StudyCommand) -> "StudySpec":
    """The study with what the command line says instead."""
    from em_interp.study.spec import StudySpec

    given = {"base": spec.base, "device": spec.device}
    if not spec.without and not any(given.values()):
        return study
    plain = study.model_dump(mode="json", exclude_unset=True)
    plain |= {name: value for name, value in given.items() if value is not None}
    for role in spec.without:
        plain.get("organisms", {}).pop(role, None)
    plain["without"] = [*study.without, *spec.without]
    return StudySpec.parse(plain, "--without, --base, --device")


main = command(
    "study",
    StudyCommand,
    main_run,
    "Run a declared study from raising its organisms to the report. Resumes when killed.",
    "experiments/e01_containment/study.yaml --dry-run",
    positional="study",
)

if __name__ == "__main__":
    sys.exit(main())
