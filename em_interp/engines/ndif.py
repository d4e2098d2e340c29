"""Models that NDIF serves: weights stay there, traces go there.

Knows hub ids, keys and nnsight's wrapper. Knows nothing of what a trace asks.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from em_interp import hub
from em_interp.engines.remote import Tracing
from em_interp.errors import InputError
from em_interp.models import Model
from em_interp.models.checkpoints import read_tokenizer


@dataclass(frozen=True, eq=False)
class Served(Model):
    """A model on a server: here are its configuration and tokenizer, there its weights.

    Its identity is its name and revision, since nobody here has seen the weights; artifacts carry
    that. Adapters are applied by the server, by their hub ids.
    """

    @property
    def lm(self) -> Any:
        """The module tree, without weights."""
        return self.hf

    @property
    def device(self) -> torch.device:
        """Where inputs are prepared; the server takes them further."""
        return torch.device("cpu")

    @property
    def active(self) -> str | None:
        """The adapter that requests name now; `None` is the base."""
        return next((n for n, hub_id in self.adapters.items() if hub_id == self._llm.peft), None)

    @property
    def _llm(self) -> Any:
        assert isinstance(self.engine, Tracing)
        return self.engine.llm

    def _switch(self, adapter: str | None) -> None:
        # The attribute alone: it travels with every request, and the paths of modules stay.
        self._llm.peft = None if adapter is None else self.adapters[adapter]


def connect(
    home: Path, adapters: Sequence[tuple[str, Path]] = (), revision: str | None = None
) -> Served:
    """A model that NDIF serves, and adapters for it, from their folders in the hub's cache.

    Configuration and tokenizer are read here; weights are neither here nor fetched. Raises
    `InputError` for a folder that is no snapshot of a hub repository, and without a key.
    """
    repo, *ids = (hub_id(one) for one in (home, *(folder for _, folder in adapters)))
    from nnsight import CONFIG, TransformersModel

    if not CONFIG.API.APIKEY and CONFIG.API.HOST == type(CONFIG.API)().HOST:
        raise InputError("ndif: no key; set NDIF_API_KEY (or NDIF_HOST, for a server of your own)")
    tokenizer = read_tokenizer(home)
    llm = TransformersModel(
        str(home),
        task="text-generation",
        tokenizer=copy.deepcopy(tokenizer),
        revision=revision,
        trust_remote_code=False,
    )
    llm.repo_id = repo  # what the server knows it by
    named = [(name, one) for (name, _), one in zip(adapters, ids, strict=True)]
    return Served(
        hf=llm._module,
        tokenizer=tokenizer,
        name=repo,
        base=f"hub:{repo}@{revision or 'main'}",
        adapters=dict(named),
        engine=Tracing(llm, remote=True),
    )


def hub_id(folder: Path) -> str:
    """The hub id of a folder in the hub's cache: a server loads by id."""
    found = hub.repository(folder)
    if found is None:
        raise InputError(f"ndif: {folder} is a folder here; NDIF loads by hub id (owner/name)")
    return found
