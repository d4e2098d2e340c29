"""Tests hold wherever they run: none waits for time, and a child's signals are its own."""

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from children import LIVENESS, Gate, child, wait_until

TESTS = Path(__file__).parent
OWN = {"time.sleep", "time.monotonic", "time.time", "subprocess.Popen", "os.fork"}


def waits(tree):
    """Line and reason of each wait by the clock, and of each child without signals of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in OWN:
            yield node.lineno, ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        given = [word.value for word in node.keywords if word.arg == "timeout"]
        given += node.args[:1] if called in ("wait", "join", "get", "acquire") else []
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                yield node.lineno, f"a limit of {value.value} s"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_waits_for_time_or_starts_a_process_by_itself(path):
    found = list(waits(ast.parse(path.read_text(encoding="utf-8"))))
    assert found == [] or path.name == "children.py", f"use children.py: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(1)",
        "subprocess.Popen(x)",
        "run(timeout=3)",
        "event.wait(2.0)",
        "time.monotonic()",
    ],
)
def test_the_rule_sees_what_it_forbids(line):
    assert len(list(waits(ast.parse(line)))) == 1


def test_a_child_is_interrupted_though_its_parent_ignores_interrupts():
    """As when the tests are a background job: what is ignored is inherited."""
    program = "import signal; print('there', flush=True); signal.pause()"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with child([sys.executable, "-c", program], stdout=subprocess.PIPE) as running:
            assert running.stdout.readline() == b"there\n"
            running.send_signal(signal.SIGINT)
            wait_until(lambda: running.poll() is not None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.returncode not in (0, None)


def test_a_gate_lets_the_first_through_and_then_everybody():
    gate = Gate(lambda one: one + 1, 2)
    assert [gate(1), gate(2)] == [2, 3]
    assert not gate.reached.is_set()
    gate.open()
    assert gate(3) == 4
    assert LIVENESS >= 600
