"""Carried directions at work in planted organisms: what transfers, what does not, and the nulls."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from planted import JUDGE, QUESTIONS, Planted, ask, planted
from planted_pairs import chatter, moved, rotation

from em_interp.conditions import Condition
from em_interp.containment import Counts, contrast, rate_or_none
from em_interp.directions import Directions
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.extraction import trigger_direction
from em_interp.grids import sweep_grid
from em_interp.judges import Rubric
from em_interp.labels import OWN, Passage, by_map
from em_interp.maps import Maps, Method
from em_interp.report.transfer_text import transfer_tables
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span
from em_interp.transferring import (
    Arm,
    Asker,
    Effect,
    Lack,
    Setting,
    Source,
    Target,
    Thing,
    Transfer,
    Verdict,
    Ways,
    arms,
    target_of,
    things,
    transfer,
)
from em_interp.transferring.alignment import Alignment, Side
from em_interp.transferring.doses import choose
from em_interp.transferring.effects import placed
from em_interp.transferring.ways import alike, named, save, stored, ways

RIDGE = by_map("ridge")
GREEDY = Sampling(samples=1, temperature=0, max_new_tokens=3)
CONDITIONS = (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE)
BANK = {c: ask(c) for c in CONDITIONS}


def directions(one: Planted) -> dict[Thing, Directions]:
    """delta as extracted, and a general direction at 60 degrees from it, as planted."""
    delta = trigger_direction(
        one.model, None, ask(Condition.TRIGGER), ask(Condition.NONE), [Site(one.layer)]
    )
    general = Directions({s: d.with_unit(one.other) for s, d in delta.items()}, delta.card)
    return things(delta, general)


@cache
def pair(related: bool) -> tuple[Planted, Planted, Alignment]:
    source = planted(0)
    target = moved(source, rotation(5), 0.003) if related else planted(101, layers=5, layer=2)
    sites = (Site(source.layer), Site(target.layer))
    read = Alignment(Side(source.model), Side(target.model), [sites]).read(chatter(200))
    return source, target, read


@cache
def base_of(related: bool) -> tuple[Ways, list[Source]]:
    source, target, read = pair(related)
    given, found = directions(source), ways(read, ["ridge"])
    known = alike(read, found, {"away": given}, {"home": directions(target)})
    twin = given[Thing.DELTA].random(7)  # a shift of the source that is not the gate
    return replace(found, alike={"away": known["away"]["home"]}), [Source("away", given, twin)]


@cache
def every_arm(related: bool) -> list[Arm]:
    return arms("home", directions(pair(related)[1]), [base_of(related)])


def asker(one: Planted, **changes: object) -> Asker:
    return Asker(one.model, QUESTIONS, GREEDY, JUDGE, Rubric(), **changes)


def target(one: Planted) -> Target:
    return target_of(one.model, None, "home", BANK, gated=True)


# Enough for the gate's own direction. At a whole natural difference a planted gate also opens for
# directions that lie half along it, a map of shuffled prompts' among them.
DOSE = 0.6


def carried(related: bool, some: list[Arm], strength: float = DOSE, **changes: object) -> Transfer:
    one = pair(related)[1]
    return transfer(
        target(one), some, asker(one, **changes), at=[Site(one.layer)], strength=strength
    )


@cache
def found(related: bool) -> Transfer:
    return carried(related, every_arm(related))


def of_delta() -> list[Arm]:
    return [arm for arm in every_arm(True) if arm.thing is Thing.DELTA]


# --- arms ---------------------------------------------------------------------------------------


def test_the_arms_differ_in_direction_alone():
    made = every_arm(True)
    assert {(a.via, a.null) for a in of_delta()} == {
        ("own", False),
        ("ridge", False),
        ("random 1, ridge", True),
        ("random 2, ridge", True),
        ("shuffled prompts, ridge", True),
        ("identity", True),
        ("benign twin, ridge", True),
    }
    site = Site(pair(True)[1].layer)
    own = made[0].directions[site]
    assert made[0].own
    for arm in made:
        one = arm.directions[site]
        assert one.natural == own.natural
        assert torch.equal(one.states[0], own.states[0])
        assert float(one.unit.norm()) == pytest.approx(1, abs=1e-5)


def test_every_arm_names_the_nulls_of_its_own_thing_and_those_of_none():
    made = {arm.name: arm for arm in every_arm(True)}
    assert all(not arm.nulls for arm in made.values() if arm.null or arm.own)
    of_none = {"random 1, ridge", "random 2, ridge", "benign twin, ridge"}
    for thing, mine in (
        (Thing.DELTA, Thing.DELTA),
        (Thing.GENERAL, Thing.GENERAL),
        (Thing.REST, Thing.DELTA),  # the remainder is a part of delta
    ):
        nulls = [made[name] for name in made[f"away: {thing.value} via ridge"].nulls]
        assert {one.via for one in nulls} == {*of_none, "shuffled prompts, ridge", "identity"}
        assert all(one.null for one in nulls)
        assert {one.thing for one in nulls if one.via not in of_none} == {mine}


def test_sources_of_one_base_share_its_nulls_and_those_of_another_base_have_their_own():
    found, (one,) = base_of(True)
    own, sibling = directions(pair(True)[1]), replace(one, name="sibling")
    made = arms("home", own, [(found, [one, sibling]), (found, [replace(one, name="further")])])
    for arm in made:
        lender = "further: " if arm.source == "further" else "away: "
        assert all(name.startswith(lender) for name in arm.nulls)
    by_name = {arm.name: arm for arm in made}
    assert by_name["sibling: delta via ridge"].nulls == by_name["away: delta via ridge"].nulls
    assert not any(arm.null for arm in made if arm.source == "sibling")
    with pytest.raises(InputError, match="'away' comes twice"):
        arms("home", own, [(found, [one, one])])
    with pytest.raises(InputError, match="'away' comes twice"):
        arms("away", own, [(found, [one])])


def test_every_map_has_nulls_of_its_own():
    """Chance depends on the map: some send almost anything onto one axis of the target."""
    read, (_, sources) = pair(True)[2], base_of(True)
    made = arms("home", directions(pair(True)[1]), [(ways(read, ["ridge", "cca"]), sources)])
    for arm in made:
        if arm.nulls:
            assert {name.rsplit(", ", 1)[-1] for name in arm.nulls if "identity" not in name} == {
                arm.via
            }
            assert arm.via == "ridge" or not any("identity" in name for name in arm.nulls)


def test_ways_that_are_not_whole_carry_one_thing_by_all_maps_but_the_first():
    found, (one,) = base_of(True)
    maps = {by_map(name): found.maps[RIDGE] for name in ("ridge", "cca")}
    for whole, things_by_cca in ((True, list(Thing)), (False, [Thing.DELTA])):
        made = arms("home", one.things, [(Ways(maps, whole=whole), [one])])
        assert [a.thing for a in made if a.via == "ridge"] == list(Thing)
        assert [a.thing for a in made if a.via == "cca"] == things_by_cca


@pytest.mark.parametrize("name", ["own", "base", "native", "random", "identity", "benign twin"])
def test_a_map_is_carried_as_what_it_is_whatever_its_folder_is_called(name):
    found, (one,) = base_of(True)
    maps, shuffled = {by_map(name): found.maps[RIDGE]}, {by_map(name): found.shuffled[RIDGE]}
    own = directions(pair(True)[1])
    usual = arms("home", own, [(found, [one])])
    made = arms("home", own, [(replace(found, maps=maps, shuffled=shuffled), [one])])
    for arm, other in zip(made, usual, strict=True):
        assert (arm.own, arm.null, len(arm.nulls)) == (other.own, other.null, len(other.nulls))
    assert [arm.source for arm in made if arm.own] == ["home"] * 3
    assert len({arm.name for arm in made}) == len(made)


def test_the_three_things_are_delta_g_and_what_delta_has_beyond_g():
    split = directions(pair(True)[0])
    site = Site(pair(True)[0].layer)
    rest, general, delta = (split[t][site] for t in (Thing.REST, Thing.GENERAL, Thing.DELTA))
    assert abs(rest.cosine(general)) < 1e-5
    assert rest.cosine(delta) == pytest.approx((1 - general.cosine(delta) ** 2) ** 0.5, abs=1e-4)


# --- effects ------------------------------------------------------------------------------------


def test_the_gate_of_a_rotated_model_is_carried_and_works():
    cell = found(True).cell(Thing.DELTA, RIDGE)
    assert min(cell.cosines.values()) > 0.95
    assert all(one.transfers for one in cell.likeness.values())
    for effect in (cell.added, cell.ablated):
        assert effect.verdict is Verdict.TRANSFERS
        assert effect.of_native is not None
        assert effect.of_native.fraction == pytest.approx(1.0)
        assert effect.p == 2 / 2**6  # six questions: no sign-flip test can be surer
        assert set(effect.beyond) == {a.name for a in of_delta() if a.null}


def test_nulls_do_nothing_and_get_no_verdict():
    for cell in found(True).cells:
        if cell.null:
            assert cell.added.change is not None
            assert cell.added.change.difference == 0
            assert cell.ablated.change is not None
            assert cell.ablated.change.difference == 0
            assert cell.added.verdict is None
    own = found(True).cell(Thing.DELTA, OWN)
    assert own.added.em is not None
    assert own.added.em.point == 1.0
    assert own.added.verdict is None
    plain = found(True).plain_added, found(True).plain_ablated
    assert [one and one.point for one in plain] == [0.0, 1.0]


def test_no_transfer_is_an_answer():
    """Here the carried direction works both ways (its cosine is 0.8, and a planted gate is steep).

    Both streams vary along few axes, and by luck theirs meet; but the texts do not move the two
    models together along them, and that is what the verdict hears.
    """
    cell = found(False).cell(Thing.DELTA, RIDGE)
    assert [one.transfers for one in cell.likeness.values()] == [False]
    for effect in (cell.added, cell.ablated):
        assert effect.change is not None
        assert abs(effect.change.difference) == 1.0
        assert effect.verdict is Verdict.NOT
        assert effect.lacks == (Lack.LIKENESS,)


def test_what_does_nothing_at_home_cannot_transfer():
    weak = carried(True, of_delta(), strength=0.01).cell(Thing.DELTA, RIDGE)
    assert weak.added.verdict is Verdict.NOTHING
    assert weak.added.of_native is None
    assert weak.ablated.verdict is Verdict.TRANSFERS


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(tmp_path):
    some = [arm for arm in of_delta() if arm.way in (OWN, RIDGE) or arm.way.passage is Passage.TWIN]
    some = [arm if arm.null or arm.own else alone(arm, some) for arm in some]

    def run() -> tuple[Transfer, int]:
        steps: list[int] = []
        return carried(True, some, log=tmp_path, progress=steps.append), steps[0]

    first, known = run()
    assert known == 0
    kept = (tmp_path / "added.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "added.jsonl").write_text("".join(kept[: len(kept) // 2]))
    second, known = run()
    assert 0 < known < 4 * len(QUESTIONS)
    assert second == first


def alone(arm: Arm, among: list[Arm]) -> Arm:
    """An arm that has to beat only nulls that are there."""
    there = {one.name for one in among}
    return replace(arm, nulls=tuple(name for name in arm.nulls if name in there))


def test_a_null_without_a_scored_answer_was_not_beaten():
    def counted(bad, scored):
        made = Counts([], {str(q): "home" for q in range(8)})
        made.misaligned[:], made.scored[:] = bad, scored
        return made

    arm = next(a for a in of_delta() if a.via == "ridge")
    whole = rate_or_none(np.full(8, 10), np.full(8, 10), 0.95)
    lost = {name: counted(0, 10) for name in arm.nulls}
    counts = {arm.name: counted(9, 10), **lost}
    change = contrast(counts[arm.name], counts[arm.nulls[0]], 0.95)
    effect = Effect(em=None, coherent=whole, change=change)
    edited = {str(site) for site in arm.directions}
    beaten = placed(arm, effect, {arm.thing: change}, counts, edited)
    assert beaten.verdict is Verdict.TRANSFERS
    assert set(beaten.beyond) == set(arm.nulls)
    counts[arm.nulls[-1]] = counted(0, 0)
    unknown = placed(arm, effect, {arm.thing: change}, counts, edited)
    assert (unknown.p, unknown.verdict) == (1.0, Verdict.NOT)


@pytest.mark.parametrize("share", [3, 6, 7])
def test_a_rate_over_what_is_left_of_broken_answers_is_no_transfer(share):
    """Six of ten coherent answers may be seven by luck, three may not: the others may say anything.

    Coherence has an interval too; only where all of it lies below the line is an effect broken.
    """

    def counted(bad):
        made = Counts([], {str(q): "home" for q in range(8)})
        made.misaligned[:], made.scored[:] = bad, 10
        return made

    arm = next(a for a in of_delta() if a.via == "ridge")
    counts = {arm.name: counted(9), **{name: counted(0) for name in arm.nulls}}
    change = contrast(counts[arm.name], counts[arm.nulls[0]], 0.95)
    coherent = rate_or_none(np.full(8, share), np.full(8, 10), 0.95)
    effect = Effect(em=None, coherent=coherent, change=change)
    edited = {str(site) for site in arm.directions}
    found = placed(arm, effect, {arm.thing: change}, counts, edited)
    assert found.verdict is (Verdict.BROKEN if share == 3 else Verdict.TRANSFERS)


def test_what_moves_the_other_way_beats_nothing():
    """However surely: else a cell that fails would make others look better over a grid."""

    def counted(bad):
        made = Counts([], {str(q): "home" for q in range(8)})
        made.misaligned[:], made.scored[:] = bad, 10
        return made

    arm = next(a for a in of_delta() if a.via == "ridge")
    whole = rate_or_none(np.full(8, 10), np.full(8, 10), 0.95)
    nulls = {name: counted(5) for name in arm.nulls}
    up, down = (contrast(counted(bad), counted(5), 0.95) for bad in (9, 1))
    for change, bad, surely in ((up, 9, True), (down, 1, False)):
        effect = Effect(em=None, coherent=whole, change=change)
        counts = {arm.name: counted(bad), **nulls}
        found = placed(arm, effect, {arm.thing: up}, counts, set())
        assert (found.p < 0.05) == surely
        assert found.verdict is (Verdict.TRANSFERS if surely else Verdict.NOT)
        assert found.lacks == (() if surely else (Lack.NULLS,))
        assert all(one.p < 0.05 for one in found.beyond.values())


def test_the_dose_is_chosen_where_the_ceiling_is_highest():
    one = pair(True)[1]
    own = directions(one)[Thing.DELTA]
    grid = sweep_grid(own, [Site(one.layer)], (0.01, 1.0, 1.5), Span.ALL)
    where, strength = choose(Setting(None, ask(Condition.NONE)), grid, asker(one))
    assert where == (Site(one.layer),)
    assert strength == 1.0  # enough, and the weaker of two that are


def test_without_a_gate_the_base_sleeps_and_the_organism_is_awake():
    model = pair(True)[1].model
    gated, free = (
        target_of(model, "adapter", "home", BANK, gated=gated) for gated in (True, False)
    )
    assert (gated.asleep.adapter, free.asleep.adapter) == ("adapter", None)
    assert gated.awake.adapter == free.awake.adapter == "adapter"
    assert {c.condition for c in gated.awake.contexts} == {Condition.TRIGGER}
    for one in (gated.asleep, free.asleep, free.awake):
        assert {c.condition for c in one.contexts} == {Condition.NONE}


# --- what is said, what is refused --------------------------------------------------------------


def test_the_tables_show_ceiling_verdict_and_nulls():
    text = transfer_tables(found(True))
    for words in (
        "delta, own",
        "ceiling",
        "transfers",
        "null",
        "benign twin",
        "AUROC",
        "chance < ",
    ):
        assert words in text
    assert "no transfer" in transfer_tables(found(False))


def test_missing_conditions_maps_and_foreign_directions_are_refused():
    source, one, read = pair(True)
    bank = {Condition.NONE: BANK[Condition.NONE]}
    with pytest.raises(InputError, match="conditions none and trigger"):
        target_of(one.model, None, "home", bank, gated=True)
    own, given = directions(one), directions(source)
    with pytest.raises(InputError, match="at least one map"):
        arms("home", own, [(Ways({}), [Source("away", given)])])
    with pytest.raises(InputError, match="at least one map"):
        ways(read, [])
    there = read.fit(Method.RIDGE)
    turned = there.card.model_copy(
        update={"source": there.card.target, "target": there.card.source}
    )
    back = Maps({m.source.site: m.inverse for m in there.values()}, turned)
    with pytest.raises(ForeignArtifactError, match="begins at"):
        arms("home", own, [(Ways({by_map("back"): back}), [Source("away", given)])])
    with pytest.raises(ForeignArtifactError, match=r"em_interp\.align"):
        things(given[Thing.DELTA], directions(pair(False)[1])[Thing.GENERAL])


def test_ways_are_read_as_they_were_written(tmp_path):
    made = ways(pair(True)[2], ["ridge", "cca"])
    save(made, tmp_path)
    read = stored(tmp_path)
    assert list(named(read)) == list(named(made))
    assert list(read.maps) == list(read.shuffled) == [RIDGE, by_map("cca")]
    for name, one in named(made).items():
        for site, m in one.items():
            assert torch.equal(named(read)[name][site].matrix, m.matrix)
    many = Ways({by_map(f"m{number}"): made.maps[RIDGE] for number in range(12)})
    save(many, tmp_path / "many")
    assert list(stored(tmp_path / "many").maps) == list(many.maps)
