"""What is printed acts on no terminal: texts of servers, files and models are shown, never obeyed.

One door to stderr (`errors.say`), one stream for what commands print, one rule for pages.
"""

import ast
import io
from pathlib import Path

import pytest

from em_interp import cli
from em_interp.errors import InputError, Visible, printable, say, visible
from em_interp.progress import bar
from em_interp.records import Spec
from em_interp.report.environment import environment
from em_interp.report.text import table

PACKAGE = Path(__file__).parents[1] / "em_interp"
ACTING = {
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "carriage return": "fine\rFAKE",
    "backspaces": "bad\b\b\bok",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2066x\u2069",
    "mark": "a\u200fb",
    "eight-bit escape": "\x9b31m",
    "unseen letters": "\U000e0041",
    "byte-order mark": "a\ufeffb",
    "half of a pair": "\ud83d",
    "delete": "a\x7f",
}
PLAIN = ("naïve Zürich", "नमस्ते", "می\u200cخواهم", "👩\u200d🔬", "日本", "a\tb\nc", "x − y ≤ 3 %")


class Loud(Spec):
    """A command's flags."""

    text: str = ""
    fail: bool = False


def shout(spec):
    """A command that prints, or fails with, what it was given."""
    if spec.fail:
        raise InputError(f"{spec.text}: no such file")
    print(spec.text)
    return 0


@pytest.mark.parametrize("text", ACTING.values(), ids=ACTING)
def test_nothing_foreign_acts_on_what_shows_it(text, capsys):
    main = cli.command("loud", Loud, shout, "Shouts.", "--text x")
    main(["--text", text])
    main(["--text", text, "--fail"])
    say(text)
    with bar(text, 1) as progress:
        progress(1)
    shown = "".join(capsys.readouterr())
    shown += environment().from_string("<p title='{{ x }}'>{{ x }}</p>").render(x=text)
    assert shown.isprintable() or set(filter(lambda c: not c.isprintable(), shown)) <= {"\n"}
    shown.encode()


@pytest.mark.parametrize("text", PLAIN)
def test_what_people_write_with_stays_as_it_is(text):
    assert visible(text) == text
    assert visible(visible("\x1b" + text)) == "\\x1b" + text


def test_a_line_is_one_line_and_has_an_end():
    assert printable("a\nb\u2028c\r\nd") == "a b c d"
    assert len(printable("x" * 10**6)) <= 2000
    assert printable("x" * 9, 5) == "xxxx…"


def test_a_name_is_no_markup_of_a_table():
    shown = table("", ["name [/b]", "n"], [["[red]x[/red] :smile: [/", "1"]])
    assert "[red]x[/red] :smile: [/" in shown
    assert "name [/b]" in shown


def test_the_visible_stream_is_otherwise_the_one_below():
    below = io.StringIO()
    stream = Visible(below)
    print("a\x1b", file=stream)
    stream.flush()
    assert below.getvalue() == "a\\x1b\n"
    assert stream.isatty() is False


def test_no_module_writes_to_stderr_past_the_door():
    past = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and "sys.stderr" in map(
                ast.unparse, (key.value for key in node.keywords)
            ):
                past.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.stderr.write":
                past.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert len(past) == 1
    assert past[0].startswith("errors.py")
