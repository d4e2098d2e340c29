"""What a person sees while training runs: a bar on a terminal, two lines anywhere else."""

import math
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from em_interp.errors import InputError, printable, say


class ProgressBar(TrainerCallback):
    """Steps, loss and time left, on stderr. `close` is safe at any time and more than once."""

    def __init__(self, name: str, terminal: bool | None = None) -> None:
        self.name = name
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.console = Console(stderr=True, force_terminal=self.terminal or None)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.loss = math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar at the step that training resumes from."""
        if not state.is_world_process_zero:
            return
        if not self.terminal:
            say(f"train {self.name}: step {state.global_step} of {state.max_steps}")
            return
        self.bar = Progress(
            TextColumn("train {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(
            printable(self.name), total=state.max_steps, completed=state.global_step, loss=math.nan
        )
        self.bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Move the bar to the step just logged."""
        self.loss = (logs or {}).get("loss", self.loss)
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, loss=self.loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say where the loss ended."""
        self.close()
        if state.is_world_process_zero and not self.terminal:
            say(f"train {self.name}: done, loss {self.loss:.3f}")

    def close(self) -> None:
        """Give the terminal back."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class FiniteLoss(TrainerCallback):
    """Stops a run whose loss is no longer a number, instead of saving what it left."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Raise `InputError` at the first loss that is not finite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            fault = InputError(
                f"step {state.global_step}: the loss is {loss}; lower learning_rate "
                f"({args.learning_rate:g}) or add warmup_steps ({args.warmup_steps:g})"
            )
            fault.common = True  # the loss is that of all processes
            raise fault
