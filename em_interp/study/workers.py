"""Workers: stages of one run that do not need each other, made by several processes at once.

Each worker makes whole stages and writes their files itself, so it matters to no figure how many
there are (each computes with one thread). A worker dies with its parent, or a run that is started
again would meet its own ghost at the same files. Knows processes. Knows nothing of studies.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait

from em_interp.cli import hush
from em_interp.errors import EmInterpError

Make = Callable[[str], object]
Each = Callable[[Sequence[str]], None]
_making: list[Make] = []  # what a worker makes stages with


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(start: Callable[[], Make], count: int, done: Callable[[str], object]) -> Iterator[Each]:
    """What makes a list of stages by name, `count` at a time; with one worker, here.

    `start` is called once a worker (it must be picklable), and gives what makes a stage; `done`
    hears of each that one of several workers made. The first error stops what has not begun, and
    is raised here.
    """
    if count == 1:
        make = start()

        def one_by_one(names: Sequence[str]) -> None:
            for name in names:
                make(name)

        yield one_by_one
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, spawn, initializer=_begin, initargs=(start,)) as pool:

        def together(names: Sequence[str]) -> None:
            made = {pool.submit(_make, name): name for name in names}
            for one in as_completed(made):
                one.result()
                done(made[one])

        try:
            yield together
        except BrokenProcessPool:
            raise EmInterpError(
                "a worker died, perhaps for want of memory; run again with fewer --workers: what "
                "stands is kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(start: Callable[[], Make]) -> None:
    import torch

    hush()
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _making.append(start())


def _make(name: str) -> None:
    _making[0](name)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
