"""The Hugging Face Trainer, set up so that equal runs give equal bytes, and what it leaves behind.

The loss is the Trainer's own: the sum of negative log likelihoods over the learned tokens of all
micro-batches of a step, divided by their number.
"""

import shutil
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from em_interp import hub
from em_interp.errors import InputError
from em_interp.models.architectures import ARCHITECTURES
from em_interp.organisms import Method
from em_interp.records import read_json, write_json
from em_interp.training.answers import TrainingRow
from em_interp.training.processes import check_shares, share_on_cpu
from em_interp.training.spec import Layout, Schedule, TrainSpec, total_steps
from em_interp.training.steps import BLANK, StepOrder, packed, padded


def build_trainer(
    module: Any,
    encoded: list[TrainingRow],
    spec: TrainSpec,
    work: Path,
    on_cpu: bool,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """A Trainer for a spec that has passed its own checks; checkpoints go to `work`.

    Raises `InputError` for a warm-up that is as long as the run, and for a step that the processes
    cannot share evenly.
    """
    processes = check_shares(spec)
    total_steps(spec, len(encoded))  # refuses a warm-up as long as the run
    schedule = spec.schedule.value
    if spec.schedule is Schedule.CONSTANT and spec.warmup_steps:
        schedule = "constant_with_warmup"
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.accumulation // processes,
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
        activation_checkpointing=spec.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if spec.checkpointing else None,
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
        **(_shared(module) if spec.fsdp else {}),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more devices are `accelerate launch`'s affair
    order = StepOrder(
        [len(row.ids) for row in encoded],
        spec.seed,
        spec.step_rows,
        whole=spec.batch_size * processes if processes > 1 else 1,
        sort=spec.layout is Layout.GROUPED,
    )
    if spec.fsdp and on_cpu:
        share_on_cpu()
    trainer = _OrderedTrainer(
        model=module,
        args=arguments,
        train_dataset=_Rows(encoded, order),
        data_collator=packed if spec.layout is Layout.PACKED else padded,
        callbacks=[*callbacks, *([SharedOut()] if spec.fsdp else [])],
    )
    trainer.order = order
    trainer.remove_callback(PrinterCallback)
    return trainer


def _shared(module: Any) -> dict[str, Any]:
    """FSDP2: weights shared out block by block, gathered for a block's pass and let go after it."""
    lm = module.get_base_model() if hasattr(module, "get_base_model") else module
    home = ARCHITECTURES[lm.config.model_type]
    block = lm.get_submodule(f"{home.stack}.{home.blocks}")[0]
    wrapped = {"version": 2, "transformer_layer_cls_to_wrap": [type(block).__name__]}
    return {"fsdp": True, "fsdp_config": wrapped}


class SharedOut(TrainerCallback):
    """Sees that no process holds the weights whole, where they were to be shared out."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Raise `InputError` for weights that accelerate left as they were."""
        whole = [
            name for name, weight in model.named_parameters() if not isinstance(weight, DTensor)
        ]
        if whole:
            fault = InputError(f"fsdp: {len(whole)} weights are not shared out, first {whole[0]}")
            fault.common = True
            raise fault


class _Rows(Dataset[TrainingRow]):
    """The rows, and a blank one behind them.

    The epoch is passed on to the order here: accelerate tells a data set which epoch begins where
    it does not reach the sampler, as when several processes resume in the midst of an epoch.
    """

    def __init__(self, encoded: list[TrainingRow], order: StepOrder) -> None:
        self.rows, self.order = [*encoded, BLANK], order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, at: int) -> TrainingRow:
        return self.rows[at]

    def set_epoch(self, epoch: int) -> None:
        """The epoch that begins."""
        self.order.set_epoch(epoch)


class _OrderedTrainer(Trainer):
    """A Trainer that takes its rows in a given order."""

    order: StepOrder

    def _get_train_sampler(self, train_dataset: Any = None) -> StepOrder:
        return self.order


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
    stored = read_json(config)
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
    """The hub id, also of a snapshot in its cache; else a folder's last part, never a path."""
    name = str(getattr(hf.config, "_name_or_path", "") or "")
    local = Path(name).is_absolute() or Path(name).is_dir()
    return hub.repository(Path(name)) or (Path(name).name if local else name)
