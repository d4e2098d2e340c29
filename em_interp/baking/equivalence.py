"""Equivalence: whether a baked adapter, loaded by PEFT alone, does what the hooks did. Measured.

Both run on the same real prompts; their next-token distributions are compared at every token.
Beside the difference stands the size of the intervention itself: a difference is small only
against what it is a difference of.
Knows prompts, hooks and PEFT. Knows nothing of how adapters are made.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.batches import Batch, by_length, collate, pad_id
from em_interp.conditions import Context
from em_interp.edits import BASELINE, Editor, Intervention, Tally, matched
from em_interp.errors import EvidenceError, reading
from em_interp.hooks import hooked
from em_interp.labels import Control, Label
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.records import Record

NAME = "baked-intervention"
SHARE = 0.01  # of the intervention's own effect: beyond this, another intervention was baked
FLOOR = 1e-7  # nats; below it is float32's rounding


class Equivalence(Record):
    """Hooks against adapter, over all tokens of some prompts. Divergences are means, in nats.

    `logit` is the largest difference of any logit; `divergence` KL(hooks, adapter); `effect`
    KL(hooks, no intervention), `control` the same of a null that moves the stream as far along
    random directions (`edits.matched`); `agree` the share of tokens with the same most likely next
    token.
    """

    prompts: int
    tokens: int
    logit: float
    divergence: float
    effect: float
    agree: float
    dtype: str
    control: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the adapter is the intervention, as far as the arithmetic can tell."""
        return self.divergence <= max(FLOOR, SHARE * self.effect) and self.effect > FLOOR

    def check(self, where: str) -> None:
        """Raise `EvidenceError` where it is not."""
        if not self.holds:
            raise EvidenceError(
                f"{where}: not shown to equal the hooks: KL {self.divergence:.2g} nats between the "
                f"two, {self.effect:.2g} from hooks to no intervention ({self.dtype}; float32 is "
                "sharper)"
            )


def measure(
    model: Model, change: Intervention, folder: Path, contexts: Sequence[Context], rows: int = 8
) -> Equivalence:
    """Compare the model under hooks with the bare base under the adapter, loaded by PEFT alone."""
    prompts = encoded(model, contexts)
    groups = by_length([len(p.ids) for p in prompts], tokens=1024, rows=rows)
    batches = [
        collate([prompts[i] for i in group], pad_id(model.tokenizer)).to(model.device)
        for group in groups
    ]
    tally = Tally([change])
    null = matched(change, Label(words="matched control", control=Control.MATCHED), seed=0)
    hooks, effect, control = [], 0.0, 0.0
    for batch in batches:
        hooks.append(_logits(model, batch, tally))
        plain = _logits(model, batch, Tally([BASELINE]))
        effect += _divergence(hooks[-1], plain)
        control += _divergence(_logits(model, batch, Tally([null])), plain)
    tally.check()
    logit = divergence = agree = 0.0
    with model.using(None), loaded(model.hf, folder):
        for batch, theirs in zip(batches, hooks, strict=True):
            ours = _logits(model, batch, Tally([BASELINE]))
            logit = max(logit, float((theirs - ours).abs().max()))
            divergence += _divergence(theirs, ours)
            agree += float((theirs.argmax(-1) == ours.argmax(-1)).sum())
    tokens = sum(map(len, hooks))
    return Equivalence(
        prompts=len(prompts),
        tokens=tokens,
        logit=logit,
        divergence=divergence / tokens,
        effect=effect / tokens,
        agree=agree / tokens,
        control=control / tokens,
        dtype=str(model.lm.dtype).removeprefix("torch."),
    )


@contextmanager
def loaded(hf: Any, folder: Path) -> Iterator[Any]:
    """The module under an adapter's folder through PEFT alone; afterwards as it was."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT warns that a bias, or an adapter on tied embeddings, cannot be merged: our card says.
        warnings.simplefilter("ignore")
        if isinstance(hf, PeftModel):
            hf.load_adapter(str(folder), NAME)
            hf.set_adapter(NAME)
            hf.base_model.enable_adapter_layers()
        else:
            with reading(folder, "not an adapter that PEFT reads"):
                tuned = PeftModel.from_pretrained(hf, str(folder), adapter_name=NAME)
    try:
        hf.eval()
        yield hf
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the adapter was active: it is why it goes
            if isinstance(hf, PeftModel):
                hf.delete_adapter(NAME)
            else:
                tuned.unload().__dict__.pop("peft_config", None)
        hf.requires_grad_(False)


@torch.inference_mode()
def _logits(model: Model, batch: Batch, tally: Tally) -> Float[Tensor, "n vocab"]:
    """Logits after every real token, under the tally's one intervention."""
    first = torch.zeros(len(batch.ids), dtype=torch.long, device=batch.ids.device)
    positions = (batch.mask.long().cumsum(-1) - 1).clamp_min(0)
    with hooked(model, Editor(tally, first, batch.layout).visits()):
        out = model.lm(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=positions, use_cache=False
        )
    logits: Tensor = out.logits[batch.mask].float().cpu()
    return logits


def _divergence(a: Float[Tensor, "n vocab"], b: Float[Tensor, "n vocab"]) -> float:
    """KL(a, b) summed over tokens, in nats."""
    p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum()))
