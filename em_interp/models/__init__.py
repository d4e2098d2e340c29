"""Models: loading them, and any number of adapters on one load of the base.

The Hugging Face module is never modified. Knows files and modules. Knows nothing of hooks,
directions, judges or statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from em_interp import hub, sources
from em_interp.adapter_fields import read_fields
from em_interp.chat import check_tokenizer
from em_interp.engines import PLAIN, Engine
from em_interp.errors import ForeignArtifactError, InputError, unknown
from em_interp.loading import Loading
from em_interp.models.adapters import WEIGHTS, peft_key, put_on, read_adapter
from em_interp.models.architectures import ARCHITECTURES, Architecture, check_architecture
from em_interp.models.checkpoints import empty_model, read_config, read_tokenizer
from em_interp.models.fingerprints import fingerprint
from em_interp.models.weights import (
    check_loading,
    computes_on,
    enough_memory,
    identity,
    read_weights,
)
from em_interp.organisms import BASE

if TYPE_CHECKING:
    from em_interp.models.selfcheck import Batching

CPU = Loading()


@dataclass(frozen=True, eq=False)
class Model:
    """A causal language model, its tokenizer, and any number of adapters on one load of the base.

    `hf` is the Hugging Face module (a `PeftModel` where there are adapters). `name` is for people;
    identity is `base` (fingerprint of the base weights) and `adapters` (name to digest). `engine`
    runs its passes (see `em_interp.engines`). `batching`: how much a row's numbers depend on its
    batch, as the self-check at load found (`None` where there was none).
    """

    hf: Any
    tokenizer: Any
    name: str
    base: str
    adapters: dict[str, str] = field(default_factory=dict)
    engine: Engine = PLAIN
    batching: "Batching | None" = None

    @property
    def lm(self) -> Any:
        """The causal LM itself, without PEFT's wrapper; its layers carry the active adapter."""
        return self.hf.get_base_model() if self.adapters else self.hf

    @property
    def config(self) -> Any:
        """The text model's configuration, also where it sits inside a multimodal one."""
        return self.lm.config.get_text_config()

    @property
    def architecture(self) -> Architecture:
        """The row of `ARCHITECTURES` for this model."""
        return ARCHITECTURES[self.lm.config.model_type]

    @property
    def stack(self) -> Any:
        """The decoder stack: blocks and final norm, no output head."""
        return self.lm.get_submodule(self.architecture.stack)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, in order."""
        blocks = self.stack.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where inputs go: where the embedding computes."""
        return computes_on(self.lm.get_input_embeddings())

    @property
    def active(self) -> str | None:
        """The adapter that a pass goes through now; `None` is the base.

        Raises `InputError` for a `Model` that was given to `attach`: its module carries the adapter
        now, so it is no longer the base it says it is.
        """
        if not self.adapters:
            if hasattr(self.hf, "peft_config"):
                raise InputError(f"{self.name} was given to attach(); use the model it returned")
            return None
        if not self.hf.get_model_status().enabled:
            return None
        return next(n for n in self.adapters if self._key(n) == self.hf.active_adapter)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator["Model"]:
        """Run with one adapter, or with none (`None`: the base, exactly). May be nested.

        Raises `InputError` for an adapter that is not loaded (see also `active`).
        """
        if adapter is not None and adapter not in self.adapters:
            raise unknown("adapter", adapter, self.adapters or ["none"], where=self.name)
        before = self.active
        self._switch(adapter)
        try:
            yield self
        finally:
            self._switch(before)

    def _key(self, adapter: str) -> str:
        return peft_key(list(self.adapters).index(adapter))

    def _switch(self, adapter: str | None) -> None:
        if not self.adapters:
            return
        if adapter is None:
            self.hf.base_model.disable_adapter_layers()
        else:
            self.hf.set_adapter(self._key(adapter))
            self.hf.base_model.enable_adapter_layers()
        self.hf.requires_grad_(False)  # PEFT takes an active adapter for one in training


def wrap(hf: Any, tokenizer: Any, name: str = "model", base: str | None = None) -> Model:
    """Make a `Model` of a module in memory. Raises `InputError` for an unknown architecture.

    `base` is the fingerprint, where it is known from the files; else it is taken from the weights
    as they are in memory (quantised ones are then another model than what they came from).
    """
    check_architecture(str(getattr(hf.config, "model_type", type(hf).__name__)), name)
    hf.eval().requires_grad_(False)
    return Model(hf=hf, tokenizer=tokenizer, name=name, base=base or fingerprint(hf))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A base and adapters of which everything that files tell has been checked.

    `empty`: the model that will be, with its adapters in their places and no weights in it; its
    `base` is "" where the weights are not here (a hub's come when they are needed).
    """

    home: Path
    adapters: tuple[tuple[str, Path], ...]
    how: Loading
    empty: Model

    def load(self) -> Model:
        """The model. It checks itself (see `em_interp.models.selfcheck`). Raises `InputError`."""
        from em_interp.models.selfcheck import batching, verify, verify_adapters

        hub.complete(self.home)
        with enough_memory(self.home, self.how):
            hf, base = read_weights(self.home, self.how)
            model = wrap(hf, self.empty.tokenizer, self.empty.name, base)
            plain = verify(model)
            model = replace(model, batching=batching(model))
            for adapter, folder in self.adapters:
                hub.complete(folder)
                model = attach(model, adapter, folder)
            verify_adapters(model, plain)
        return model


def prepare(
    base: str | Path,
    adapters: Sequence[tuple[str, str | Path]] = (),
    how: Loading = CPU,
) -> Prepared:
    """A base by directory or hub id, and adapters (name, PEFT directory or hub id) to go onto it.

    What a run and its dry run check alike: architecture, device, precision, tokenizer, and that
    every adapter was made for this base and finds its places in it. Raises `InputError`.
    """
    home = sources.base(base, how.revision)
    folders = tuple(
        (name, sources.shelved(path, sources.CHECKPOINTS, "adapter")) for name, path in adapters
    )
    for _, folder in folders:
        read_fields(folder)
    config, name = read_config(home), hub.title(home)
    check_loading(how, config, name)
    tokenizer = read_tokenizer(home)
    check_tokenizer(tokenizer)
    empty = Model(empty_model(config, home).eval(), tokenizer, name, identity(home) or "")
    for adapter, folder in folders:
        if hub.repository(folder) is None or (folder / WEIGHTS).is_file():
            empty = attach(empty, adapter, folder)
    return Prepared(home, folders, how, empty)


def load(
    base: str | Path,
    adapters: Sequence[tuple[str, str | Path]] = (),
    how: Loading = CPU,
) -> Model:
    """Load a base by directory or hub id, and adapters (name, PEFT directory or hub id) onto it.

    Everything that can be known from files is checked before weights load (see `prepare`).
    """
    return prepare(base, adapters, how).load()


def attach(model: Model, name: str, folder: Path) -> Model:
    """Add a PEFT adapter to a loaded base; use the `Model` that is returned, not the one given.

    Refuses an adapter made for another base, one whose weights do not land on any module, and one
    that is a no-op: each would turn adapter against base into base against base. After a refusal
    the model is as it was.
    """
    stored = read_adapter(folder)
    if model.engine is not PLAIN:
        raise InputError(f"{model.name}: adapters come first, then the engine")
    if name == BASE:
        raise InputError(f"adapter {folder}: {BASE!r} is the model without any; name it otherwise")
    if name in model.adapters:
        raise InputError(f"{model.name} has an adapter {name!r} already")
    if stored.made_for is not None and model.base and stored.made_for != model.base:
        raise ForeignArtifactError(
            f"adapter {folder}: made for base {stored.made_for}, but {model.name} is {model.base}"
        )
    before = model.active
    try:
        hf = put_on(model.hf, stored, peft_key(len(model.adapters)))
    finally:
        model._switch(before)
    hf.eval().requires_grad_(False)
    digests = {**model.adapters, name: stored.digest}
    return replace(model, hf=hf, adapters=digests)
