"""Locks: one process at a time writes to a log or works in a folder.

The kernel holds them (`flock`) and lets go when their process ends, however it ends, so that none
is ever stale. A file system that knows no locks gives none.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from em_interp.errors import InputError

PATIENCE = 5.0  # seconds: the workers of a run that was killed die a moment after it
PAUSE = 0.05
LOCK = ".lock"


def take(file: IO[Any], what: Path) -> None:
    """Hold an open file until it is closed. Raises `InputError` where another process holds it."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            if fault.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return None
        if time.monotonic() > end:
            raise InputError(
                f"{what}: another process is at work on it; wait for its end, or choose another "
                "folder"
            )
        time.sleep(PAUSE)


@contextmanager
def sole(lock: Path, what: Path) -> Iterator[None]:
    """Nobody else works on `what` meanwhile; the file `lock` says so, and is gone afterwards.

    Raises `InputError` where another process is at work, and where `lock` cannot be written.
    """
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("ab")
        except OSError as fault:
            raise InputError(f"{what}: cannot be written ({fault.strerror})") from None
        with file:
            take(file, what)
            if not lock.exists() or lock.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # the one before took its file away as we waited for it
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
