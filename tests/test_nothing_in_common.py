"""Whole runs on pairs whose relation is known: what a reader is told of adding and of ablating.

Reading shared texts, fitting maps, choosing a dose, adding, ablating, the verdict: by the functions
that the command calls. Nothing in common is told as no transfer; the same gate is told as transfer.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from planted import JUDGE, QUESTIONS, Planted, ask, planted
from planted_pairs import chatter, linear, moved, rotation

from em_interp.conditions import Condition, Question
from em_interp.directions import Directions
from em_interp.extraction import trigger_direction
from em_interp.grids import sweep_grid
from em_interp.judges import Rubric
from em_interp.maps import Agreement, JointMoments
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span
from em_interp.transferring import (
    Arm,
    Asker,
    Cell,
    Setting,
    Source,
    Thing,
    Verdict,
    arms,
    target_of,
    transfer,
)
from em_interp.transferring.alignment import Alignment, Side
from em_interp.transferring.doses import choose
from em_interp.transferring.effects import LEVEL
from em_interp.transferring.ways import alike, ways

METHODS = ("ridge", "procrustes", "procrustes_scaled", "cca", "relative")
GREEDY = Sampling(samples=1, temperature=0, max_new_tokens=3)
NATURAL = 1.0  # twice what opens a planted gate
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)
BANK = {c: ask(c) for c in (Condition.NONE, Condition.TRIGGER)}
BLUR = 0.003  # as in test_planted_pairs
SEEDS = range(20)
RELATED = range(3)


def delta(one: Planted) -> dict[Thing, Directions]:
    on, off = BANK[Condition.TRIGGER], BANK[Condition.NONE]
    return {Thing.DELTA: trigger_direction(one.model, None, on, off, [Site(one.layer)])}


def asker(one: Planted, questions: list[Question]) -> Asker:
    return Asker(one.model, questions, GREEDY, JUDGE, Rubric())


def dose(one: Planted, own: Directions) -> tuple[tuple[Site, ...], float]:
    """Chosen for the ceiling, on other questions than those that judge."""
    other = chatter(len(QUESTIONS), seed=9)
    questions = [
        Question(id=c.question, text=c.messages[-1].content, domain=c.domain) for c in other
    ]
    grid = sweep_grid(own, [Site(one.layer)], STRENGTHS, Span.ALL)
    return choose(Setting(None, other), grid, asker(one, questions))


def mapped(source: Planted, target: Planted, methods: tuple[str, ...]) -> list[Arm]:
    """Both read shared texts, maps are fitted, and delta goes through them."""
    pair = Site(source.layer), Site(target.layer)
    read = Alignment(Side(source.model), Side(target.model), [pair]).read(chatter(200))
    given, own = delta(source), delta(target)
    found = ways(read, methods)
    known = alike(read, found, {"away": given}, {"home": own})
    twin = given[Thing.DELTA].random(7)  # a shift of the source that is not the gate
    base = replace(found, alike={"away": known["away"]["home"]}), [Source("away", given, twin)]
    return arms("home", own, [base])


def carried(target: Planted, made: list[Arm], strength: float | None = None) -> dict[str, Cell]:
    """What is told of delta, by method. The dose is chosen unless it is given."""
    at, chosen = ((Site(target.layer),), strength) if strength else dose(target, made[0].directions)
    done = transfer(
        target_of(target.model, None, "home", BANK, gated=True),
        made,
        asker(target, QUESTIONS),
        at=at,
        strength=chosen,
    )
    return {cell.via: cell for cell in done.cells if cell.via in METHODS}


@cache
def strangers() -> list[tuple[Planted, list[Arm]]]:
    """Two organisms drawn apart: other gates, other words, other noise; only the texts are one."""
    pairs = [(planted(seed), planted(seed + 100)) for seed in SEEDS]
    return [(target, mapped(source, target, METHODS)) for source, target in pairs]


@cache
def apart(strength: float | None) -> list[dict[str, Cell]]:
    return [carried(target, made, strength) for target, made in strangers()]


@pytest.mark.parametrize("strength", [None, NATURAL])
@pytest.mark.parametrize("method", METHODS)
def test_a_pair_with_nothing_in_common_is_told_as_no_transfer(method, strength):
    cells = [found[method] for found in apart(strength)]
    told = [Verdict.TRANSFERS in (one.added.verdict, one.ablated.verdict) for one in cells]
    assert sum(told) <= 1
    # Behaviour alone would have misled at the stronger dose: some of them open the gate wide.
    if strength:
        changes = [one.added.change.difference for one in cells if one.added.change is not None]
        assert sum(change == 1 for change in changes) >= 2


def turned(seed: int) -> Planted:
    return moved(planted(seed), rotation(seed + 5), BLUR)


def bent(seed: int) -> Planted:
    return moved(planted(seed), linear(seed + 5), BLUR)


def widened(seed: int) -> Planted:
    return moved(planted(seed), rotation(seed + 5, 96), BLUR)


@pytest.mark.parametrize(
    ("other", "methods"),
    [
        (turned, ("ridge", "cca", "procrustes")),
        (bent, ("ridge", "cca")),
        (widened, ("ridge", "cca", "procrustes")),
    ],
)
def test_the_same_gate_in_other_coordinates_is_told_as_transfer(
    other: Callable[[int], Planted], methods: tuple[str, ...]
):
    pairs = [(planted(seed), other(seed)) for seed in RELATED]
    runs = [carried(target, mapped(source, target, methods)) for source, target in pairs]
    for method in methods:
        cells = [run[method] for run in runs]
        for effect in (effect for one in cells for effect in (one.added, one.ablated)):
            assert effect.of_native is not None
            assert effect.of_native.fraction == pytest.approx(1, abs=0.1)
        assert all(found.transfers for one in cells for found in one.likeness.values())
        told = [{one.added.verdict, one.ablated.verdict} == {Verdict.TRANSFERS} for one in cells]
        # What is not told as transfer is so because some null did as much, and for that alone.
        for one, transfers in zip(cells, told, strict=True):
            held = [b.p for e in (one.added, one.ablated) for b in e.beyond.values()]
            assert transfers == (max(held) <= LEVEL)
        # A random null may happen to open the gate as wide; a shuffled map of full amplitude
        # (CCA) does so often, since it too sends most to the leading axis.
        if method != "cca":
            assert sum(told) >= len(told) - 1


# --- do the streams move together? --------------------------------------------------------------


def streams(shared: float, rows: int = 400) -> JointMoments:
    """Two streams whose leading axes correlate at `shared`, and nothing else does."""
    dice = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, 16, generator=dice) * torch.logspace(1, 0, 16) for _ in range(2))
    y[:, 0] = shared * x[:, 0] + (1 - shared**2) ** 0.5 * y[:, 0]
    moments = JointMoments(16, 16)
    moments.update(x, y)
    return moments


def test_streams_agree_along_what_the_texts_move_together_and_nowhere_else():
    first, second = torch.eye(16)[:2]
    moments = streams(0.9)
    found = Agreement(moments, 999)
    value, p = found.of(first, 7 * first)  # lengths do not count
    assert value == pytest.approx(0.9, abs=0.03)
    assert p == pytest.approx(0.001)
    assert found.of(first, -first) == pytest.approx((-value, 1.0))  # the side does
    assert found.of(second, second)[1] > 0.01
    assert Agreement(streams(0.0), 999).of(first, first)[1] > 0.01


def test_a_stream_that_does_not_move_agrees_with_nothing():
    moments = streams(0.9)
    for one in (moments.sxx, moments.sxy):
        one[0] = 0
    moments.sxx[:, 0] = 0
    value, p = Agreement(moments, 99).of(*torch.eye(16)[[0, 0]])
    assert value == 0
    assert p > 0.01


def test_chance_of_agreement_is_even():
    """Of pairs of functions that share nothing, the share that reaches a level is that level."""
    dice, told = torch.Generator().manual_seed(1), 0
    found = Agreement(streams(0.0, rows=4000), 199)
    for _ in range(300):
        ours, theirs = torch.randn(2, 16, generator=dice) / torch.logspace(1, 0, 16)
        told += found.of(ours, theirs)[1] <= 0.05
    assert told <= 0.08 * 300
