"""Judges: one protocol, several kinds; a verdict is scored, or unscored with a reason."""

from em_interp.judges.base import Item, Judge, Reason, Rubric, Verdict
from em_interp.judges.scripted import ScriptedJudge

__all__ = ["Item", "Judge", "Reason", "Rubric", "ScriptedJudge", "Verdict"]
