"""`python -m em_interp.study STUDY.yaml`: run a declared study, resume it, or print its plan."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from em_interp.cli import command
from em_interp.errors import InputError
from em_interp.records import Spec, check_writable

if TYPE_CHECKING:
    from em_interp.study.spec import Inputs


class StudyCommand(Spec):
    """A study file, and where its run goes."""

    study: Path | None = Field(None, description="The study's YAML file (also without the flag).")
    out: Path | None = Field(
        None, description="Folder of the run; default: runs/<study>-<digest of spec and inputs>."
    )
    dry_run: bool = Field(
        False, description="Check everything and print the plan; load no weights."
    )


def main_run(spec: StudyCommand) -> int:
    """Check everything, then run what is missing."""
    from em_interp.study.spec import StudySpec, resolve

    if spec.study is None:
        raise InputError(
            "no study given: name a study.yaml, e.g. experiments/e01_containment/study.yaml"
        )
    file = spec.study / "study.yaml" if spec.study.is_dir() else spec.study
    inputs = resolve(StudySpec.from_yaml(file), file.parent)
    identity = inputs.identity
    folder = spec.out or Path("runs") / f"{file.resolve().parent.name}-{identity[:8]}"
    check_writable(folder)
    if spec.dry_run:
        _print_plan(inputs, folder)
        return 0
    from em_interp.report.text import headline
    from em_interp.study.run import run

    report, found = run(inputs, folder)
    print(headline(found))
    print(f"results: {folder / 'results.json'}\nreport:  {report}")
    return 0


def _print_plan(inputs: "Inputs", folder: Path) -> None:
    from em_interp.study.plan import plan

    stages = plan(inputs)
    print(f"run folder: {folder}")
    for name, work in stages.items():
        print(f"  {name:<26} {work:>8,} answers or their equivalent")
    print(f"  {'total':<26} {sum(stages.values()):>8,}")


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
