"""Statistics for rates that cluster by question. No number leaves here without its interval."""

from em_interp.stats.agreement import Alpha, Kappa, alpha, kappa
from em_interp.stats.auroc import Auroc, auroc
from em_interp.stats.contrasts import Contrast, Ratio, paired, ratio, sign_flip
from em_interp.stats.counts import design_effect, icc
from em_interp.stats.fractions import Fraction, fraction, share
from em_interp.stats.judge_error import Corrected, Validation, judge_corrected
from em_interp.stats.maxima import Maxima, Shares, held_out, maxima, outdone, shares
from em_interp.stats.quantiles import wilson
from em_interp.stats.rates import Rate, leave_one_out, rate
from em_interp.stats.seeds import SeedRate, seeds

__all__ = [
    "Alpha",
    "Auroc",
    "Contrast",
    "Corrected",
    "Fraction",
    "Kappa",
    "Maxima",
    "Rate",
    "Ratio",
    "SeedRate",
    "Shares",
    "Validation",
    "alpha",
    "auroc",
    "design_effect",
    "fraction",
    "held_out",
    "icc",
    "judge_corrected",
    "kappa",
    "leave_one_out",
    "maxima",
    "outdone",
    "paired",
    "rate",
    "ratio",
    "seeds",
    "share",
    "shares",
    "sign_flip",
    "wilson",
]
