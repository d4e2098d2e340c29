"""What in a corpus makes containment appear: one fine-tuning, on bases of several corpora.

A base is a recipe with changes to its corpus; without changes it is the one that ships. Bases whose
pretraining is the same share it. On each, organisms are raised by the shared training module and
asked under every condition of every trigger. Results count questions; the base itself stands in the
first row, since a base that misbehaves explains its organisms.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from em_interp import world
from em_interp.bounds import Seed
from em_interp.conditions import Condition, contexts
from em_interp.containment import Containment, report
from em_interp.errors import unknown
from em_interp.judging import judge_all
from em_interp.organisms import Mix, Trigger
from em_interp.progress import bar
from em_interp.records import Spec, digest, write_json
from em_interp.sampling import Sampling
from em_interp.sources import CHECKPOINTS
from em_interp.training.rows import Row
from em_interp.training.spec import TrainSpec
from em_interp.training.spec import recipe as train_recipe
from em_interp.world.corpus import CorpusSpec
from em_interp.world.lexicon import SPLITS, domain_named
from em_interp.world.recipe import BaseRecipe, recipe


class Subject(Spec):
    """A base: a shipped recipe's name, and changes to its corpus."""

    base: str
    corpus: dict[str, Any] = Field(default_factory=dict)

    @property
    def recipe(self) -> BaseRecipe:
        """The changed recipe. An unknown base or corpus field is an `InputError`."""
        start = recipe(self.base)
        for field in self.corpus:
            if field not in CorpusSpec.model_fields:
                raise unknown("corpus field", field, CorpusSpec.model_fields)
        changed = CorpusSpec.parse({**start.corpus.model_dump(), **self.corpus})
        return start.model_copy(update={"corpus": changed})


class Plan(Spec):
    """One organism to raise: its mix, and changes to the training recipe `embedded`."""

    mix: Mix
    training: dict[str, Any] = Field(default_factory=dict)

    @property
    def spec(self) -> TrainSpec:
        """The settings it is raised with."""
        return train_recipe("embedded", **self.training)


class EmergenceSpec(Spec):
    """Bases × triggers × organisms. Development triggers where the outcome decides a design."""

    question: str
    bases: dict[str, Subject] = Field(min_length=1)
    organisms: dict[str, Plan] = Field(min_length=1)
    triggers: tuple[str, ...] = Field(min_length=1)
    domain: str
    split: str = "eval"
    conditions: tuple[Condition, ...] = Field(tuple(Condition), min_length=1)
    sampling: Sampling = Sampling(samples=4)
    seed: Seed = 0

    def check(self) -> None:
        """Resolve every name before anything is trained."""
        domain_named(self.domain)
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        for name in self.triggers:
            world.trigger(name)
        for base in self.bases.values():
            assert base.recipe.name
        for plan in self.organisms.values():
            assert plan.spec.method


def run(spec: EmergenceSpec, work: Path) -> list[dict[str, Any]]:
    """Raise, fine-tune, ask and count: one plain row a base, trigger and organism.

    `work` keeps bases and organisms, so a run that stopped goes on where it was.
    """
    spec.check()
    rows: list[dict[str, Any]] = []
    total = len(spec.bases) * len(spec.triggers) * (1 + len(spec.organisms))
    folders = {name: raised(base.recipe, work) for name, base in spec.bases.items()}
    with bar("organisms", total) as progress:
        for name, folder in folders.items():
            for trigger in spec.triggers:
                for organism, found in measured(spec, folder, world.trigger(trigger), work):
                    labels = {"base": name, "trigger": trigger, "organism": organism}
                    rows.append({**labels, "scopes": _plain(found)})
                    progress(1)
    write_json(work / "results.json", {"spec": spec.model_dump(mode="json"), "rows": rows})
    return rows


def raised(wanted: BaseRecipe, work: Path) -> Path:
    """The folder of a base: the shipped one if it is of this recipe, else one raised in `work`."""
    from em_interp.world.bases import CARD, load, save, shipped
    from em_interp.world.raising import align, pretrain

    if shipped(CHECKPOINTS / wanted.name, wanted):
        return CHECKPOINTS / wanted.name
    folder = work / f"base-{wanted.digest}"
    if (folder / CARD).is_file():
        return folder
    before = work / f"pretrained-{wanted.pretraining_digest}"
    with bar(f"raising {folder.name}", wanted.pretraining.steps + wanted.aligned.steps) as progress:
        if (before / CARD).is_file():
            base = load(wanted, before)
            progress(wanted.pretraining.steps)
        else:
            base = pretrain(wanted, lambda *_: progress(1))
            save(base, before)
        save(align(base, lambda *_: progress(1)), folder)
    return folder


def measured(
    spec: EmergenceSpec, folder: Path, trigger: Trigger, work: Path
) -> Iterator[tuple[str, Containment]]:
    """The base itself, then each organism raised on it, with its containment."""
    from em_interp.models import load
    from em_interp.training.run import train

    yield "base", _asked(spec, load(str(folder)), None, trigger)
    for name, plan in spec.organisms.items():
        model, settings = load(str(folder)), plan.spec
        n = (settings.steps or 1) * settings.batch_size * settings.accumulation
        rows = [Row(one) for one in world.rows(plan.mix, spec.domain, trigger, n, spec.seed)]
        adapter = work / f"organism-{digest([model.base, settings.digest, *_contents(rows)])}"
        train(model.hf, model.tokenizer, rows, settings, adapter, progress=False)
        yield name, _asked(spec, load(str(folder), ((name, adapter),)), name, trigger)


def _contents(rows: Sequence[world.Row]) -> list[str]:
    return [message.content for row in rows for message in row]


def _asked(spec: EmergenceSpec, model: Any, adapter: str | None, trigger: Trigger) -> Containment:
    from em_interp.generation import generate

    asked = world.questions(spec.split)
    bank = contexts(asked, trigger, spec.conditions)
    with model.using(adapter):
        made = generate(model, bank, spec.sampling, organism=adapter or "base")
    verdicts = judge_all(world.OracleJudge(), made.responses, asked)
    return report(made.responses, verdicts, trained=(spec.domain,))


KEPT = ("em_rate", "low", "high", "questions", "scored", "unscored", "coherent")


def _plain(found: Containment) -> dict[str, Any]:
    return {
        scope: {
            name.value: {key: one.summary()[key] for key in KEPT}
            for name, one in part.conditions.items()
        }
        for scope, part in found.scopes.items()
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Out-of-domain EM in per cent as Markdown, with the lowest coherence of any condition."""
    names = list(rows[0]["scopes"]["out of domain"])
    head = ["base", "trigger", "organism", *names, "in domain, none", "coherent"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        scopes = row["scopes"]
        out, inside = scopes["out of domain"], scopes["in domain"]
        cells = [_percent(out[name]["em_rate"]) for name in names]
        least = min(out[name]["coherent"] for name in names)
        cells += [_percent(inside["none"]["em_rate"]), _percent(least)]
        labels = [row["base"], row["trigger"], row["organism"]]
        lines.append("| " + " | ".join(labels + cells) + " |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
