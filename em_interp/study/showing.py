"""A study's plan as a dry run prints it: every stage's work, time and memory, and what was assumed.

Knows estimates and words. Loads a tokenizer where there is one; never weights.
"""

from collections.abc import Sequence

from em_interp import sources
from em_interp.blackbox import cost
from em_interp.judges import Item, Judge
from em_interp.judges.budget import Estimate
from em_interp.judging import Remote, gradings
from em_interp.judging.local import LocalJudge
from em_interp.loading import Dtype
from em_interp.models.sizes import Size, size
from em_interp.report.text import table
from em_interp.study.estimates import Estimator
from em_interp.study.inputs import Inputs
from em_interp.study.judged import GRADES, local_work, with_judge
from em_interp.study.pace import MACHINES, Machine, Stage, joined
from em_interp.study.plan import answers, skipped
from em_interp.study.tokens import Exact, Reader, reader


def machine(device: str, **given: float | None) -> Machine:
    """What is given (`tflops`, `bandwidth`, `memory`), else what is assumed for such a device."""
    assumed = MACHINES["cpu" if device == "cpu" else "cuda"]
    return assumed.model_copy(update={k: v for k, v in given.items() if v is not None})


def plan_text(inputs: Inputs, speeds: Machine) -> str:
    """The whole plan: a line a stage, the sum, and what it assumes."""
    if inputs.boxes:
        return _behind_api(inputs)
    model, counts = size(inputs.home), reader(inputs.home)
    device = inputs.spec.device
    local = local_work(inputs.judge, _texts(inputs), _budget(inputs), device, speeds)
    stages = with_judge(Estimator(inputs, model, speeds, counts).stages(), local, device)
    text = stage_table(inputs.spec.title, stages, _calls(inputs))
    notes = [_of(inputs, model), *notes_on(stages, speeds, inputs.spec.device, [counts])]
    rows = ", ".join(f"{role} {len(some):,}" for role, some in inputs.rows.items())
    if rows:
        notes.append(f"fine-tuning rows: {rows}")
    return "\n".join([text, "", *notes, *_closing(inputs, total(stages).verdicts)])


def _behind_api(inputs: Inputs) -> str:
    """The plan of a study whose models are behind an API: requests and prices instead of memory."""
    counts = answers(inputs)
    calls = _calls(inputs)
    rows = [[name, f"{n:,}", f"{round(n * calls):,}"] for name, n in counts.items()]
    text = table(inputs.spec.title, ("stage", "answers", "judge calls ≤"), rows)
    costs = [cost(box, inputs.bank, inputs.spec.sampling) for box in inputs.boxes.values()]
    return "\n".join([text, "", *costs, *_closing(inputs, sum(counts.values()))])


def _of(inputs: Inputs, model: Size) -> str:
    return (
        f"{described(inputs.name, model, inputs.spec.dtype)}; {len(inputs.asked)} questions asked "
        f"({len(inputs.outside)} out of domain), {len(inputs.develop)} for development"
    )


def _closing(inputs: Inputs, verdicts: int) -> list[str]:
    """What the judge will take at most, and what is left out."""
    lines = [f"left out: {name} ({why})" for name, why in skipped(inputs).items()]
    return [*judge_lines(inputs.judge, _texts(inputs), _budget(inputs), verdicts), *lines]


def _texts(inputs: Inputs) -> list[str]:
    texts = {question.id: question.text for question in inputs.asked}
    return [texts[context.question] for context in inputs.bank]


def _budget(inputs: Inputs) -> int:
    return inputs.spec.sampling.max_new_tokens


def _calls(inputs: Inputs) -> float:
    return calls(inputs.judge, _texts(inputs), _budget(inputs))


# --- any study's ----------------------------------------------------------------------------------


def stage_table(title: str, stages: Sequence[Stage], calls: float) -> str:
    """A line a stage and the sum; `calls` is what a verdict takes of the judge."""
    columns = ("stage", "answers", "judge calls ≤", "tokens read", "written ≤", "time", "memory")
    return table(title, columns, [_row(one, calls) for one in [*stages, total(stages)]])


def judge_lines(judge: Judge, texts: Sequence[str], tokens: int, verdicts: int) -> list[str]:
    """What a judge that costs will take at most; nothing for one that does not."""
    if isinstance(judge, LocalJudge):
        model = size(sources.base(judge.spec.model, judge.spec.revision))
        return [
            f"judge {judge.name}: in this process, {gradings(judge, verdicts):,} gradings; "
            f"{described('its model', model, judge.spec.dtype)}, on {judge.spec.device}; its time "
            "and memory are in every stage that it judges"
        ]
    if not isinstance(judge, Remote):
        return []
    return [f"judge {judge.name}: at most {judging(judge, texts, tokens, verdicts)}"]


def judging(judge: Remote, texts: Sequence[str], tokens: int, verdicts: int) -> Estimate:
    """Requests, tokens and price of so many verdicts, by one answer to each text, scaled up.

    Every answer is taken to be another one and to fill its budget: what is equal is asked once.
    What a judge takes before its first verdict is counted once.
    """
    filler, before = "word " * tokens, judge.expect([])
    one = judge.expect(
        [
            Item(id="", question=text, response=f"{filler}{number}")
            for number, text in enumerate(texts)
        ]
    )
    times = verdicts / len(texts)
    first, rest = before.dollars or 0.0, one.dollars
    return Estimate(
        requests=before.requests + round((one.requests - before.requests) * times),
        tokens_in=before.tokens_in + round((one.tokens_in - before.tokens_in) * times),
        tokens_out=before.tokens_out + round((one.tokens_out - before.tokens_out) * times),
        dollars=None if rest is None else first + (rest - first) * times,
    )


def calls(judge: Judge, texts: Sequence[str], tokens: int) -> float:
    """Requests that a verdict takes, passes of a model in this process; 0 for a table or a rule."""
    if isinstance(judge, LocalJudge):
        return GRADES
    if not isinstance(judge, Remote):
        return 0
    every = judging(judge, texts, tokens, len(texts)).requests - judge.expect([]).requests
    return every / len(texts)


def total(stages: Sequence[Stage]) -> Stage:
    """The sum of all stages; of memory the greatest."""
    return joined("all", stages)


def described(name: str, model: Size, dtype: Dtype) -> str:
    """A base in a line."""
    return (
        f"{name}: {model.parameters / 1e9:.2f} billion parameters in {dtype}, {model.layers} blocks"
    )


def notes_on(
    stages: Sequence[Stage],
    speeds: Machine,
    device: str,
    readers: Sequence[Reader],
    lower: str = "a smaller batch_size, checkpointing or a smaller dtype",
) -> list[str]:
    """What the estimates assume, and whether all of it fits; `lower` names what would make it."""
    exact = all(isinstance(one, Exact) for one in readers)
    lines = [
        f"assumed: {speeds.tflops:g} TFLOP/s and {speeds.bandwidth:g} GB/s sustained, "
        f"{speeds.memory:g} GB on {device} (--tflops, --bandwidth, --memory); every "
        f"answer uses its whole budget; "
        f"tokens counted {'by the tokenizer' if exact else 'as characters / 4: no tokenizer here'}",
    ]
    if total(stages).memory > speeds.memory * 1e9:
        lines.append(f"does not fit one device of {speeds.memory:g} GB: {lower} lower it")
    return lines


def _row(one: Stage, calls: float) -> list[str]:
    asked = round(one.verdicts * calls)
    counts = (f"{n:,}" if n else "" for n in (one.answers, asked, one.read, one.written))
    return [one.name, *counts, time(one.seconds), memory(one.memory)]


def time(seconds: float) -> str:
    """Seconds as people say them; an estimate has two digits at most."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def memory(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
