"""What a judge in this process adds to a plan: its passes, their time, and its own weights.

It grades every answer twice (aligned, coherent), each time by one pass over the rubric's prompt and
one over every beginning that numbers share. Before anything else it is proved on known answers, and
let go; its model loads again with the first verdict, and stays.
Knows sizes and tokens. Loads a tokenizer where there is one; never weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from em_interp import sources
from em_interp.conditions import Question, bare
from em_interp.judges import Item, Judge
from em_interp.judges.proving import KNOWN_ANSWERS
from em_interp.judges.wording import Grade
from em_interp.judging.local import NUMBERS, ROWS, LocalJudge
from em_interp.models.sizes import BYTES, Size, size, stored_dtype
from em_interp.study.pace import MACHINES, Machine, Stage
from em_interp.study.tokens import Exact, Reader, reader

GRADES = len(Grade)
BEGINNINGS = 11  # of 0 to 100, digit by digit


@dataclass(frozen=True)
class LocalWork:
    """A local judge at work on answers to these questions, each of which fills its budget."""

    judge: LocalJudge
    texts: Sequence[str]
    budget: int
    machine: Machine

    @cached_property
    def home(self) -> Path:
        """The judge's base."""
        return sources.base(self.judge.spec.model, self.judge.spec.revision)

    @cached_property
    def size(self) -> Size:
        """Its size."""
        return size(self.home)

    @cached_property
    def reader(self) -> Reader:
        """What counts its tokens."""
        return reader(self.home)

    @cached_property
    def dtype(self) -> str:
        """The precision of its weights."""
        return stored_dtype(self.home, self.judge.spec.dtype)

    @cached_property
    def tokens(self) -> float:
        """Tokens that it reads for one verdict, the mean over the questions."""
        filler = "word " * self.budget
        items = [Item(id="", question=text, response=filler) for text in self.texts]
        asked = [
            Question(
                id=f"{grade.value}{n}",
                text=self.judge.wording.ask(grade, item, "number"),
                domain="",
            )
            for grade in Grade
            for n, item in enumerate(items)
        ]
        read = sum(self.reader.prompts(bare(asked))) / len(self.texts)
        return read + GRADES * self.beginnings

    @cached_property
    def beginnings(self) -> int:
        """Passes of one token for each grade: the beginnings that numbers share."""
        if not isinstance(self.reader, Exact):
            return BEGINNINGS
        from em_interp.judging.strings import trie

        return sum(map(len, trie(self.reader.tokenizer, NUMBERS).inner))

    @property
    def seconds(self) -> float:
        """Seconds for one verdict."""
        work = self.size.forward(round(self.tokens), GRADES * (1 + self.beginnings))
        return work / (self.machine.tflops * 1e12)

    @property
    def memory(self) -> int:
        """Bytes of its weights, and of the keys and values of the prompts that it reads at once."""
        longest = round(self.tokens / GRADES)
        rows = ROWS * max(1, self.beginnings)
        weights = self.size.parameters * BYTES[self.dtype]
        return weights + rows * self.size.cache(longest, self.dtype)


def local_work(
    judge: Judge, texts: Sequence[str], budget: int, device: str, speeds: Machine
) -> LocalWork | None:
    """The work of a judge in this process; `None` for any other.

    `speeds` are of `device`; a judge on another one has what is assumed for that.
    """
    if not isinstance(judge, LocalJudge):
        return None
    own = judge.spec.device
    there = speeds if own == device else MACHINES["cpu" if own == "cpu" else "cuda"]
    return LocalWork(judge, texts, budget, there)


def with_judge(stages: Sequence[Stage], work: LocalWork | None, device: str) -> list[Stage]:
    """The stages with the judge's time, and its memory from the first verdict on.

    The time of its proof stands in the first stage that it judges.
    """
    if work is None:
        return list(stages)
    made, here = [], False
    place = "memory" if work.judge.spec.device == device else "host"
    for one in stages:
        proving = len(KNOWN_ANSWERS) / GRADES if one.verdicts and not here else 0
        here = here or one.verdicts > 0
        more = {"seconds": one.seconds + (one.verdicts + proving) * work.seconds}
        if here:
            more[place] = getattr(one, place) + work.memory
        made.append(one.model_copy(update=more))
    return made
