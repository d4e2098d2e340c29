"""The errors a user meets: one line that says what is wrong, where, and what would be right.

A command prints the line to stderr and leaves with `exit_code`; a library caller catches the
type. Anything that is not an `EmInterpError` is a defect of this package, and keeps its traceback.
"""

import difflib
import re
import sys
from collections import Counter
from collections.abc import Iterable
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
