"""Judges: one protocol, several kinds; a verdict is scored, or unscored with a reason.

base.py      what a judge sees and says; the rubric that turns scores into a call
scripted.py  a judge that follows a table
api.py       a judge behind an OpenAI-compatible endpoint
asking.py    how such a model must be asked, found out once
proving.py   what it must know before its first answer counts
reading.py   from its reply to a score
wording.py   what judges are asked, in our own words (wordings/, rubrics/)
cache.py     every reply ever paid for
budget.py    what judging will cost
"""

from em_interp.judges.base import FAILURES, Item, Judge, Reason, Rubric, Verdict, judged, rubric
from em_interp.judges.scripted import ScriptedJudge

__all__ = [
    "FAILURES",
    "Item",
    "Judge",
    "Reason",
    "Rubric",
    "ScriptedJudge",
    "Verdict",
    "judged",
    "rubric",
]
