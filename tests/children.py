"""Other processes and threads: tests wait for what they do, and never for time to pass.

The only place where a test sleeps. What bounds a wait is no measure of speed but of life: after so
long a process hangs. A child gets the signals that a terminal would give it, also where the tests
themselves run in the background and ignore interrupts (as under nohup), which it would inherit.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Any

LIVENESS = 900.0  # seconds


def child(command: Sequence[str], **more: Any) -> subprocess.Popen:
    """A process of its own that a signal stops; silent unless `stdout` or `stderr` are given."""
    more = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is handled is reset
    try:
        return subprocess.Popen(command, **more)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until(true: Callable[[], object], running: subprocess.Popen | None = None) -> None:
    """Wait for an event; fails where `running`, which was to bring it about, ended without it."""
    end = time.monotonic() + LIVENESS
    while not true():
        ended = running is not None and running.poll() is not None
        assert not ended or true(), f"it ended ({running.returncode}) and never came to that"
        if time.monotonic() > end:
            if running is not None:  # or its destructor would speak of it in another test
                running.kill()
                running.wait()
            raise AssertionError("waited in vain")
        time.sleep(0.01)


class Gate:
    """Lets the first calls of a function through and holds the others until it opens."""

    def __init__(self, function: Callable[..., Any], first: int) -> None:
        self.function, self.first, self.calls, self.returned = function, first, 0, 0
        self.reached, self._opened, self._lock = Event(), Event(), Lock()

    def __call__(self, *arguments: Any) -> Any:
        with self._lock:
            self.calls += 1
            late = self.calls > self.first
        if late:
            self.reached.set()
            assert self._opened.wait(LIVENESS), "nobody opened the gate"
        try:
            return self.function(*arguments)
        finally:
            with self._lock:
                self.returned += 1

    def open(self) -> None:
        """Let everybody through; returns once those who were held have passed."""
        self._opened.set()
        wait_until(lambda: self.returned == self.calls)
