"""A slice of `python -m benchmarks.fuzz`: files gone wrong end in one line, or are taken."""

import shutil
from collections import Counter

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import KINDS, Tally, samples

# These read whole models, or import what does.
SLOW = ("base", "adapter", "dictionary", "study", "transfer study")


@pytest.fixture(scope="module")
def good():
    with samples() as made:
        yield made


@pytest.mark.parametrize("name", KINDS)
def test_a_file_gone_wrong_is_taken_or_refused_in_one_line(good, name):
    count = 3 if name in SLOW else 25
    tally = fuzz.fuzz([name], count, 7, good)
    assert tally.findings == {}
    assert tally.taken[name] + tally.refused[name] == count


@pytest.mark.parametrize("name", [name for name in KINDS if name not in SLOW])
def test_the_sample_that_is_spoilt_is_a_good_one(good, name, tmp_path):
    KINDS[name].read(shutil.copytree(good[name], tmp_path / "copy"))


def test_a_reader_that_lets_a_library_speak_is_found(good, monkeypatch):
    broken = KINDS["questions"]._replace(read=lambda folder: {}["no door"])
    monkeypatch.setitem(KINDS, "questions", broken)
    tally = fuzz.fuzz(["questions"], 3, 7, good)
    assert [key for _, key in tally.findings] == ["KeyError at ?"]
    assert tally == Tally(Counter(), Counter(), tally.findings)
