"""Doses: where and how strongly arms are added. Chosen for the ceiling, so no arm is favoured.

Knows trials. Knows nothing of maps or sources.
"""

from collections.abc import Sequence

from em_interp.edits import BASELINE
from em_interp.grids import Dose
from em_interp.sites import Site
from em_interp.transferring.effects import Asker, Setting
from em_interp.trials import COHERENT, strongest, trial


def choose(
    setting: Setting, grid: Sequence[Dose], asker: Asker, log: str = "dose.jsonl"
) -> tuple[tuple[Site, ...], float]:
    """Where and how strongly the target's own direction works best on development questions.

    The highest EM rate at coherence of at least `COHERENT`; ties go to the weaker push.
    """
    found = trial(
        asker.model,
        setting.adapter,
        setting.contexts,
        asker.questions,
        [BASELINE, *(one.intervention for one in grid)],
        asker.sampling,
        asker.judge,
        asker.rubric,
        log=asker.log / log if asker.log else None,
        progress=asker.progress,
    )

    best, _ = strongest(found, grid, setting.contexts[0].condition, COHERENT)
    return best.sites, best.strength
