"""What a containment study will take, stage by stage, before weights load.

Counts of answers and verdicts are exact: they are the plan's. What each costs is told by
`pace`, which transfer studies share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from em_interp.capture import TWICE, again
from em_interp.conditions import Condition, Context
from em_interp.extraction import drawn_over
from em_interp.models.sizes import Size, stored_dtype
from em_interp.patching.copying import Group
from em_interp.study import plan
from em_interp.study.inputs import Inputs
from em_interp.study.pace import MACHINES, Machine, Pace, Stage, adapter
from em_interp.study.tokens import Exact, Guess, Reader

__all__ = ["MACHINES", "Estimator", "Exact", "Guess"]


@dataclass(frozen=True)
class Estimator:
    """A study, its base's size and a machine; `stages` multiplies them out."""

    inputs: Inputs
    size: Size
    machine: Machine
    reader: Reader

    def stages(self) -> list[Stage]:
        """Every stage in the order of the plan."""
        return [self._stage(name) for name in plan.plan(self.inputs)]

    def _stage(self, name: str) -> Stage:
        inputs = self.inputs
        if name.startswith("organism-"):
            rows = inputs.rows[name.removeprefix("organism-")]
            return self._pace.training(name, rows, inputs.train)
        if name in (answers := plan.answers(inputs)):
            return self._pace.sampling(
                name, [(inputs.bank, 1)], answers[name], inputs.spec.sampling
            )
        if name in plan.trials(inputs):
            return self._trial(name)
        return self._pace.passes(name, sum(self._lengths(name)))

    # --- answers ------------------------------------------------------------------------------

    def _trial(self, name: str) -> Stage:
        inputs, rows = self.inputs, plan.interventions(self.inputs)
        outside, none = inputs.outside, Condition.NONE
        banks = {
            "sweep": [(inputs.ask(inputs.tuning, none), rows["sweep"])],
            "ablation": [(inputs.ask(outside, *plan.ablated_conditions(inputs)), rows["ablation"])],
            "steering": [(inputs.ask(outside, none), rows["steering"])],
            "localisation": [
                (inputs.ask(outside, plan.awake(inputs)), rows["necessity"]),
                (inputs.ask(outside, none), rows["sufficiency"]),
            ],
        }[name]
        sampling = inputs.spec.sampling.model_copy(update={"samples": inputs.spec.steering.samples})
        made = self._pace.sampling(name, banks, plan.trials(inputs)[name], sampling)
        passes = self._pace.passes(name, sum(self._lengths(name)))
        return made.model_copy(
            update={"seconds": made.seconds + passes.seconds, "read": made.read + passes.read}
        )

    # --- passes without answers ----------------------------------------------------------------

    def _lengths(self, name: str) -> list[int]:
        """Tokens of each pass that a stage makes over prompts (and answers, where it scores)."""
        inputs, layers = self.inputs, len(self.inputs.sites)
        outside = inputs.outside
        if name == "sweep":
            return []
        if name == "directions":
            lengths = self._shift if plan.DELTA in plan.axes(inputs) else []
            if plan.G in plan.axes(inputs):
                bare = inputs.ask(inputs.develop, Condition.NONE)
                lengths = lengths + 2 * self.reader.prompts(bare) + self._noise(bare)
            return lengths
        if name == "probing":  # the organism and the base
            read = 2 * self.reader.prompts(inputs.ask(outside, *inputs.spec.conditions))
            return read + self._noise(inputs.ask(outside, Condition.NONE))
        if name in ("ablation", "steering"):  # null directions are drawn from the stream
            conditions = plan.ablated_conditions(inputs)
            return self.reader.prompts(drawn_over(inputs.ask(inputs.develop, *conditions)))
        said = self.reader.texts([text for q in outside for text in (q.sound, q.unsound)])
        if name == "margins":
            bank = inputs.ask(outside, *inputs.spec.conditions)
            pairs = self.reader.prompts(bank)
            each = sum(said) * len(bank) // len(outside)
            return len(plan.roles(inputs)) * [2 * sum(pairs) + each]
        assert name == "localisation"
        lengths = self._shift if len(plan.axes(inputs)) == 2 else []  # the base's own trigger shift
        if inputs.trigger is None or "margins" in plan.skipped(inputs):
            return lengths
        target = plan.patched(inputs)
        on = self.reader.prompts(inputs.ask(outside, Condition.TRIGGER))
        off = self.reader.prompts(inputs.ask(outside, target)[: len(on)])
        groups = len(Group) - (target is Condition.NONE)  # which has no framing to copy into
        plain = 3 * sum(on) + sum(said)  # log-odds, and what is copied
        return [*lengths, plain, *(1 + groups * layers) * [2 * sum(off) + sum(said)]]

    @cached_property
    def _shift(self) -> list[int]:
        """Tokens of the development prompts with the trigger, without it, and for its noise."""
        ask = self.inputs.ask
        on, off = (ask(self.inputs.develop, c) for c in (Condition.TRIGGER, Condition.NONE))
        return self.reader.prompts([*on, *off]) + self._noise(off)

    def _noise(self, bank: Sequence[Context]) -> list[int]:
        return TWICE * self.reader.prompts(again(bank))

    @cached_property
    def _pace(self) -> Pace:
        inputs = self.inputs
        return Pace(
            inputs.home,
            self.size,
            self.machine,
            self.reader,
            stored_dtype(inputs.home, inputs.spec.dtype),
            inputs.spec.device,
            len(inputs.spec.roles) * adapter(self.size, inputs.train),
        )
