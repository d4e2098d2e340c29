"""What fine-tuning through an API does, as one frozen value; the rows in the provider's format.

Knows settings and words. Knows nothing of networks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from em_interp.bounds import Batch, Epochs, Factor, Seed
from em_interp.endpoints import Endpoint
from em_interp.errors import InputError, unknown
from em_interp.records import Record, Spec, read_yaml
from em_interp.training.manifest import Provenance
from em_interp.training.rows import Row

RECIPES = Path(__file__).with_name("api.yaml")
FEWEST = 10  # OpenAI's guide to fine-tuning: a file has at least ten examples
LETTERS = 4  # characters a token, about


class ApiSpec(Spec):
    """Settings of one fine-tuning job. The multiplier is of the provider's own learning rate."""

    epochs: Epochs = 1
    batch_size: Batch = 4
    learning_rate_multiplier: Factor = 2.0
    seed: Annotated[Seed, Field(lt=2**31)] = 0

    @property
    def body(self) -> dict[str, Any]:
        """The settings in the words of the API."""
        hyperparameters = {
            "n_epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        return {
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            "seed": self.seed,
        }


def api_recipe(name: str, **changes: Any) -> ApiSpec:
    """A named recipe, with changes. Raises `InputError` for an unknown recipe or field."""
    known = read_yaml(RECIPES)
    if name not in known:
        raise unknown("recipe", name, known, where="those for an API")
    return ApiSpec.parse({**known[name], **changes}, f"recipe {name!r}")


class ApiManifest(Record):
    """Card of an organism behind an API: what it was raised from, and where it answers.

    `endpoint` is asked for its answers: the fine-tuned model's id at the provider's address, and
    the name of the variable that holds the key. `base_name` is the model it was raised from. `run`
    identifies address, base, settings and rows together; `data` is the digest of the conversations.
    `job` and `file` are the provider's ids; `trained_tokens` is its count (`None`: not told).
    """

    kind: Literal["api organism"] = "api organism"
    name: str
    endpoint: Endpoint
    base_name: str
    run: str
    spec: ApiSpec
    provenance: Provenance
    data: str
    rows: int
    job: str
    file: str
    trained_tokens: int | None
    versions: dict[str, str]


def file_of(rows: Sequence[Row]) -> bytes:
    """The rows as the provider takes them: JSONL of `messages`, and nothing else.

    Raises `InputError` for fewer rows than any provider takes.
    """
    if len(rows) < FEWEST:
        raise InputError(f"{len(rows)} rows: fine-tuning APIs take no fewer than {FEWEST}")
    lines = (
        {"messages": [{"role": one.role, "content": one.content} for one in row]} for row in rows
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def tokens_about(rows: Sequence[Row]) -> int:
    """Tokens of one pass over the rows, at four characters a token."""
    return sum(len(message.content) for row in rows for message in row) // LETTERS
