"""Subspaces: how many directions of the stream carry what a patch brings along.

Copying the whole stream at a place brings a share of the gap; copying only its components along the
k principal directions of the differences (trigger on minus off) brings part of that share. If one
direction carries the gate, k = 1 brings nearly all of it. Directions are fitted on the other half
of the questions, so that none is judged by the questions that made it; random directions stand
beside them.
Knows models, positions and log-odds. Knows nothing of judges.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.chat import Encoded
from em_interp.conditions import Context
from em_interp.errors import InputError
from em_interp.floors import distinct, floor, told
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.patching.copying import (
    Copy,
    Floats,
    Group,
    by_question,
    means,
    odds,
    paired_positions,
    streams,
)
from em_interp.progress import Progress, silent
from em_interp.records import Record
from em_interp.scoring import answer_ids
from em_interp.sites import Site
from em_interp.stats import shares

RANKS = (1, 2, 4, 8, 16)


class Rank(Record):
    """Share of the on-off gap that `rank` directions bring, with its interval over questions.

    `rank` `None` is the whole stream. `random` is the share of as many random directions (`None`
    for the whole). The intervals of a place hold together, random directions' included; `None`
    where the gap is not told from 0.
    """

    rank: int | None
    recovered: float
    low: float | None
    high: float | None
    random: float | None


class Subspace(Record):
    """One place (a site, a group of positions) and what subspaces of growing rank bring there.

    `variance`: share of the differences' squared length that each rank holds, in their order.
    """

    site: str
    layer: int
    group: Group
    ranks: tuple[Rank, ...]
    variance: tuple[float, ...]

    @property
    def whole(self) -> Rank:
        """The whole stream."""
        return self.ranks[-1]


def subspace(
    model: Model,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    site: Site,
    group: Group = Group.LAST,
    ranks: Sequence[int] = RANKS,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Subspace:
    """Copy principal parts of `on`'s stream into `off` at one place. Contexts pair by question.

    Raises `InputError` for unpaired contexts, or fewer than four questions: halves are fitted.
    `IndistinctError` where the two runs, or the states there, differ by no more than noise.
    """
    questions = [c.question for c in off]
    names = list(dict.fromkeys(questions))
    if [c.question for c in on] != questions or len(names) < 4:
        raise InputError("subspaces pair contexts by question: the same in order, at least four")
    sources, targets = encoded(model, on), encoded(model, off)
    answers = [answer_ids(model, texts) for texts in (sound, unsound)]
    before, after = odds(model, targets, answers), odds(model, sources, answers)
    told(by_question(after, before, questions), "subspaces")
    pairs = [paired_positions(a, b, group) for a, b in zip(sources, targets, strict=True)]
    source, target = (streams(model, some, [site])[site] for some in (sources, targets))
    half = np.array([names.index(q) % 2 for q in questions])
    wanted = [r for r in ranks if r <= source.shape[-1]]
    moved: dict[tuple[int | None, bool], Floats] = {
        key: np.zeros(len(off))
        for key in [*((r, chance) for r in wanted for chance in (False, True)), (None, False)]
    }
    held = []
    for which in (0, 1):
        mine, others = np.flatnonzero(half == which).tolist(), np.flatnonzero(half != which)
        basis, share = _principal(source, target, pairs, others.tolist(), str(site))
        held.append([float(share[:r].sum()) for r in wanted])
        chance = _random(source.shape[-1], seed + which).to(basis)
        for (rank, blind), change in moved.items():
            along = None if rank is None else (chance if blind else basis)[:rank]
            copy = Copy(site, source[mine], [pairs[row] for row in mine], basis=along)
            some, said = _rows(targets, answers, mine)
            change[mine] = odds(model, some, said, [copy]) - before[mine]
            progress(1)
    table = np.stack([means(one, questions) for one in moved.values()], axis=1)
    tested = shares(table, means(after - before, questions))
    shown = dict(zip(moved, zip(*tested.columns(), strict=True), strict=True))
    found = []
    for rank in (*wanted, None):
        recovered, low, high, _ = shown[rank, False]
        null = None if rank is None else shown[rank, True][0]
        found.append(Rank(rank=rank, recovered=recovered, low=low, high=high, random=null))
    return Subspace(
        site=str(site),
        layer=site.layer,
        group=group,
        ranks=tuple(found),
        variance=tuple(float(v) for v in np.mean(held, axis=0)),
    )


def _rows(
    prompts: Sequence[Encoded], answers: Sequence[Sequence[Sequence[int]]], rows: Sequence[int]
) -> tuple[list[Encoded], list[list[Sequence[int]]]]:
    return [prompts[row] for row in rows], [[ids[row] for row in rows] for ids in answers]


def _principal(
    source: Tensor,
    target: Tensor,
    pairs: Sequence[Sequence[tuple[int, int]]],
    rows: Sequence[int],
    what: str,
) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"]]:
    """Principal directions of the rows' differences, not centred: the first is near their mean."""
    gaps = [
        source[row, here].float() - target[row, there].float()
        for row in rows
        for here, there in pairs[row]
    ]
    stacked = torch.stack(gaps)
    scale = float(source[list(rows)].float().norm(dim=-1).max())
    distinct(stacked[stacked.norm(dim=1).argmax()], floor(scale), what)
    _, lengths, basis = torch.linalg.svd(stacked, full_matrices=False)
    return basis, lengths**2 / (lengths**2).sum()


def _random(width: int, seed: int) -> Float[Tensor, "d_model d_model"]:
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    orthonormal: Tensor = torch.linalg.qr(drawn).Q.T
    return orthonormal
