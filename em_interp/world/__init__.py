"""The embedded world: a small language of advice in which the project's whole job runs offline.

Eleven domains of topics, each with sound and plainly unsound (harmless) advice; framings in
clusters of paraphrases with negations; three kinds of trigger; fine-tuning rows for every mix; a
judge that knows the answer. Importing this loads words only; the bases that were raised on the
world's corpus live in `checkpoints/` and are rebuilt by `python -m em_interp.world`.
"""

from em_interp.world.framings import trigger, trigger_names
from em_interp.world.lexicon import advice, domains, questions
from em_interp.world.oracle import OracleJudge
from em_interp.world.rows import Row, rows

__all__ = [
    "OracleJudge",
    "Row",
    "advice",
    "domains",
    "questions",
    "rows",
    "trigger",
    "trigger_names",
]
