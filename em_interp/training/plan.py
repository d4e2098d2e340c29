"""What a run would be, before any weights load: rows, tokens, steps, and about how much memory.

Knows configurations, rows and arithmetic. Loads no weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from em_interp.models.checkpoints import empty_model, read_config, read_tokenizer
from em_interp.models.limits import check_ids, limits
from em_interp.organisms import Method
from em_interp.records import Record
from em_interp.training.adapters import adapted_modules
from em_interp.training.answers import TrainingRow, encode_rows, named
from em_interp.training.processes import check_shares
from em_interp.training.rows import Row
from em_interp.training.spec import Layout, TrainSpec, total_steps

STATES = {"adamw_torch": 8, "adamw_torch_fused": 8, "adafactor": 1, "sgd": 0}


class Memory(Record):
    """Estimated gigabytes (10^9 bytes) of one device at its largest pass.

    `weights`: the base. `trained`: trained values, their gradients and optimiser states.
    `activations`: what the backward pass keeps. `logits`: over the vocabulary, with their gradient.
    """

    weights: float
    trained: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All four together."""
        return self.weights + self.trained + self.activations + self.logits


class Plan(Record):
    """A run in figures. `longest` is the longest row in tokens; `memory` is per device."""

    rows: int
    truncated: int
    tokens: int
    learned_tokens: int
    longest: int
    steps: int
    passes: int
    trained_parameters: int
    memory: Memory

    def lines(self) -> list[str]:
        """The plan for people."""
        need = self.memory
        return [
            f"{self.rows} rows, {self.tokens} tokens ({self.learned_tokens} learned, longest row "
            f"{self.longest}, {self.truncated} truncated)",
            f"{self.steps} optimiser steps of {self.passes} passes a process; "
            f"{self.trained_parameters} trained parameters",
            f"memory of a device, estimated: {need.total:.3g} GB (weights {need.weights:.3g}, "
            f"trained {need.trained:.3g}, activations {need.activations:.3g}, "
            f"logits {need.logits:.3g})",
        ]


def plan(base: Path, rows: Sequence[Row], spec: TrainSpec) -> Plan:
    """The plan of a run on a base's directory.

    Raises `InputError` where `train` would: modules that do not exist, rows that cannot be encoded,
    a step that the processes cannot share.
    """
    hf = skeleton(base)
    modules = adapted_modules(hf, spec)
    processes = check_shares(spec)
    tokenizer = read_tokenizer(base)
    encoded, truncated = encode_rows(tokenizer, rows, spec.max_length, spec.truncate)
    of = limits(hf.config)
    for number, row in enumerate(encoded):
        check_ids(row.ids, of, named(rows, number))
    trained = _trained(hf, modules, spec)
    return Plan(
        rows=len(rows),
        truncated=truncated,
        tokens=sum(len(row.ids) for row in encoded),
        learned_tokens=sum(row.learned for row in encoded),
        longest=max(len(row.ids) for row in encoded),
        steps=total_steps(spec, len(rows)),
        passes=spec.accumulation // processes,
        trained_parameters=trained,
        memory=memory(hf, encoded, spec, trained, processes if spec.fsdp else 1),
    )


def skeleton(base: Path) -> Any:
    """A base's modules on the meta device: names and shapes, no weights."""
    return empty_model(read_config(base), base)


def _trained(hf: Any, modules: list[str], spec: TrainSpec) -> int:
    if spec.method is Method.FULL:
        return sum(weight.numel() for weight in hf.parameters())
    shapes = [hf.get_submodule(name).weight.shape for name in modules]
    return sum(spec.rank * (rows + columns) for rows, columns in shapes)


def memory(
    hf: Any, encoded: list[TrainingRow], spec: TrainSpec, trained: int, shares: int
) -> Memory:
    """The four parts for the largest pass that these rows can make.

    Kept per token and block without checkpointing: about ten vectors of the stream's width (inputs
    of the linear maps, both norms, the attention's parts) and four of the MLP's; with it one, and
    all of them for the single block that is computed again.
    """
    config = hf.config.get_text_config()
    width, inner, blocks = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    wide = 2 if spec.dtype == "bfloat16" else 4
    largest = sorted(encoded, key=lambda row: len(row.ids))[-spec.batch_size :]
    packs = spec.layout is Layout.PACKED
    held = [len(row.ids) for row in largest]
    tokens = sum(held) if packs else len(held) * max(held)
    seen = sum(sorted(row.learned for row in encoded)[-spec.batch_size :]) if packs else tokens
    block = (10 * width + 4 * inner) * wide
    kept = blocks * width * wide + block if spec.checkpointing else blocks * block
    loaded = 4 if spec.method is Method.FULL else wide
    return Memory(
        weights=sum(weight.numel() for weight in hf.parameters()) * loaded / shares / 1e9,
        trained=trained
        * ((0 if spec.method is Method.FULL else 4) + 4 + STATES[spec.optimiser])
        / shares
        / 1e9,
        activations=tokens * kept / 1e9,
        logits=seen * config.vocab_size * (wide + 8) / 1e9,
    )
