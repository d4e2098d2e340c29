"""A study from declaration to report: the trunk, written once."""

import dataclasses
from pathlib import Path

from em_interp.errors import say
from em_interp.judging import ready
from em_interp.localisation import Localisation
from em_interp.probing import Probing
from em_interp.records import read_json, write_json
from em_interp.study.checks import check
from em_interp.study.folder import RunFolder, sole_run
from em_interp.study.inputs import Inputs
from em_interp.study.plan import axes, plan, roles, skipped
from em_interp.study.records import NO_MARGINS, NO_PROBING, Answers, Margins, Sweep
from em_interp.study.results import Findings, results
from em_interp.study.stages import Stages
from em_interp.training.manifest import Manifest
from em_interp.trials import Trial

JUDGED = ("answers-", "sweep", "ablation", "steering", "localisation")


def run(inputs: Inputs, folder: Path) -> tuple[Path, Findings]:
    """Run what is missing, write `results.json`, `figure.svg` and `report.html`."""
    check(inputs)
    with sole_run(folder):
        return _run(inputs, folder)


def _run(inputs: Inputs, folder: Path) -> tuple[Path, Findings]:
    from em_interp.report.figures import main_figure
    from em_interp.report.page import page

    stages = Stages(inputs, folder)
    work = RunFolder(folder, inputs.identity, plan(inputs))
    if any(name.startswith(JUDGED) for name in work.missing):
        ready(inputs.judge)  # before anything is raised, not after
    found = _behaviour(inputs, stages, work)
    for name, why in found.skipped.items():
        say(f"left out: {name} ({why})")
    if not inputs.boxes:
        found = _mechanism(found, stages, work)
    write_json(folder / "results.json", results(found))
    work.write("figure.svg", main_figure(found).decode())
    return work.write("report.html", page(found)), found


def _behaviour(inputs: Inputs, stages: Stages, work: RunFolder) -> Findings:
    """What the organisms say: all of it can be had without their weights but the raising."""
    manifests = {
        role: work.stage(
            f"organism-{role}",
            f"raising the {_plain(role)} organism",
            Manifest,
            lambda progress, role=role: stages.raise_organism(role, progress),  # type: ignore[misc]
        )
        for role in inputs.spec.organisms
    }
    answers = {
        role: work.stage(
            f"answers-{role}",
            f"asking the {_plain(role)}",
            Answers,
            lambda progress, role=role: stages.ask(role, progress),  # type: ignore[misc]
            scratch=[stages.log(f"answers-{role}")],
        )
        for role in roles(inputs)
    }
    return Findings(
        inputs=inputs,
        identity=inputs.identity,
        base=inputs.name,
        manifests=manifests,
        answers=answers,
        skipped=skipped(inputs),
    )


def _mechanism(found: Findings, stages: Stages, work: RunFolder) -> Findings:
    """What the weights do: directions, probes, interventions."""
    margins, probing, last = NO_MARGINS, NO_PROBING, axes(found.inputs)[-1]
    if "margins" not in found.skipped:
        margins = work.stage("margins", "scoring answers without a judge", Margins, stages.margins)
    card = work.path / "directions" / last / "card.json"
    if not card.is_file():
        work.run("directions", f"extracting {' and '.join(axes(found.inputs))}", stages.extract)
    if "probing" not in found.skipped:
        probing = work.stage("probing", "probing, with controls", Probing, stages.probe)
    sweep = work.stage(
        "sweep",
        "choosing a steering setting on development questions",
        Sweep,
        stages.sweep,
        [stages.log("sweep")],
    )
    return dataclasses.replace(
        found,
        base=read_json(card)["base"],
        margins=margins,
        probing=probing,
        sweep=sweep,
        ablation=work.stage(
            "ablation", "removing the direction", Trial, stages.ablate, [stages.log("ablation")]
        ),
        steering=work.stage(
            "steering",
            "adding the direction",
            Trial,
            lambda p: stages.steer(sweep, p),
            [stages.log("steering")],
        ),
        localised=work.stage(
            "localisation",
            "localising by layer and position",
            Localisation,
            lambda p: stages.localise(sweep, p),
            [stages.log("necessity"), stages.log("sufficiency")],
        ),
    )


def _plain(role: str) -> str:
    return role.replace("_", " ")
