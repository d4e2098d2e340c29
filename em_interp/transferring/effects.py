"""Effects: what adding or ablating an arm does to the EM rate, beside the ceiling and the nulls.

"No transfer" is an answer. Knows models, edits and judges. Knows nothing of where arms came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import Field

from em_interp.conditions import Context, Question
from em_interp.containment import Counts, contrast, join
from em_interp.edits import BASELINE, Intervention
from em_interp.generation import generate
from em_interp.judges import Judge, Rubric
from em_interp.judging import judge_all
from em_interp.labels import Thing
from em_interp.models import Model
from em_interp.organisms import BASE
from em_interp.progress import Progress, silent
from em_interp.records import Record
from em_interp.sampling import Sampling
from em_interp.sites import Site
from em_interp.stats import Contrast, Fraction, Rate, fraction
from em_interp.transferring.arms import Arm
from em_interp.trials import COHERENT, CONFIDENCE, tabulate

LEVEL = 0.05


class Verdict(StrEnum):
    """What an effect says. `BROKEN`: too few answers are coherent for a rate to mean anything.

    `NOTHING`: the target's own direction does nothing here either.
    """

    TRANSFERS = "transfers"
    NOT = "no transfer"
    BROKEN = "breaks the answers"
    NOTHING = "no native effect"


class Lack(StrEnum):
    """What an effect lacks that is no transfer: each alone is enough."""

    EFFECT = "its interval holds 0"
    NULLS = "a null does as much"
    LIKENESS = "no more like the target's own than chance"


class Effect(Record):
    """What adding (or ablating) an arm does to the EM rate under one condition.

    `change` is against no intervention, paired by question; `of_native` the share of what the
    target's own direction changes. `beyond`: change minus each null's, paired by question;
    `p` is the largest of their p-values and of the change's own, 1 for one on the wrong side: where
    every null must be beaten, that is the level of the whole claim, and no adjustment is due (an
    intersection-union test); 1 too where a null cannot be compared, since none of its answers was
    scored. `None` where nothing was scored. `lacks`: why it is no transfer. One that lacks likeness
    alone does act beyond every null, on the target's own axis or not: chance directions are few
    among the nulls and many in a likeness.
    """

    em: Rate | None
    coherent: Rate | None
    change: Contrast | None
    of_native: Fraction | None = None
    beyond: dict[str, Contrast] = Field(default_factory=dict)
    p: float | None = None
    verdict: Verdict | None = None
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True, eq=False)
class Setting:
    """Who answers what: an adapter (`None`: the base) and contexts of one condition."""

    adapter: str | None
    contexts: Sequence[Context]


@dataclass(frozen=True, eq=False)
class Asker:
    """How answers are sampled and judged, and where finished ones are kept (`log`)."""

    model: Model
    questions: Sequence[Question]
    sampling: Sampling
    judge: Judge
    rubric: Rubric
    log: Path | None = None
    progress: Progress = silent

    def effects(
        self,
        setting: Setting,
        edits: Sequence[Intervention],
        arms: Sequence[Arm],
        log: str,
        at: Sequence[Site],
    ) -> tuple[Rate | None, dict[str, Effect]]:
        """The unedited EM rate, and one effect an arm beside its nulls and its ceiling.

        `edits` are the arms' interventions, by name. `log` names the file of finished answers.
        `at`: where an arm must be like the target's own (see `placed`).
        """
        grid, who = [BASELINE, *edits], setting.adapter or BASE
        with self.model.using(setting.adapter):
            found = generate(
                self.model,
                setting.contexts,
                self.sampling,
                grid,
                organism=who,
                log=self.log / log if self.log else None,
                progress=self.progress,
            )
        verdicts = judge_all(self.judge, found.responses, self.questions, kept=self.log is not None)
        rows = tabulate(found, verdicts, grid, self.rubric, organism=who).rows
        plain = {
            row.intervention: Effect(em=row.em, coherent=row.coherent, change=row.change)
            for row in rows
        }
        domains = {c.question: c.domain for c in setting.contexts}
        said: dict[str, list[int]] = {}
        for row, response in enumerate(found.responses):
            said.setdefault(response.intervention, []).append(row)
        counts = {}
        for name, mine in said.items():
            pairs = [found.responses[n] for n in mine], [verdicts[n] for n in mine]
            counts[name] = Counts(join(*pairs, self.rubric), domains)
        where = set(map(str, at))
        ceiling = {arm.thing: plain[arm.name].change for arm in arms if arm.own}
        return plain[BASELINE.name].em, {
            arm.name: placed(arm, plain[arm.name], ceiling, counts, where) for arm in arms
        }


def coherent(effect: Effect) -> bool:
    """Whether enough answers may be coherent: the interval's upper end counts.

    Arms are added at the dose at which the ceiling is just coherent enough, so that many would fall
    below a sharp line by sampling alone.
    """
    return effect.coherent is not None and effect.coherent.high >= COHERENT


def placed(
    arm: Arm,
    effect: Effect,
    ceilings: Mapping[Thing, Contrast | None],
    counts: Mapping[str, Counts],
    where: set[str],
) -> Effect:
    """An effect beside the ceiling and its nulls; a null or a ceiling gets no verdict.

    The ceiling of a thing that the target has none of is that of its main one. A handful of nulls
    may all lie on the wrong side by luck. So where likenesses are known, the direction must also be
    more like the target's own than chance, which hundreds of draws decide, at one of the sites
    `where` at least: those chosen for the ceiling, before anything was carried. The level is shared
    among them (Bonferroni).
    """
    native, change = ceilings.get(arm.thing, next(iter(ceilings.values()))), effect.change
    if change is None or native is None or arm.own or arm.null:
        return effect
    beyond = {
        null: found
        for null in arm.nulls
        if (found := contrast(counts[arm.name], counts[null], CONFIDENCE)) is not None
    }
    share = fraction(change, native)
    sign = np.sign(native.difference)

    def against(one: Contrast) -> float:
        """Its p; what lies on the side where the ceiling does not lie beats nothing."""
        return one.p if sign * one.difference > 0 else 1.0

    # A null without a scored answer was not beaten.
    whole = len(beyond) == len(arm.nulls) and bool(beyond)
    p = max(map(against, (change, *beyond.values()))) if whole else 1.0
    known = [one for site, one in arm.alike.items() if site in where]
    alike = not known or any(one.beyond(len(known)) for one in known)
    moved = not change.low <= 0 <= change.high
    held = {Lack.EFFECT: moved, Lack.NULLS: p <= LEVEL, Lack.LIKENESS: alike}
    lacks = tuple(lack for lack, has in held.items() if not has)
    if share is None:
        verdict = Verdict.NOTHING
    elif not coherent(effect):
        verdict = Verdict.BROKEN
    else:
        verdict = Verdict.NOT if lacks else Verdict.TRANSFERS
    lacks = lacks if verdict is Verdict.NOT else ()
    placed = {"of_native": share, "beyond": beyond, "p": p, "verdict": verdict, "lacks": lacks}
    return effect.model_copy(update=placed)
