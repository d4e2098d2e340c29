"""A transfer study's plan as a dry run prints it: the columns and notes of any study, and the grid.

Knows estimates and words. Loads tokenizers where there are some; never weights.
"""

from em_interp.models.sizes import size
from em_interp.study.judged import local_work, with_judge
from em_interp.study.pace import Machine
from em_interp.study.showing import (
    calls,
    described,
    judge_lines,
    memory,
    notes_on,
    stage_table,
    total,
)
from em_interp.study.tokens import reader
from em_interp.study.transfers.estimates import HALF, Estimator
from em_interp.study.transfers.inputs import Inputs
from em_interp.study.transfers.plan import arms, carrying
from em_interp.study.transfers.run import how_many

LOWER = "fewer layers, spans or folds, a smaller batch_size, checkpointing or a smaller dtype"


def plan_text(inputs: Inputs, speeds: Machine) -> str:
    """The whole plan: a line a stage, the sum, and what it assumes."""
    spec = inputs.spec
    homes = {base: inputs.of(base)[0].home for base in spec.bases}
    sizes = {base: size(home) for base, home in homes.items()}
    readers = {base: reader(home) for base, home in homes.items()}
    planned = Estimator(inputs, sizes, speeds, readers)
    texts, budget = [q.text for q in inputs.asked], spec.sampling.max_new_tokens
    local = local_work(inputs.judge, texts, budget, spec.device, speeds)
    stages = with_judge(planned.stages(), local, spec.device)
    text = stage_table(spec.title, stages, calls(inputs.judge, texts, budget))
    notes = [
        *(described(base, one, spec.dtype) for base, one in sizes.items()),
        _grid(inputs),
        *notes_on(stages, speeds, spec.device, list(readers.values()), LOWER),
        _host(inputs, planned, total(stages).host),
        *_workers(inputs),
    ]
    judged = judge_lines(inputs.judge, texts, budget, total(stages).verdicts)
    return "\n".join([text, "", *notes, *judged])


def _grid(inputs: Inputs) -> str:
    counts = sorted({arms(inputs, group, role) for group, role in carrying(inputs).values()})
    many = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
    return (
        f"{len(inputs.targets)} targets, {many} arms in each; {len(inputs.asked)} questions asked, "
        f"{len(inputs.develop)} for development, {len(inputs.prompts):,} prompts for maps"
    )


def _host(inputs: Inputs, planned: Estimator, held: int) -> str:
    speed = f"{HALF * planned.host.tflops:g} TFLOP/s in float64"
    if inputs.spec.device == "cpu":
        return f"maps are fitted at {speed}; memory holds two bases at most, and the moments"
    return (
        f"maps are fitted by the computer's processor (assumed: {speed}), in its own memory: "
        f"{memory(held)} at most, beside the device's, which holds two bases at most"
    )


def _workers(inputs: Inputs) -> list[str]:
    """Several workers are for a CPU, and a judge without costs."""
    most = how_many(inputs, None)
    if inputs.spec.device != "cpu" or most == 1:
        return []
    return [
        f"times are one worker's: --workers (here {most} by default) divide them, and each holds "
        "as much memory as one"
    ]
