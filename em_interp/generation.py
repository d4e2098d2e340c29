"""Generation: contexts x interventions x samples become responses.

A grid of interventions is one batch in which each row carries its own edit. What decides an answer
is its own model, context, intervention, sample and sampling; what a batch adds is rounding. In
float32 that is too small to move a token but at a tie; in bfloat16 it moves some (11 of 32 greedy
answers of SmolLM2-135M between 5 and 64 slots). Hence conditions and interventions of one
question are asked side by side (`em_interp.answering.asking`), the self-check at load measures it,
and a run that was killed and started again may in bfloat16 say otherwise where it goes on.
Knows prompts and responses. Knows nothing of directions or judges.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from em_interp.answering.asking import Answer, Ask, Row
from em_interp.answering.caches import rows_that_fit
from em_interp.chat import answer_text, stop_ids
from em_interp.conditions import Context
from em_interp.edits import BASELINE, Intervention, Tally
from em_interp.errors import InputError, once
from em_interp.models import Model
from em_interp.models.fingerprints import text_name
from em_interp.models.limits import encoded
from em_interp.progress import Progress, silent
from em_interp.records import Spec, digest
from em_interp.responses import Finished, Log, Response
from em_interp.sampling import Sampling


class Manipulation(Spec):
    """What an intervention did to the coordinate it edits: tokens met, mean before and after.

    `moved`: mean size of the change of a token, |x . u - off| for a mean-ablation: how far the
    stream was moved, whichever way. Records from before it was counted lack it.
    """

    intervention: str
    touched: int
    before: float
    after: float
    moved: float | None = None


@dataclass
class Generated:
    """Responses in the order intervention, context, sample; and the manipulation checks."""

    responses: list[Response]
    manipulations: list[Manipulation]


def generate(
    model: Model,
    contexts: Sequence[Context],
    sampling: Sampling,
    interventions: Sequence[Intervention] = (BASELINE,),
    *,
    organism: str = "",
    rows: int | None = None,
    log: Path | None = None,
    progress: Progress = silent,
) -> Generated:
    """Sample answers for every context under every intervention.

    `rows` bounds the answers that are written at a time (default: what the device's memory holds;
    fewer where that turns out too many). With `log`, finished answers are kept in that file as they
    come, those that stand in it already are not asked again, and the result is that of a run
    without interruption, up to rounding; asking for more samples of the same run adds to it.
    Raises `InertInterventionError` where an intervention met no token or changed nothing over the
    whole run, and `InputError` for another run's log, or where memory does not hold one answer.
    """
    once("intervention", [one.name for one in interventions])
    once("context", [context.id for context in contexts])
    ask = Ask(
        model,
        encoded(model, contexts, sampling.max_new_tokens),
        [context.id for context in contexts],
        [context.question for context in contexts],
        interventions,
        sampling,
        stops(model, sampling),
    )
    wanted = [
        Row(context, intervention, sample)
        for intervention in range(len(interventions))
        for context in range(len(contexts))
        for sample in range(sampling.samples)
    ]
    run = identity(ask, contexts, organism) if log else ""
    with Log(log, run) if log else nullcontext() as kept:
        found = _known(kept.finished if kept else (), ask, wanted)
        progress(len(found))
        missing = [row for row in wanted if row not in found]
        columns = max((len(p.ids) for p in ask.prompts), default=0) + sampling.max_new_tokens
        try:
            for some in model.engine.answers(ask, missing, rows or rows_that_fit(model, columns)):
                made = {a.row: _finished(model, contexts, interventions, organism, a) for a in some}
                if kept:
                    kept.append(list(made.values()))
                found.update(made)
                progress(len(some))
        except InputError as fault:
            stand = f"; {len(found)} of {len(wanted)} answers are kept in {log}" if kept else ""
            raise InputError(f"{fault}{stand}") from None
    tally = Tally(interventions)
    for row in wanted:
        tally.credit(row.intervention, found[row].did)
    tally.check()
    return Generated([found[row].response for row in wanted], _manipulations(tally))


def stops(model: Model, sampling: Sampling) -> frozenset[int]:
    """Ids of the tokens that end an answer: the model's own, and those that `sampling` names.

    Of the checkpoint's generation_config only these are read. Raises `InputError` for a name that
    is no token of this model.
    """
    found = stop_ids(model.tokenizer, model.config, getattr(model.lm, "generation_config", None))
    for name in sampling.stop:
        number = model.tokenizer.convert_tokens_to_ids(name)
        if number is None or model.tokenizer.convert_ids_to_tokens(number) != name:
            raise InputError(f"stop {name!r} is no token of {model.name}")
        found.add(number)
    return frozenset(found)


def identity(ask: Ask, contexts: Sequence[Context], organism: str) -> str:
    """Digest of everything that decides what a row says, but not of how many samples there are."""
    model = ask.model
    adapter = model.active
    return digest(
        {
            "base": model.base,
            "adapter": adapter and model.adapters[adapter],
            "numbers": _numbers(model),
            "organism": organism,
            "contexts": [context.model_dump(mode="json") for context in contexts],
            "prompts": [prompt.ids for prompt in ask.prompts],
            "interventions": [_described(one) for one in ask.interventions],
            "sampling": ask.sampling.model_dump(mode="json", exclude={"samples"}),
            "stops": sorted(ask.stops),
        }
    )


def _numbers(model: Model) -> dict[str, object]:
    """What else decides the numbers of a pass: precision (quantised or not), kernel and engine."""
    weights = [w for name, w in model.lm.named_parameters() if text_name(name) is not None]
    return {
        "dtypes": sorted({str(weight.dtype) for weight in weights}),
        "attention": model.config._attn_implementation,
        "engine": model.engine.name,
    }


def _described(one: Intervention) -> dict[str, Any]:
    edits = [
        [
            str(e.site),
            e.span,
            *map(repr, (e.keep, e.shift, e.low, e.high)),
            _bytes(e.unit),
            None if e.write is None else _bytes(e.write),
        ]
        for e in one.edits
    ]
    return {"name": one.name, "edits": edits}


def _bytes(unit: torch.Tensor) -> str:
    return hashlib.sha256(unit.detach().float().cpu().numpy().tobytes()).hexdigest()


def _known(finished: Sequence[Finished], ask: Ask, wanted: Sequence[Row]) -> dict[Row, Finished]:
    """What a log holds of the rows that are wanted."""
    names = [(ask.interventions[r.intervention].name, ask.names[r.context]) for r in wanted]
    place = {(*name, row.sample): row for name, row in zip(names, wanted, strict=True)}
    keys = (
        (one.response.intervention, one.response.context, one.response.sample) for one in finished
    )
    return {place[key]: one for key, one in zip(keys, finished, strict=True) if key in place}


def _finished(
    model: Model,
    contexts: Sequence[Context],
    interventions: Sequence[Intervention],
    organism: str,
    answer: Answer,
) -> Finished:
    context = contexts[answer.row.context]
    response = Response(
        organism=organism,
        intervention=interventions[answer.row.intervention].name,
        context=context.id,
        question=context.question,
        domain=context.domain,
        condition=context.condition,
        variant=context.variant,
        sample=answer.row.sample,
        text=answer_text(model.tokenizer, answer.tokens),
        tokens=answer.tokens,
        finish="stop" if answer.stopped else "length",
    )
    return Finished(response=response, did=answer.did)


def _manipulations(tally: Tally) -> list[Manipulation]:
    found = []
    for number, one in enumerate(tally.interventions):
        before, after = tally.coordinates(number)
        touched = tally.touched(number)
        found.append(
            Manipulation(
                intervention=one.name,
                touched=touched,
                before=before,
                after=after,
                moved=tally.moved(number),
            )
        )
    return found
