"""Workers: each stage is made once, faults are said here, and none outlives its parent."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from children import child, wait_until

from em_interp.errors import EmInterpError, InputError
from em_interp.study.workers import workers


def begin(folder):
    """What a worker makes stages with: a file that says who made it."""

    def make(name):
        if name == "bad":
            raise InputError("bad: no such thing")
        if name == "dead":
            os._exit(9)
        if name == "slow":
            (folder / f"pid-{os.getpid()}").touch()
            signal.pause()
        (folder / name).write_text(str(os.getpid()))

    return make


@pytest.mark.parametrize("count", [1, 2])
def test_every_stage_is_made_once_and_told(tmp_path, count):
    told = []
    names = [f"stage{n}" for n in range(5)]
    with workers(partial(begin, tmp_path), count, told.append) as each:
        each(names[:2])
        each(names[2:])
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert sorted(told) == (names if count == 2 else [])
    makers = {(tmp_path / name).read_text() for name in names}
    assert (str(os.getpid()) in makers) == (count == 1)
    assert len(makers) <= count


@pytest.mark.parametrize("count", [1, 2])
def test_a_fault_in_a_worker_is_raised_here_in_its_own_words(tmp_path, count):
    def run():
        with workers(partial(begin, tmp_path), count, lambda name: None) as each:
            each(["good", "bad"])

    with pytest.raises(InputError, match=r"^bad: no such thing$"):
        run()


def test_a_worker_that_dies_is_one_line(tmp_path):
    def run():
        with workers(partial(begin, tmp_path), 2, lambda name: None) as each:
            each(["dead"])

    with pytest.raises(EmInterpError, match=r"a worker died.*fewer --workers"):
        run()


def test_workers_die_with_their_parent(tmp_path):
    """Or a run that is started again would write the same files as its own ghost."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from functools import partial
from pathlib import Path
from test_workers import begin
from em_interp.study.workers import workers
if __name__ == "__main__":
    with workers(partial(begin, Path({str(tmp_path)!r})), 2, print) as each:
        each(["slow", "slow"])
"""
    script = tmp_path / "parent.py"
    script.write_text(program)
    parent = child([sys.executable, str(script)])
    wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2, parent)
    parent.kill()
    parent.wait()
    pids = [int(p.name[4:]) for p in tmp_path.glob("pid-*")]
    wait_until(lambda: not any(alive(pid) for pid in pids))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
