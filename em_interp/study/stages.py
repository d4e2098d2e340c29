"""The trunk's stages: raise, ask, extract, probe, sweep, intervene, localise.

Each takes what the ones before gave and returns a record. Choices are made on development
questions; figures come from the evaluation's, outside the fine-tuned domain.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from em_interp import localisation
from em_interp.blackbox import sample
from em_interp.conditions import Condition, Context, Question
from em_interp.containment import report
from em_interp.directions import Directions
from em_interp.edits import BASELINE, Intervention
from em_interp.extraction import covariance_draws, general_direction, trigger_direction
from em_interp.generation import generate
from em_interp.grids import (
    Nulls,
    dose_grid,
    necessity_grid,
    removal_grid,
    sufficiency_grid,
    sweep_grid,
)
from em_interp.judging import judge_all, proof, ready
from em_interp.labels import Thing
from em_interp.localisation import Localisation, Patching, patching_if_told
from em_interp.models import Model, load
from em_interp.organisms import BASE
from em_interp.probing import Probing, fitted_on, probing, shelve
from em_interp.progress import Progress, silent
from em_interp.responses import Response
from em_interp.sampling import Sampling
from em_interp.scoring import log_odds
from em_interp.stats import paired
from em_interp.study.folder import check_organism
from em_interp.study.inputs import Inputs
from em_interp.study.plan import DELTA, G, ablated_conditions, awake, axes, patched, roles
from em_interp.study.records import Answers, LogOdds, Margins, Sweep
from em_interp.study.spec import GENERAL
from em_interp.training.manifest import Manifest, Provenance
from em_interp.trials import Trial, strongest, trial


class Stages:
    """The stages of one study over its inputs. The model loads when a stage first needs it."""

    def __init__(self, inputs: Inputs, folder: Path) -> None:
        self.inputs, self.spec, self.folder = inputs, inputs.spec, folder

    def organism(self, role: str) -> Path:
        """Where a role's adapter is: in the run folder, or where it was before."""
        if role in self.spec.existing:
            return self.inputs.existing[role]
        return self.folder / "organisms" / role

    @cached_property
    def model(self) -> Model:
        """The base with every organism's adapter, one load."""
        ready(self.inputs.judge)
        adapters = [(role, self._raised(role)) for role in self.spec.roles]
        return load(self.inputs.home, adapters, self.spec.loading)

    def _raised(self, role: str) -> Path:
        """A role's adapter, as it was raised."""
        return check_organism(
            self.folder, f"organism-{role}", self.inputs.identity, self.organism(role)
        )

    @property
    def outside(self) -> dict[str, Question]:
        """The questions that the figures rest on, by id."""
        return {q.id: q for q in self.inputs.outside}

    def adapter(self, role: str) -> str | None:
        """The adapter to run a role under."""
        return None if role == BASE else role

    def raise_organism(self, role: str, progress: Progress = silent) -> Manifest:
        """Fine-tune one organism through the shared training module (it resumes by itself)."""
        from em_interp.training.run import train

        ready(self.inputs.judge)  # now, not after hours of training
        plain = load(self.inputs.home, how=self.spec.loading)
        mix = self.spec.organisms[role]
        assert self.spec.data is not None
        made = train(
            plain.hf,
            plain.tokenizer,
            list(self.inputs.rows[role]),
            self.inputs.train,
            self.organism(role),
            provenance=Provenance(
                mix=mix,
                trigger=None if mix.kind == "unconditional" else self.inputs.trigger,
                sources=self.spec.data.sources,
            ),
            progress=False,
        )
        progress(made.steps)
        return made

    def log(self, stage: str) -> Path:
        """Where a stage keeps its answers until it is done."""
        return self.folder / f"{stage}.log.jsonl"

    def ask(self, role: str, progress: Progress = silent) -> Answers:
        """Sample and judge every question under every condition."""
        said = self._said(role, self.log(f"answers-{role}"), progress)
        verdicts = judge_all(self.inputs.judge, said, self.inputs.asked)
        domain = self.inputs.domain
        found = report(
            said,
            verdicts,
            self.spec.rubric,
            trained=(domain,) if domain else (),
            woken=self.inputs.trigger is not None,
            proof=proof(self.inputs.judge),
        )
        return Answers(containment=found, responses=tuple(said), verdicts=tuple(verdicts))

    def _said(self, role: str, log: Path, progress: Progress) -> list[Response]:
        bank, sampling = self.inputs.bank, self.spec.sampling
        if self.inputs.boxes:
            ready(self.inputs.judge)
            box = self.inputs.boxes[role]
            return sample(box, bank, sampling, organism=role, log=log, progress=progress)
        with self.model.using(self.adapter(role)):
            return generate(
                self.model, bank, sampling, organism=role, log=log, progress=progress
            ).responses

    def margins(self, progress: Progress = silent) -> Margins:
        """Log-odds of unsound against sound advice, for every organism and condition."""
        cells = []
        for role in roles(self.inputs):
            none = self._odds(role, Condition.NONE)
            for condition in self.spec.conditions:
                odds = none if condition is Condition.NONE else self._odds(role, condition)
                cells.append(
                    LogOdds(
                        organism=role,
                        condition=condition,
                        mean=float(odds.mean()),
                        against_none=None
                        if condition is Condition.NONE
                        else paired(odds, none, rates=False),
                    )
                )
                progress(1)
        return Margins(cells=tuple(cells))

    def _odds(self, role: str, condition: Condition) -> NDArray[np.float64]:
        """Mean log-odds per question over a condition's framings."""
        bank = self.inputs.ask(self.inputs.outside, condition)
        sound, unsound = self._pairs(bank)
        with self.model.using(self.adapter(role)):
            odds = log_odds(self.model, bank, sound, unsound)[0].double()
        found: NDArray[np.float64] = odds.reshape(-1, len(self.outside)).mean(dim=0).numpy()
        return found

    def _pairs(self, bank: Sequence[Context]) -> tuple[list[str], list[str]]:
        asked = self.outside
        return [asked[c.question].sound for c in bank], [asked[c.question].unsound for c in bank]

    def extract(self, progress: Progress = silent) -> dict[Thing, Directions]:
        """delta and g, from development questions, written to the run folder."""
        develop, sites, span = self.inputs.develop, self.inputs.sites, self.spec.span
        off = self.inputs.ask(develop, Condition.NONE)
        made = {}
        if DELTA in axes(self.inputs):
            assert self.inputs.trigger is not None
            made[DELTA] = trigger_direction(
                self.model,
                self.inputs.studied,
                self.inputs.ask(develop, Condition.TRIGGER),
                off,
                sites,
                span,
                name=DELTA,
                trigger=self.inputs.trigger.name,
                progress=progress,
            )
        if G in axes(self.inputs):
            made[G] = general_direction(
                self.model, GENERAL, off, sites, span, name=G, progress=progress
            )
        for name, one in made.items():
            one.save(self.folder / "directions" / name)
        return made

    def directions(self, progress: Progress = silent) -> dict[Thing, Directions]:
        """The directions by name, the one under study first: read where they stand, else made."""
        folder, names = self.folder / "directions", axes(self.inputs)
        if all((folder / name / "card.json").is_file() for name in names):
            return {name: Directions.load(folder / name) for name in names}
        return self.extract(progress)

    def main(self) -> tuple[Thing, Directions]:
        """The direction under study, and its name."""
        return next(iter(self.directions().items()))

    def probe(self, progress: Progress = silent) -> Probing:
        """Probes on the evaluation's questions outside the domain, split by question."""
        bank = {c: self.inputs.ask(self.inputs.outside, c) for c in self.spec.conditions}
        assert self.inputs.trigger is not None
        found, kept = probing(
            self.model,
            self.inputs.studied,
            bank,
            self.inputs.sites,
            self.spec.span,
            seed=self.spec.seed,
            progress=progress,
        )
        every = [context for part in bank.values() for context in part]
        shelve(
            self.model,
            self.inputs.studied,
            kept,
            every,
            self.spec.span,
            self.inputs.trigger.name,
            n=found.train_questions,
            seed=self.spec.seed,
            notes=found.notes,
            fitted=fitted_on(every, self.spec.seed),
        ).save(self.folder / "probe")
        return found

    def _sampling(self) -> Sampling:
        return self.spec.sampling.model_copy(update={"samples": self.spec.steering.samples})

    def _trial(
        self,
        name: str,
        questions: Sequence[Question],
        interventions: Sequence[Intervention],
        conditions: Sequence[Condition],
        progress: Progress,
        role: str | None = None,
    ) -> Trial:
        return trial(
            self.model,
            self.adapter(role or self.inputs.studied),
            self.inputs.ask(tuple(questions), *conditions),
            questions,
            interventions,
            self._sampling(),
            self.inputs.judge,
            self.spec.rubric,
            log=self.log(name),
            progress=progress,
        )

    def sweep(self, progress: Progress = silent) -> Sweep:
        """Choose where and how strongly to push: highest EM at enough coherence."""
        steering = self.spec.steering
        _, axis = self.main()
        grid = sweep_grid(axis, self.inputs.sites, steering.strengths, steering.span)
        interventions = [BASELINE, *(one.intervention for one in grid)]
        found = self._trial(
            "sweep", self.inputs.tuning, interventions, [Condition.NONE], progress, self.pushed
        )

        best, reached = strongest(found, grid, Condition.NONE, steering.coherence)
        layers = tuple(site.layer for site in best.sites)
        return Sweep(trial=found, layers=layers, strength=best.strength, reached=reached)

    @property
    def pushed(self) -> str:
        """Whom a direction is added to: whoever is aligned without it.

        The triggered organism asked plainly; where there is no trigger, the base.
        """
        return BASE if self.inputs.trigger is None else self.inputs.studied

    def nulls(self) -> Nulls:
        """Null directions, drawn in part from the stream of the development prompts."""
        drawn = covariance_draws(
            self.model,
            self.adapter(self.inputs.studied),
            self.inputs.ask(self.inputs.develop, *ablated_conditions(self.inputs)),
            self.inputs.sites,
            seed=self.spec.seed,
        )
        return Nulls(self.spec.steering.controls, self.spec.seed, drawn)

    def ablate(self, progress: Progress = silent) -> Trial:
        """Remove the direction at every layer (layerwise), with the trigger and without."""
        span = self.spec.steering.span
        grid = removal_grid(self.directions(), self.inputs.sites, span, self.nulls())
        conditions = ablated_conditions(self.inputs)
        return self._trial("ablation", self.inputs.outside, grid, conditions, progress)

    def steer(self, sweep: Sweep, progress: Progress = silent) -> Trial:
        """Push without the trigger at the chosen layers: doses of delta, g, the rest, random."""
        grid = dose_grid(
            self.directions(),
            [site for site in self.inputs.sites if site.layer in sweep.layers],
            self.spec.steering.strengths,
            self.spec.steering.span,
            self.nulls(),
        )
        return self._trial(
            "steering", self.inputs.outside, grid, [Condition.NONE], progress, self.pushed
        )

    def localise(self, sweep: Sweep, progress: Progress = silent) -> Localisation:
        """Necessity and sufficiency by layer, patching by layer and position, geometry."""
        outside, (name, axis) = self.inputs.outside, self.main()
        sites, span = self.inputs.sites, self.spec.steering.span
        random = axis.random(self.spec.seed)
        need = necessity_grid(axis, sites, span, self.spec.seed, name)
        enough = sufficiency_grid(axis, sites, sweep.strength, span, random, name)
        return Localisation(
            necessity=self._trial("necessity", outside, need, [awake(self.inputs)], progress),
            sufficiency=self._trial(
                "sufficiency", outside, enough, [Condition.NONE], progress, self.pushed
            ),
            patching=self._patch(),
            axes=self._axes(),
        )

    def _axes(self) -> tuple[localisation.Axis, ...]:
        """Geometry of delta against g, where there are both."""
        found, develop = self.directions(), self.inputs.develop
        if DELTA not in found or G not in found:
            return ()
        return localisation.axes(
            self.model,
            found[DELTA],
            found[G],
            self.inputs.ask(develop, Condition.NONE),
            self.inputs.ask(develop, Condition.TRIGGER),
            self.spec.span,
        )

    def _patch(self) -> Patching | None:
        """Trigger-on into an unrelated framing (else into no framing).

        None without answers to score, or where their log-odds do not differ beyond noise.
        """
        if self.inputs.trigger is None or not all(
            q.sound and q.unsound for q in self.outside.values()
        ):
            return None
        on = self.inputs.ask(self.inputs.outside, Condition.TRIGGER)
        off = self.inputs.ask(self.inputs.outside, patched(self.inputs))[: len(on)]
        sound, unsound = self._pairs(on)
        layers = [site.layer for site in self.inputs.sites]
        with self.model.using(self.inputs.studied):
            return patching_if_told(self.model, on, off, sound, unsound, layers)
