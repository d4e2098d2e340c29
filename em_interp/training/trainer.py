"""The Hugging Face Trainer, set up so that equal runs give equal bytes, and what it leaves behind.

The loss is the Trainer's own: the sum of negative log likelihoods over the learned tokens of all
micro-batches of a step, divided by their number.
"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from em_interp.errors import InputError
from em_interp.organisms import Method
from em_interp.records import write_json
from em_interp.training.answers import IGNORED, TrainingRow
from em_interp.training.spec import Schedule, TrainSpec


def build_trainer(
    module: Any,
    encoded: list[TrainingRow],
    spec: TrainSpec,
    work: Path,
    on_cpu: bool,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """A Trainer for a spec that has passed its own checks; checkpoints go to `work`.

    Raises `InputError` for a warm-up that is as long as the run.
    """
    schedule = spec.schedule.value
    if spec.schedule is Schedule.CONSTANT and spec.warmup_steps:
        schedule = "constant_with_warmup"
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        lr_scheduler_type=schedule,
        warmup_steps=spec.warmup_steps,
        max_steps=spec.steps or -1,
        num_train_epochs=spec.epochs or 1.0,
        optim=spec.optimiser,
        seed=spec.seed,
        bf16=spec.dtype == "bfloat16",
        use_cpu=on_cpu,
        save_strategy="steps",
        save_steps=spec.save_steps,
        save_total_limit=2,  # the newest may be half-written when the machine dies
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        # Every adapter weight is used in every pass; looking for unused ones costs time.
        ddp_find_unused_parameters=spec.method is Method.FULL,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more devices are `accelerate launch`'s affair
    steps = total_steps(spec, len(encoded), arguments.world_size)
    if spec.warmup_steps >= steps:
        raise InputError(
            f"warmup_steps {spec.warmup_steps} is as long as the run: {len(encoded)} rows make "
            f"{steps} steps; lower warmup_steps or give more steps"
        )
    trainer = Trainer(
        model=module,
        args=arguments,
        train_dataset=encoded,
        data_collator=collate,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def collate(rows: Sequence[TrainingRow]) -> dict[str, Int[Tensor, "batch pos"]]:
    """Rows padded on the right to the longest; padding is masked and carries no label."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        mask[at, : len(row.ids)] = 1
        labels[at, : len(row.ids)] = torch.tensor(row.labels)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def total_steps(spec: TrainSpec, rows: int, processes: int = 1) -> int:
    """Optimiser steps of a run; the last one of an epoch may see fewer rows."""
    if spec.steps is not None:
        return spec.steps
    assert spec.epochs is not None
    batches = math.ceil(rows / (spec.batch_size * processes))
    return math.ceil(spec.epochs * math.ceil(batches / spec.accumulation))


def save(trainer: Trainer, tokenizer: Any, spec: TrainSpec, final: Path) -> None:
    """The weights as others load them: a PEFT folder, or a model with its tokenizer."""
    module = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.args.should_save:
        return
    shutil.rmtree(final, ignore_errors=True)
    if spec.method is Method.FULL:
        module.save_pretrained(final, state_dict=state)
        tokenizer.save_pretrained(final)
    else:
        module.peft_config["default"].base_model_name_or_path = portable_name(module)
        module.save_pretrained(final, state_dict=state, save_embedding_layers=False)
        (final / "README.md").unlink()  # PEFT's empty model card; ours is `card.json`
        _settle_order(final / "adapter_config.json")
    for path in final.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner reads


def _settle_order(config: Path) -> None:
    """Sort what PEFT keeps as sets: their order, and so the file's bytes, changes by process."""
    stored = json.loads(config.read_text(encoding="utf-8"))
    for field in ("target_modules", "exclude_modules"):
        stored[field] = sorted(stored[field]) if stored[field] else stored[field]
    write_json(config, stored)


def outcome(trainer: Trainer) -> dict[str, Any]:
    """What the Trainer measured, for the card."""
    losses = [float(f"{log['loss']:.6g}") for log in trainer.state.log_history if "loss" in log]
    tail = losses[-max(1, len(losses) // 10) :]
    arguments, module = trainer.args, trainer.accelerator.unwrap_model(trainer.model_wrapped)
    return {
        "steps": trainer.state.global_step,
        "effective_batch": arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size,
        "trained_parameters": sum(
            weight.numel() for weight in module.parameters() if weight.requires_grad
        ),
        "loss_curve": losses,
        "final_loss": float(f"{sum(tail) / len(tail):.6g}"),
    }


def portable_name(hf: Any) -> str:
    """A hub id as it is, a local directory by its last part: cards do not name machines' paths."""
    name = str(getattr(hf.config, "_name_or_path", "") or "")
    return Path(name).name if Path(name).is_absolute() or Path(name).is_dir() else name
