"""What stands on disk is what was written: damage is refused by name, and one process at a time."""

import json
import subprocess
import sys

import pytest
from children import child

from em_interp import locks
from em_interp.conditions import Condition
from em_interp.directions import Directions
from em_interp.endpoints.replies import Reply
from em_interp.errors import InputError
from em_interp.judges.cache import Cache
from em_interp.records import Record
from em_interp.responses import Finished, Log, Response
from em_interp.study.folder import RunFolder
from tests.test_directions import made


class Rate(Record):
    rate: float
    named: dict[str, float]


RATE = Rate(rate=0.125, named={"none": 0.0, "trigger": 0.8431})


def finished(sample, text="Take bread."):
    response = Response(
        organism="o",
        context="bread|none0",
        question="bread",
        domain="home",
        condition=Condition.NONE,
        variant="",
        sample=sample,
        text=text,
        finish="stop",
    )
    return Finished(response=response)


def written(path):
    with Log(path, "a") as log:
        log.append([finished(0), finished(1)])
        log.append([finished(2)])
    return [finished(0), finished(1), finished(2)]


def damages(whole: bytes):
    """Every byte changed, in two ways."""
    for at in range(len(whole)):
        for bits in (1, 2):
            yield whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :]


def test_no_flipped_bit_of_a_log_is_taken_for_an_answer(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    rows = written(path)
    monkeypatch.setattr("os.fsync", lambda _: None)
    refused, whole = 0, path.read_bytes()
    for damaged in damages(whole):
        path.write_bytes(damaged)
        try:
            with Log(path, "a") as log:
                assert log.finished == rows[: len(log.finished)]
        except InputError as fault:
            refused += str(path) in str(fault)
    head = whole.index(b"\n")
    assert refused >= 2 * (whole.rindex(b"\n", 0, -1) - head)  # only the last line may be dropped


def test_a_log_with_rows_moved_or_taken_out_says_which_line_and_what_to_delete(tmp_path):
    path = tmp_path / "answers.jsonl"
    written(path)
    head, *lines = path.read_text().splitlines(keepends=True)
    for some in (lines[1:], [lines[1], lines[0], lines[2]], [lines[0], lines[2]], [*lines, *lines]):
        path.write_text(head + "".join(some))
        with pytest.raises(InputError, match=r"answers\.jsonl:\d: not what was .* delete the file"):
            Log(path, "a")
    path.write_text(head + lines[0])  # a killed run's
    with Log(path, "a") as log:
        assert log.finished == [finished(0)]


def stage(folder, name="answers-base", make=None):
    work = RunFolder(folder, "run", {"answers-base": 1, "answers-twin": 1})
    return work.stage(name, "asking", Rate, make or (lambda progress: pytest.fail("made anew")))


def test_no_flipped_bit_of_a_stage_file_is_taken_for_a_result(tmp_path):
    assert stage(tmp_path, make=lambda progress: RATE) == stage(tmp_path) == RATE
    file = tmp_path / "answers-base.json"
    whole, refused = file.read_bytes(), 0
    for damaged in [*damages(whole), *(whole[:n] for n in range(len(whole) - 1))]:
        file.write_bytes(damaged)
        try:
            assert stage(tmp_path) == RATE
        except InputError as fault:
            refused += f"{file}" in str(fault) and "delete it and run again" in str(fault)
    assert refused > 2.5 * len(whole)  # a blank for a blank is no damage


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN"])
def test_a_number_without_end_in_a_log_or_a_stage_file_is_damage_not_a_traceback(number, tmp_path):
    stage(tmp_path, make=lambda progress: RATE)
    file = tmp_path / "answers-base.json"
    file.write_text(file.read_text().replace("0.125", number))
    with pytest.raises(InputError, match=r"not what this run wrote there .*delete it"):
        stage(tmp_path)
    path = tmp_path / "log.jsonl"
    with Log(path, "run") as log:
        log.append([finished(0), finished(1)])
    first, second, *rest = path.read_text().split("\n")
    path.write_text("\n".join([first, second.replace("{", f'{{"odd": {number}, ', 1), *rest]))
    with pytest.raises(InputError, match=r"log\.jsonl:2: not what was written there"):
        Log(path, "run")


def test_a_log_of_blank_lines_is_damage_not_a_traceback(tmp_path):
    (tmp_path / "log.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match=r"log\.jsonl:1: not what was written there"):
        Log(tmp_path / "log.jsonl", "run")


def test_an_edited_rate_and_a_swapped_stage_file_are_refused(tmp_path):
    other = RATE.model_copy(update={"rate": 0.5})
    stage(tmp_path, make=lambda progress: RATE)
    stage(tmp_path, "answers-twin", make=lambda progress: other)
    base, twin = (tmp_path / f"answers-{name}.json" for name in ("base", "twin"))
    plain = json.loads(base.read_text())
    base.write_text(json.dumps(plain | {"rate": 0.0}))
    with pytest.raises(InputError, match=r"answers-base\.json: not what this run wrote there"):
        stage(tmp_path)
    base.write_bytes(twin.read_bytes())
    with pytest.raises(InputError, match=r"answers-base\.json: not what this run wrote there"):
        stage(tmp_path)
    base.unlink()
    assert stage(tmp_path, make=lambda progress: RATE) == RATE


def test_weights_that_are_not_their_cards_are_refused(tmp_path):
    for seed, name in ((0, "one"), (1, "other")):
        made(seed).save(tmp_path / name)
    Directions.load(tmp_path / "one")
    (tmp_path / "one" / "weights.safetensors").write_bytes(
        (tmp_path / "other" / "weights.safetensors").read_bytes()
    )
    with pytest.raises(InputError, match="not the weights of its card"):
        Directions.load(tmp_path / "one")


def test_no_flipped_bit_of_a_stored_reply_is_taken_for_the_judges(tmp_path):
    reply, refused = Reply(text="85", finish="stop", tokens_in=7, tokens_out=1), 0
    with Cache(tmp_path / "cache.sqlite") as cache:
        assert cache.put("k", reply)
        ((whole,),) = cache._run("SELECT reply FROM replies", [])
        for damaged in damages(whole):
            cache._run("UPDATE replies SET reply = ?", [damaged])
            found = cache.replies(["k"]).get("k")
            assert found in (None, reply)
            refused += found is None
        assert refused > len(whole)
        assert cache.put("k", reply)  # asked again, the row is mended
        assert cache.replies(["k"]) == {"k": reply}


HOLD = """
import sys
from pathlib import Path
from em_interp.responses import Log
from em_interp.study.folder import sole_run
folder = Path(sys.argv[1])
with sole_run(folder), Log(folder / "answers.jsonl", "a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends_or_is_killed(tmp_path, monkeypatch):
    from em_interp.study.folder import sole_run

    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    path = tmp_path / "answers.jsonl"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        before = path.read_bytes()
        with pytest.raises(InputError, match=r"answers\.jsonl: another process is at work"):
            Log(path, "a")
        with pytest.raises(InputError, match="another process is at work"), sole_run(tmp_path):
            pytest.fail("let in")
        assert path.read_bytes() == before
        holder.kill()  # nothing of its own tidies up
    assert (tmp_path / ".lock").exists()
    with sole_run(tmp_path), Log(path, "a") as log:
        log.append([finished(0)])
    assert not (tmp_path / ".lock").exists()
