"""Bounds: the numbers that specs and flags take, each kind with its limits, in one place.

All are finite, and none is a truth value. An upper limit is no matter of taste: beyond it stands
what it would take. Knows numbers. Knows nothing of what they are for.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

Number = int | float


def _plain(value: Any) -> Any:
    """YAML's yes and no are no numbers, though Python counts with them."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    return value


def _most(limit: Number, why: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if abs(value) > limit:
            raise ValueError(f"at most {limit:,}: {why}")
        return value

    return AfterValidator(check)


def _different(values: tuple[float, ...]) -> tuple[float, ...]:
    if double := next((one for at, one in enumerate(values) if one in values[:at]), None):
        raise ValueError(f"{double:g} comes twice")
    return values


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError("0 changes nothing; the run without it stands beside the others anyway")
    return value


def _sampled(value: float) -> float:
    if 0 < value < COLDEST:
        raise ValueError(f"0 is greedy; what is sampled is sampled at {COLDEST} or more")
    return value


COLDEST = 0.001
Finite = Annotated[float, BeforeValidator(_plain), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_plain)]
_ONE, _NONE, _MORE = Field(ge=1), Field(ge=0), Field(gt=0)

Seed = Annotated[Whole, Field(ge=0, lt=2**32)]  # what every generator takes, torch's and numpy's
Layer = Annotated[Whole, Field(ge=-4096, le=4096)]  # counted from the end, too
Share = Annotated[Finite, Field(ge=0, le=1)]
Score = Annotated[Finite, Field(ge=0, le=100)]

Samples = Annotated[Whole, _ONE, _most(100_000, "so many answers to each question take weeks")]
Questions = Annotated[Whole, _ONE, _most(1_000_000, "so many questions take weeks")]
Tokens = Annotated[
    Whole, _ONE, _most(1_000_000, "keys and values of so long a text take hundreds of gigabytes")
]
Shown = Annotated[Whole, _ONE, _most(10**9, "so many tokens take weeks")]
Temperature = Annotated[
    Finite, _NONE, _most(100, "that is noise over the vocabulary"), AfterValidator(_sampled)
]
TopP = Annotated[Finite, Field(gt=0, le=1)]
TopK = Annotated[Whole, _NONE, _most(10_000_000, "no vocabulary has so many tokens")]

Some = Annotated[Whole, _ONE, _most(10_000, "each of them takes as long as the one thing itself")]
Several = Annotated[Whole, _NONE, _most(10_000, "each of them takes as long as what it controls")]
Strength = Annotated[
    Finite,
    _most(1000, "a thousand natural differences leave nothing of the stream"),
    AfterValidator(_not_zero),
]
Strengths = Annotated[tuple[Strength, ...], Field(min_length=1), AfterValidator(_different)]

Rows = Annotated[Whole, _ONE, _most(100_000_000, "so many rows take hundreds of gigabytes")]
Steps = Annotated[Whole, _ONE, _most(100_000_000, "so many steps take years")]
Warmup = Annotated[Whole, _NONE, _most(100_000_000, "so many steps take years")]
Epochs = Annotated[Whole, _ONE, _most(100_000, "so many passes take years")]
Passes = Annotated[Finite, _MORE, _most(100_000, "so many passes take years")]
Batch = Annotated[Whole, _ONE, _most(65_536, "no device holds the activations of so many rows")]
Width = Annotated[Whole, _ONE, _most(1_048_576, "no stream is so wide")]
Rate = Annotated[Finite, _MORE, _most(10, "no weights outlive a step of that size")]
Factor = Annotated[Finite, _MORE, _most(1_000_000, "no weights outlive an update of that size")]
Clip = Annotated[Finite, _MORE, _most(10**12, "no gradient is so long")]
Decay = Annotated[Finite, _NONE, _most(1000, "nothing is left of weights that decay so fast")]

Processes = Annotated[Whole, _ONE, _most(4096, "no machine runs so many at once")]
Requests = Annotated[Whole, _NONE, _most(10**9, "so many requests take years")]
Seconds = Annotated[Finite, _MORE, _most(604_800, "that is a week")]
Pause = Annotated[Finite, _NONE, _most(604_800, "that is a week")]
Dollars = Annotated[Finite, _NONE, _most(10**9, "nobody has that much to spend")]
Speed = Annotated[Finite, _MORE, _most(10**9, "no machine is so fast")]
Gigabytes = Annotated[Finite, _MORE, _most(10**9, "no machine is so large")]
