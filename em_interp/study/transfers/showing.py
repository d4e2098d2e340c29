"""A transfer study's plan as a dry run prints it. Loads no weights.

Knows counts and words.
"""

from em_interp.judging import Remote, expected
from em_interp.report.text import table
from em_interp.study.transfers.inputs import Inputs
from em_interp.study.transfers.plan import answers, arms, carrying, crossing, holding, raising


def plan_text(inputs: Inputs) -> str:
    """A line a stage, the sum, and what judging may cost."""
    spec, rows = inputs.spec, []
    for name, (group, role) in raising(inputs).items():
        rows.append([name, f"{len(group.rows[role]):,} rows", ""])
    develop = len(inputs.develop)
    rows += [[name, f"{8 * develop:,} prompts", ""] for name in holding(inputs)]
    read = len(inputs.prompts)
    rows += [
        [name, f"2 x {read:,} prompts, {len(spec.fitting.spans)} spans", ""]
        for name in crossing(inputs)
    ]
    total = 0
    for name, (group, role) in carrying(inputs).items():
        count = answers(inputs, group, role)
        total += count
        rows.append([name, f"{arms(inputs, group, role)} arms", f"{count:,}"])
    rows.append(["in all", "", f"{total:,}"])
    text = table(spec.title, ("stage", "of", "answers"), rows)
    asked = [q.text for q in inputs.asked]
    cost = ""
    if isinstance(inputs.judge, Remote):
        cost = expected(inputs.judge, asked, total // len(asked), spec.sampling.max_new_tokens)
    return f"{text}\n\n{cost}".rstrip()
