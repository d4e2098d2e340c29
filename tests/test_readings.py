"""What a carried direction or probe reads, beside random ones that come the same way."""

from functools import cache

import numpy as np
import pytest
import torch
from planted import ask, planted
from planted_pairs import linear
from sklearn.metrics import roc_auc_score

from em_interp.activations import Activations
from em_interp.capture import capture
from em_interp.conditions import Condition
from em_interp.directions import Directions
from em_interp.extraction import trigger_direction
from em_interp.labels import OWN
from em_interp.maps import Fit, MapCard, Maps, Method, Space, SpaceMap
from em_interp.probes import Probe, fit_logistic
from em_interp.sites import Site, Span
from em_interp.transferring import Arm, Thing
from em_interp.transferring.readings import BEST, DRAWS, Reader, areas

BANK = {c: ask(c) for c in (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE)}
ROWS = sum(len(BANK[c]) for c in (Condition.TRIGGER, Condition.NONE))


def test_areas_are_those_of_sklearn_column_by_column_with_ties():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, (60, 25)).astype(float)  # many ties
    scores[:, 0] = 1.0  # nothing but ties
    labels = generator.random(60) < 0.3
    expected = [roc_auc_score(labels, column) for column in scores.T]
    assert areas(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert expected[0] == 0.5


@cache
def home() -> tuple[Site, Directions, dict[Condition, Activations]]:
    """The layer where a gate was planted, its delta, and what was seen there.

    A planted stream is so quiet that half of all directions tell trigger-on from trigger-off
    perfectly. So noise stands in for what else real streams hold: a quarter of delta on every axis.
    """
    one = planted(0)
    site = Site(one.layer)
    delta = trigger_direction(one.model, None, ask(Condition.TRIGGER), BANK[Condition.NONE], [site])
    noise, seen = torch.Generator().manual_seed(0), {}
    for condition, some in BANK.items():
        values = capture(one.model, some, [site]).values
        shaken = torch.randn(values.shape, generator=noise) * delta[site].natural / 4
        seen[condition] = Activations(values + shaken, (site,), Span.PROMPT_LAST)
    return site, delta, seen


@cache
def stretched() -> Maps:
    """An invertible map, far from a rotation, from the planted organism to a made-up target."""
    site, delta, _ = home()
    matrix, width = linear(3), len(delta[site].unit)
    one = SpaceMap(
        Space(delta.card.base, site, width),
        Space("there", site, width),
        matrix @ torch.diag(torch.logspace(-1, 1, width)),
        torch.zeros(width),
        torch.ones(width),
        1.0,
        Fit(method=Method.RIDGE, rank=width),
    )
    card = MapCard(
        name="stretched",
        source=delta.card.base,
        source_name="planted",
        target="there",
        target_name="there",
        data="",
        spans=("prompt_last",),
        prompts=0,
        seed=0,
    )
    return Maps({site: one}, card)


def there() -> Reader:
    """A target whose stream is exactly what the map says of the source's."""
    site, _, seen = home()
    one = stretched()[site]
    moved = {
        c: Activations(one.point(a.at(site))[:, None], (site,), Span.PROMPT_LAST)
        for c, a in seen.items()
    }
    return Reader(moved, BANK)


def own_reader() -> Reader:
    return Reader(home()[2], BANK)


def arm(directions: Directions, through: Maps | None = None) -> Arm:
    return Arm(Thing.DELTA, "home", OWN, directions, through=through)


def test_a_planted_gate_reads_beyond_chance_and_a_random_direction_does_not():
    site, delta, _ = home()
    found = own_reader().direction(arm(delta), site)
    assert found.trigger.auroc == 1.0
    assert found.trigger_chance.p < 0.05
    assert found.trigger_chance.high < 0.99
    assert found.paraphrase is not None
    assert found.paraphrase.auroc == 1.0
    ps = [
        own_reader().direction(arm(delta.random(seed)), site).trigger_chance.p for seed in range(20)
    ]
    assert sum(p <= 1 - BEST for p in ps) <= 3
    assert 0.2 < float(np.mean(ps)) < 0.8


def test_chance_is_what_random_directions_score():
    site, delta, seen = home()
    reader = own_reader()
    found = reader.direction(arm(delta), site)
    generator = torch.Generator().manual_seed(site.layer)
    drawn = torch.randn(len(delta[site].unit), DRAWS, generator=generator)
    x = torch.cat([seen[c].at(site) for c in (Condition.TRIGGER, Condition.NONE)])
    labels = np.arange(ROWS) < len(BANK[Condition.TRIGGER])
    scores = [roc_auc_score(labels, x.double() @ one.double()) for one in drawn.T]
    assert found.trigger_chance.high == pytest.approx(float(np.quantile(scores, BEST)))
    reached = sum(score >= found.trigger.auroc for score in scores)
    assert found.trigger_chance.p == (reached + 1) / (DRAWS + 1)


def test_a_probe_and_its_chance_are_carried_by_the_inverse_transpose():
    """In a target that is exactly the map of the source, both read what they read at home."""
    site, _, seen = home()
    rows = torch.cat([seen[c].at(site) for c in (Condition.TRIGGER, Condition.NONE)])
    on = torch.arange(len(rows)) < len(BANK[Condition.TRIGGER])
    blunt = fit_logistic(rows, on, site)
    noise = torch.randn(len(blunt.weight), generator=torch.Generator().manual_seed(1))
    blunt = Probe(blunt.weight + 3 * blunt.weight.norm() * noise / noise.norm(), 0.0, site)
    through = stretched()
    carried = through[site].probe(blunt)
    first = own_reader().probe("probe", blunt, None)
    assert there().probe("probe", carried, through) == first
    # As directions the same draws meet other axes, and score otherwise.
    assert there().probe("probe", carried, through, covector=False) != first


def test_a_direction_s_chance_is_carried_by_the_matrix():
    site, delta, seen = home()
    through = stretched()
    found = there().direction(arm(through.directions(delta), through), site)
    generator = torch.Generator().manual_seed(site.layer)
    drawn = through[site].matrix @ torch.randn(len(delta[site].unit), DRAWS, generator=generator)
    x = torch.cat([seen[c].at(site) for c in (Condition.TRIGGER, Condition.NONE)])
    labels = np.arange(ROWS) < len(BANK[Condition.TRIGGER])
    scores = through[site].point(x).double() @ drawn.double()
    expected = [roc_auc_score(labels, column) for column in scores.T.numpy()]
    assert found.trigger_chance.high == pytest.approx(float(np.quantile(expected, BEST)))
