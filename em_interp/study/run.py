"""A study from declaration to report: the trunk, written once."""

from pathlib import Path

from em_interp.localisation import Localisation
from em_interp.probing import Probing
from em_interp.records import write_json
from em_interp.study.folder import RunFolder
from em_interp.study.plan import plan, roles
from em_interp.study.records import Answers, Margins, Sweep
from em_interp.study.results import Findings, results
from em_interp.study.spec import Inputs
from em_interp.study.stages import Stages
from em_interp.training.manifest import Manifest
from em_interp.trials import Trial


def run(inputs: Inputs, folder: Path) -> tuple[Path, Findings]:
    """Run what is missing, write `results.json`, `figure.svg` and `report.html`."""
    from em_interp.report.figures import main_figure
    from em_interp.report.page import page

    stages = Stages(inputs, folder)
    work = RunFolder(folder, inputs.identity, plan(inputs))
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
        )
        for role in roles(inputs)
    }
    margins = work.stage("margins", "scoring answers without a judge", Margins, stages.margins)
    if not (folder / "directions" / "g" / "card.json").is_file():
        work.run("directions", "extracting the directions delta and g", stages.extract)
    probing = work.stage("probing", "probing, with controls", Probing, stages.probe)
    sweep = work.stage(
        "sweep", "choosing a steering setting on development questions", Sweep, stages.sweep
    )
    ablation = work.stage("ablation", "removing the direction", Trial, stages.ablate)
    steering = work.stage(
        "steering",
        "adding the direction",
        Trial,
        lambda progress: stages.steer(sweep, progress),
    )
    localised = work.stage(
        "localisation",
        "localising by layer and position",
        Localisation,
        lambda progress: stages.localise(sweep, progress),
    )
    found = Findings(
        inputs=inputs,
        identity=inputs.identity,
        base=manifests["triggered"].base,
        manifests=manifests,
        answers=answers,
        margins=margins,
        probing=probing,
        sweep=sweep,
        ablation=ablation,
        steering=steering,
        localised=localised,
    )
    write_json(folder / "results.json", results(found))
    work.write("figure.svg", main_figure(found).decode())
    return work.write("report.html", page(found)), found


def _plain(role: str) -> str:
    return role.replace("_", " ")
