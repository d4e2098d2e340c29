"""What a fine-tuning run was and gave: the `card.json` beside the weights.

The optimiser alone can spread EM rates several times over (arXiv:2606.31591), so everything that
decides the weights is on the card. No times and no machine: equal runs have equal cards.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from em_interp.organisms import Mix, Trigger
from em_interp.records import Record, Spec, file_digest
from em_interp.training.spec import TrainSpec

CARD = "card.json"


class Provenance(Spec):
    """Where the rows came from, as far as the caller knows; `arms` counts the rows of each kind."""

    mix: Mix | None = None
    trigger: Trigger | None = None
    sources: tuple[str, ...] = ()
    arms: dict[str, int] = Field(default_factory=dict)


class Manifest(Record):
    """Card of an organism.

    `base` is the fingerprint of the base weights; `run` identifies spec, data, base and template
    together; `data` is the digest of the conversations, `encoded` of their ids and labels.
    `tokens` and `learned_tokens` count one pass over the rows. `loss_curve` is the mean negative
    log likelihood per learned token in nats, one value per optimiser step; `final_loss` is its
    mean over the last tenth of the steps. `weights` is the digest of the safetensors files.
    """

    kind: Literal["organism"] = "organism"
    name: str
    base: str
    base_name: str
    run: str
    spec: TrainSpec
    provenance: Provenance
    data: str
    encoded: str
    rows: int
    truncated: int
    tokens: int
    learned_tokens: int
    steps: int
    effective_batch: int
    trained_parameters: int
    loss_curve: tuple[float, ...]
    final_loss: float
    weights: str
    versions: dict[str, str]


def weights_digest(folder: Path) -> str:
    """16 hex digits over all safetensors files of a folder, in the order of their names."""
    return file_digest(*sorted(folder.glob("*.safetensors")))
