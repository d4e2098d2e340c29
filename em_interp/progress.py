"""Progress: what runs and how long is left. A function that is told how many units were done."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from em_interp.errors import printable, say

Progress = Callable[[int], None]


def silent(done: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def bar(what: str, total: int) -> Iterator[Progress]:
    """A progress bar with time left on a terminal's stderr; elsewhere one line when it is done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(printable(what), total=total)
            yield lambda done: shown.advance(task, done)
    else:
        start = time.monotonic()
        yield silent
        say(f"{what}: {total} done in {time.monotonic() - start:.1f} s")
