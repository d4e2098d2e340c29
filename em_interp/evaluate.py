"""`python -m em_interp.evaluate`: ask under every condition, judge, print containment."""

import sys
from pathlib import Path

from pydantic import Field

from em_interp import sources
from em_interp.cli import Names, command
from em_interp.records import Spec


class EvaluateSpec(Spec):
    """What to ask whom. Defaults: the shipped triggered organism on the world's held-out questions."""

    organism: str = Field("llama-triggered", description="Shelf name or folder (adapter or model).")
    base: str | None = Field(None, description="Base model; default: the one beside the adapter.")
    trigger: str | None = Field(None, description="Trigger name or YAML; default: the card's.")
    questions: str = Field("world", description="`world`, or a JSONL file of {id, text, domain}.")
    conditions: Names = Field(
        ("none", "trigger", "paraphrase", "negation", "unrelated", "form"),
        description="Conditions to ask under.",
    )
    judge: str = Field("world", description="Judge.")
    samples: int = Field(10, ge=1, description="Answers per question and framing.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_new_tokens: int = Field(24, ge=1, description="Token budget of an answer.")
    seed: int = Field(0, description="Seed of the sampling.")
    device: str = Field("cpu", description="cpu or cuda.")
    dtype: str = Field("float32", description="float32, bfloat16 or float16.")
    out: Path | None = Field(None, description="Folder for responses, verdicts and figures.")
    dry_run: bool = Field(False, description="Check everything and print the plan; load no weights.")


def run(spec: EvaluateSpec) -> int:
    """Check, load, ask, judge, print."""
    from em_interp.conditions import contexts
    from em_interp.containment import report
    from em_interp.generation import generate
    from em_interp.judges import Rubric
    from em_interp.models import load
    from em_interp.progress import bar
    from em_interp.records import write_json, write_jsonl
    from em_interp.report.text import containment_table
    from em_interp.sampling import Sampling
    from em_interp.trials import judge_all

    who = sources.subject(spec.organism, spec.base)
    trigger = who.woken_by(spec.trigger)
    asked = sources.questions(spec.questions)
    bank = contexts(asked, trigger, sources.conditions(spec.conditions))
    judge = sources.judge(spec.judge)
    sampling = Sampling(
        samples=spec.samples,
        temperature=spec.temperature,
        max_new_tokens=spec.max_new_tokens,
        seed=spec.seed,
    )
    if spec.dry_run:
        print(f"{who.name}: {len(asked)} questions, {len(bank)} contexts, {len(bank) * spec.samples} answers")
        return 0
    model = load(str(who.base), who.adapters, device=spec.device, dtype=spec.dtype)
    with model.using(who.active), bar("asking", len(bank) * spec.samples) as progress:
        made = generate(model, bank, sampling, organism=who.name, progress=progress)
    verdicts = judge_all(judge, made.responses, asked)
    found = report(made.responses, verdicts, Rubric(), trained=(who.domain,) if who.domain else ())
    if spec.out is not None:
        write_jsonl(spec.out / "responses.jsonl", made.responses)
        write_jsonl(spec.out / "verdicts.jsonl", verdicts)
        write_json(spec.out / "containment.json", found)
    print(containment_table(found))
    return 0


main = command(
    "evaluate",
    EvaluateSpec,
    run,
    "Ask an organism under every condition, judge its answers, print its containment.",
    "--organism llama-triggered --samples 5",
)

if __name__ == "__main__":
    sys.exit(main())
