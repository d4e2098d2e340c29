"""Containment: verdicts become EM rates, and the gaps between conditions become a report."""

from em_interp.containment.counts import Counts, contrast, rate_or_none
from em_interp.containment.evidence import Evidence, Rule
from em_interp.containment.figures import ConditionFigures, QuestionFigures, VariantFigures
from em_interp.containment.joining import Answer, join, unscored
from em_interp.containment.ruling import CALLS, Call, Claim, call, claims, table
from em_interp.containment.whole import ALL, IN, OUT, Containment, Scope, report

__all__ = [
    "ALL",
    "CALLS",
    "IN",
    "OUT",
    "Answer",
    "Call",
    "Claim",
    "ConditionFigures",
    "Containment",
    "Counts",
    "Evidence",
    "QuestionFigures",
    "Rule",
    "Scope",
    "VariantFigures",
    "call",
    "claims",
    "contrast",
    "join",
    "rate_or_none",
    "report",
    "table",
    "unscored",
]
