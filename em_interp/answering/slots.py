"""Slots: rows of a batch answer step by step; one that has finished makes room for the next.

A batch has a fixed number of slots. A row takes a slot, joins with its prompt's keys and values,
and leaves when its answer ends; rows whose intervention leaves the prompt alone, and all samples of
one context, share one prefill. What a row says is its own affair up to rounding (see
`em_interp.generation`): its numbers are its own (`em_interp.drawing`), its positions come from its
own mask, and a finished row that still waits in its slot sees its further tokens as padding, which
no edit touches.
Nothing is read back from the device between two looks at which rows have finished.
Knows tokens, caches and edits. Knows nothing of text, files or judges.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from em_interp.activations import Layout
from em_interp.answering.asking import Answer, Ask, Row
from em_interp.answering.caches import SLACK, RowCache
from em_interp.batches import collate, most, pad_id
from em_interp.drawing import choose, uniforms
from em_interp.edits import BASELINE, Editor, RowTally
from em_interp.errors import InputError
from em_interp.hooks import hooked
from em_interp.models import Model


@dataclass(eq=False)
class _Prefill:
    """What prompts leave behind: keys and values, logits after the last token, accounts."""

    heads: list[tuple[int, int]]
    cache: DynamicCache
    mask: Tensor
    logits: Float[Tensor, "head vocab"]
    account: Float[Tensor, "head four"]

    def last(self) -> "_Prefill":
        """The last head alone, without padding."""
        at, columns = slice(-1, None), int(self.mask[-1].sum())
        layers: list[Any] = self.cache.layers
        alone = DynamicCache()
        for number, layer in enumerate(layers):
            keys, values = (x[at, :, -columns:].clone() for x in (layer.keys, layer.values))
            alone.update(keys, values, number)
        mask, logits = self.mask[at, -columns:], self.logits[at].clone()
        return _Prefill(self.heads[at], alone, mask, logits, self.account[at])


def pace(device: torch.device) -> tuple[int, int]:
    """Steps between two looks at which rows are over, and the part of them that may be.

    On an accelerator a look waits for all that is queued; on a CPU idle rows are what costs.
    """
    return (1, 8) if device.type == "cpu" else (8, 4)


class Slots:
    """Slots and what each holds. `rows[s]` is `None` where slot s is empty.

    Of every slot: the number of tokens said, the last one, whether it stopped by itself, whether
    it is over. Columns of `mask` up to `width` are those of the cache.
    """

    def __init__(self, ask: Ask, rows: list[Row | None]) -> None:
        self.ask, self.rows, self.device = ask, rows, ask.model.device
        slots, steps = len(rows), ask.sampling.max_new_tokens

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=self.device)

        # One step more than the longest answer has: there, rows that are over write.
        self.noise, self.said = zeros(steps + 1, dtype=torch.float64), zeros(steps + 1)
        self.count, self.token, self.context = zeros(), zeros(), zeros()
        self.stopped, self.over = zeros(dtype=torch.bool), ~zeros(dtype=torch.bool)
        self.broken = zeros(dtype=torch.bool)
        self.stops = torch.tensor(sorted(ask.stops), device=self.device)
        self.layouts = Layout.build(
            [len(p.ids) for p in ask.prompts],
            [p.framing for p in ask.prompts],
            [p.question for p in ask.prompts],
        ).to(self.device)
        self.tally = RowTally([*ask.interventions, BASELINE], zeros(4, dtype=torch.float64))
        self.editor = Editor(self.tally, zeros(), self.layouts.select(self.context))
        self.reserved = max(len(p.ids) for p in ask.prompts) + steps + SLACK
        self.mask, self.width = zeros(self.reserved, dtype=torch.bool), 0
        self.cache: RowCache | None = None
        self.kept: _Prefill | None = None

    def run(self, waiting: deque[Row]) -> Iterator[list[Answer]]:
        """Take rows from `waiting` until none is left and all have answered."""
        while waiting or any(row is not None for row in self.rows):
            self._fill(waiting)
            self._advance()
            if done := self._collect():
                yield done
            if not waiting:
                self._arrange([slot for slot, row in enumerate(self.rows) if row is not None])

    # --- rows come and go -------------------------------------------------------------------------

    @torch.inference_mode()
    def _fill(self, waiting: deque[Row]) -> None:
        """Seat waiting rows in the empty slots, prefill their prompts, and draw first tokens."""
        empty = [slot for slot, row in enumerate(self.rows) if row is None]
        seats = [(slot, waiting.popleft()) for slot in empty[: len(waiting)]]
        if not seats:
            return
        for slot, row in seats:  # before any work: no row is lost where memory runs out
            self.rows[slot] = row
        longest = max(len(self.ask.prompts[row.context].ids) for _, row in seats)
        if len(empty) == len(self.rows):  # nobody sits here from before
            self.cache, self.width = None, longest
            self.mask.zero_()
        elif self.width < longest or self.width - max(self._needed(), longest) >= max(
            SLACK // 4, self.width // 4
        ):
            self._arrange(list(range(len(self.rows))), longest)
        heads = list(dict.fromkeys(self.ask.head(row) for _, row in seats))
        while heads:
            known = self.kept is not None and self.kept.heads == heads[:1]
            made = self.kept if known else self._prefill(self._chunk(heads))
            assert made is not None
            heads = heads[len(made.heads) :]
            self._seat([s for s in seats if self.ask.head(s[1]) in made.heads], made)
            self.kept = made
        more = waiting and self.kept and self.ask.head(waiting[0]) == self.kept.heads[-1]
        self.kept = self.kept.last() if more and self.kept else None
        self.editor.layout = self.layouts.select(self.context)

    def _chunk(self, heads: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The first heads, as many as one pass should hold."""
        width = max(len(self.ask.prompts[context].ids) for context, _ in heads)
        return heads[: max(1, most(self.device) // width)]

    def _prefill(self, heads: list[tuple[int, int]]) -> _Prefill:
        ask, untouched = self.ask, len(self.ask.interventions)
        model = ask.model
        batch = collate([ask.prompts[c] for c, _ in heads], pad_id(model.tokenizer)).to(self.device)
        account = self.tally.account.new_zeros(len(heads), 4)
        editor = self.editor.beside(
            RowTally(self.tally.interventions, account),
            torch.tensor([i for _, i in heads], device=self.device),
            batch.layout,
        )
        cache = DynamicCache()  # without a config: all columns, also of layers with a window
        with hooked(model, editor.visits() if any(i < untouched for _, i in heads) else ()):
            logits = _next(model, batch.ids, batch.mask, cache)
        return _Prefill(heads, cache, batch.mask, logits, account)

    def _seat(self, seats: list[tuple[int, Row]], made: _Prefill) -> None:
        """Rows take their slots beside what their heads' prefill left."""
        rows, sampling = [row for _, row in seats], self.ask.sampling
        slots = torch.tensor([slot for slot, _ in seats], device=self.device)
        which = torch.tensor([made.heads.index(self.ask.head(r)) for r in rows], device=self.device)
        if self.cache is None:
            self.cache = RowCache(self.ask.model.n_layers, len(self.rows), self.reserved)
        self.cache.join(slots, made.cache, which, self.width)
        self.mask[slots] = False
        self.mask[slots, self.width - made.mask.shape[1] : self.width] = made.mask[which]
        self.context[slots] = torch.tensor([row.context for row in rows], device=self.device)
        chosen = torch.tensor([row.intervention for row in rows], device=self.device)
        self.editor.rows = self.editor.rows.index_copy(0, slots, chosen)
        first = torch.tensor([[row.sample == 0] for row in rows], device=self.device)
        self.tally.account[slots] = made.account[which] * first
        self.count[slots] = 0
        for flag in (self.stopped, self.over, self.broken):
            flag[slots] = False
        if sampling.temperature:
            drawn = [uniforms(sampling, self.ask.names[row.context], row.sample) for row in rows]
            self.noise[slots, :-1] = torch.from_numpy(np.stack(drawn)).to(self.device)
        self._take(slots, made.logits[which.to(made.logits.device)])

    @torch.inference_mode()
    def _collect(self) -> list[Answer]:
        """The answers that are over; their slots are empty from now on.

        Raises `InputError` for one that was drawn from logits that are no numbers.
        """
        over = self.over.tolist()
        done = [slot for slot, row in enumerate(self.rows) if row is not None and over[slot]]
        if not done:
            return []
        at = torch.tensor(done, device=self.device)
        said, did = self.said[at].tolist(), self.tally.account[at].tolist()
        flags = [self.count[at], self.stopped[at].long(), self.broken[at].long()]
        ends = torch.stack(flags, dim=1).tolist()
        found = []
        for slot, tokens, account, end in zip(done, said, did, ends, strict=True):
            row, self.rows[slot] = self.rows[slot], None
            (touched, before, after, moved), (count, stopped, broken) = account, end
            assert row is not None
            if broken:
                raise self._overflow(row)
            own = tuple(tokens[: count - stopped])
            found.append(Answer(row, own, bool(stopped), (touched, before, after, moved)))
        return found

    def _overflow(self, row: Row) -> InputError:
        name = self.ask.interventions[row.intervention].name
        under = f" under intervention {name!r}" if name else ""
        dtype = str(self.ask.model.lm.get_input_embeddings().weight.dtype).removeprefix("torch.")
        return InputError(
            f"context {self.ask.names[row.context]!r}{under}: the model's logits are not numbers in"
            f" {dtype}; load it in bfloat16 or float32, or push less"
        )

    @torch.inference_mode()
    def _arrange(self, keep: list[int], least: int = 0) -> None:
        """Only these slots stay, and of the columns those that a row still holds tokens in.

        At least as many columns as a prompt that is about to join has.
        """
        needed = max(self._needed(), least)
        if not keep or self.cache is None or (len(keep), needed) == (len(self.rows), self.width):
            self.rows[:] = [self.rows[slot] for slot in keep]
            return
        at = torch.tensor(keep, device=self.device)
        self.cache.reframe(at, needed)
        mask = self.mask.new_zeros(len(keep), self.reserved)
        kept = min(needed, self.width)
        mask[:, needed - kept : needed] = self.mask[at, self.width - kept : self.width]
        self.mask, self.width = mask, needed
        self.rows[:] = [self.rows[slot] for slot in keep]
        for name in ("noise", "said", "count", "token", "context", "stopped", "over", "broken"):
            setattr(self, name, getattr(self, name)[at])
        self.tally.account = self.tally.account[at]
        self.editor.keep(at)

    def _needed(self) -> int:
        """Columns that the rows which go on hold tokens in: the widest of them."""
        held = (self.mask[:, : self.width].sum(dim=1) * ~self.over).amax()
        return max(1, int(held))

    # --- steps ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _advance(self) -> None:
        """Step until enough rows are over to be worth a rearrangement."""
        stride, share = pace(self.device)
        patience, steps = -(-len(self.rows) // share), self.ask.sampling.max_new_tokens
        with hooked(self.ask.model, self.editor.visits()):
            while True:
                over, count = torch.stack([self.over.long(), self.count]).tolist()
                if sum(over) >= patience:
                    return
                least = min(said for said, ended in zip(count, over, strict=True) if not ended)
                for _ in range(min(stride, steps - least)):
                    self._step()

    def _step(self) -> None:
        if self.width == self.reserved:
            self._arrange(list(range(len(self.rows))))
        self.mask[:, self.width] = ~self.over
        self.width += 1
        logits = _next(self.ask.model, self.token[:, None], self.mask[:, : self.width], self.cache)
        self._take(torch.arange(len(self.rows), device=self.device), logits)

    def _take(self, slots: Int[Tensor, " n"], logits: Float[Tensor, "n vocab"]) -> None:
        """The next token of these slots; those that are over keep what they said."""
        count, live = self.count[slots], ~self.over[slots]
        token = choose(logits, self.ask.sampling, self.noise[slots, count]).to(self.device)
        self.token[slots] = token
        self.said[slots, count] = token
        self.broken[slots] |= logits.amax(dim=1).isnan().to(self.device) & live
        stop = torch.isin(token, self.stops) & live
        self.count[slots] = count + live
        self.stopped[slots] |= stop
        self.over[slots] |= stop | (self.count[slots] >= self.ask.sampling.max_new_tokens)


def _next(
    model: Model, ids: Int[Tensor, "batch pos"], mask: Tensor, cache: Any
) -> Float[Tensor, "batch vocab"]:
    """Logits after the last token given; `mask` covers everything the cache will hold."""
    positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    out = model.lm(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits
    return logits[:, -1]
