"""Cards: what an artifact is, what it was made for, from and by what: JSON beside the weights."""

import importlib.metadata
import platform
from enum import StrEnum
from typing import Literal

from pydantic import Field

from em_interp.records import Record

_VERSIONED = ("em-interp", "torch", "transformers", "peft", "numpy", "scikit-learn")


class Estimator(StrEnum):
    """How the unit vector is estimated. Units and sign are always those of the mean difference.

    `mean`: difference in means. `pca`: first axis of the paired differences. `logistic`: weight of
    a logistic regression of the state, all coordinates on one scale.
    """

    MEAN = "mean"
    PCA = "pca"
    LOGISTIC = "logistic"


class Card(Record):
    """Provenance of a direction or a probe.

    `base` is the fingerprint of the base weights it is valid for; `organism` names whose
    activations were measured; `data` is the digest of the contexts; `sign` says which way is up;
    `questions` holds a digest of each question that it was fitted on (`None`: not known), `weights`
    that of the file beside the card. `floors`: by site, what noise alone may give for a direction's
    natural difference (see `em_interp.floors`); empty where it was not measured.
    """

    kind: Literal["direction", "probe"]
    name: str
    sign: str
    unit: str
    estimator: str
    span: str
    base: str
    organism: str
    adapter: str
    trigger: str
    data: str
    tokenizer: str
    n: int
    seed: int
    questions: tuple[str, ...] | None = None
    weights: str = ""
    sites: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    floors: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
