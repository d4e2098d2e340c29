"""The lens engine: the same passes on TransformerLens' bridge.

The bridge rebuilds the module tree that it is given, so it is given a second tree over the same
weights; sites are then its hook points, and everything else is as with plain hooks.
Knows TransformerLens. Knows nothing of edits or sampling.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from einops import rearrange
from torch import Tensor

from em_interp.engines import PLAIN, Engine, twin
from em_interp.errors import InputError
from em_interp.models import Model
from em_interp.sites import Site


@dataclass(frozen=True, eq=False)
class Hooked:
    """A function on a hook point. TransformerLens itself only removes all of a point's at once."""

    point: Any
    handle: Any

    def remove(self) -> None:
        """Take this function off, and no other."""
        self.handle.hook.remove()
        self.point.fwd_hooks.remove(self.handle)


class Lens(Engine):
    """Passes through `bridge`; a site is the hook point of its name."""

    name = "lens"

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge

    def attach(self, model: Model, site: Site, look: Callable[[Tensor], Tensor | None]) -> Hooked:
        """Have `look` see a hook point; head outputs are shown side by side, as everywhere here."""
        if not 0 <= site.layer < model.n_layers:
            raise InputError(
                f"layer {site.layer} is out of range: {model.name} has layers 0 to "
                f"{model.n_layers - 1}"
            )
        point = hook_point(self.bridge, str(site))

        def hook(hidden: Tensor, hook: Any) -> Tensor | None:
            new = look(rearrange(hidden, "batch pos ... -> batch pos (...)"))  # heads side by side
            return None if new is None else new.view(hidden.shape)

        point.add_hook(hook)
        return Hooked(point, point.fwd_hooks[-1])


def hook_point(bridge: Any, name: str) -> Any:
    """A hook point by name. TransformerLens takes an unknown name for one that never fires."""
    found = bridge
    for part in name.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part, None)
        if found is None:
            raise InputError(f"TransformerLens' bridge has no hook point {name!r} here")
    return found


def bridge_of(model: Model) -> tuple[Any, Any]:
    """A second tree over the model's weights, and the bridge that was built into it.

    Raises `InputError` where TransformerLens does not know the architecture, or the model already
    runs on another engine.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    if model.engine is not PLAIN:
        raise InputError(f"{model.name} runs on {model.engine.name}; give the plain model")
    hf = twin(model.hf)
    lm = hf.get_base_model() if model.adapters else hf
    try:
        bridge = build_bridge_from_module(
            lm, type(lm).__name__, hf_config=lm.config, tokenizer=None, model_name=model.name
        )
    except (ValueError, KeyError) as fault:
        line = str(fault).splitlines()[0]
        raise InputError(f"{model.name}: TransformerLens cannot bridge it ({line})") from None
    return hf, bridge


def bridged(model: Model) -> Model:
    """The model with its passes run on TransformerLens' bridge."""
    hf, bridge = bridge_of(model)
    return replace(model, hf=hf, engine=Lens(bridge))
