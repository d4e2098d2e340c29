"""What is asked of a batch and what comes back: all that decides an answer, rows, and answers.

Knows prompts and interventions. Knows nothing of how an answer is made: engines do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from em_interp.chat import Encoded
from em_interp.edits import Intervention
from em_interp.models import Model
from em_interp.sampling import Sampling


class Row(NamedTuple):
    """One answer to be generated: indices of its context and intervention, and its sample."""

    context: int
    intervention: int
    sample: int


@dataclass(frozen=True)
class Answer:
    """Token ids (without the one that stopped it) and the row's account (see `RowTally`)."""

    row: Row
    tokens: tuple[int, ...]
    stopped: bool
    did: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Ask:
    """All that decides what a row says but for the rounding that its company in a batch decides.

    Of each context: its prompt, its name, and the question it asks.
    """

    model: Model
    prompts: Sequence[Encoded]
    names: Sequence[str]
    questions: Sequence[str]
    interventions: Sequence[Intervention]
    sampling: Sampling
    stops: frozenset[int]

    def head(self, row: Row) -> tuple[int, int]:
        """Whose prefill a row takes: its context, and its intervention if that edits prompts.

        Otherwise the number after the last intervention's, which stands for "untouched".
        """
        shared = self.interventions[row.intervention].leaves_prompt
        return row.context, len(self.interventions) if shared else row.intervention

    def order(self, rows: Sequence[Row]) -> list[Row]:
        """Question by question: what is compared keeps company, and meets the same rounding.

        Conditions and interventions of a question take their seats one after the other, so in one
        batch as far as it holds them. Longest prompt first, of a question and among questions, so
        that a batch too large fails at once; heads stay together.
        """
        long = [len(prompt.ids) for prompt in self.prompts]
        longest: dict[str, int] = {}
        for row in rows:
            asked = self.questions[row.context]
            longest[asked] = max(longest.get(asked, 0), long[row.context])
        place = {asked: at for at, asked in enumerate(dict.fromkeys(self.questions))}

        def key(row: Row) -> tuple[int, ...]:
            asked = self.questions[row.context]
            return (
                -longest[asked],
                place[asked],
                -long[row.context],
                *self.head(row),
                row.intervention,
                row.sample,
            )

        return sorted(rows, key=key)
