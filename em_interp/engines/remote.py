"""The nnsight engine: the same passes as traces, here or (`em_interp.engines.ndif`) on a server.

A trace is a piece of this file. nnsight runs it inside the model's own pass; with `remote` it sends
the piece's source and tensors to the server that holds the weights, and what was saved comes back.
So a trace uses tensors, `kernels` and nnsight, nothing else of ours. A generation is one trace: its
body names the step it is in, since an edit outside of `tracer.iter` would act on the prompt alone.
Draws are ours as well: the logits of each step are replaced by the token that our numbers choose,
so that no setting of a checkpoint or server has a say.
nnsight gives every Python object a `save` and patches `Tensor.backward`; hence it is imported late.
Knows nnsight. Knows nothing of judges or files.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from em_interp.answering.asking import Answer, Ask, Row
from em_interp.batches import Batch, collate, pad_id
from em_interp.capture import columns_of, spanned
from em_interp.edits import BASELINE, Editor, Tally
from em_interp.engines import PLAIN, Engine, twin
from em_interp.errors import EvidenceError, InputError
from em_interp.hooks import hook_module
from em_interp.kernels import choose, edited
from em_interp.models import Model
from em_interp.sites import Point, Site, Span

# Within a block, in the order in which a pass meets them: a trace cannot look back.
ORDER = (Point.RESID_PRE, Point.Z, Point.ATTN_OUT, Point.MLP_OUT, Point.RESID_POST)
ANSWERS = 128  # at most in one trace: what one request to a server should ask for


class Tracing(Engine):
    """Passes as traces of `llm`, nnsight's wrapper; `remote` is what its traces are given."""

    name = "nnsight"

    def __init__(self, llm: Any, remote: bool | str = False) -> None:
        self.llm, self.remote = llm, remote

    def attach(self, model: Model, site: Site, look: Any) -> Any:
        """Refused: a trace is not a hook, and nothing of ours runs where the weights are."""
        raise InputError(f"the {self.name} engine captures and generates; for the rest use hf")

    def places(self, model: Model, sites: Sequence[Site]) -> list[tuple[Any, bool]]:
        """nnsight's handle of each site, and whether the site is its input (else its output)."""
        names = {id(module): name for name, module in model.lm.named_modules()}
        found = []
        for site in sites:
            module, is_input = hook_module(model, site)
            found.append((_handle(self.llm, names[id(module)]), is_input))
        return found

    @torch.inference_mode()
    def pool(self, model: Model, batch: Batch, sites: Sequence[Site], span: Span) -> Tensor:
        """Mean activation over a span, [batch site d_model], pooled where the model runs."""
        import nnsight

        mask = spanned(batch, span)
        weight = mask / mask.sum(dim=1, keepdim=True)
        order = sorted(sites, key=_when)
        places = self.places(model, order)
        inputs = _inputs(batch.to(model.device))
        with sending(self.remote), self.llm.trace(**inputs, remote=self.remote) as tracer:
            pooled = nnsight.save([])
            for place, is_input in places:
                hidden = place.input if is_input else place.output
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
                share = weight.to(hidden.device)
                # Padding is left out before it is multiplied: what stands there may be no number.
                kept = torch.where(share[..., None] > 0, hidden.float(), 0.0)
                pooled.append(torch.einsum("bp,bpd->bd", share, kept))
            tracer.stop()
        by_site = {s: one.to(model.device) for s, one in zip(order, pooled, strict=True)}
        return torch.stack([by_site[site] for site in sites], dim=1)

    @torch.inference_mode()
    def states(
        self, model: Model, batch: Batch, sites: Sequence[Site], rows: Tensor, tokens: Tensor
    ) -> Tensor:
        """Activations at single tokens, [n site d_model]: only these leave the server."""
        import nnsight

        columns = columns_of(batch, rows, tokens)
        order = sorted(sites, key=_when)
        places = self.places(model, order)
        inputs = _inputs(batch.to(model.device))
        with sending(self.remote), self.llm.trace(**inputs, remote=self.remote) as tracer:
            read = nnsight.save([])
            for place, is_input in places:
                hidden = place.input if is_input else place.output
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
                read.append(hidden[rows.to(hidden.device), columns.to(hidden.device)].float())
            tracer.stop()
        by_site = {s: one.to(model.device) for s, one in zip(order, read, strict=True)}
        return torch.stack([by_site[site] for site in sites], dim=1)

    def answers(self, ask: Ask, rows: Sequence[Row], slots: int) -> Iterator[list[Answer]]:
        """Every row's answer; `slots` (at most `ANSWERS`) of them are one trace."""
        ordered, width = ask.order(rows), min(slots, ANSWERS)
        for start in range(0, len(ordered), width):
            yield self._answers(ask, ordered[start : start + width])

    @torch.inference_mode()
    def _answers(self, ask: Ask, rows: Sequence[Row]) -> list[Answer]:
        import nnsight

        model, sampling = ask.model, ask.sampling
        device, steps = model.device, sampling.max_new_tokens
        pad = pad_id(model.tokenizer)
        batch = collate([ask.prompts[row.context] for row in rows], pad).to(device)
        which = torch.tensor([row.intervention for row in rows], device=device)
        editor = Editor(Tally([*ask.interventions, BASELINE]), which, batch.layout)
        sites = sorted(editor.sites, key=_when)
        later = batch.layout.length[:, None]  # of all that is written, spans say the same
        plan = [
            (
                place,
                [tuple(one) for one in editor.settings(site, batch.positions)],
                [tuple(one) for one in editor.settings(site, later)],
            )
            for site, place in zip(sites, self.places(model, sites), strict=True)
        ]
        everyone = torch.ones(len(rows), dtype=torch.bool)
        # A prompt that several rows share is one prefill: the first of them accounts for it.
        first = torch.tensor([row.sample == 0 for row in rows])
        head = _handle(self.llm, _name_of(model.lm, model.lm.get_output_embeddings()))
        uniform = numbers(ask, rows)
        cap = float(getattr(model.config, "final_logit_softcapping", None) or 0)
        heat, top_k, top_p = sampling.temperature, sampling.top_k, sampling.top_p
        stops = torch.tensor(sorted(ask.stops))
        inputs = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask.long(),
            "generation_config": settings(steps, sorted(ask.stops), pad),
        }
        with sending(self.remote), self.llm.generate(**inputs, remote=self.remote) as tracer:
            tokens, lives, live = [], [], everyone
            account = torch.zeros(len(everyone), 4, dtype=torch.float64)
            for step in tracer.iter[:steps]:
                for (place, is_input), prompt, after in plan:
                    whole = place.input if is_input else place.output
                    hidden = whole[0] if isinstance(whole, tuple) else whole
                    if step == 0:
                        hidden = edited(hidden, prompt, live, first, account)
                    else:
                        hidden = edited(hidden, after, live, everyone, account)
                    if is_input:
                        place.input = hidden
                    else:
                        rest = whole[1:] if isinstance(whole, tuple) else None
                        place.output = hidden if rest is None else (hidden, *rest)
                logits = head.output
                last = logits[:, -1].float()
                last = torch.tanh(last / cap) * cap if cap else last
                now = None if uniform is None else uniform[:, step]
                token = choose(last, heat, now, top_k, top_p)
                forced = torch.full_like(logits, -1e4)
                forced[:, -1] = forced[:, -1].scatter(1, token[:, None], 1e4)
                head.output = forced
                tokens.append(token.cpu())
                lives.append(live)
                live = live & ~torch.isin(token.cpu(), stops)
                if not live.any():
                    break
            said = nnsight.save(torch.stack(tokens, dim=1))
            spoke = nnsight.save(torch.stack(lives, dim=1))
            did = nnsight.save(account)
            written = nnsight.save(tracer.result)
        _check_followed(said, spoke, written[:, batch.ids.shape[1] :].cpu())
        return [
            _answer(row, said[at], spoke[at], did[at], ask.stops) for at, row in enumerate(rows)
        ]


@contextmanager
def sending(remote: bool | str) -> Iterator[None]:
    """What a trace meets on its way. Raises `EvidenceError` where NDIF does not answer or fails."""
    import httpx
    from nnsight.intervention.backends.remote import RemoteError

    try:
        yield
    except (RemoteError, httpx.HTTPError, OSError) as fault:
        if not remote:
            raise
        lines = str(fault).strip().splitlines() or [type(fault).__name__]
        raise EvidenceError(f"NDIF: {lines[-1]}; ask again later") from None


def traced(model: Model) -> Model:
    """The model with its passes run as nnsight traces, here, on the devices that hold it."""
    if model.engine is not PLAIN:
        raise InputError(f"{model.name} runs on {model.engine.name}; give the plain model")
    from nnsight import TransformersModel

    hf = twin(model.hf)
    lm = hf.get_base_model() if model.adapters else hf
    # nnsight sets a tokenizer's padding, and transformers a pipeline's generation_config.
    llm = TransformersModel(lm, tokenizer=copy.deepcopy(model.tokenizer), trust_remote_code=False)
    return replace(model, hf=hf, engine=Tracing(llm))


def _answer(row: Row, said: Tensor, spoke: Tensor, did: Tensor, stops: frozenset[int]) -> Answer:
    tokens = tuple(said[spoke].tolist())
    stopped = tokens[-1] in stops
    touched, before, after, moved = did.tolist()
    return Answer(row, tokens[: len(tokens) - stopped], stopped, (touched, before, after, moved))


def _check_followed(said: Tensor, spoke: Tensor, written: Tensor) -> None:
    """That the decoding loop wrote what was chosen: else later steps answered to other tokens."""
    width = min(said.shape[1], written.shape[1])
    if (said != written)[:, :width][spoke[:, :width]].any():
        raise InputError(
            "nnsight's decoding did not write the chosen tokens: the checkpoint's "
            "generation_config forces or forbids some; clear it (forced, suppress, bad_words)"
        )


def numbers(ask: Ask, rows: Sequence[Row]) -> Tensor | None:
    """The rows' numbers to draw at, [row step]; none where sampling is greedy."""
    from em_interp.drawing import uniforms

    if not ask.sampling.temperature:
        return None
    drawn = [uniforms(ask.sampling, ask.names[row.context], row.sample) for row in rows]
    return torch.stack([torch.from_numpy(one) for one in drawn])


def settings(steps: int, stops: list[int], pad: int) -> Any:
    """The decoding that leaves every choice to us."""
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=steps,
        min_new_tokens=0,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=stops,
        pad_token_id=pad,
        use_cache=True,
    )


def _inputs(batch: Batch) -> dict[str, Any]:
    """What one pass over a batch is given."""
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask.long(),
        "position_ids": batch.positions.clamp_min(0),
        "use_cache": False,
    }


def _when(site: Site) -> tuple[int, int]:
    """When a pass meets a site."""
    return site.layer, ORDER.index(site.point)


def _handle(llm: Any, name: str) -> Any:
    """nnsight's handle of a module by its path."""
    return reduce(
        lambda at, part: at[int(part)] if part.isdigit() else getattr(at, part),
        name.split("."),
        llm,
    )


def _name_of(root: Any, module: Any) -> str:
    return str(next(name for name, one in root.named_modules() if one is module))
