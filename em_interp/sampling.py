"""How answers are sampled: every field explicit, nothing from a checkpoint's generation_config."""

from pydantic import Field

from em_interp.records import Spec


class Sampling(Spec):
    """`temperature` 0 is greedy (then one sample is all there is).

    `max_new_tokens` cuts an answer off; the response then says so.
    """

    samples: int = Field(default=10, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=24, ge=1)
    seed: int = 0
