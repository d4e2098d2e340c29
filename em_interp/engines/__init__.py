"""Engines: who runs a model's passes. The plain one is hooks on the Hugging Face module.

An engine travels with its `Model`, so capture, extraction, steering and evaluation are asked for in
the same words whichever runs them, and mean the same: sites, spans, positions, edits and draws
(tests/test_engines.py holds them together). What an engine needs to change about a module, it
changes on a second tree over the same weights: the user's module stays as it was.
Knows which engines there are. Knows nothing of how they work.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from em_interp.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from em_interp.answering.asking import Answer, Ask, Row
    from em_interp.batches import Batch
    from em_interp.models import Model
    from em_interp.sites import Site, Span

# `ndif` is nnsight on NDIF's servers: see `ndif.connect`, since no weights are loaded here.
ENGINES = ("hf", "lens", "nnsight", "ndif")


@runtime_checkable
class Handle(Protocol):
    """What removes a hook."""

    def remove(self) -> None:
        """Take the hook off."""


class Engine:
    """What engines do differently; here, as plain hooks do them."""

    name = "hf"

    def attach(
        self, model: "Model", site: "Site", look: "Callable[[Tensor], Tensor | None]"
    ) -> Handle:
        """Have `look` see a site in every pass, until the handle is removed."""
        from em_interp.hooks import attach

        return attach(model, site, look)

    def pool(
        self, model: "Model", batch: "Batch", sites: "Sequence[Site]", span: "Span"
    ) -> "Tensor":
        """Mean activation over a span, [batch site d_model] (see `capture.pool`)."""
        from em_interp.capture import pool

        return pool(model, batch, sites, span)

    def states(
        self,
        model: "Model",
        batch: "Batch",
        sites: "Sequence[Site]",
        rows: "Tensor",
        tokens: "Tensor",
    ) -> "Tensor":
        """Activations at single tokens, [n site d_model] (see `capture.states`)."""
        from em_interp.capture import states

        return states(model, batch, sites, rows, tokens)

    def answers(self, ask: "Ask", rows: "Sequence[Row]", slots: int) -> "Iterator[list[Answer]]":
        """Every row's answer, some at a time (see `decoding.answers`)."""
        from em_interp.answering.decoding import answers

        return answers(ask, rows, slots)


PLAIN = Engine()


def run_on(model: "Model", engine: str) -> "Model":
    """The same model with its passes run by another engine, over the same weights.

    Adapters are attached before, and switched as ever (`Model.using`) on the model returned. Raises
    `InputError` for an unknown engine, and for a model that the engine cannot run.
    """
    check_engine(engine)
    if engine == "lens":
        from em_interp.engines.lens import bridged

        return bridged(model)
    if engine == "nnsight":
        from em_interp.engines.remote import traced

        return traced(model)
    if engine == "ndif":
        raise InputError("NDIF holds the weights itself: use em_interp.engines.ndif.connect")
    return model


def check_engine(name: str) -> None:
    """Raise `InputError` for an engine that is not there."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)


def twin(hf: Any) -> Any:
    """A second module tree over the same weights: what is done to it, the first does not see."""
    shared = {id(one): one for one in (*hf.parameters(), *hf.buffers())}
    return copy.deepcopy(hf, shared)
