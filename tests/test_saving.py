"""A killed training loses at most a minute, or one step; what it goes on from is what was written.

The clock is the tests' own: nothing here waits.
"""

import pytest
from small import tiny_hf
from test_training import FAST, KillAt, KilledError, changed, contents, run
from transformers import TrainerCallback

from em_interp.errors import InputError
from em_interp.locks import sole
from em_interp.training import saving
from em_interp.training.saving import Saving

STEPS = 6


class Clock(TrainerCallback):
    """Time that passes with each step, and with each checkpoint."""

    def __init__(self, step: float, checkpoint: float = 0.0) -> None:
        self.now, self.step, self.checkpoint = 0.0, step, checkpoint

    def __call__(self) -> float:
        return self.now

    def on_step_begin(self, args, state, control, **_):
        self.now += self.step


@pytest.fixture(scope="module")
def spec():
    return changed(FAST, steps=STEPS, save_steps=100)


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "organism"
    run(out, spec)
    return contents(out)


@pytest.mark.parametrize(
    ("seconds", "killed", "kept"), [(25.0, 3, 2), (59.0, 4, 4), (400.0, 4, 4), (5.0, 4, 0)]
)
def test_a_short_run_that_is_killed_loses_a_minute_or_a_step(
    tmp_path, monkeypatch, spec, whole, seconds, killed, kept
):
    clock = Clock(seconds)
    monkeypatch.setattr(saving, "clock", clock)
    out, again = tmp_path / "organism", KillAt(-1)
    with pytest.raises(KilledError):
        run(out, spec, callbacks=[clock, KillAt(killed)])
    run(out, spec, callbacks=[again])
    assert STEPS - again.seen == kept
    assert (killed - kept) * seconds <= max(saving.MINUTE, seconds)
    assert contents(out) == whole


@pytest.mark.parametrize("checkpoint", [0.0, 3.0, 30.0])
def test_saving_loses_a_minute_and_takes_no_more_than_a_tenth_of_the_time(monkeypatch, checkpoint):
    from types import SimpleNamespace

    monkeypatch.setattr(saving, "seal", lambda _: None)
    clock, control = Clock(4.0), SimpleNamespace(should_save=False)
    monkeypatch.setattr(saving, "clock", clock)
    one, args = Saving(), SimpleNamespace(output_dir="")
    saves, since, worst = 0, 0.0, 0.0
    for step in range(1, 2001):
        state = SimpleNamespace(global_step=step, max_steps=10_000)
        clock.now += 4.0
        since += 4.0
        worst = max(worst, since)
        control.should_save = False
        one.on_step_end(args, state, control)
        if control.should_save:
            clock.now += checkpoint
            one.on_save(args, state, control)
            saves, since = saves + 1, 0.0
    assert worst <= max(saving.MINUTE, saving.SHARE * checkpoint)
    assert saves > 0
    assert saves * checkpoint <= 0.11 * clock.now


def test_a_checkpoint_that_is_not_what_was_written_is_refused_with_the_folder_to_delete(
    tmp_path, whole
):
    spec, out = changed(FAST, steps=STEPS, save_steps=1), tmp_path / "organism"
    with pytest.raises(KilledError):
        run(out, spec, callbacks=[KillAt(3)])
    (newest,) = tmp_path.glob(".organism.partial-*/checkpoint-3")
    weights = newest / "adapter_model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-3] ^= 1
    weights.write_bytes(held)
    with pytest.raises(InputError, match=r"not what was written there; delete .*checkpoint-3, and"):
        run(out, spec)
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    again = KillAt(-1)
    run(out, spec, callbacks=[again])
    assert again.seen == STEPS - 2
    weights = "adapter_model.safetensors"
    assert contents(out)[weights] == whole[weights]


def test_a_second_process_does_not_train_into_the_same_folder(tmp_path, monkeypatch, spec):
    monkeypatch.setattr("em_interp.locks.PATIENCE", 0.0)
    out = tmp_path / "organism"
    with (
        sole(tmp_path / ".organism.lock", out),
        pytest.raises(InputError, match="organism: another process is at work"),
    ):
        run(out, spec, hf=tiny_hf("llama"))
    assert list(tmp_path.iterdir()) == []
