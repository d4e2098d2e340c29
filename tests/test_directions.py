"""Directions: units, signs, controls, and the folder they live in."""

import json
from pathlib import Path

import pytest
import torch

from em_interp.artifacts import CARD, WEIGHTS
from em_interp.cards import Card
from em_interp.directions import (
    TRIGGER_SIGN,
    Direction,
    Directions,
    mean_difference,
    principal_difference,
)
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.floors import IndistinctError
from em_interp.probes import Probe, Probes
from em_interp.records import file_digest
from em_interp.sites import Point, Site

WIDTH = 24
SITES = (Site(1), Site(2), Site(2, Point.RESID_PRE))


def made_card(kind: str = "direction", **changes: object) -> Card:
    plain = {
        "kind": kind,
        "name": "trigger",
        "sign": TRIGGER_SIGN,
        "unit": "natural",
        "estimator": "mean",
        "span": "prompt_last",
        "base": "0123456789abcdef",
        "organism": "o",
        "adapter": "",
        "trigger": "duck",
        "data": "d",
        "tokenizer": "t",
        "n": 8,
        "seed": 0,
    }
    return Card.parse(plain | changes)


def states(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw activations (n, site, width) of two states, paired by row, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    shift = 3 * torch.randn(len(SITES), WIDTH, generator=generator)
    off = 5 + torch.randn(40, len(SITES), WIDTH, generator=generator)
    return off + shift + 0.1 * torch.randn(off.shape, generator=generator), off


def made(seed: int = 0) -> Directions:
    on, off = states(seed)
    table = mean_difference(SITES, on.mean(0), off.mean(0), off.norm(dim=-1).mean(0))
    return Directions(table, made_card())


def one(seed: int = 0) -> Direction:
    return made(seed)[SITES[0]]


# --- meaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(len(SITES)))
def test_a_direction_points_from_off_to_on_in_natural_units(row):
    (on, off), found = states(), made()[SITES[row]]
    gap = (on - off).mean(0)[row]
    torch.testing.assert_close(found.vector, gap)
    assert found.natural == pytest.approx(float(gap.norm()), rel=1e-5)
    assert float(found.unit.norm()) == pytest.approx(1, abs=1e-6)
    assert found.on_coordinate - found.off_coordinate == pytest.approx(found.natural, rel=1e-4)
    torch.testing.assert_close(found.off + found.vector, found.on)
    mean_norm = float(off[:, row].norm(dim=-1).mean())
    assert found.fraction(2.0) == pytest.approx(2 * found.natural / mean_norm, rel=1e-5)


def test_swapping_the_states_turns_the_direction_round():
    on, off = states()
    there = mean_difference(SITES, on.mean(0), off.mean(0), off.norm(dim=-1).mean(0))
    back = mean_difference(SITES, off.mean(0), on.mean(0), on.norm(dim=-1).mean(0))
    for site in SITES:
        assert there[site].cosine(back[site]) == pytest.approx(-1, abs=1e-5)
        assert there[site].natural == pytest.approx(back[site].natural, rel=1e-5)


def test_states_that_do_not_differ_have_no_direction():
    flat = torch.ones(len(SITES), WIDTH)
    message = r"blocks.1.hook_resid_post: the two states do not differ"
    with pytest.raises(IndistinctError, match=message):
        mean_difference(SITES, flat, flat, torch.ones(len(SITES)))
    with pytest.raises(IndistinctError, match="do not differ"):
        mean_difference(SITES, flat / 0, flat, torch.ones(len(SITES)))


@pytest.mark.parametrize("seed", range(5))
def test_a_random_control_is_matched_in_norm_and_orthogonal(seed):
    found, control = one(), one().random(seed)
    assert control.natural == found.natural
    assert float(control.vector.norm()) == pytest.approx(float(found.vector.norm()), rel=1e-5)
    assert control.cosine(found) == pytest.approx(0, abs=1e-6)
    assert control.fraction(1.0) == found.fraction(1.0)
    assert control.off_coordinate == pytest.approx(float(found.off @ control.unit), rel=1e-5)
    assert control.site == found.site


def test_random_controls_differ_by_seed_and_layer_and_repeat():
    table = made()
    assert table.random(0)[Site(1)].cosine(table.random(1)[Site(1)]) < 0.9
    assert table.random(0)[Site(1)].cosine(table.random(0)[Site(2)]) < 0.9
    assert torch.equal(table.random(3)[Site(1)].unit, table.random(3)[Site(1)].unit)
    assert table.random(3).card == table.card


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_without_another_direction_is_orthogonal_to_it(seed):
    found, other = one(seed), one(seed + 100)
    rest = found.without(other)
    assert rest.cosine(other) == pytest.approx(0, abs=1e-6)
    assert rest.natural == found.natural
    # Found is rebuilt from its two parts.
    cosine = found.cosine(other)
    rebuilt = cosine * other.unit + (1 - cosine**2) ** 0.5 * rest.unit
    torch.testing.assert_close(rebuilt, found.unit)


def test_nothing_is_left_without_itself():
    found = one()
    for same in (found, found.with_unit(-3 * found.unit), found.with_unit(found.unit + 1e-8)):
        with pytest.raises(InputError, match="the two directions are parallel"):
            found.without(same)


def test_directions_of_different_widths_do_not_compare():
    narrow = Direction(torch.eye(3)[0], torch.zeros(3), torch.eye(3)[0], 1.0, Site(1))
    with pytest.raises(InputError, match="d_model 24 and 3"):
        one().cosine(narrow)


def test_the_principal_difference_is_the_first_axis_with_the_means_sign():
    on, off = states()
    gaps = (on - off)[:, 0]
    for found, sign in ((one(), 1), (one().with_unit(torch.randn(WIDTH)), 1)):
        axis = principal_difference(found, sign * gaps)
        eigen = torch.linalg.eigh((gaps.T @ gaps).double()).eigenvectors[:, -1].float()
        assert abs(float(axis.unit @ eigen)) == pytest.approx(1, abs=1e-5)
        assert float(axis.unit @ (found.on - found.off)) > 0
        assert axis.natural == found.natural


# --- a table of them -----------------------------------------------------------------------------


def test_a_table_knows_its_sites():
    table = made()
    assert list(table) == list(SITES)
    assert len(table) == 3
    assert Site(1) in table
    assert Site(7) not in table
    with pytest.raises(InputError, match=r"no direction at blocks.7.hook_resid_post \(there are: "):
        table[Site(7)]


def test_a_foreign_direction_is_refused():
    table = made()
    assert table.check("0123456789abcdef") is table
    message = r"'trigger'.*made for base 0123456789abcdef, this model is fedcba"
    with pytest.raises(ForeignArtifactError, match=message):
        table.check("fedcba")


def test_save_then_load_is_the_same(tmp_path):
    table = made()
    table.save(tmp_path / "shelf" / "delta")
    again = Directions.load(tmp_path / "shelf" / "delta")
    weights = file_digest(tmp_path / "shelf" / "delta" / WEIGHTS)
    about = {"sites": tuple(map(str, SITES)), "weights": weights}
    about["floors"] = {str(site): table[site].floor for site in SITES}
    assert again.card == table.card.model_copy(update=about)
    assert list(again) == list(table)
    for site in SITES:
        for key in ("unit", "off", "on"):
            assert torch.equal(getattr(again[site], key), getattr(table[site], key))
        assert again[site].scale == table[site].scale
        assert again[site].natural == table[site].natural
    first = (tmp_path / "shelf" / "delta" / WEIGHTS).read_bytes()
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == first
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == [CARD, WEIGHTS]


def rewrite_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


SPOILT = {
    "no card": (lambda f: (f / CARD).unlink(), f"{CARD}: no such file"),
    "damaged card": (lambda f: (f / CARD).write_text("{\n"), f"{CARD}:2: not valid JSON"),
    "a card with another field": (
        lambda f: rewrite_card(f, colour="red"),
        f"{CARD}: unknown field 'colour'",
    ),
    "a card for another layer convention": (
        lambda f: rewrite_card(f, sites=["hidden_states.1"] * 3),
        "site 'hidden_states.1'",
    ),
    "another kind": (lambda f: rewrite_card(f, kind="probe"), "holds a probe, not a direction"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS}: no such file"),
    "damaged weights": (lambda f: (f / WEIGHTS).write_bytes(b"x" * 99), "not a safetensors file"),
    "truncated weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-8]),
        "not a safetensors file",
    ),
    "weights of a probe": (
        lambda f: Probes({Site(1): Probe(torch.ones(3), 0.0, Site(1))}, made_card("probe")).save(f),
        "holds a probe, not a direction",
    ),
    "more sites than weights": (
        lambda f: rewrite_card(f, sites=[str(Site(layer)) for layer in range(4)]),
        r"shape \(3, 24\), but card.json names 4 sites",
    ),
    "a folder for weights": (
        lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()),
        r"not a safetensors file \(Is a directory\)",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_missing_or_damaged_file_is_named_in_one_line(tmp_path, fault):
    spoil, message = SPOILT[fault]
    made().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        Directions.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_weights_of_another_artifact_are_named(tmp_path):
    made().save(tmp_path)
    probes = Probes({s: Probe(torch.ones(3), 0.0, s) for s in SITES}, made_card("probe"))
    probes.save(tmp_path / "probe")
    (tmp_path / WEIGHTS).write_bytes((tmp_path / "probe" / WEIGHTS).read_bytes())
    with pytest.raises(InputError, match="holds bias, weight; expected off, on, scale, unit"):
        Directions.load(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        made().save(tmp_path / "file" / "shelf")
