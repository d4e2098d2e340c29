"""Models: loading them, and any number of adapters on one load of the base.

The Hugging Face module is never modified. Knows files and modules. Knows nothing of hooks,
directions, judges or statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from em_interp.adapters import check_config, peft_key, put_on, read_adapter
from em_interp.architectures import ARCHITECTURES, Architecture
from em_interp.errors import ForeignArtifactError, InputError, unknown
from em_interp.fingerprints import fingerprint

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class Model:
    """A causal language model, its tokenizer, and any number of adapters on one load of the base.

    `hf` is the Hugging Face module (a `PeftModel` where there are adapters). `name` is for people;
    identity is `base` (fingerprint of the base weights) and `adapters` (name to digest).
    """

    hf: Any
    tokenizer: Any
    name: str
    base: str
    adapters: dict[str, str] = field(default_factory=dict)

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
        """Where inputs go (the embedding's device)."""
        device = self.lm.get_input_embeddings().weight.device
        assert isinstance(device, torch.device)
        return device

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


def wrap(hf: Any, tokenizer: Any, name: str = "model") -> Model:
    """Make a `Model` of a module in memory. Raises `InputError` for an unknown architecture."""
    if getattr(hf.config, "model_type", None) not in ARCHITECTURES:
        raise unknown(
            "architecture",
            getattr(hf.config, "model_type", type(hf).__name__),
            ARCHITECTURES,
            where=f"{name} (a new one is a row of em_interp.architectures.ARCHITECTURES)",
        )
    hf.eval().requires_grad_(False)
    return Model(hf=hf, tokenizer=tokenizer, name=name, base=fingerprint(hf))


def load(
    path: str | Path,
    adapters: Sequence[tuple[str, Path]] = (),
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> Model:
    """Load a base by directory or hub id, and adapters (name, PEFT directory) onto it.

    Everything that can be known from files is checked before weights load. Raises `InputError`.
    """
    from transformers import AutoConfig, AutoTokenizer

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    check_device(device)
    if str(path).startswith((".", "/")) and not Path(path).is_dir():
        raise InputError(f"base {path}: no such directory")
    for _, folder in adapters:
        check_config(Path(folder))
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as fault:
        raise InputError(f"base {path}: {str(fault).splitlines()[0]}") from None
    if config.model_type not in ARCHITECTURES:
        raise unknown("architecture", config.model_type, ARCHITECTURES, where=str(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as fault:
        line = str(fault).splitlines()[0]
        raise InputError(f"base {path}: its tokenizer cannot be loaded ({line})") from None
    model = wrap(_weights(path, getattr(torch, dtype)).to(device), tokenizer, Path(path).name)
    for name, folder in adapters:
        model = attach(model, name, Path(folder))
    return model


def _weights(path: str | Path, dtype: torch.dtype) -> Any:
    """The module of a base, every weight from its files: transformers would draw a missing one."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as fault:
        line = str(fault).splitlines()[0]
        raise InputError(f"base {path}: its weights cannot be loaded ({line})") from None
    hf, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"base {path}: {len(missing)} weights are missing ({missing[0]})")
    return hf


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines or bars of transformers' own: what a command prints is ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def check_device(device: str) -> None:
    """Raise `InputError` for a device this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise InputError(f"device {device!r}: {str(fault).splitlines()[0]}") from None


def attach(model: Model, name: str, folder: Path) -> Model:
    """Add a PEFT adapter to a loaded base; use the `Model` that is returned, not the one given.

    Refuses an adapter made for another base, one whose weights do not land on any module, and one
    that is a no-op: each would turn adapter against base into base against base. After a refusal
    the model is as it was.
    """
    stored = read_adapter(folder)
    if name in model.adapters:
        raise InputError(f"{model.name} has an adapter {name!r} already")
    if stored.made_for is not None and stored.made_for != model.base:
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
    return Model(
        hf=hf, tokenizer=model.tokenizer, name=model.name, base=model.base, adapters=digests
    )
