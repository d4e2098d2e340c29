"""The command line: one frozen spec per command, its flags derived from the spec's fields.

A wrong flag or value is one line on stderr and exit code 2; what a command raises as an
`EmInterpError` is one line and that error's exit code. Anything else keeps its traceback.
"""

import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from cyclopts.exceptions import ValidationError as ArgumentError
from pydantic import BeforeValidator, ValidationError

from em_interp.errors import EmInterpError, InputError, Visible, out_of_memory, say
from em_interp.records import Spec, one_line, writable

SHORT = (
    "out of memory; what was finished is kept: run the same command again with less at once "
    "(fewer samples or questions, a shorter --max-new-tokens, --dtype bfloat16), or a smaller model"
)
SpecT = TypeVar("SpecT", bound=Spec)


def split_commas(value: Any) -> Any:
    """A list, from `1,2` and from repeated flags alike."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        parts = (v.split(",") if isinstance(v, str) else [v] for v in value)
        return [p.strip() if isinstance(p, str) else p for some in parts for p in some]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]


def idle(spec: Spec, names: str, why: str) -> None:
    """Raise `InputError` for a flag (of `names`, by their fields) that was given and does nothing.

    Whoever gives it expects something of it. `why` says what makes it idle.
    """
    for name in names.split():
        field = type(spec).model_fields[name]
        if getattr(spec, name) != field.default:
            raise InputError(f"--{name.replace('_', '-')} does nothing here: {why}")


def hush() -> None:
    """No word of kernels that nobody asked for: bitsandbytes misses them at PEFT's import."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def command(
    verb: str,
    kind: type[SpecT],
    run: Callable[[SpecT], int],
    about: str,
    example: str,
    positional: str | None = None,
) -> Callable[..., int]:
    """A `main(argv)` for `python -m em_interp.<verb>`: parses, validates, runs, returns the code.

    `positional` names the field that a first argument without dashes fills.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        app = App(
            name=f"python -m em_interp.{verb}",
            help=about,
            # Not part of `help`: there, "Example:" would be taken for a section and dropped.
            help_epilogue=f"Example:\n\n    {_folded(f'python -m em_interp.{verb} {example}')}",
            help_format="plaintext",
            version_flags=[],
            result_action="return_value",
            suppress_keyboard_interrupt=False,  # said below, in our words
            default_parameter=Parameter(negative=()),
        )

        @app.default
        def parsed(*, spec: Annotated[kind, Parameter(name="*")] = None) -> int:  # type: ignore[valid-type]
            # Tables and transcripts hold what models, servers and files said.
            with redirect_stdout(Visible(sys.stdout)), _memory():
                return run(spec if spec is not None else kind())

        hush()
        try:
            tokens = sys.argv[1:] if argv is None else list(argv)
            if broken := [token for token in tokens if not writable(token)]:
                return _fail(f"argument {broken[0]!r} is not UTF-8 text", 2)
            if positional and tokens and not tokens[0].startswith("-"):
                tokens.insert(0, f"--{positional}")
            code = int(app(tokens, exit_on_error=False, print_error=False) or 0)
            sys.stdout.flush()
            return code
        except EmInterpError as fault:
            return _fail(str(fault), fault.exit_code, fault.common)
        except ArgumentError as fault:
            cause = fault.__cause__
            if isinstance(cause, ValidationError):
                return _fail(_flag(cause), 2)
            return _fail(_single(str(fault)), 2)
        except UnusedCliTokensError as fault:
            extra = ", ".join(map(repr, fault.unused_tokens or ()))
            return _fail(f"unexpected argument {extra}; values follow a flag (see --help)", 2)
        except CycloptsError as fault:
            return _fail(_single(str(fault)), 2)
        except BrokenPipeError:  # the reader (head, less) has seen enough; nothing to say to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as fault:
            if fault.filename is None:  # not about a file that somebody named
                raise
            return _fail(_single(f"{fault.filename}: {fault.strerror}"), 2)
        except KeyboardInterrupt:
            return _fail("interrupted; finished stages are kept, run the same command again", 130)

    return main


@contextmanager
def _memory() -> Iterator[None]:
    """Where memory runs out, and nobody who knows better has said so, one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not out_of_memory(fault):
            raise
        raise InputError(SHORT) from None


def _flag(fault: ValidationError) -> str:
    """A spec's fault in the words of the command line: --max-length, not max_length."""
    field = str(fault.errors()[0]["loc"][0]) if fault.errors()[0]["loc"] else ""
    line = one_line(fault, "--" + field.replace("_", "-") if field else "arguments")
    return line.replace(f"field '{field}': ", "").replace(f"field {field!r}: ", "")


def _folded(line: str) -> str:
    """A command in lines that fit a help text's page and that a shell takes as they are."""
    rows = textwrap.wrap(
        line, 72, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return " \\\n    ".join(rows)


def _single(text: str) -> str:
    return " ".join(text.split())


def _fail(line: str, code: int, common: bool = True) -> int:
    """Say what is wrong; of several processes that all found the same, only the first one does."""
    if common and os.environ.get("RANK", "0") != "0":
        time.sleep(2)  # a launcher ends all processes when one leaves: let the first one speak
    else:
        say(f"error: {line}")
    return code
