"""What is imported is declared, and what is declared is imported; the heavy ones late."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "em_interp"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN_ENVIRONMENT = {"inspect_ai": "inspect-ai"}  # of an extra that is not installed here
LATE = {"transformer_lens", "nnsight", "sae_lens"}  # what only some commands need


def normal(name):
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def declared():
    extras = PROJECT["optional-dependencies"]
    listed = [
        *PROJECT["dependencies"],
        *(one for k, v in extras.items() if k != "dev" for one in v),
    ]
    return {normal(one) for one in listed}


def modules(nodes):
    """Top-level modules that some nodes import, also by `import_module` and `find_spec`."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Call) and getattr(
            node.func, "attr", getattr(node.func, "id", "")
        ) in ("import_module", "find_spec"):
            found |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"em_interp"}


@functools.cache
def imported():
    """What the package imports, anywhere."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")]
    return frozenset(modules(node for tree in trees for node in ast.walk(tree)))


def distributions():
    known = packages_distributions() | {k: [v] for k, v in OWN_ENVIRONMENT.items()}
    return {name: {normal(one) for one in known.get(name, [name])} for name in imported()}


def test_whatever_is_imported_is_declared():
    assert {name for name, found in distributions().items() if not found & declared()} == set()


def test_whatever_is_declared_does_work():
    assert declared() - set().union(*distributions().values()) == set()


def test_what_is_declared_is_pinned():
    files = ("constraints.txt", "constraints-inspect.txt")
    pinned = [line for name in files for line in (ROOT / name).read_text().splitlines()]
    dev = {normal(one) for one in PROJECT["optional-dependencies"]["dev"]} - {"em-interp"}
    assert (declared() | dev) - {normal(line) for line in pinned if "==" in line} == set()


def test_the_heavy_libraries_are_imported_where_they_run_a_pass():
    """TransformerLens, nnsight and SAELens are required, and never taken by importing a module."""
    early = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        late = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        }
        taken = modules(node for node in ast.walk(tree) if node not in late)
        early |= {path.name: taken & LATE} if taken & LATE else {}
    assert early == {}
    assert imported() >= LATE
