"""Labels: what an intervention is, as fields; what is shown of them loses and confuses nothing."""

import ast
import math
import random
import struct
from itertools import product
from pathlib import Path

import pytest
import torch

from em_interp import labels, sources
from em_interp.cards import Card
from em_interp.conditions import Condition
from em_interp.directions import Direction, Directions
from em_interp.errors import InputError
from em_interp.grids import (
    Nulls,
    dose_grid,
    necessity_grid,
    removal_grid,
    strengths_grid,
    sufficiency_grid,
    sweep_grid,
)
from em_interp.labels import (
    DIRECT,
    IDENTITY,
    OWN,
    Control,
    Extent,
    Operation,
    Passage,
    Thing,
    Way,
    by_map,
    exact,
)
from em_interp.report.reading import Series, axis, by_layer, doses, removed, swept
from em_interp.sites import Point, Site, Span, block_outputs
from em_interp.study.spec import StudySpec
from em_interp.trials import Row, Trial

CLOSE = (1.2345678, 1.2345679, 1e-7, 1e-8, 1.0)
SITES = [Site(1, Point.RESID_PRE), Site(1), Site(1, Point.ATTN_OUT), Site(2)]
CARD = Card(
    kind="direction",
    name="delta",
    sign="on",
    unit="",
    estimator="mean",
    span="all",
    base="0" * 16,
    organism="",
    adapter="",
    trigger="",
    data="",
    tokenizer="",
    n=1,
    seed=0,
)
PACKAGE = Path(labels.__file__).parent


def trial(grid) -> Trial:
    """The rows that a grid gives, nothing scored."""
    rows = [
        Row(
            label=one.label,
            condition=Condition.NONE,
            em=None,
            coherent=None,
            scored=0,
            unscored=0,
            change=None,
        )
        for one in grid
    ]
    return Trial(organism="toy", rows=tuple(rows), manipulations=())


def as_read(grid) -> Trial:
    """The same, from a file."""
    return Trial.model_validate_json(trial(grid).model_dump_json())


@pytest.fixture(scope="module")
def table():
    states = torch.randn(len(SITES), 2, 8, generator=torch.Generator().manual_seed(0))
    made = {
        site: Direction((on - off) / (on - off).norm(), off, on, 9.0, site)
        for site, (off, on) in zip(SITES, states, strict=True)
    }
    return Directions(made, CARD)


@pytest.fixture(scope="module")
def axes(table):
    return {Thing.DELTA: table, Thing.GENERAL: table.random(7)}


def test_a_number_is_written_so_that_it_can_be_told_from_every_other():
    dice = random.Random(0)
    some = [struct.unpack("d", dice.randbytes(8))[0] for _ in range(2000)]
    near = [math.nextafter(one, math.inf) for one in CLOSE]
    for number in (*CLOSE, *near, *filter(math.isfinite, some)):
        assert float(exact(number)) == number
    assert [exact(one) for one in (1.0, 0.5, 1e-7, 1.2345678)] == ["1", "0.5", "1e-07", "1.2345678"]


def test_strengths_that_agree_in_six_digits_are_two_doses(table, axes):
    grid = dose_grid(axes, SITES, CLOSE, Span.ALL, Nulls(2, 1))
    assert len({one.name for one in grid}) == len(grid)
    found = doses(as_read(grid))
    assert list(found) == [
        *map(Series, Thing),
        Series(Control.RANDOM, 1),
        Series(Control.COVARIANCE, 1),
    ]
    for name, some in found.items():
        assert [dose.strength for dose in some] == sorted(CLOSE)
        for dose in some:
            assert dose.row.label.strength == dose.strength
            assert (dose.row.label.control or dose.row.label.thing) == name.family


def test_a_sweep_knows_its_places_and_strengths_again(table):
    grid = sweep_grid(table, SITES, CLOSE, Span.ALL)
    found = swept(as_read([one.intervention for one in grid]))
    assert list(found) == [(one.sites, one.strength) for one in grid]
    assert len({one.intervention.name for one in grid}) == len(grid)


def test_two_places_of_one_layer_have_two_labels(table):
    chance = table.random(0)
    for grid in (
        necessity_grid(table, SITES, Span.ALL, 0),
        sufficiency_grid(table, SITES, 1.0, Span.ALL, chance),
    ):
        assert len({one.name for one in grid}) == len(grid)
        assert len({one.label for one in grid}) == len(grid)
    names = [one.name for one in necessity_grid(table, SITES[:2], Span.ALL, 0)]
    assert "mean-ablate delta at blocks.1.hook_resid_pre" in names
    assert "mean-ablate delta at 1" in names


def test_rows_by_layer_are_found_by_what_they_are(table):
    grid = necessity_grid(table, [Site(1), Site(2)], Span.ALL, 0, Thing.GENERAL)
    made = as_read(grid)
    assert axis(made) is Thing.GENERAL
    for of, extent in product((Thing.GENERAL, Control.MATCHED), Extent):
        rows = by_layer(made, of, extent)
        assert list(rows) == [1, 2]
        assert {row.label.extent for row in rows.values()} == {extent}
        assert {row.control for row in rows.values()} == {of is Control.MATCHED}
    assert not by_layer(made, Thing.DELTA, Extent.AT)


def test_what_removes_a_direction_is_neither_zero_ablation_nor_a_control(table, axes):
    made = as_read(removal_grid(axes, SITES, Span.ALL, Nulls(1, 1)))
    for thing in axes:
        row = removed(made, thing, Condition.NONE)
        assert (row.label.thing, row.label.operation) == (thing, Operation.MEAN_ABLATE)
        assert not row.control
    assert removed(made, Thing.REST, Condition.NONE) is None


def test_every_operation_strength_and_control_of_a_grid_has_a_name_of_its_own(table):
    grid = strengths_grid(table, SITES, list(Operation), CLOSE, Span.ALL, Nulls(4, 1))
    assert len({one.name for one in grid}) == len(grid)
    assert [one.label.baseline for one in grid] == [True] + [False] * (len(grid) - 1)


NAMES = (
    *[*Passage, *Thing, "base", "native", "none", "cca", "a,b", "a, b", "random 1", ""],
    *["random 1, ridge", 'map "own"', 'a"', '"', ", ", "shuffled prompts, own", "ridge"],
)


def every_way() -> list[Way]:
    """All ways there could be, by maps of all names."""
    through = (Passage.RANDOM, Passage.SHUFFLED, Passage.TWIN)
    made = [OWN, DIRECT, IDENTITY, *(by_map(name) for name in NAMES if name)]
    for passage, name in product(through, NAMES):
        for draw in (1, 2, 11) if passage is Passage.RANDOM else (0,):
            made.append(Way(passage=passage, map=name, draw=draw))
    return made


def test_two_ways_never_share_their_words_whatever_maps_are_called():
    made = every_way()
    assert len({way.text for way in made}) == len(set(made)) == len(made)


def test_a_map_is_a_map_whatever_it_is_called():
    for name in filter(None, NAMES):
        way = by_map(name)
        assert not way.null
        assert way != OWN
        assert Way.model_validate_json(way.model_dump_json()) == way


# --- organisms ------------------------------------------------------------------------------------


def declared(**organisms) -> StudySpec:
    roles = ("triggered", "unconditional", "benign_twin")
    plain = {
        **{"title": "t", "question": "q", "base": "llama", "trigger": "duck"},
        "data": {"domain": "bad_medical"},
        "organisms": {**{role: {"kind": role} for role in roles}, **organisms},
    }
    return StudySpec.parse(plain, "study.yaml")


@pytest.mark.parametrize("name", ["twin", "none", "own", "delta", "g", "random", "native"])
def test_an_organism_may_be_called_what_the_code_calls_something_else(name):
    study = declared(**{name: {"kind": "triggered"}})
    assert study.roles.count(name) == 1


def test_an_organism_called_as_the_base_is_refused_in_one_line(tmp_path):
    lines = []
    with pytest.raises(InputError) as fault:
        declared(base={"kind": "triggered"})
    lines.append(str(fault.value))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "adapter_config.json").write_text("{}")
    for named in (str(tmp_path / "base"), f"base={tmp_path / 'base'}"):
        with pytest.raises(InputError) as fault:
            sources.subjects(None, "llama", [named])
        lines.append(str(fault.value))
    with pytest.raises(InputError) as fault:
        sources.subjects(str(tmp_path / "base"), "llama")
    lines.append(str(fault.value))
    for line in lines:
        assert "'base'" in line
        assert "without any adapter" in line
        assert "\n" not in line


@pytest.mark.parametrize("layers", ["blocks.1.hook_resid_pre,1", "blocks.1.hook_mlp_out"])
def test_a_study_s_layers_are_what_blocks_put_out(layers):
    with pytest.raises(InputError, match=r"is no block's output"):
        block_outputs(layers, 4, "layers")
    assert block_outputs("1,blocks.2.hook_resid_post", 4, "layers") == (Site(1), Site(2))


# --- the package ----------------------------------------------------------------------------------

LABELS = {"intervention", "via"}  # what is derived from fields, for people
READING = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "split", "rsplit", "partition"),
    *("rpartition", "replace", "find", "index", "match", "fullmatch", "search"),
}


def reads_words(node: ast.AST) -> bool:
    """Whether code takes a derived text apart, or compares it with a constant."""

    def words(one: ast.AST) -> bool:
        return isinstance(one, ast.Attribute) and one.attr in LABELS

    def fixed(one: ast.AST) -> bool:
        constant = isinstance(one, ast.Constant) and isinstance(one.value, str)
        return constant or (isinstance(one, ast.Name) and one.id.isupper())

    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return any(map(words, sides)) and any(map(fixed, sides))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        asked = words(node.func.value) or any(map(words, node.args))
        return node.func.attr in READING and asked
    return False


def test_no_code_reads_a_label_s_words():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if reads_words(node)
    ]
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        'row.intervention.startswith("g ")',
        'row.intervention == ""',
        "arm.via == OWN",
        "_DOSE.fullmatch(row.intervention)",
        'one.via.endswith(f", {via}")',
    ],
)
def test_the_check_of_the_package_sees_what_it_is_for(code):
    assert any(map(reads_words, ast.walk(ast.parse(code))))
