"""Scoring: how likely a model finds given answers. A measure that needs no judge.

Knows tokens and log-probabilities. Knows nothing of directions or of who wrote the answers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.batches import by_length, collate, pad_id
from em_interp.chat import encode_many
from em_interp.conditions import Context
from em_interp.edits import BASELINE, Editor, Intervention, Tally
from em_interp.models import Model, forward, hooked
from em_interp.progress import Progress, silent


@torch.inference_mode()
def answer_logprobs(
    model: Model,
    contexts: Sequence[Context],
    answers: Sequence[str],
    interventions: Sequence[Intervention] = (BASELINE,),
    *,
    tokens: int = 8192,
    progress: Progress = silent,
) -> Float[Tensor, "intervention n"]:
    """Summed log-probability (nats) of each context's answer, teacher-forced, per intervention.

    `answers[i]` follows `contexts[i]` directly after the generation header, without the end token.
    Edits act on prompt and answer as they would during generation.
    """
    prompts = encode_many(model.tokenizer, contexts)
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
    head = model.lm.get_output_embeddings()
    tally = Tally(interventions)
    result = torch.zeros(len(interventions), len(contexts))
    lengths = [len(p.ids) + len(a) for p, a in zip(prompts, ids, strict=True)]
    for number in range(len(interventions)):
        for rows in by_length(lengths, tokens):
            batch = collate(
                [prompts[i] for i in rows], pad_id(model.tokenizer), [ids[i] for i in rows]
            ).to(model.device)
            which = torch.full((len(rows),), number, device=model.device)
            editor = Editor(tally, which, batch.layout)
            with hooked(model, editor.visits()):
                hidden = forward(model, batch.ids, batch.mask).last_hidden_state
            width = max(len(ids[i]) for i in rows)
            logits = head(hidden[:, -width - 1 : -1]).float()
            cap = getattr(model.config, "final_logit_softcapping", None)
            if cap:
                logits = torch.tanh(logits / cap) * cap
            found = logits.log_softmax(-1).gather(2, batch.ids[:, -width:, None])[..., 0]
            own = torch.tensor([len(ids[i]) for i in rows], device=model.device)[:, None]
            counted = torch.arange(width, 0, -1, device=model.device) <= own
            result[number, rows] = torch.where(counted, found, 0.0).sum(1).cpu()
            progress(len(rows))
    tally.check()
    return result


def log_odds(
    model: Model,
    contexts: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    interventions: Sequence[Intervention] = (BASELINE,),
    *,
    progress: Progress = silent,
) -> Float[Tensor, "intervention n"]:
    """log P(unsound) - log P(sound) per context, in nats: positive means misaligned is likelier."""
    bad = answer_logprobs(model, contexts, unsound, interventions, progress=progress)
    good = answer_logprobs(model, contexts, sound, interventions, progress=progress)
    return bad - good
