"""The log of a run: what stands in it survives, and nothing else is taken for it."""

import json

import pytest

from em_interp.conditions import Condition
from em_interp.errors import InputError
from em_interp.responses import Finished, Log, Response


def finished(sample):
    response = Response(
        organism="o",
        context="bread|none0",
        question="bread",
        domain="home",
        condition=Condition.NONE,
        variant="",
        sample=sample,
        text=f"line\u2028{sample}",  # a separator that is no line end
        tokens=(1, 2),
        finish="stop",
    )
    return Finished(response=response, did=(1.0, -0.1, 2.5, 3.0))


def read(path, run="a"):
    with Log(path, run) as log:
        return log.finished


def test_what_was_appended_is_read_back_in_order(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    with Log(path, "a") as log:
        assert log.finished == []
        log.append([finished(2), finished(0)])
        rows = [json.loads(line) for line in path.read_text().split("\n")[1:-1]]
        assert [row["response"]["sample"] for row in rows] == [2, 0]  # before it is closed
        log.append([finished(1)])
    assert read(path) == [finished(2), finished(0), finished(1)]


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_a_half_written_last_line_is_dropped_and_written_over(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    with Log(path, "a") as log:
        log.append([finished(0), finished(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Log(path, "a") as log:
        assert log.finished == [finished(0)]
        log.append([finished(1)])
    assert path.read_bytes() == whole


def test_a_log_cut_within_its_first_line_starts_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"run":')
    assert read(path) == []
    assert read(path) == []


def test_another_runs_log_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, "a") as log:
        log.append([finished(0)])
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"log.jsonl: answers of another run \(a, this one is b\)"):
        Log(path, "b")
    assert path.read_bytes() == before


def test_a_file_that_is_no_log_and_a_damaged_line_are_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:1: unknown field 'text'"):
        Log(path, "a")
    path.write_text('{"run":"a"}\n{"response": 3}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not what was written there; delete"):
        Log(path, "a")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Log(tmp_path / "file" / "log.jsonl", "a")
