"""The errors a user meets: one line that says what is wrong, where, and what would be right.

A command prints the line to stderr and leaves with `exit_code`; a library caller catches the
type. Anything that is not an `EmInterpError` is a defect of this package, and keeps its traceback.
"""

import difflib
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What moves a cursor, hides, or turns text round: control characters other than line break and tab,
# bidirectional marks and other signs without a shape, halves of surrogate pairs. The two joiners
# (U+200C, U+200D) stay: words and emoji are spelled with them.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
LONGEST = 2000  # characters of one line to a person


def visible(text: str) -> str:
    r"""Text in which nothing acts on what shows it: such characters are spelled out (`\x1b`).

    Line breaks and tabs stay, and so does all that people write with. Idempotent.
    """
    return _UNSEEN.sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def printable(text: object, limit: int = LONGEST) -> str:
    """Foreign text (a server's, a file's, a model's) as one visible line of at most `limit`."""
    line = visible(" ".join(str(text)[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def say(line: object) -> None:
    """One visible line to stderr: the only way there."""
    print(printable(line), file=sys.stderr, flush=True)


class Visible:
    """A stream that shows what is written to it (see `visible`); in all else the one it wraps."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, visibly."""
        return int(self._stream.write(visible(text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class EmInterpError(Exception):
    """Base of all errors that are an interface rather than a defect.

    `common`: every process of a run that was launched several times raises it, and one says so.
    """

    exit_code = 2
    common = False


class InputError(EmInterpError):
    """Wrong usage or input: a misspelt name, a missing file, a spec that contradicts itself."""


class ForeignArtifactError(InputError):
    """A direction, probe or adapter that was made for another model or another site."""


class InertInterventionError(EmInterpError):
    """An intervention whose site did not resolve, that never fired, or that changed nothing."""


class EvidenceError(EmInterpError):
    """The evidence a command needs is missing, or the judge could not be reached."""

    exit_code = 4


def unknown(what: str, value: object, known: Iterable[object], where: str = "") -> InputError:
    """The error for a name that is not in a list: names the nearest known one and all of them."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    at = f" in {where}" if where else ""
    return InputError(f"unknown {what} {str(value)!r}{at}{hint} (known: {', '.join(names)})")


def once(what: str, names: Iterable[str], where: str = "") -> None:
    """Raise where a name comes twice in a list whose entries must differ."""
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        more = f" (and {len(double) - 1} more)" if len(double) > 1 else ""
        at = f" in {where}" if where else ""
        raise InputError(f"{what} {double[0]!r} comes twice{at}{more}")


@contextmanager
def reading(
    where: object, wrong: str = "cannot be read", passing: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """The door for what others wrote: whatever a library raises at it is one `InputError` line.

    `where` names the file or folder; a `Path` must lead to a file or folder that can be read to
    its end (no pipe, no device). `wrong` says what did not work. The cause follows in brackets.
    Libraries have no common type of fault: tokenizers raises bare `Exception`, parsers written in
    Rust panic with a `BaseException`. So everything is meant here but the project's own errors,
    an interruption, and what `passing` names. Every reader stands under this door, and nothing but
    reading does: a defect of our own would pass for a fault of the file.
    """
    ours: tuple[type[BaseException], ...] = (EmInterpError, *passing)
    try:
        if isinstance(where, Path):
            _check_kind(where)
        yield
    except ours:
        raise
    except FileNotFoundError as fault:
        if isinstance(where, Path) and Path(str(fault.filename)) == where:
            raise InputError(f"{where}: no such file") from None
        raise InputError(f"{where}: {wrong} ({cause(fault)})") from None
    except Exception as fault:
        if out_of_memory(fault) and not isinstance(fault, MemoryError):
            raise  # the machine's fault; a plain `MemoryError` is a file's that claims a great size
        raise InputError(f"{where}: {wrong} ({cause(fault)})") from None
    except BaseException as fault:
        if type(fault).__name__ != "PanicException":  # of pyo3, whose module cannot be imported
            raise
        raise InputError(f"{where}: {wrong} ({cause(fault)})") from None


def out_of_memory(fault: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left; known without torch.

    On the CPU torch raises a bare `RuntimeError` in the words of its allocator.
    """
    if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":
        return True
    words = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")
    return isinstance(fault, RuntimeError) and any(one in str(fault) for one in words)


def cause(fault: BaseException) -> str:
    """What a library's exception says, on one line and in fewer than 300 characters."""
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(fault, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(fault, OSError) and fault.strerror:
        other = f": {fault.filename}" if isinstance(fault, FileNotFoundError) else ""
        return printable(f"{fault.strerror}{other}", 300)
    lines = [line for line in str(fault).splitlines() if line.strip()]
    named = f"{type(fault).__name__}: " if isinstance(fault, KeyError) or not lines else ""
    return printable(f"{named}{lines[0] if lines else ''}".removesuffix(": "), 300)


def _check_kind(path: Path) -> None:
    """Raise for what would never end: reading a pipe or a device waits, or goes on for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: cannot be read (a pipe or a device; give a regular file)")
