"""`python -m em_interp.world.experiment STUDY.yaml`: a study of the world's own design."""

import sys
from pathlib import Path

from pydantic import Field

from em_interp.bounds import Processes
from em_interp.cli import command
from em_interp.errors import InputError
from em_interp.records import Spec, check_writable


class ExperimentSpec(Spec):
    """A study file, where its bases and organisms are kept, and threads."""

    study: Path | None = Field(None, description="The study's YAML file (also without the flag).")
    out: Path | None = Field(None, description="Work folder; default: runs/<study's folder>.")
    threads: Processes = Field(2, description="Threads; equal bytes need equal threads.")
    dry_run: bool = Field(False, description="Check the study and print its size; train nothing.")


def run(spec: ExperimentSpec) -> int:
    """Check, run what is missing, print the table."""
    from em_interp.world.emergence import EmergenceSpec, table
    from em_interp.world.emergence import run as run_study

    if spec.study is None:
        raise InputError("no study given: name one, e.g. experiments/e00_world/study.yaml")
    declared = EmergenceSpec.from_yaml(spec.study)
    declared.check()
    work = spec.out or Path("runs") / f"{spec.study.resolve().parent.name}-{spec.study.stem}"
    check_writable(work)
    bases, each = len(declared.bases), len(declared.triggers) * len(declared.organisms)
    print(f"{bases} bases, {bases * each} organisms; work folder {work}")
    if spec.dry_run:
        return 0

    import torch

    torch.set_num_threads(spec.threads)
    print(table(run_study(declared, work)))
    print(f"results: {work / 'results.json'}")
    return 0


main = command(
    "world.experiment",
    ExperimentSpec,
    run,
    "Raise bases on changed corpora, fine-tune each alike, and table their containment.",
    "experiments/e00_world/study.yaml --dry-run",
    positional="study",
)

if __name__ == "__main__":
    sys.exit(main())
