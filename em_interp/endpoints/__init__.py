"""Endpoints: where a model answers behind an OpenAI-compatible API, and what it costs.

The key is named here, never held: it comes from the environment when a client opens.
Knows addresses, names and prices. Knows nothing of requests.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from em_interp.bounds import Dollars, Pause, Processes, Seconds, Several
from em_interp.errors import InputError
from em_interp.records import Spec, read_yaml

OPENAI = "https://api.openai.com/v1"
PREFIX = "openai:"
LOCAL = ("localhost", "127.0.0.1", "::1")


class Endpoint(Spec):
    """Where a model answers and how to ask it. Prices are dollars per million tokens.

    `base_url`: `None` is OPENAI_BASE_URL, else OpenAI itself. `key` names the environment variable
    that holds the API key; a server on this machine needs none. `timeout` is for one try, in
    seconds; `patience` is the longest wait between two tries that a server may ask for.
    """

    model: str = Field(min_length=1, max_length=300, pattern=r"^\S+$")
    base_url: str | None = None
    key: str = "OPENAI_API_KEY"
    concurrency: Processes = 16
    timeout: Seconds = 60.0
    retries: Several = 6
    backoff: Pause = 0.5
    patience: Pause = 120.0
    price_in: Dollars | None = None
    price_out: Dollars | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        # Before the fields are checked, and never quoted: a pasted secret stays off the terminal.
        given = data if isinstance(data, Mapping) else {}
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", str(given.get("key", "OPENAI_API_KEY"))):
            raise ValueError(
                "key must be the name of an environment variable that holds the API key "
                "(capitals, such as OPENAI_API_KEY), never the key itself"
            )
        url = urlsplit(str(given.get("base_url") or OPENAI))
        if url.username or url.password or url.query:
            raise ValueError("base_url must carry no user, password or query: keys stay outside")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url must be an address such as http://127.0.0.1:8000/v1")
        return data

    @property
    def url(self) -> str:
        """The address that will be asked."""
        found = self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        return found.rstrip("/")

    @property
    def host(self) -> str:
        """The address without scheme, path or port, for people and for names."""
        return urlsplit(self.url).hostname or self.url

    @property
    def prices(self) -> tuple[float, float] | None:
        """Dollars per million tokens (in, out): those given, else the list price where known."""
        if self.price_in is not None and self.price_out is not None:
            return self.price_in, self.price_out
        return list_prices().get(self.model) if self.url == OPENAI else None

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; `None` where the price is not known."""
        if self.prices is None:
            return None
        return (tokens_in * self.prices[0] + tokens_out * self.prices[1]) / 1e6

    def secret(self) -> str:
        """The API key from the environment; raises `InputError` where one is needed and not set."""
        if held := os.environ.get(self.key):
            return held
        if self.host in LOCAL:
            return "none-needed"
        raise InputError(f"{self.host}: set the environment variable {self.key} to your API key")


def endpoint(source: str) -> Endpoint:
    """`openai:MODEL`, or a YAML file with an `Endpoint`'s fields."""
    if source.startswith(PREFIX):
        return Endpoint.parse({"model": source.removeprefix(PREFIX)}, source)
    if source.endswith((".yaml", ".yml", ".json")):
        return Endpoint.from_yaml(source)
    raise InputError(f"{source!r} names no endpoint: openai:MODEL, or a YAML file with its fields")


@cache
def list_prices() -> dict[str, tuple[float, float]]:
    """Model to dollars per million tokens (in, out), from `prices.yaml`."""
    plain = read_yaml(Path(__file__).parent / "prices.yaml")
    return {name: (float(one[0]), float(one[1])) for name, one in plain["models"].items()}
