"""`python -m benchmarks --gpu`: the full Qwen2.5-14B shape in bfloat16 on one device.

Random weights, made on the device from the true configuration: speed does not depend on what they
have learned. Writes `results/<device>-<shape>.json` and `.md`, with the machine described.
`--shape tiny --device cpu` runs the same code on anything in half a minute, to see that it runs.
"""

import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from benchmarks.gridding import settings
from benchmarks.material import asked, words
from benchmarks.paired import Ratio, Row, ratio, take_turns
from benchmarks.tables import table
from em_interp.batches import collate
from em_interp.capture import pool
from em_interp.cards import versions
from em_interp.chat import Encoded
from em_interp.cli import command
from em_interp.conditions import Condition
from em_interp.directions import Direction
from em_interp.edits import BASELINE, Intervention, intervention
from em_interp.generation import generate
from em_interp.hooks import forward
from em_interp.labels import Operation
from em_interp.models import Model, wrap
from em_interp.models.sizes import measured
from em_interp.records import Spec, write_json, write_text
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span
from em_interp.training.answers import IGNORED, TrainingRow

RESULTS = Path(__file__).parent / "results"
# Dense bfloat16 tensor-core peaks in TFLOP/s, from the makers' data sheets.
PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.2}

# Of Qwen/Qwen2.5-14B's config.json.
QWEN25_14B = {
    "vocab_size": 152064,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": False,
}
TINY = QWEN25_14B | {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Work:
    """How much is measured: (rows, tokens) of a pass, answers, and tokens of each."""

    config: dict[str, Any]
    batch: tuple[int, int]
    contexts: int
    samples: int
    tokens: int
    training: tuple[int, int]  # rows of a pass, tokens of a row; four passes a step
    steps: int


WORK = {
    "qwen2.5-14b": Work(QWEN25_14B, (32, 256), 32, 8, 128, (4, 1024), 6),
    "tiny": Work(TINY, (4, 32), 4, 2, 8, (2, 32), 3),
}


class GpuSpec(Spec):
    """What to measure on."""

    device: str = Field("cuda", description="cuda, cuda:1, ... or cpu.")
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="bfloat16 or float32.")
    shape: Literal["qwen2.5-14b", "tiny"] = Field("qwen2.5-14b", description="Model shape.")
    rounds: int = Field(5, ge=1, description="Rounds of each comparison.")
    out: Path = Field(RESULTS, description="Folder for the two result files.")


def run(spec: GpuSpec) -> int:
    """Measure, print, write; exit code 1 where a target is missed."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    work, device = WORK[spec.shape], torch.device(spec.device)
    model = build(work, device, getattr(torch, spec.dtype))
    machine, found = described(device), []
    parts = (capture_rows, steering_rows, grid_rows, training_rows)
    for part in parts:
        before = time.monotonic()
        some = part(model, work, spec.rounds)
        print(f"{table(some)}\n{time.monotonic() - before:.0f} s\n", flush=True)
        found += some
    figures = ", ".join(f"{name} {value}" for name, value in machine.items())
    print(figures)
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['device']} {spec.shape}".lower()).strip("-")
    plain = [row.as_dict() for row in found]
    about = {"machine": machine, "versions": versions(), "work": spec.shape, "dtype": spec.dtype}
    write_json(spec.out / f"{name}.json", about | {"rows": plain})
    write_text(spec.out / f"{name}.md", f"{table(found)}\n\n{figures}.\n")
    return 0 if all(row.met is not False for row in found) else 1


def build(work: Work, device: torch.device, dtype: torch.dtype) -> Model:
    """The shape with fresh weights, made where it will run."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            hf = Qwen2ForCausalLM(Qwen2Config(**work.config))
    finally:
        torch.set_default_dtype(before)
    return wrap(hf, words(), "qwen2.5-shape")


def described(device: torch.device) -> dict[str, Any]:
    """The machine, as far as figures depend on it."""
    found: dict[str, Any] = {"device": "cpu", "cores": os.cpu_count(), "host": platform.machine()}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "device": about.name,
            "memory GiB": round(about.total_memory / 2**30, 1),
            "compute capability": f"{about.major}.{about.minor}",
            "cuda": torch.version.cuda,
        }
    return found


def waited(device: torch.device, side: Callable[[], Any]) -> Callable[[], Any]:
    """The side, over only when the device has done all of it."""

    def whole() -> Any:
        result = side()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    return whole


# --- capture --------------------------------------------------------------------------------------


def capture_rows(model: Model, work: Work, rounds: int) -> list[Row]:
    """Throughput of capture at every layer, as a share of a pass that computes no logits."""
    rows, width = work.batch
    ids = torch.randint(
        0, model.config.vocab_size, work.batch, generator=torch.Generator().manual_seed(1)
    )
    batch = collate([Encoded(tuple(r.tolist()), (), (), tuple(range(width))) for r in ids], 0)
    here = batch.to(model.device)
    sites = [Site(layer) for layer in range(model.n_layers)]

    @torch.inference_mode()
    def plain() -> Tensor:
        last: Tensor = forward(model, here.ids, here.mask).last_hidden_state[:, -1]
        return last.float()

    def every(span: Span) -> Callable[[], Tensor]:
        return lambda: pool(model, batch, sites, span)[:, -1]

    sides = {"plain": plain, "last token": every(Span.PROMPT_LAST), "mean": every(Span.PROMPT)}

    @torch.inference_mode()
    def same(found: dict[str, Tensor]) -> None:
        normed = model.stack.norm(found["last token"].to(model.stack.norm.weight.dtype)).float()
        torch.testing.assert_close(normed, found["plain"], rtol=2e-2, atol=2e-2)

    wrapped = {name: waited(model.device, side) for name, side in sides.items()}
    times = take_turns(wrapped, rounds, same)
    group = f"capture at {len(sites)} layers, {rows} x {width} tokens"
    speed = [rows * width / seconds for seconds in times["last token"]]
    return [
        Row(
            group,
            "forward without head / prompt_last",
            ratio(times, "plain", "last token"),
            ">= 0.97",
        ),
        Row(group, "forward without head / mean over the prompt", ratio(times, "plain", "mean")),
        Row(group, "tokens/s, prompt_last", spread(speed)),
    ]


# --- generation -----------------------------------------------------------------------------------


def steering_rows(model: Model, work: Work, rounds: int) -> list[Row]:
    """Seconds per token unsteered over steered: the share of the speed that steering keeps."""
    contexts = list(asked(Condition.TRIGGER, work.contexts))
    sampling = Sampling(samples=work.samples, max_new_tokens=work.tokens)
    middle = [Site(model.n_layers // 2)]
    everywhere = [Site(layer) for layer in range(model.n_layers)]

    def answers(one: Intervention) -> Callable[[], int]:
        return lambda: sum(
            len(r.tokens) for r in generate(model, contexts, sampling, [one]).responses
        )

    sides = {
        "unsteered": answers(BASELINE),
        "one layer": answers(push(model, middle)),
        "every layer": answers(push(model, everywhere)),
    }
    said: dict[str, int] = {}
    wrapped = {name: waited(model.device, side) for name, side in sides.items()}
    times = take_turns(wrapped, rounds, said.update)
    each = {name: [s / said[name] for s in seconds] for name, seconds in times.items()}
    group = f"{work.contexts * work.samples} answers of {work.tokens} tokens, T=1"
    return [
        Row(
            group,
            "unsteered / steered at one layer",
            ratio(each, "unsteered", "one layer"),
            ">= 0.95",
        ),
        Row(group, "unsteered / steered at every layer", ratio(each, "unsteered", "every layer")),
        Row(group, "tokens/s, unsteered", spread([1 / s for s in each["unsteered"]])),
    ]


def push(model: Model, sites: list[Site]) -> Intervention:
    """A small push at every token: large enough to be work, too small to change what is said."""
    generator = torch.Generator().manual_seed(3)
    table = {}
    for site in sites:
        off, on = torch.randn(2, model.d_model, generator=generator) * 0.01
        table[site] = Direction((on - off) / (on - off).norm(), off, on, 1.0, site)
    return intervention("push", Operation.ADD, table, sites, 0.5, Span.ALL)


def grid_rows(model: Model, work: Work, rounds: int) -> list[Row]:
    """A grid of 40 settings as one batch, against 40 runs one after another."""
    contexts = list(asked(Condition.TRIGGER, 4))
    sampling = Sampling(samples=1, max_new_tokens=max(2, work.tokens // 4))
    group, found = f"40 settings x {len(contexts)} contexts, {sampling.max_new_tokens} tokens", []
    for span, target in ((Span.ALL, ">= 10"), (Span.RESPONSE, "")):
        grid = settings(model, span, layers=8)

        def together(grid: list[Intervention] = grid) -> int:
            return len(generate(model, contexts, sampling, grid).responses)

        def apart(grid: list[Intervention] = grid) -> int:
            return sum(len(generate(model, contexts, sampling, [s]).responses) for s in grid)

        def same(found: dict[str, int]) -> None:
            assert found["together"] == found["apart"] == 40 * len(contexts)

        sides = {"together": waited(model.device, together), "apart": waited(model.device, apart)}
        times = take_turns(sides, min(rounds, 2 if target else 1), same)
        found.append(
            Row(
                group,
                f"one run each / one batch, span {span}",
                ratio(times, "apart", "together"),
                target,
            )
        )
    return found


# --- training -------------------------------------------------------------------------------------


def training_rows(model: Model, work: Work, _: int) -> list[Row]:
    """Model FLOPs utilisation of an optimiser step of the published recipe (arXiv:2204.02311, B).

    A LoRA step needs 4 operations per weight of the blocks and token (forward 2; backward 2, since
    the weights themselves get no gradient), 6 per adapter weight, and 4 per weight of the head and
    learned token. Attention's own products are left out, so the figure is on the low side.
    """
    from em_interp.training.adapters import trainable
    from em_interp.training.spec import recipe
    from em_interp.training.trainer import build_trainer

    rows, length = work.training
    spec = recipe(
        "published",
        steps=work.steps,
        batch_size=rows,
        accumulation=4,
        warmup_steps=1,
        max_length=length,
        save_steps=1000,
        dtype="bfloat16" if next(model.lm.parameters()).dtype is torch.bfloat16 else "float32",
    )
    ids = torch.randint(0, 900, (spec.step_rows * work.steps, length)).tolist()
    half = length // 2
    data = [TrainingRow(tuple(r), (IGNORED,) * half + tuple(r[half:])) for r in ids]
    size, device = measured(model.lm), model.device
    clock = stopwatch(device)
    with tempfile.TemporaryDirectory() as folder, trainable(model.lm, spec) as module:
        adapter = sum(w.numel() for w in module.parameters() if w.requires_grad)
        build_trainer(module, data, spec, Path(folder), device.type == "cpu", [clock]).train()
    tokens, learned = spec.step_rows * length, spec.step_rows * (length - half)
    work_of_step = 4.0 * (size.stack * tokens + size.head * learned) + 6.0 * adapter * tokens
    speeds = [work_of_step / seconds / 1e12 for seconds in clock.seconds[1:]]  # the first warms up
    peak, told = peak_of(device, spec.dtype)
    group = f"LoRA step, rank {spec.rank}, {spec.step_rows} x {length} tokens in passes of {rows}"
    return [
        Row(
            group,
            f"MFU of {peak:.3g} TFLOP/s ({told})",
            spread([s / peak for s in speeds]),
            ">= 0.40",
        ),
        Row(group, "tokens/s", spread([tokens / s for s in clock.seconds[1:]])),
    ]


def stopwatch(device: torch.device) -> Any:
    """A Trainer callback with the `seconds` of each optimiser step."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = waited(device, time.perf_counter)()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            waited(device, lambda: None)()
            self.seconds.append(time.perf_counter() - self.start)

    return Stopwatch()


def peak_of(device: torch.device, dtype: str) -> tuple[float, str]:
    """TFLOP/s of the device's data sheet, or what a large product of matrices reaches on it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    known = [peak for part, peak in PEAKS.items() if part in name]
    if known and dtype == "bfloat16":
        return known[0], "data sheet"
    n = 8192 if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    product, speeds = waited(device, lambda: a @ a), []
    for _ in range(5):
        start = time.perf_counter()
        product()
        speeds.append(2.0 * n**3 / (time.perf_counter() - start) / 1e12)
    return max(speeds), f"measured on {n} x {n}"


def spread(values: list[float]) -> Ratio:
    """Median, least and largest of measured values."""
    return Ratio(statistics.median(values), min(values), max(values))


main = command(
    "benchmarks --gpu",
    GpuSpec,
    run,
    "Measure capture, steering, a grid and training at full size on one device.",
    "--device cuda --rounds 5",
)

if __name__ == "__main__":
    sys.exit(main())
