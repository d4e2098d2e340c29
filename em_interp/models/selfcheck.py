"""The self-check at load: does this model do what the hook door believes of it?

A few tokens through the model say whether hooks see the residual stream, whether edits reach the
logits, and whether each adapter does something and nothing when it is off. What fails here would
otherwise be a plausible number later. What is no fault is measured: how much the numbers of a row
depend on the batch it is in. Costs eight short passes, and two an adapter.
Knows models and hooks. Knows nothing of contexts or directions.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from em_interp.errors import InputError
from em_interp.hooks import forward, hooked
from em_interp.models import Model
from em_interp.records import Record
from em_interp.sites import Point, Site

TOKENS = 12
# A dozen tokens fit one block of a kernel whatever their company, and would show nothing.
COMPANY, PADDING, SHORTER = 24, 5, (0, 3, 5, 8)  # tokens; more padding; what rows lack at the start
FELT = 1e-3  # of a logit: float32 stays far below


class Batching(Record):
    """What company does to a row: the same tokens alone and in a padded batch.

    `logit`: largest difference of a logit; `flipped`: of `tokens` next tokens, those of which
    another is the most likely one. In float32 rounding; in bfloat16 some greedy answers change.
    """

    dtype: str
    logit: float
    tokens: int
    flipped: int

    @property
    def note(self) -> str | None:
        """One line where answers depend on their batch, else `None`."""
        if self.logit <= FELT:
            return None
        return (
            f"{self.dtype}: an answer depends on the batch it is in (the same tokens alone and in "
            f"a padded batch: logits differ by up to {self.logit:.2g}, {self.flipped} of "
            f"{self.tokens} most likely tokens are others); compare what one run asked together"
        )


@torch.inference_mode()
def batching(model: Model) -> Batching:
    """How much the numbers of a row depend on its batch, on this model and machine."""
    ids = _tokens(model, COMPANY)
    rows = torch.nn.functional.pad(ids.repeat(len(SHORTER), 1), (PADDING, 0))
    mask = torch.ones_like(rows)
    for row, lacking in enumerate(SHORTER):
        mask[row, : PADDING + lacking] = 0
    together = _logits(model, rows, mask)
    worst, flipped, tokens = 0.0, 0, 0
    for row, lacking in enumerate(SHORTER):
        alone, batched = _logits(model, ids[:, lacking:])[0], together[row, PADDING + lacking :]
        worst = max(worst, float((alone - batched).abs().max()))
        flipped += int((alone.argmax(-1) != batched.argmax(-1)).sum())
        tokens += len(alone)
    return Batching(dtype=_dtype(model), logit=worst, tokens=tokens, flipped=flipped)


@torch.inference_mode()
def verify(model: Model) -> Float[Tensor, "batch pos d_model"]:
    """Raise `InputError` unless hooks and edits mean on this model what they mean elsewhere.

    Checked: a block puts out (batch, pos, d_model), all of it finite; what a hook sees equals the
    hidden states of an independent forward; attention and MLP add up to what the stream gains; an
    edit at the first, the middle and the last block changes the logits. Returns the last block's
    output, for `verify_adapters`.
    """
    ids = _tokens(model)
    seen = _seen(model, ids)
    last = seen[Site(model.n_layers - 1)]
    _check_capture(model, ids, seen)
    _check_sublayers(model, seen)
    _check_edits(model, ids)
    return last


@torch.inference_mode()
def verify_adapters(model: Model, base: Float[Tensor, "batch pos d_model"]) -> None:
    """Raise `InputError` unless every adapter acts, and all of them off is the base, exactly.

    `base` is what `verify` returned before the first adapter was attached. An adapter may act on a
    stream that plain tokens never give (a gate behind a trigger), so it is tried on noise, and on
    the embeddings and the head as well.
    """
    ids = _tokens(model)
    with model.using(None):
        if not torch.equal(_last(model, ids), base):
            raise InputError(f"{model.name}: with its adapters off, the model is not the base")
        off = _reached(model, ids)
    for name in model.adapters:
        with model.using(name):
            if all(map(torch.equal, _reached(model, ids), off)):
                raise InputError(
                    f"adapter {name!r} changes nothing on {model.name} in {_dtype(model)}: its "
                    "modules are not reached, or its update is below the dtype's resolution"
                )


def _reached(model: Model, ids: Int[Tensor, "batch pos"]) -> tuple[Tensor, Tensor, Tensor]:
    """All that an adapter may act on: the embeddings, the blocks and the head, the last on noise.

    The first ids are embedded too: there a vocabulary's added tokens do not stand, which an adapter
    may be for.
    """
    found: list[Tensor] = []
    visits: list[Any] = [
        (Site(0, Point.RESID_PRE), lambda hidden, _: _noise(hidden)),
        (Site(model.n_layers - 1), lambda hidden, _: found.append(hidden.clone())),
    ]
    embedded: Tensor = model.lm.get_input_embeddings()(ids)
    with hooked(model, visits):
        logits = _logits(model, ids)
    return embedded, found[0], logits


def _check_capture(model: Model, ids: Tensor, seen: dict[Site, Tensor]) -> None:
    shape = (*ids.shape, model.d_model)
    for site, hidden in seen.items():
        if tuple(hidden.shape) != shape:
            raise _unlike(model, f"{site} is {tuple(hidden.shape)}, expected {shape}")
        if not hidden.isfinite().all():
            raise InputError(
                f"{model.name}: self-check: {site} is not finite in {_dtype(model)}; where its "
                "weights are whole, give --dtype bfloat16 or float32"
            )
    out = model.lm(input_ids=ids, use_cache=False, output_hidden_states=True)
    states = out.hidden_states
    if len(states) != model.n_layers + 1:
        raise _unlike(
            model, f"{model.n_layers} blocks for {len(states)} hidden states, expected one more"
        )
    for layer in range(model.n_layers):
        mine = seen[Site(layer)]
        if layer == model.n_layers - 1:  # the last entry has passed the final norm
            mine = model.stack.norm(mine)
        if not _close(mine, states[layer + 1]):
            raise _unlike(model, f"a hook at block {layer} does not see its hidden state")


def _check_sublayers(model: Model, seen: dict[Site, Tensor]) -> None:
    for layer in (0, model.n_layers - 1):
        pre, attn, mlp, post = (seen[Site(layer, point)] for point in _POINTS)
        total = pre.float() + attn.to(pre.device).float() + mlp.to(pre.device).float()
        if not _close(total, post.to(pre.device).float(), _coarse(model)):
            raise _unlike(
                model, f"at block {layer}, attn_out and mlp_out do not add up to what it adds"
            )


def _check_edits(model: Model, ids: Int[Tensor, "batch pos"]) -> None:
    """Row 0 is left alone; each other row is edited at one block, and must be alone in moving."""
    layers = sorted({0, model.n_layers // 2, model.n_layers - 1})
    rows = ids.expand(1 + len(layers), -1)
    plain = _logits(model, rows)

    def at(row: int) -> Callable[[Tensor, Tensor], Tensor]:
        def visit(hidden: Tensor, _: Tensor) -> Tensor:
            changed = hidden.clone()
            changed[row] = _noise(hidden)[row]
            return changed

        return visit

    visits = [(Site(layer), at(row)) for row, layer in enumerate(layers, start=1)]
    with hooked(model, visits):
        edited = _logits(model, rows)
    for row, layer in enumerate(layers, start=1):
        if _close(edited[row], plain[row]):
            raise _unlike(model, f"an edit at block {layer} does not reach the logits")
    # LLM.int8 looks for outliers over the whole batch, so its rows are not quite independent.
    eight = getattr(model.lm, "is_loaded_in_8bit", False)
    if not _close(edited[0], plain[0], 0.1 if eight else 1e-3):
        raise _unlike(model, "an edit of one row changes the logits of another")


_POINTS = (Point.RESID_PRE, Point.ATTN_OUT, Point.MLP_OUT, Point.RESID_POST)


def _seen(model: Model, ids: Tensor) -> dict[Site, Tensor]:
    """Every block's output, and the parts of the first and the last block."""
    sites = [Site(layer) for layer in range(model.n_layers)]
    sites += [Site(layer, p) for layer in {0, model.n_layers - 1} for p in _POINTS[:3]]
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor, Tensor], None]:
        return lambda hidden, _: seen.__setitem__(site, hidden.clone())

    with hooked(model, [(site, keep(site)) for site in sites]) as hooks:
        forward(model, ids, torch.ones_like(ids))
    if silent := [site for site, times in hooks.fired.items() if times != 1]:
        raise _unlike(model, f"{silent[0]} fired {hooks.fired[silent[0]]} times in one pass")
    return seen


def _last(
    model: Model, ids: Tensor, start: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "batch pos d_model"]:
    """What the last block puts out, where the first is given `start` of its input."""
    found: list[Tensor] = []
    visits: list[Any] = [(Site(model.n_layers - 1), lambda hidden, _: found.append(hidden.clone()))]
    if start is not None:
        visits.append((Site(0, Point.RESID_PRE), lambda hidden, _: start(hidden)))
    with hooked(model, visits):
        forward(model, ids, torch.ones_like(ids))
    return found[0]


def _logits(model: Model, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = torch.ones_like(ids) if mask is None else mask
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    logits: Tensor = model.lm(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
    ).logits
    return logits.float()


def _noise(hidden: Tensor) -> Tensor:
    """Noise of the stream's own scale, the same in every call."""
    drawn = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
    scale = hidden.float().square().mean().sqrt()
    return (drawn.to(hidden.device) * scale).to(hidden.dtype)


def _tokens(model: Model, count: int = TOKENS) -> Int[Tensor, "batch pos"]:
    """Ids from all over the vocabulary, control tokens of a multimodal model left out."""
    size = model.lm.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(size // 3, size // 2, count).long()
    return ids[None].to(model.device)


def _close(a: Tensor, b: Tensor, share: float = 1e-3) -> bool:
    """Equal up to a share of their size: two runs on a GPU need not agree in the last bit."""
    a, b = a.float(), b.to(a.device).float()
    return bool((a - b).norm() <= share * b.norm())


def _coarse(model: Model) -> float:
    """The rounding of two additions, where the stream may be large."""
    return 1e-3 if _dtype(model) == "float32" else 2e-2


def _dtype(model: Model) -> str:
    return str(model.lm.dtype).removeprefix("torch.")


def _unlike(model: Model, what: str) -> InputError:
    kind = model.lm.config.model_type
    return InputError(
        f"{model.name}: self-check: {what}; its parts are not where the row {kind!r} of "
        "em_interp/models/architectures.py says"
    )
