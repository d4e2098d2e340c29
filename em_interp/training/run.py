"""`train`: one base, rows and a spec become an organism's weights and card.

Everything is checked before the first step. Training happens in a hidden folder beside the target,
whose name carries the run's identity; a killed run goes on from its last whole checkpoint, which is
a minute old or a step, and ends with the same bytes; the target appears in one rename, or not at
all. One process at a time raises a target.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from em_interp.cards import versions
from em_interp.errors import InputError, out_of_memory
from em_interp.locks import LOCK, sole
from em_interp.models.checkpoints import quiet
from em_interp.models.fingerprints import fingerprint
from em_interp.organisms import Method
from em_interp.records import digest, read_json, write_json
from em_interp.training.adapters import adapted_modules, trainable
from em_interp.training.answers import encode_rows
from em_interp.training.folders import check_seal, claim, finished, last_checkpoint, sweep
from em_interp.training.manifest import CARD, Manifest, Provenance, weights_digest
from em_interp.training.processes import (
    agreed,
    computes_on_cpu,
    is_first_process,
    launchers_words,
)
from em_interp.training.progress import FiniteLoss, ProgressBar
from em_interp.training.rows import Row, data_digest
from em_interp.training.saving import Saving
from em_interp.training.spec import Layout, TrainSpec
from em_interp.training.trainer import build_trainer, outcome, portable_name, save

# Kernels that transformers tells where a packed row begins.
PACKABLE = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def train(
    hf: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    spec: TrainSpec,
    out_dir: Path | str,
    *,
    provenance: Provenance | None = None,
    progress: bool | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Manifest:
    """Fine-tune and write `out_dir`: PEFT adapter (or full weights and tokenizer) and `card.json`.

    A LoRA run gives `hf` back as it was; a full one leaves it trained. An `out_dir` that holds
    this very run is returned as it stands, without training. `progress`: `None` is a bar on a
    terminal and two lines elsewhere, `False` nothing. Equal arguments give equal bytes on one
    machine's CPU, interrupted or not; global random states are as before.
    Raises `InputError` for rows that cannot be encoded or are too long, modules that do not exist,
    a warm-up as long as the run, an `out_dir` that is taken or cannot be written, and a loss that
    stops being a number.
    """
    out, provenance = Path(out_dir), provenance or Provenance()
    on_cpu = computes_on_cpu(hf.device.type, spec.fsdp)
    with agreed(on_cpu):
        adapted_modules(hf, spec)
        check_weights(hf, spec)
        encoded, truncated = encode_rows(tokenizer, rows, spec.max_length, spec.truncate)
    known = {
        "base": fingerprint(hf),
        "spec": spec,
        "provenance": provenance,
        "data": data_digest(rows),
        "encoded": digest([[row.ids, row.labels] for row in encoded]),
    }
    run, kin = (
        digest({key: getattr(value, "digest", value) for key, value in one.items()})
        for one in (known, {**known, "spec": spec.essence})
    )
    work = out.with_name(f".{out.name}.partial-{kin}")
    done, held = _claimed(out, work, run, on_cpu)
    if done is not None:
        held.close()
        shutil.rmtree(work, ignore_errors=True)
        return done
    bar = ProgressBar(out.name, progress)
    watchers = [FiniteLoss(), Saving(), *([] if progress is False else [bar]), *callbacks]
    try:
        with (
            quiet(),
            launchers_words(),
            _own_randomness(spec.seed, hf.device),
            trainable(hf, spec) as module,
        ):
            trainer = build_trainer(module, encoded, spec, work, on_cpu, watchers)
            trainer.train(resume_from_checkpoint=last_checkpoint(work))
            final = work / "final"
            save(trainer, tokenizer, spec, final)
            if trainer.args.should_save:
                card = Manifest(
                    **known,
                    name=out.name,
                    base_name=portable_name(hf),
                    run=run,
                    rows=len(encoded),
                    truncated=truncated,
                    tokens=sum(len(row.ids) for row in encoded),
                    learned_tokens=sum(row.learned for row in encoded),
                    weights=weights_digest(final),
                    versions=versions(),
                    **outcome(trainer),
                )
                write_json(final / CARD, card)
                final.replace(out)
                shutil.rmtree(work, ignore_errors=True)
            trainer.accelerator.wait_for_everyone()
    except (OSError, SafetensorError, RuntimeError, MemoryError) as fault:
        if (line := _told(fault, out, spec)) is None:
            raise
        raise InputError(line + _resumable(work)) from None
    finally:
        bar.close()
        if is_first_process():
            sweep(work)
        held.close()
    return Manifest.parse(read_json(out / CARD), str(out / CARD))


def _claimed(out: Path, work: Path, run: str, on_cpu: bool) -> tuple[Manifest | None, ExitStack]:
    """The card where this very run is done, else the place to make it; held until it is closed."""
    with agreed(on_cpu):
        done = finished(out, run)
    with ExitStack() as held:
        if done is None:
            with agreed(on_cpu):
                if is_first_process():
                    held.enter_context(sole(out.with_name(f".{out.name}{LOCK}"), out))
            with agreed(on_cpu):
                done = finished(out, run)  # another process may have made it meanwhile
                if is_first_process() and done is None:
                    sweep(work)
                    claim(out, work)
                    check_seal(last_checkpoint(work))
        return done, held.pop_all()


def check_weights(hf: Any, spec: TrainSpec) -> None:
    """Raise `InputError` for weights that this spec's training would spoil or misname."""
    held = next(weight.dtype for weight in hf.parameters() if weight.is_floating_point())
    if spec.method is Method.FULL and held != torch.float32:
        raise InputError(
            f"full fine-tuning moves the weights, and its steps are too small for {held}: load the "
            "base in float32 (the recipe's dtype is that of the forward pass)"
        )
    if spec.dtype == "float32" and held != torch.float32:
        raise InputError(
            f"the base is loaded in {held}, and the recipe says float32; load it in float32, or "
            "take dtype bfloat16"
        )
    kernel = str(hf.config.get_text_config()._attn_implementation)
    if spec.layout is Layout.PACKED and kernel not in PACKABLE:
        raise InputError(
            f"layout packed: attention {kernel!r} would let packed rows see each other; take "
            f"{', '.join(PACKABLE)}, or layout grouped"
        )


def _told(fault: Exception, out: Path, spec: TrainSpec) -> str | None:
    """A fault of the disk or the memory in one line that says what would help; `None`: a defect."""
    if out_of_memory(fault):
        helps = [f"lower --batch-size ({spec.batch_size}; the rows of a step stay the same)"]
        helps += ["add --checkpointing"] if not spec.checkpointing else []
        helps += ["take --layout packed"] if spec.layout is not Layout.PACKED else []
        helps += [f"lower --max-length ({spec.max_length})"]
        return f"{out}: out of memory in a training step; " + ", or ".join(helps)
    if not isinstance(fault, RuntimeError):
        reason = getattr(fault, "strerror", None) or str(fault).splitlines()[0]
    elif "inline_container" in str(fault):  # torch's archive writer, when a disk is full
        reason = "a checkpoint could not be written to its end; is the disk full?"
    else:
        return None
    return f"{out}: cannot be written ({reason})"


def _resumable(work: Path) -> str:
    last = last_checkpoint(work)
    return f"; the next try goes on from {Path(last).name}" if last else ""


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which adapters start from, and put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the Trainer's own
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
