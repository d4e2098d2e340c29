"""Peak memory of extraction at one and ten times the contexts, each in a process of its own.

The contexts come one by one from a generator, so that what is measured is the extraction.
Run as `python -m benchmarks.memory COUNT`, it extracts and prints its own peaks in KiB.
"""

import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.paired import Ratio, Row

BASE = 800  # contexts at 1x: several full batches


def rows(rounds: int) -> list[Row]:
    """Peak at 10x over peak at 1x: of the process, and of what extraction itself adds to it."""
    pairs = [(peak(10 * BASE), peak(BASE)) for _ in range(rounds)]
    whole = [many.after / few.after for many, few in pairs]
    added = [(many.after - many.before) / (few.after - few.before) for many, few in pairs]
    group = f"peak memory of extraction, {10 * BASE} contexts / {BASE} contexts"
    return [
        Row(group, "whole process", _ratio(whole), "<= 1.05"),
        Row(group, "what extraction adds to the loaded model", _ratio(added)),
    ]


class Peak(NamedTuple):
    """Peak memory of a process in KiB, before and after it extracted."""

    before: int
    after: int


def peak(count: int) -> Peak:
    """The peaks of a fresh process that extracts over `count` contexts."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(count)],
        capture_output=True,
        text=True,
        check=True,
    )
    return Peak(*map(int, done.stdout.split()))


def _ratio(values: list[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def extract(count: int) -> None:
    """Moments of every layer over `count` contexts, the peak printed before and after."""
    from benchmarks.material import asked, tiny
    from em_interp.capture import moments
    from em_interp.conditions import Condition
    from em_interp.sites import Site

    model = tiny()
    sites = [Site(layer) for layer in range(model.n_layers)]
    print(_peak())
    assert moments(model, asked(Condition.TRIGGER, count), sites).count == count
    print(_peak())


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that also counts what the parent held when it forked this process.
        found = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    extract(int(sys.argv[1]))
