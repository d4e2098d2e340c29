"""What a transfer study will take, stage by stage, before weights load.

Counts of answers are exact: they are the plan's. What answers, passes and training cost is told by
`pace`, as for a containment study; what maps hold and take by `costs`. Bases stay loaded until the
next needs their place (`store.LOADED`), so a stage's memory has whatever base is held beside its
own. Times are of one worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from em_interp.capture import TWICE, again
from em_interp.conditions import Condition, contexts
from em_interp.maps import Method, room
from em_interp.maps.fitting import CAP
from em_interp.models.sizes import Size, stored_dtype
from em_interp.sites import Every, parse_rows
from em_interp.study.pace import MACHINES, Machine, Pace, Stage, adapter, joined
from em_interp.study.spec import STUDIED, TWIN
from em_interp.study.tokens import Reader
from em_interp.study.transfers import plan
from em_interp.study.transfers.costs import NARROW, WIDE, Shape, Work, comparing, sketched
from em_interp.study.transfers.inputs import Group, Inputs
from em_interp.study.transfers.store import LOADED
from em_interp.transferring.rows import CONTEXTS, chunks

HALF = 0.5  # float64 computes at half of what is sustained in float32
STEPS = 100  # of a logistic probe's fit, of four operations a number each
READ = (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE)  # where carried things are read


@dataclass(frozen=True)
class Estimator:
    """A transfer study, its bases' sizes and readers by name, and a machine."""

    inputs: Inputs
    sizes: dict[str, Size]
    machine: Machine
    readers: dict[str, Reader]

    def stages(self) -> list[Stage]:
        """Every stage in the order of the plan."""
        raised, loads = plan.raising(self.inputs), self.loads()
        made = []
        for name in plan.plan(self.inputs):
            if name in raised:
                group, role = raised[name]
                made.append(self._alone(group.base).training(name, group.rows[role], group.train))
            else:
                made.append(self._stage(name, self.pace(loads[name][-1], loads[name])))
        return made

    def loads(self) -> dict[str, tuple[str, ...]]:
        """Bases with their organisms that one worker holds in each stage, the last used last.

        An organism is raised with nothing loaded but its plain base.
        """
        raised = plan.raising(self.inputs)
        held: list[str] = []
        found = {}
        for name in plan.plan(self.inputs):
            if name in raised:
                held.clear()
            else:
                for base in self._needed(name):
                    held = [*(other for other in held if other != base), base][-LOADED:]
            found[name] = tuple(held)
        return found

    def parts(self, group: Group, role: str, pace: Pace) -> dict[str, Stage]:
        """What is asked of one target: containment, doses, everything added, everything ablated."""
        inputs, sampling = self.inputs, self.inputs.spec.sampling
        rows = 1 + plan.arms(inputs, group, role)
        plain = inputs.bank(group, Condition.NONE)
        awake = inputs.bank(group, Condition.TRIGGER) if role == STUDIED else plain
        tuning = contexts(inputs.tuning, group.trigger, [Condition.NONE])
        grids = {
            "containment": (inputs.bank(group, *inputs.spec.conditions), 1),
            "dose": (tuning, plan.doses(inputs, group)),
            "added": (plain, rows),
            "ablated": (awake, rows),
        }
        return {
            name: pace.sampling(name, [(bank, each)], len(bank) * each * sampling.samples, sampling)
            for name, (bank, each) in grids.items()
        }

    def pace(self, base: str, held: Sequence[str] = ()) -> Pace:
        """A base with all its organisms; `held`: what is in memory, itself included."""
        alone = self._alone(base)
        beside = sum(self._alone(other).weights for other in held if other != base)
        return replace(alone, beside=beside)

    @property
    def host(self) -> Machine:
        """What maps are fitted on: the computer itself, whatever device holds the bases."""
        return self.machine if self._on_cpu else MACHINES["cpu"]

    # --- stages ---------------------------------------------------------------------------------

    def _needed(self, name: str) -> tuple[str, ...]:
        """Bases that a stage asks for, in its order."""
        if name in (pairs := plan.crossing(self.inputs)):
            return pairs[name]
        if name in (held := plan.holding(self.inputs)):
            return (held[name].base,)
        return (plan.carrying(self.inputs)[name][0].base,)

    def _stage(self, name: str, pace: Pace) -> Stage:
        if name in (held := plan.holding(self.inputs)):
            return self._holding(name, held[name], pace)
        if name in (pairs := plan.crossing(self.inputs)):
            return self._crossing(name, *pairs[name], pace)
        return self._carrying(name, *plan.carrying(self.inputs)[name], pace)

    def _holding(self, name: str, group: Group, pace: Pace) -> Stage:
        """delta and the twin's shift from both states, g from two models, two organisms' probes."""
        inputs = self.inputs
        banks = [
            contexts(inputs.develop, group.trigger, [c])
            for c in (Condition.TRIGGER, Condition.NONE)
        ]
        on, off, noise = (sum(pace.reader.prompts(b)) for b in (*banks, again(banks[1])))
        shifts = 1 + (TWIN in group.roles)  # delta, and the twin's
        read = (shifts + 2) * (on + off) + 2 * off  # what two probes are fitted on; g
        made = pace.passes(name, read + (shifts + 1) * TWICE * noise)
        sites = len(set(inputs.layers(group.base)) | set(inputs.sites[group.base]))
        numbers = 2 * len(inputs.develop) * pace.size.d_model
        fitting = Work(4.0 * STEPS * 2 * sites * numbers)
        return self._computed(made, fitting, sites * numbers * NARROW + numbers * WIDE)

    def _crossing(self, name: str, a: str, b: str, pace: Pace) -> Stage:
        """Both bases read the prompts, once to compare layers and once for every kind of row."""
        shape, cut = self._shape(a, b), self._chunks
        times = 1 + len(shape.rows)
        read = joined(
            name,
            [self.pace(base).passes(name, times * self._prompt_tokens[base]) for base in (a, b)],
        ).model_copy(update={"memory": pace.beside + pace.weights})
        layers = self.sizes[a].layers, self.sizes[b].layers
        widths = shape.p, shape.q
        work = shape.reading(cut) + comparing(layers, widths, shape.rows[0], cut)
        methods = [] if a == b else [Method(one) for one in self.inputs.spec.methods]
        for method in methods:
            work = work + shape.fit(method) + shape.fit(method, choosing=False)
        work = work + shape.chance * self._maps(a, b) + shape.agreeing
        captured = CONTEXTS * (layers[0] * widths[0] + layers[1] * widths[1]) * (NARROW + WIDE)
        comparison = 2 * room(*sketched(layers, widths)) + captured
        return self._computed(read, work, max(shape.peak(self._maps(a, b)), comparison))

    def _carrying(self, name: str, group: Group, role: str, pace: Pace) -> Stage:
        """Answers, then states in which carried directions and probes are read."""
        asked = [one for one in READ if one in self.inputs.spec.conditions]
        seen = sum(pace.reader.prompts(self.inputs.bank(group, *asked)))
        stage = joined(name, [*self.parts(group, role, pace).values(), pace.passes(name, seen)])
        work, held = Work(), 0
        for base in self.inputs.spec.bases:
            shape, count = self._shape(base, group.base), self._maps(base, group.base)
            undone = any(other != group for other in self.inputs.of(base))  # probes need inverses
            fitted = 0 if base == group.base else 2 * len(self.inputs.spec.methods)
            held += shape.maps(count) * (1 + undone)
            if undone:
                work = work + shape.inverse(CAP) * fitted
        return self._computed(stage, work, held)

    # --- arithmetic -----------------------------------------------------------------------------

    def _computed(self, stage: Stage, work: Work, held: int) -> Stage:
        """A stage with what the computer itself computes and holds meanwhile."""
        host = self.host
        operations = work.products + work.decompositions
        seconds = operations / (HALF * host.tflops * 1e12) + work.touched / (host.bandwidth * 1e9)
        more = {"memory": stage.memory + held} if self._on_cpu else {"host": held}
        return stage.model_copy(update={"seconds": stage.seconds + seconds, **more})

    def _shape(self, a: str, b: str) -> Shape:
        fitting, sites = self.inputs.fitting(a, b), len(self.inputs.sites[b])
        rows = self._rows[-len(fitting.spans) :]
        return Shape(self.sizes[a].d_model, self.sizes[b].d_model, sites, fitting.folds, rows)

    def _maps(self, a: str, b: str) -> int:
        """Maps between two bases: by every method, the same on shuffled prompts, the identity."""
        same = self.sizes[a].d_model == self.sizes[b].d_model
        return int(same) + (0 if a == b else 2 * len(self.inputs.spec.methods))

    @cached_property
    def _rows(self) -> tuple[int, ...]:
        """Rows of every kind that the prompts give: one a span, or about one a word."""
        prompts = self.inputs.prompts
        words = sum(len(m.content.split()) for one in prompts for m in one.messages)
        kinds = [parse_rows(name) for name in self.inputs.spec.fitting.spans]
        return tuple(words if isinstance(kind, Every) else len(prompts) for kind in kinds)

    @cached_property
    def _chunks(self) -> int:
        kinds = [parse_rows(name) for name in self.inputs.spec.fitting.spans]
        return sum(1 for _ in chunks(self.inputs.prompts, kinds))

    @cached_property
    def _prompt_tokens(self) -> dict[str, int]:
        """Tokens of the harmless prompts, by base."""
        return {base: sum(one.prompts(self.inputs.prompts)) for base, one in self.readers.items()}

    def _alone(self, base: str) -> Pace:
        spec, groups, size = self.inputs.spec, self.inputs.of(base), self.sizes[base]
        return Pace(
            groups[0].home,
            size,
            self.machine,
            self.readers[base],
            stored_dtype(groups[0].home, spec.dtype),
            spec.device,
            sum(len(group.roles) * adapter(size, group.train) for group in groups),
        )

    @property
    def _on_cpu(self) -> bool:
        return self.inputs.spec.device == "cpu"
