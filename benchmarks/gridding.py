"""A grid of 20 interventions as one batch, against one run each; the tokens are the same.

Greedy decoding, so that "the same" is exact. Two grids: edits on every token, where each setting
needs its own prefill, and edits on the response alone, where all share one.
"""

import torch

from benchmarks.material import asked, small
from benchmarks.paired import Row, ratio, take_turns
from em_interp.conditions import Condition
from em_interp.directions import Direction
from em_interp.edits import Intervention, intervention
from em_interp.generation import generate
from em_interp.labels import Operation
from em_interp.models import Model
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span

CONTEXTS = 4
GREEDY = Sampling(samples=1, temperature=0, max_new_tokens=12)
ONE, EACH = "one batch", "one run each"


def rows(rounds: int) -> list[Row]:
    """Seconds of one run each over seconds of one batch: how many times faster the batch is."""
    model = small()
    contexts = list(asked(Condition.TRIGGER, CONTEXTS))
    found = []
    for span, target in ((Span.ALL, ">= 1.3"), (Span.RESPONSE, "")):
        grid = settings(model, span)

        def one_batch(grid: list[Intervention] = grid) -> list[tuple[int, ...]]:
            return [r.tokens for r in generate(model, contexts, GREEDY, grid).responses]

        def one_each(grid: list[Intervention] = grid) -> list[tuple[int, ...]]:
            runs = [generate(model, contexts, GREEDY, [setting]) for setting in grid]
            return [r.tokens for run in runs for r in run.responses]

        times = take_turns({ONE: one_batch, EACH: one_each}, rounds, _same)
        group = f"20 settings x {CONTEXTS} contexts, greedy, tokens identical"
        found.append(Row(group, f"{EACH} / {ONE}, span {span}", ratio(times, EACH, ONE), target))
    return found


def settings(model: Model, span: Span, layers: int = 4) -> list[Intervention]:
    """Layers through the depth, five strengths each, along random directions."""
    generator = torch.Generator().manual_seed(2)
    made = []
    step = model.n_layers // layers
    for layer in range(step - 1, layers * step, step):
        off, on = torch.randn(2, model.d_model, generator=generator) * 0.05
        unit = (on - off) / (on - off).norm()
        site = Site(layer)
        table = {site: Direction(unit, off, on, 1.0, site)}
        for strength in (-2.0, -1.0, 1.0, 2.0, 4.0):
            name = f"layer {layer}, {strength:g}"
            made.append(intervention(name, Operation.ADD, table, [site], strength, span))
    return made


def _same(found: dict[str, list[tuple[int, ...]]]) -> None:
    assert found[ONE] == found[EACH], "a grid and single runs gave different tokens"
    assert len(set(found[ONE])) > CONTEXTS, "the settings changed nothing"
