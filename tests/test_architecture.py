"""The shape of the project: floors, light commands, frozen flags, a README that names every file.

Which file stands on which floor is said once, in the import contracts of pyproject.toml;
lint-imports enforces the direction, and the tests here read the same lists.
"""

import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "em_interp"
CONTRACTS = {
    one["id"]: one
    for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
}

# Every flag of every command. A new one is a promise to all users: add it here on purpose, spelled
# as the other commands spell it, or do without it.
FLAGS = {
    "adopt": "base file flip layers name out sign",
    "align": "data device device-map dry-run dtype folds layers match methods out prompts quantise "
    "questions seed source source-base spans target target-base trigger",
    "bake": "adapter base device device-map direction dry-run dtype everywhere layers operation "
    "organism out quantise questions revision seed strength trigger unmerged",
    "evaluate": "adapter base budget conditions device device-map dry-run dtype engine judge "
    "max-new-tokens organism out quantise questions revision rubric samples seed temperature "
    "trigger",
    "export": "base direction file layers questions run",
    "extract": "adapter base device device-map dry-run dtype engine estimator kind layers name "
    "off on organism out quantise questions revision seed span split trigger",
    "judge": "action budget domain dry-run judge labelled out questions responses rubric second "
    "validation",
    "latents": "active adapter base device device-map dictionary dry-run dtype layer off organism "
    "out quantise questions revision seed span tokens top trigger width",
    "localize": "adapter base budget device device-map direction dry-run dtype general judge "
    "layers max-new-tokens off organism out quantise questions revision rubric samples seed span "
    "split strength temperature trigger",
    "patch": "adapter base device device-map dry-run dtype groups layers off organism out "
    "quantise questions revision seed top trigger",
    "probe": "adapter base conditions device device-map dry-run dtype layers organism out "
    "quantise questions revision seed span trigger",
    "steer": "adapter base budget conditions controls device device-map direction dry-run dtype "
    "engine judge layers max-new-tokens operations organism out quantise questions revision "
    "rubric samples seed span split strengths temperature trigger",
    "study": "bandwidth base cell data device dry-run memory out study tflops without workers",
    "train": "base base-url batch-size benign benign-share checkpointing contrast data device "
    "domain dry-run dtype epochs fsdp kind layout learning-rate max-length out rank recipe rows "
    "seed steps trigger truncate",
    "transfer": "adapter at base budget controls data develop device device-map direction dry-run "
    "dtype folds general judge layers map match max-new-tokens methods organism out own "
    "own-general own-probe probe prompts quantise questions revision rubric samples seed source "
    "source-base span spans strength temperature trigger twin unconditional",
    "world": "base dry-run out threads",
    "world.experiment": "dry-run out study threads",
}


# --- floors -----------------------------------------------------------------------------------


def module(path):
    """A file's dotted name within the package: stats/rates.py is stats.rates."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def members(layer):
    """The modules of one layer of a contract."""
    return layer.split(" : ")


def floor(path):
    """4 commands to 1 words, 0 where no contract places the file.

    The world stands on several floors, as its own contract says: its command, then what raises and
    studies bases, then its words.
    """
    name = module(path)
    if name.startswith("world.") and path.name != "__init__.py":
        layers = [members(layer) for layer in CONTRACTS["world"]["layers"]]
        heights = [4, *[3] * (len(layers) - 2), 1]
        part = name.split(".")[1]
    else:
        layers = [members(layer) for layer in CONTRACTS["floors"]["layers"]]
        heights = [4, 3, 2, 1]
        part = name.split(".")[0]
    found = [height for height, layer in zip(heights, layers, strict=True) if part in layer]
    return found[0] if found else 0


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
WORDS = [module(path) for path in FILES if floor(path) == 1]


def test_every_file_has_a_floor():
    assert [module(path) for path in FILES if floor(path) == 0] == []


def test_the_words_of_the_contract_are_those_of_the_floor():
    listed = CONTRACTS["words"]["source_modules"]
    packages = {name.removesuffix(".*") for name in listed if name.endswith(".*")}
    whole = {f"em_interp.{name}" for name in WORDS}
    assert {name for name in whole if name.rpartition(".")[0] not in packages} == {
        name for name in listed if not name.endswith(".*")
    }


@pytest.mark.parametrize("name", [name for name in WORDS if name.count(".") == 0])
def test_words_import_without_torch_in_half_a_second(name):
    script = (
        f"import em_interp.{name}, sys, time, json; "
        "heavy = sorted({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)); "
        "print(json.dumps([time.process_time(), heavy]))"
    )
    # Processor time of the whole process, start of the interpreter included: it does not depend on
    # what else the machine does. The first import of a fresh checkout compiles, hence best of two.
    seconds = []
    for _ in range(2):
        spent, heavy = json.loads(python(script))
        assert heavy == []
        seconds.append(spent)
        if spent < 0.5:
            break
    assert min(seconds) < 0.5


def python(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


# --- commands ---------------------------------------------------------------------------------


def commands():
    """The verbs: every file with a command line of its own."""
    found = [path for path in FILES if 'if __name__ == "__main__":' in path.read_text()]
    return {module(path).removesuffix(".__main__"): path for path in found}


@functools.cache
def shown(verb):
    """What `--help` prints, and which heavy libraries it took."""
    script = (
        f"import sys, runpy, contextlib\nsys.argv = ['em_interp.{verb}', '--help']\n"
        f"with contextlib.suppress(SystemExit): runpy.run_module('em_interp.{verb}', "
        "run_name='__main__', alter_sys=True)\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', *sorted(heavy))"
    )
    text, _, heavy = python(script).rpartition("heavy:")
    return text, heavy.split()


def test_every_command_is_in_the_list_of_flags():
    assert sorted(commands()) == sorted(FLAGS)


@pytest.mark.parametrize("verb", sorted(FLAGS))
def test_help_shows_an_example_and_takes_no_torch(verb):
    text, heavy = shown(verb)
    assert f"Usage: python -m em_interp.{verb} " in text
    assert f"Example:\n\n    python -m em_interp.{verb} " in text
    rows = text.partition("Example:\n\n")[2].rstrip().splitlines()
    assert all(row.endswith(" \\") for row in rows[:-1])  # a shell takes it as it stands
    assert max(map(len, rows)) <= 80
    assert heavy == []


@pytest.mark.parametrize("verb", sorted(FLAGS))
def test_flags_are_frozen(verb):
    text, _ = shown(verb)
    found = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)(?= |$)", options(text), re.MULTILINE))
    assert sorted(found) == FLAGS[verb].split()


def options(text):
    """The left column of the help's table of parameters."""
    rows = [line.strip("│ ") for line in text.partition("Parameters")[2].splitlines()]
    return "\n".join(row.partition("  ")[0] for row in rows if row.startswith("--"))


# --- README -----------------------------------------------------------------------------------


def file_map():
    """Entries of the README's file map in order.

    Expected of README.md: fenced blocks, one a floor, with a line per file: its path below
    em_interp/, two or more spaces, what it is ("stats/rates.py   rates with intervals"). A folder
    ("judges/   who judges") stands for all of its files that have no line of their own; files of
    one folder on different floors (world/) therefore need lines of their own. Floors in order,
    commands first or words first.
    """
    blocks = re.findall(
        r"^```[^\n]*\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.match(r"\s*(?:em_interp/)?([\w/]+(?:\.py|/))\s{2,}\S", line) for line in lines]
    return [one[1] for one in found if one]


def entry(path):
    """A file's own entry in the map, or that of the nearest folder that has one."""
    name, entries = path.relative_to(PACKAGE).as_posix(), file_map()
    if name in entries:
        return name
    folders = [f"{parent}/" for parent in path.relative_to(PACKAGE).parents]
    return next((folder for folder in folders if folder in entries), None)


def test_the_readme_names_every_file_of_the_package():
    assert [module(path) for path in FILES if entry(path) is None] == []


def test_the_readme_names_no_file_that_is_not_there():
    assert [name for name in file_map() if not (PACKAGE / name).exists()] == []


def test_the_file_map_is_in_the_order_of_the_floors():
    floors = {}
    for path in FILES:
        floors.setdefault(entry(path), set()).add(floor(path))
    floors.pop(None, None)  # what has no entry is another test's finding
    assert {name: heights for name, heights in floors.items() if len(heights) > 1} == {}
    order = [next(iter(floors[name])) for name in file_map() if name in floors]
    assert order in (sorted(order), sorted(order, reverse=True))
