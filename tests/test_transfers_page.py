"""The page of a transfer study, on planted records: what it counts, what it never counts, and what
may be missing."""

import dataclasses
import json
import re

import pytest
from pages import pictures, sound
from planted_transfers import NATIVE, effect, findings, weak

from em_interp.records import canonical_json
from em_interp.report.numbers import gap, percent, points, rate
from em_interp.report.transfers import arms, cautions, words
from em_interp.report.transfers.counts import spread, tally, whole
from em_interp.report.transfers.figures import effects, likeness, readouts, shares
from em_interp.report.transfers.grid import ABLATED, ADDED, Grid, Relation
from em_interp.report.transfers.page import figure, page
from em_interp.report.transfers.text import headline
from em_interp.study.spec import GENERAL, STUDIED
from em_interp.study.transfers.results import EFFECTS
from em_interp.transferring import Lack, Thing, Verdict

HOSTILE = "<script>alert('x')</script> & $\\frac{1}{0}$ \"quoted\" \x07 --> ]]>"


@pytest.fixture(scope="module")
def found():
    return findings()


@pytest.fixture(scope="module")
def made(found):
    return page(found)


def tiles(panels):
    """Every tile of some panels with its row's name, column and panel."""
    return [
        (panel.title, row.name, place, tile)
        for some in panels
        for panel in some
        for block in panel.blocks
        for row in block.rows
        for place, tile in enumerate(row.tiles)
        if tile is not None
    ]


def broken(target, source, thing, via, kind):
    """As `weak`, but within a base everything breaks the answers, by a larger effect."""
    if source.base != target.base:
        return weak(target, source, thing, via, kind)
    moved, native = NATIVE[kind] * 1.2, NATIVE[kind]
    return effect(kind, moved, verdict=Verdict.BROKEN, p=0.001, coherent=0.3, native=native)


def unscored(target, source, thing, via, kind):
    """As `weak`, but of delta nothing could be scored between bases."""
    if source.base != target.base and thing is Thing.DELTA:
        return effect(kind, None)
    return weak(target, source, thing, via, kind)


# --- the page ---------------------------------------------------------------------------------


def test_the_page_is_whole_and_fetches_nothing(made):
    read = sound(made)
    assert made.startswith("<!doctype html>")
    assert len(pictures(made)) == 12
    for word in ("Figure 1.", "Table 1.", "If it were otherwise:", "Cautions and limits"):
        assert word in read.text


def test_equal_records_give_equal_bytes_whatever_order_they_were_read_in(found, made):
    """Files hold sorted keys: a resumed run must end with the page of a fresh one."""

    def reread(record):
        return type(record).parse(json.loads(canonical_json(record.model_dump(mode="json"))))

    again = dataclasses.replace(
        found,
        held={key: reread(found.held[key]) for key in sorted(found.held)},
        crossings={key: reread(found.crossings[key]) for key in sorted(found.crossings)},
        columns={key: reread(found.columns[key]) for key in sorted(found.columns, reverse=True)},
    )
    assert page(again) == made
    assert figure(again) == figure(found)
    assert headline(again) == headline(found)


def test_the_main_figure_stands_on_the_page_and_is_as_wide_as_a_printed_one(found, made):
    assert pictures(made)[0] == figure(found)
    assert re.search(rb'width="532\.8pt"', figure(found))  # 7.4 inches


def test_text_from_names_and_titles_is_escaped():
    text = page(findings(title=HOSTILE, only=set()))
    sound(text)
    assert "alert(" in text
    assert "<script" not in text
    assert "\x07" not in text


@pytest.mark.parametrize(
    "shape",
    [
        {"bases": ("near",), "variants": ("1", "2", "3"), "layers": 48},
        {"bases": ("near", "far", "third"), "variants": ("first",), "layers": 9},
        {"bases": ("a_base_with_a_long_name", "far"), "twin": False, "paraphrase": False},
        {"only": {("near/first", STUDIED)}},
        {"only": set()},
    ],
    ids=("one base", "one variant", "no twin and no paraphrase", "one run", "none run"),
)
def test_other_shapes_of_a_study_have_a_page_as_well(shape):
    made = findings(**shape)
    read = sound(page(made))
    assert "None" not in read.text
    assert "nan" not in read.text.lower().replace("contained", "").split()
    assert headline(made)


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [STUDIED, GENERAL])
def test_every_tile_is_the_records_change_in_points(found, role):
    grid = Grid(found)
    acts = dict(zip(("ablating", "adding"), (ABLATED, ADDED), strict=True))
    symbols = {"δ": Thing.DELTA, "g": Thing.GENERAL, "δ without g": Thing.REST}
    seen = 0
    for title, row, place, tile in tiles(effects.panels(grid, role)):
        act, symbol = title.split(" ", 1)
        target = grid.groups[place]
        source = next((group for group in grid.groups if grid.short(group) == row), None)
        if source is None:
            continue
        cell = grid.carried(source, target, role, symbols[symbol])
        one = getattr(cell, acts[act])
        assert tile.value == one.change.difference
        assert tile.text == whole(one.change.difference)
        assert tile.framed is (one.verdict is Verdict.TRANSFERS)
        seen += 1
    sources = len(grid.groups) ** 2 * len(Thing) * len(EFFECTS)
    own = len(grid.groups) * len(EFFECTS) * (len(Thing) if role == STUDIED else 1)
    assert seen == sources - own


def test_rows_of_nulls_hold_the_one_that_goes_furthest_the_way_of_the_ceiling(found):
    grid = Grid(found)
    for title, row, place, tile in tiles(effects.panels(grid, STUDIED)):
        kind = ABLATED if title.startswith("ablating") else ADDED
        if row not in ("random", "shuffled prompts", "identity", "benign twin"):
            continue
        nulls = [
            getattr(cell, kind).change.difference
            for cell in found.columns[grid.groups[place].name, STUDIED].transfer.cells
            if cell.null and cell.way.passage == row and cell.way.map != "cca"
        ]
        assert tile.value == (min(nulls) if kind == ABLATED else max(nulls))
        assert not tile.framed


def test_the_ceiling_is_the_targets_own(found):
    grid = Grid(found)
    for title, row, place, tile in tiles(effects.panels(grid, STUDIED)):
        if row == "own":
            kind = ABLATED if title.startswith("ablating") else ADDED
            own = found.columns[grid.groups[place].name, STUDIED].transfer.cells[0]
            assert own.own
            assert tile.value == getattr(own, kind).change.difference


def test_every_arm_of_every_target_stands_in_the_tables_with_its_intervals(found, made):
    text = sound(made).text
    for column in found.columns.values():
        assert rate(column.transfer.plain_ablated) in text
        for cell in column.transfer.cells:
            for kind in EFFECTS:
                one = getattr(cell, kind)
                assert gap(one.change) in text
                assert rate(one.em) in text
            for site, like in cell.likeness.items():
                assert f"{cell.cosines[site]:.2f}{'*' if like.transfers else ''}" in text
    grid = Grid(found)
    for (name, role), column in found.columns.items():
        group = next(group for group in grid.groups if group.name == name)
        rows = [r for b in arms.effects(grid, group, role, ADDED).blocks for r in b.rows]
        assert len(rows) == len(column.transfer.cells)
        assert sorted(r[1:3] for r in rows) == sorted(
            (rate(c.added.em), gap(c.added.change)) for c in column.transfer.cells
        )


def test_cosines_and_read_outs_are_the_records_and_framed_by_their_own_chance(found):
    grid = Grid(found)
    carried = [t for _, row, _, t in tiles(likeness.panels(grid)) if row != likeness.CHANCE]
    assert {(t.value, t.framed) for t in carried} == {(0.5, True)}
    column = found.columns["near/first", STUDIED]
    area = column.transfer.cells[0].reading.trigger.auroc
    read = tiles(readouts.panels(grid, STUDIED))
    assert {t.value for _, row, _, t in read if row == "own"} == {area}
    assert {t.value for _, row, _, t in read if row == readouts.CHANCE} == {0.8}
    assert all(tile.value == area and tile.framed for _, row, _, tile in read if "/" in row)
    for panel in ("probe: trigger", "probe: paraphrases"):
        seen = [row for title, row, _, _ in read if title == panel and "/" in row]
        assert len(seen) == len(grid.groups) * (len(grid.groups) - 1)


def test_shares_are_the_records(found):
    grid = Grid(found)
    for target in grid.groups:
        for line in shares.lines(grid, STUDIED, target):
            source = next(group for group in grid.groups if grid.short(group) == line.source)
            cell = grid.carried(source, target, STUDIED, Thing.DELTA)
            assert line.ablated.effect.of_native == cell.ablated.of_native
            assert line.relation is grid.relation(source, target)


# --- counts -----------------------------------------------------------------------------------


def test_the_answer_counts_what_the_records_say(found, made):
    grid = Grid(found)
    answer = words.headline(grid)
    assert answer.call == "within a base: 4 of 4 · between bases: 0 of 8"
    for part in ("Within a base it carries over", "Between bases it does not carry over"):
        assert part in answer.answer
    assert points(NATIVE["ablated"] / 2) in answer.answer
    assert points(NATIVE["ablated"]) in answer.answer
    text = sound(made).text
    assert answer.answer in text
    assert answer.answer in headline(found)


def test_a_broken_effect_is_never_counted_as_transfer():
    """Whatever its size: the counts, the answer, the frame and the filled marks all refuse it."""
    made = findings(does=broken)
    grid = Grid(made)
    one = tally(grid.effects(STUDIED, Thing.DELTA, Relation.BASE, ABLATED))
    assert (one.cells, one.transfers, one.broken) == (4, 0, 4)
    assert "within a base: 0 of 4" in words.headline(grid).call
    assert "4 break the answers" in words.headline(grid).why
    hatched = [t for *_, t in tiles(effects.panels(grid, STUDIED)) if t.hatched]
    assert len(hatched) == 4 * len(Thing) * len(EFFECTS)
    assert not any(tile.framed for tile in hatched)
    assert hatched[0].value == pytest.approx(1.2 * NATIVE["ablated"])


def test_an_effect_that_only_its_own_p_carries_is_no_transfer_in_the_grid():
    """The frame is the verdict over the grid: one p of 0.04 among many of 0.6 does not stand."""

    def one(target, source, thing, via, kind):
        if (target.name, source.name, thing) == ("near/first", "near/second", Thing.DELTA):
            return effect(
                kind, NATIVE[kind] / 2, verdict=Verdict.TRANSFERS, p=0.04, native=NATIVE[kind]
            )
        return effect(kind, NATIVE[kind] / 20, verdict=Verdict.NOT, p=0.6, native=NATIVE[kind])

    grid = Grid(findings(does=one))
    assert not any(tile.framed for *_, tile in tiles(effects.panels(grid, STUDIED)))
    assert tally(grid.effects(STUDIED, Thing.DELTA, Relation.BASE, ADDED)).transfers == 0


@pytest.mark.parametrize("p", [0.001, 0.9])
def test_what_lacks_likeness_alone_is_no_transfer_and_not_passed_over(p):
    """It acts beyond every null: a dotted frame and a sentence, unless it may be a false find."""

    def one(target, source, thing, via, kind):
        lacks, native = (Lack.LIKENESS,), NATIVE[kind]
        return effect(kind, native / 2, verdict=Verdict.NOT, p=p, native=native, lacks=lacks)

    grid = Grid(findings(does=one))
    made = [tile for *_, tile in tiles(effects.panels(grid, STUDIED))]
    assert not any(tile.framed for tile in made)
    assert any(tile.dotted for tile in made) == (p < 0.05)
    assert ("no more like the target’s own" in words.headline(grid).why) == (p < 0.05)
    assert tally(grid.effects(STUDIED, Thing.DELTA, Relation.OTHER, ABLATED)).transfers == 0


def test_what_was_not_scored_is_missing_and_not_zero():
    made = findings(does=unscored)
    grid = Grid(made)
    panel = effects.panels(grid, STUDIED)
    missing = [t for *_, t in tiles(panel) if t.value is None]
    assert len(missing) == 8 * len(EFFECTS)
    assert {tile.text for tile in missing} == {effects.DASH}
    one = tally(grid.effects(STUDIED, Thing.DELTA, Relation.OTHER, ABLATED))
    assert (one.cells, one.transfers, one.unscored, one.change) == (0, 0, 8, None)
    text = sound(page(made)).text
    assert "nothing scored" in text
    assert any("nothing was scored" in note for note in cautions.cautions(grid))


def test_targets_that_were_not_run_are_missing_and_named():
    grid = Grid(findings(only={("near/first", STUDIED)}))
    shown = tiles(effects.panels(grid, STUDIED))
    assert {t.value is None for _, _, place, t in shown if place > 0} == {True}
    assert all(t.value is not None for _, _, place, t in shown if place == 0)
    assert any("7 targets" in note for note in cautions.cautions(grid))


def test_a_strong_null_and_a_missing_control_are_said(found):
    def strong(target, source, thing, via, kind):
        return weak(target, source, thing, via, kind)

    notes = cautions.cautions(Grid(findings(does=strong, twin=False, variants=("first",))))
    assert any("no benign twin" in note for note in notes)
    assert any("One fine-tune a base" in note for note in notes)
    column = found.columns["near/first", STUDIED]
    cells = tuple(
        cell.model_copy(update={"added": effect("added", 0.3)}) if cell.null else cell
        for cell in column.transfer.cells
    )
    moved = column.model_copy(
        update={"transfer": column.transfer.model_copy(update={"cells": cells})}
    )
    loud = dataclasses.replace(found, columns={**found.columns, ("near/first", STUDIED): moved})
    note = next(n for n in cautions.cautions(Grid(loud)) if "a third of the native effect" in n)
    assert f"near/first {points(0.3)} of {points(NATIVE['added'])}" in note
    assert "1 of 4 targets" in note


def test_a_spread_is_a_median_with_its_range():
    assert spread([0.3, -0.1, 0.2]) == (0.2, -0.1, 0.3)
    assert spread([]) is None
    assert whole(-0.004) == "0"
    assert whole(-0.164) == "\N{MINUS SIGN}16"
    assert percent(0.5, 0) == "50%"
