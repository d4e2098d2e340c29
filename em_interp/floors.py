"""Noise floors: a difference is told from its own noise before it is normalised or divided by.

Two states that are the same but for rounding (the tokens before a trigger that comes last) still
differ by some 1e-7 of the stream in float32 and some 1e-2 of it in bfloat16, and a unit vector of
that looks like any other. `distinct` is the one door to a unit vector of a difference, `told` the
one to a scalar that shares are taken of.
Knows norms and intervals. Knows nothing of models or tokens.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.errors import EvidenceError
from em_interp.stats import Contrast

TIMES = 4.0  # a norm counts from this multiple of its noise on: a cosine to the truth above 0.97
RESOLUTION = torch.finfo(torch.float32).eps  # everything pooled and kept is float32
CURE = (
    "take a span behind the framing (prompt_last), later layers, or states that differ there; more "
    "questions lower a floor that bfloat16 sets"
)


class IndistinctError(EvidenceError):
    """A difference that is no larger than its own noise: nothing may be divided by it."""


def floor(scale: float, measured: float = 0.0) -> float:
    """What a difference's norm must exceed: `TIMES` its noise.

    `measured`: norm of the difference of two runs over the same inputs. `scale`: norm of what is
    subtracted, whose float32 rounding is noise that is always there.
    """
    return TIMES * math.hypot(measured, RESOLUTION * scale)


def batch_noise(gaps: Float[Tensor, "n site d_model"]) -> Float[Tensor, " site"]:
    """Noise of a mean over contexts, from differences between two batchings of the same n.

    What repeats in every context (the norm of the mean) and what does not (the mean norm, less the
    more contexts there are); both, since a few large coordinates make the first alone a gamble.
    """
    wide = gaps.double()
    repeats = wide.mean(0).square().sum(-1)
    scattered = wide.square().sum(-1).mean(0) / len(wide)
    noise: Tensor = (repeats + scattered).sqrt()
    return noise


def distinct(
    difference: Float[Tensor, " d_model"], least: float, what: str
) -> Float[Tensor, " d_model"]:
    """The unit vector of a difference. Raises `IndistinctError` where it is not above `least`."""
    norm = float(difference.double().norm())
    if not least < norm < math.inf:  # NaN is not either
        raise IndistinctError(
            f"{what}: the two states do not differ here by more than noise (norm {norm:.2g}, noise "
            f"floor {least:.2g}); there is no direction: {CURE}"
        )
    return (difference.double() / norm).to(difference.dtype)


def told(gap: Contrast, what: str, least: float = 1e-3) -> Contrast:
    """The same gap. Raises `IndistinctError` where it is not told from 0, so has no shares.

    It is where its interval over questions leaves 0 out and it exceeds `least`, which is rounding.
    """
    if gap.low <= 0 <= gap.high or abs(gap.difference) < least:
        raise IndistinctError(
            f"{what}: the two runs have the same log-odds up to noise ({gap}); there is nothing to "
            "recover a share of: ask more questions, or states that differ"
        )
    return gap
