"""When a checkpoint is due: after a minute of work, however few steps that is.

The recipe's own interval counts steps, and a short run on a slow machine ends before the first one.
Which steps are kept decides nothing: a run goes on from any of them to the same bytes.
"""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from em_interp.training.folders import seal
from em_interp.training.processes import firsts, is_first_process, world_size

clock = time.monotonic
MINUTE = 60.0  # seconds of work that a killed run may lose
SHARE = 9  # seconds of work for each that the last checkpoint took: a large model takes minutes


class Saving(TrainerCallback):
    """Asks for a checkpoint before a minute has passed since the last one; seals what was written.

    The next step is expected to take as long as the last; one that takes longer than a minute is
    lost alone. Where a checkpoint takes more than a ninth of a minute, the time between two is nine
    times that.
    """

    def __init__(self) -> None:
        self.saved = self.stepped = clock()
        self.took = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.saved = self.stepped = clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint where the next step would end too late."""
        now = clock()
        step, self.stepped = now - self.stepped, now
        due = now - self.saved + step > max(MINUTE, SHARE * self.took)
        control.should_save |= firsts(due and state.global_step < state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint (of several processes, each writes its part when it can)."""
        if is_first_process() and world_size() == 1:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        now = clock()
        self.took, self.saved, self.stepped = now - self.stepped, now, now
