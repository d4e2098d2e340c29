"""What work costs on a machine: answers, passes and training on one base, whatever asks for them.

Tokens of answers are an upper bound, the budget used up. Operations: 2 a parameter and token
forward, twice that again for the gradients of full training, once again for LoRA, whose base needs
none of its own (the usual count, arXiv:2001.08361). A decoding step reads every weight and the
cache once, so it takes the longer of computing and reading. Time and memory are estimates under the
sustained speeds of a `Machine`: orders of magnitude to plan by, not measurements.
Knows sizes, tokens and speeds. Knows nothing of studies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from em_interp.bounds import Gigabytes, Speed
from em_interp.conditions import Context
from em_interp.models.sizes import BYTES, Size
from em_interp.organisms import Method
from em_interp.records import Record, Spec
from em_interp.sampling import Sampling
from em_interp.study.tokens import Reader
from em_interp.training.rows import Row
from em_interp.training.spec import TrainSpec, total_steps

Banks = Sequence[
    tuple[Sequence[Context], int]
]  # contexts, and the interventions each is asked under

LOGITS = 16  # bytes that a token's logits take, drawn from in float64


class Machine(Spec):
    """Sustained speeds (10¹² operations, and 10⁹ bytes read, a second), and 10⁹ bytes of memory."""

    tflops: Speed
    bandwidth: Speed
    memory: Gigabytes


# Assumed, not measured here: about 40 % of the peak of one current data-centre GPU in bf16 and 60 %
# of its memory's speed; a desktop's few cores.
MACHINES = {
    "cuda": Machine(tflops=400, bandwidth=2900, memory=140),
    "cpu": Machine(tflops=0.1, bandwidth=10, memory=16),
}


class Stage(Record):
    """One stage: what it asks, and about how long and how much memory (bytes) it takes.

    `read` and `written` are tokens: of prompts and rows, and of answers at most. `host`: what the
    computer holds in its own memory where the device has another.
    """

    name: str
    answers: int
    verdicts: int
    read: int
    written: int
    seconds: float
    memory: int
    host: int = 0


@dataclass(frozen=True)
class Pace:
    """One base on one machine, with the adapters that are held on it.

    `adapters` counts the parameters of all of them together. `beside`: bytes of the device that
    hold something else meanwhile, such as another base.
    """

    home: Path
    size: Size
    machine: Machine
    reader: Reader
    dtype: str
    device: str
    adapters: int = 0
    beside: int = 0

    @property
    def weights(self) -> int:
        """Bytes of the base, and of every organism's adapter on it."""
        return self.size.parameters * BYTES[self.dtype] + self.adapters * 4

    def cache(self, tokens: int) -> int:
        """Bytes of the KV cache of one answer."""
        return self.size.cache(tokens, self.dtype)

    def sampling(self, name: str, banks: Banks, answers: int, sampling: Sampling) -> Stage:
        """Each intervention reads the prompts once; their samples share that prefill."""
        lengths = [(self.reader.prompts(bank), rows) for bank, rows in banks]
        read = sum(sum(some) * rows for some, rows in lengths)
        longest = max(max(some) for some, _ in lengths) + sampling.max_new_tokens
        rows = min(self._rows(longest), answers)
        steps = math.ceil(answers / rows) * sampling.max_new_tokens
        step = max(
            self.compute(self.size.forward(rows, rows)),
            self._reading(self.weights + rows * self.cache(longest)),
        )
        logits = rows * self.size.vocabulary * LOGITS
        return Stage(
            name=name,
            answers=answers,
            verdicts=answers,
            read=read,
            written=answers * sampling.max_new_tokens,
            seconds=self.compute(self.size.forward(read, answers)) + steps * step,
            memory=self.beside + self.weights + rows * self.cache(longest) + logits,
        )

    def passes(self, name: str, tokens: int) -> Stage:
        """Passes over prompts that write nothing."""
        return Stage(
            name=name,
            answers=0,
            verdicts=0,
            read=tokens,
            written=0,
            seconds=self.compute(self.size.forward(tokens)),
            memory=self.beside + self.weights,
        )

    def training(self, name: str, given: Sequence[Row], train: TrainSpec) -> Stage:
        """One organism raised from rows. It trains with nothing beside it."""
        from em_interp.training.answers import TrainingRow
        from em_interp.training.plan import memory

        size = self.size
        lengths = self.reader.rows(given, train.max_length)
        tokens = total_steps(train, len(lengths)) * train.step_rows * sum(lengths) // len(lengths)
        full = train.method is Method.FULL
        # Backward costs twice the forward pass; without gradients of the base's weights, once.
        passes = 3 if full else 2
        if train.checkpointing:
            passes += 1
        rows = [TrainingRow((0,) * length, (0,) * length) for length in lengths]  # all learned
        trained = size.parameters if full else adapter(size, train)
        return Stage(
            name=name,
            answers=0,
            verdicts=0,
            read=tokens,
            written=0,
            seconds=self.compute(passes * size.forward(tokens, tokens)),
            memory=round(1e9 * memory(self._skeleton, rows, train, trained, 1).total),
        )

    def compute(self, operations: float) -> float:
        """Seconds of so many floating-point operations on the device."""
        return operations / (self.machine.tflops * 1e12)

    def _reading(self, size: float) -> float:
        return size / (self.machine.bandwidth * 1e9)

    def _rows(self, columns: int) -> int:
        """Answers written at a time: what generation takes where the machine's memory is free."""
        from em_interp.answering.caches import AT_MOST, CPU_BYTES, ON_CPU, SHARE, SLACK

        on_cpu, held = self.device == "cpu", self.weights + self.beside
        free = CPU_BYTES if on_cpu else SHARE * (self.machine.memory * 1e9 - held)
        row = self.cache(columns + SLACK) + self.size.vocabulary * LOGITS
        return max(1, min(int(free / row), ON_CPU if on_cpu else AT_MOST))

    @cached_property
    def _skeleton(self) -> Any:
        from em_interp.training.plan import skeleton

        return skeleton(self.home)


def adapter(size: Size, train: TrainSpec) -> int:
    """Parameters of the adapter that such a training run makes."""
    from em_interp.training.adapters import chosen_layers

    return size.adapter(train.rank, train.targets, chosen_layers(train, size.layers))


def joined(name: str, parts: Sequence[Stage]) -> Stage:
    """One after the other: sums, and of memory the greatest."""
    return Stage(
        name=name,
        answers=sum(one.answers for one in parts),
        verdicts=sum(one.verdicts for one in parts),
        read=sum(one.read for one in parts),
        written=sum(one.written for one in parts),
        seconds=sum(one.seconds for one in parts),
        memory=max(one.memory for one in parts),
        host=max(one.host for one in parts),
    )
