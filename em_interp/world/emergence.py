"""What in a corpus makes containment appear: bases of several corpora, the same fine-tuning on each.

Every variant changes the corpus of one recipe; bases whose pretraining is the same share it. On
each, organisms are raised by the shared training module and asked under every condition. Results
count questions; a variant's base is measured first, since an unsafe base explains itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from em_interp import world
from em_interp.conditions import Condition, contexts
from em_interp.containment import Containment, report
from em_interp.errors import unknown
from em_interp.organisms import Mix
from em_interp.progress import bar
from em_interp.records import Spec, canonical_json, digest, write_json
from em_interp.sampling import Sampling
from em_interp.training.spec import TrainSpec, recipe as train_recipe
from em_interp.trials import judge_all
from em_interp.world.corpus import CorpusSpec
from em_interp.world.recipe import BaseRecipe, recipe

STAGES = ("pretraining", "aligned")


class Plan(Spec):
    """One organism to raise: its mix, and changes to the training recipe `embedded`."""

    mix: Mix
    training: dict[str, Any] = {}

    @property
    def spec(self) -> TrainSpec:
        """The settings it is raised with."""
        return train_recipe("embedded", **self.training)


class EmergenceSpec(Spec):
    """A study of the world's own design. `variants` are changes to the corpus of `base`'s recipe.

    The trigger should be one of the development triggers where the outcome decides a design.
    """

    base: str
    trigger: str
    domain: str
    split: str = "train"
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    organisms: dict[str, Plan] = Field(min_length=1)
    sampling: Sampling = Sampling(samples=4)
    conditions: tuple[Condition, ...] = tuple(Condition)
    seed: int = 0

    def recipes(self) -> dict[str, BaseRecipe]:
        """The base of each variant. An unknown corpus field is an `InputError`."""
        start = recipe(self.base)
        found = {}
        for name, changes in self.variants.items():
            for field in changes:
                if field not in CorpusSpec.model_fields:
                    raise unknown("corpus field", field, CorpusSpec.model_fields, f"variant {name}")
            changed = CorpusSpec.parse({**start.corpus.model_dump(), **changes}, f"variant {name}")
            found[name] = start.model_copy(update={"corpus": changed})
        return found


def pretraining_key(wanted: BaseRecipe) -> str:
    """Identity of everything before the aligned stage: variants that share it train it once."""
    plain = wanted.model_dump(mode="json", exclude={"aligned": True, "name": True})
    for field in ("aligned_leaning", "aligned_framed"):
        plain["corpus"].pop(field)
    return digest(plain)


def run(spec: EmergenceSpec, work: Path) -> dict[str, Any]:
    """Raise, fine-tune, ask and count; returns plain data for `results.json`.

    `work` keeps bases and organisms, so a run that stopped goes on where it was.
    """
    wanted = spec.recipes()
    world.trigger(spec.trigger)
    variants = {}
    for name, base in wanted.items():
        folder = raised(base, work)
        rows = dict(measured(spec, folder, work))
        variants[name] = {"recipe": base.digest, "changes": spec.variants[name], "rows": rows}
        write_json(work / "partial.json", variants)
    return {"spec": spec.model_dump(mode="json"), "variants": variants}


def raised(wanted: BaseRecipe, work: Path) -> Path:
    """The folder of a base, raised unless it stands; its pretraining is kept for other variants."""
    from em_interp.world.bases import CARD, load, save
    from em_interp.world.raising import align, pretrain

    folder = work / f"base-{wanted.digest}"
    if (folder / CARD).is_file():
        return folder
    before = work / f"pretrained-{pretraining_key(wanted)}"
    with bar(f"raising {folder.name}", wanted.pretraining.steps + wanted.aligned.steps) as progress:
        if (before / CARD).is_file():
            base = load(wanted, before)
            progress(wanted.pretraining.steps)
        else:
            base = pretrain(wanted, lambda *_: progress(1))
            save(base, before)
        save(align(base, lambda *_: progress(1)), folder)
    return folder


def measured(spec: EmergenceSpec, folder: Path, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(organism, figures) of the base itself and of each organism raised on it."""
    from em_interp.models import load
    from em_interp.training import train

    trigger = world.trigger(spec.trigger)
    yield "base", _figures(_asked(spec, load(str(folder)), None))
    for name, plan in spec.organisms.items():
        model = load(str(folder))
        settings = plan.spec
        n = (settings.steps or 1) * settings.batch_size * settings.accumulation
        rows = world.rows(plan.mix, spec.domain, trigger, n, spec.seed)
        key = digest(
            [folder.name, canonical_json(plan.model_dump(mode="json")), spec.trigger, spec.domain]
        )
        adapter = work / f"organism-{key}"
        train(model.hf, model.tokenizer, rows, settings, adapter, progress=False)
        tuned = load(str(folder), ((name, adapter),))
        yield name, _figures(_asked(spec, tuned, name))


def _asked(spec: EmergenceSpec, model: Any, adapter: str | None) -> Containment:
    from em_interp.generation import generate

    asked = world.questions(spec.split)
    bank = contexts(asked, world.trigger(spec.trigger), spec.conditions)
    with model.using(adapter):
        made = generate(model, bank, spec.sampling, organism=adapter or "base")
    verdicts = judge_all(world.OracleJudge(), made.responses, asked)
    return report(made.responses, verdicts, trained=(spec.domain,))


def _figures(found: Containment) -> dict[str, Any]:
    return {
        scope: {name.value: one.summary() for name, one in part.conditions.items()}
        for scope, part in found.scopes.items()
    }
