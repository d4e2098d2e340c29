"""Models: loading them, where their blocks are, and the one door through which hooks enter.

The Hugging Face module is never modified. A visitor gets (hidden, positions) and returns None
(it only looked) or a new tensor. Positions come from the attention mask of the running batch, so
they are absolute whatever the padding and whatever the KV cache already holds.
Knows module trees. Knows nothing of directions, judges or statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from em_interp.adapters import check_config, peft_key, put_on, read_adapter
from em_interp.errors import ForeignArtifactError, InputError, unknown
from em_interp.fingerprints import fingerprint
from em_interp.sites import Point, Site

Visitor = Callable[[Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"]], Tensor | None]


class Architecture(NamedTuple):
    """Where the parts are: paths from the causal LM to the decoder stack, and within a block.

    `attn_out` and `mlp_out` name the module whose output is added to the residual stream.
    """

    stack: str = "model"
    blocks: str = "layers"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    z: str = "self_attn.o_proj"


_PRE_NORM = Architecture()
_SANDWICH = Architecture(attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm")
ARCHITECTURES = {
    "llama": _PRE_NORM,
    "mistral": _PRE_NORM,
    "qwen2": _PRE_NORM,
    "qwen3": _PRE_NORM,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gemma3": _SANDWICH._replace(stack="model.language_model"),
}
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
            where=f"{name} (a new one is a row of em_interp.models.ARCHITECTURES)",
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


def hook_module(model: Model, site: Site) -> tuple[nn.Module, bool]:
    """The module that carries a site, and whether the site is its input (else its output).

    Raises `InputError` for a layer that the model does not have.
    """
    if not 0 <= site.layer < model.n_layers:
        raise InputError(
            f"layer {site.layer} is out of range: {model.name} has layers 0 to {model.n_layers - 1}"
        )
    block, arch = model.blocks[site.layer], model.architecture
    match site.point:
        case Point.RESID_PRE:
            return block, True
        case Point.RESID_POST:
            return block, False
        case Point.ATTN_OUT:
            return block.get_submodule(arch.attn_out), False
        case Point.MLP_OUT:
            return block.get_submodule(arch.mlp_out), False
        case Point.Z:
            return block.get_submodule(arch.z), True


class Hooks:
    """What an open hook door knows: how often each site fired, and the running positions."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.fired = dict.fromkeys(sites, 0)
        self.positions: Tensor | None = None


class StopForward(Exception):  # noqa: N818 (a signal, not an error)
    """Raised by a visitor that has seen enough; `forward` catches it."""


@contextmanager
def hooked(model: Model, visits: Sequence[tuple[Site, Visitor]]) -> Iterator[Hooks]:
    """The hook door: visitors see (and may replace) the stream at their sites, in the order given.

    Works under `forward`, under the model's own `generate`, with or without cache and padding.
    Hooks are gone on leaving, also after an exception.
    """
    hooks = Hooks([site for site, _ in visits])

    def locate(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hooks.positions = running_positions(args, kwargs)

    def visit(site: Site, visitor: Visitor, hidden: Tensor) -> Tensor | None:
        assert hooks.positions is not None
        hooks.fired[site] += 1
        new = visitor(hidden, hooks.positions.to(hidden.device))
        if new is not None and new.shape != hidden.shape:
            raise ValueError(
                f"{site}: a visitor returned {tuple(new.shape)} for {tuple(hidden.shape)}"
            )
        return new

    def on_input(site: Site, visitor: Visitor) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            new = visit(site, visitor, hidden)
            if new is None:
                return None
            if args:
                return (new, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": new}

        return hook

    def on_output(site: Site, visitor: Visitor) -> Callable[..., Any]:
        def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
            hidden = out[0] if isinstance(out, tuple) else out
            new = visit(site, visitor, hidden)
            if new is None:
                return None
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return hook

    handles = [model.stack.register_forward_pre_hook(locate, with_kwargs=True)]
    try:
        for site, visitor in visits:
            module, is_input = hook_module(model, site)
            if is_input:
                handles.append(
                    module.register_forward_pre_hook(on_input(site, visitor), with_kwargs=True)
                )
            else:
                handles.append(module.register_forward_hook(on_output(site, visitor)))
        yield hooks
    finally:
        for handle in handles:
            handle.remove()


def running_positions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Int[Tensor, "batch pos"]:
    """Absolute position of every token of the running forward; -1 for padding.

    From the attention mask over everything seen so far; without a mask, nothing is padded and the
    position follows from what the cache holds.
    """
    ids = kwargs.get("input_ids", args[0] if args else None)
    tokens = ids if ids is not None else kwargs["inputs_embeds"]
    batch, width = tokens.shape[:2]
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        seen = mask.long().cumsum(-1) - 1
        return seen.masked_fill(mask == 0, -1)[:, -width:]
    if mask is not None:
        raise ValueError("hooked() needs a two-dimensional attention mask (batch, everything seen)")
    cache = kwargs.get("past_key_values")
    start = cache.get_seq_length() if cache is not None else 0
    return torch.arange(start, start + width, device=tokens.device).expand(batch, width)


def forward(model: Model, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
    """One pass through the decoder stack (no output head) with mask-derived position ids.

    `ids` is what is new, `mask` covers everything seen so far. Returns the stack's output, or
    `None` where a visitor stopped the pass.
    """
    positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    try:
        return model.stack(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    except StopForward:
        return None
