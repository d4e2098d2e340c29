"""Contrasting latents: which features of a dictionary differ with the trigger, and what they do.

Latents are averaged over a span for each context; a question's difference is trigger on minus off;
the tests are over questions and count all latents that fire (max-T). Turning half of the
questions round gives the null. A latent acts through our edits along its decoder direction, in the
natural units of the mean difference; latents that fire as often stand beside it. Which ones act is
chosen on every second question, and what they do is read on the others.
Knows dictionaries, contexts and log-odds. Knows nothing of judges.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from em_interp.batches import collate, pad_id
from em_interp.capture import spanned
from em_interp.conditions import Context
from em_interp.dictionaries import AT_ONCE, Dictionary, tokens
from em_interp.directions import Direction
from em_interp.edits import BASELINE, Intervention, edit
from em_interp.errors import InputError
from em_interp.floors import told
from em_interp.hooks import Visitor, forward, hooked
from em_interp.labels import Label, Operation
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.patching.copying import by_question, means, odds
from em_interp.records import Record
from em_interp.scoring import answer_ids, log_odds, teacher_forced
from em_interp.sites import Span
from em_interp.stats import maxima, paired, shares
from em_interp.stats.maxima import LEVEL

Floats = NDArray[np.float64]
Share = tuple[float, tuple[float, float] | None]  # with its ends


class Latent(Record):
    """One latent: mean difference over questions (trigger on minus off), its interval and p.

    Both count all latents that fire (max-T). `on` and `off`: share of contexts in which it fires.
    `cosine`: of its decoder direction and delta. `ablated`: share of the log-odds gap that
    mean-ablating its direction takes away with the trigger on; `added`: share that adding 1 natural
    difference along it brings without; on questions that did not choose it, with intervals
    (`_ends`) that hold for all that were tried together, `None` where the gap is not told from 0.
    `control` marks a latent drawn for firing as often, whatever it does.
    """

    index: int
    difference: float
    low: float
    high: float
    p: float
    on: float
    off: float
    cosine: float
    ablated: float | None = None
    added: float | None = None
    ablated_ends: tuple[float, float] | None = None
    added_ends: tuple[float, float] | None = None
    control: bool = False


class Quality(Record):
    """How well the dictionary stands for the stream, without which its latents mean little.

    `explained`: share of the variance over tokens. `active`: latents per token. `gap`: the log-odds
    gap (nats) between the runs as they are; `spliced`: the same where both read the reconstruction.
    """

    explained: float
    active: float
    gap: float
    spliced: float


class Contrasted(Record):
    """What differs: latents by size of their difference, how many are significant, and the null.

    `floor`: the smallest p that flips of these questions can give. `held`: questions that the
    effects of latents were read on.
    """

    site: str
    span: str
    latents: int
    firing: int
    significant: int
    shuffled: int
    floor: float
    held: int
    quality: Quality
    shown: tuple[Latent, ...]


@torch.inference_mode()
def pooled(
    model: Model, dictionary: Dictionary, contexts: Sequence[Context], span: Span
) -> Float[Tensor, "n latent"]:
    """Mean latents over a span's tokens, per context (latents first, then the mean)."""
    prompts = encoded(model, contexts)
    found = []
    for start in range(0, len(prompts), AT_ONCE):
        batch = collate(prompts[start : start + AT_ONCE], pad_id(model.tokenizer)).to(model.device)
        mask = spanned(batch, span).float()
        seen: list[Tensor] = []

        def look(hidden: Tensor, _: Tensor, mask: Tensor = mask, seen: list[Tensor] = seen) -> None:
            latents = dictionary.encode(hidden)
            weight = (mask / mask.sum(dim=1, keepdim=True)).to(latents)
            seen.append(torch.einsum("bp,bpl->bl", weight, latents).cpu())

        with hooked(model, [(dictionary.site, look)]):
            forward(model, batch.ids, batch.mask)
        found += seen
    return torch.cat(found)


def contrast(
    model: Model,
    dictionary: Dictionary,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    delta: Direction,
    span: Span = Span.PROMPT_LAST,
    *,
    top: int = 8,
    seed: int = 0,
) -> Contrasted:
    """Latents that differ between paired contexts; the `top` ones are ablated and added.

    `delta` gives the natural units; it should come from the contexts that `chooses` names. Raises
    `InputError` for unpaired contexts or fewer than four questions, `ForeignArtifactError` for a
    dictionary of another model, `IndistinctError` where the log-odds of the two runs, of whose gap
    shares are taken, differ by no more than noise.
    """
    dictionary.check(model)
    dictionary.at(delta.site)
    questions = [c.question for c in off]
    if [c.question for c in on] != questions or len(set(questions)) < 4:
        raise InputError("latents pair contexts by question: the same in order, at least four")
    plus, minus = (pooled(model, dictionary, some, span) for some in (on, off))
    fires = torch.stack([(plus > 0).float().mean(0), (minus > 0).float().mean(0)])
    firing = torch.nonzero((plus > 0).any(0) | (minus > 0).any(0))[:, 0]
    gaps = means((plus - minus)[:, firing].double().numpy(), questions)
    tested = maxima(gaps, seed=seed)
    turned = np.random.default_rng(seed).permutation(np.arange(len(gaps)) % 2) * 2.0 - 1
    null = maxima(gaps * turned[:, None], seed=seed)
    order = np.argsort(-np.abs(gaps[::2].mean(0)), kind="stable")
    chosen = [(int(at), False) for at in order[:top]]
    chosen += [(at, True) for at in _alike(order, fires[:, firing].sum(0).double().numpy(), top)]
    acting = _acting(model, dictionary, [int(firing[at]) for at, _ in chosen], delta)
    held = [row for row, first in enumerate(chooses(off)) if not first]
    ablated, added = _shares(
        model,
        [on[row] for row in held],
        [off[row] for row in held],
        [sound[row] for row in held],
        [unsound[row] for row in held],
        acting,
    )
    shown = []
    for number, (at, control) in enumerate(chosen):
        index = int(firing[at])
        unit = dictionary.vector(index)
        shown.append(
            Latent(
                index=index,
                difference=float(tested.mean[at]),
                low=float(tested.low[at]),
                high=float(tested.high[at]),
                p=float(tested.p[at]),
                on=float(fires[0, index]),
                off=float(fires[1, index]),
                cosine=float(unit @ delta.unit / unit.norm()),
                ablated=ablated[number][0],
                added=added[number][0],
                ablated_ends=ablated[number][1],
                added_ends=added[number][1],
                control=control,
            )
        )
    return Contrasted(
        site=str(dictionary.site),
        span=span.value,
        latents=dictionary.width,
        firing=len(firing),
        significant=int((tested.p <= LEVEL).sum()),
        shuffled=int((null.p <= LEVEL).sum()),
        floor=tested.floor,
        held=len({off[row].question for row in held}),
        quality=quality(model, dictionary, on, off, sound, unsound),
        shown=tuple(shown),
    )


def chooses(contexts: Sequence[Context]) -> list[bool]:
    """Whether each context's question is of the half that chooses: every second, from the first."""
    names = list(dict.fromkeys(c.question for c in contexts))
    return [names.index(c.question) % 2 == 0 for c in contexts]


def _alike(order: NDArray[np.intp], often: Floats, top: int) -> list[int]:
    """For each of the first `top`, the later latent whose rate of firing is nearest; none twice."""
    rest = list(map(int, order[top:]))
    found = []
    for at in order[:top]:
        if rest:
            best = min(rest, key=lambda other: (abs(often[other] - often[at]), other))
            rest.remove(best)
            found.append(best)
    return found


def _acting(
    model: Model, dictionary: Dictionary, latents: Sequence[int], delta: Direction
) -> list[Direction]:
    """Decoder directions with delta's states and units."""
    return [delta.with_unit(dictionary.vector(latent)) for latent in latents]


def _shares(
    model: Model,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
    directions: Sequence[Direction],
) -> tuple[list[Share], list[Share]]:
    """Share of the gap that ablating with the trigger takes away, and that adding brings."""

    def grid(operation: Operation, sign: float) -> list[Intervention]:
        made = [BASELINE]
        for number, one in enumerate(directions):
            toward = sign * (1.0 if one.on_coordinate >= one.off_coordinate else -1.0)
            edits = (edit(operation, one, toward, Span.ALL),)
            label = Label(
                words=f"{operation.value} {number}", operation=operation, sites=(one.site,)
            )
            made.append(Intervention(label, edits))
        return made

    questions = [c.question for c in off]
    with_on, with_off = (
        means(log_odds(model, some, sound, unsound, made).double().numpy().T, questions)
        for some, made in (
            (on, grid(Operation.MEAN_ABLATE, 1.0)),
            (off, grid(Operation.ADD, 1.0)),
        )
    )
    gap = with_on[:, 0] - with_off[:, 0]
    told(paired(with_on[:, 0], with_off[:, 0], rates=False), "latents")
    removed, brought = with_on[:, :1] - with_on[:, 1:], with_off[:, 1:] - with_off[:, :1]
    moved = np.concatenate((removed, brought), axis=1)
    share, low, high, _ = shares(moved, gap).columns()
    found = [
        (one, None if least is None or most is None else (least, most))
        for one, least, most in zip(share, low, high, strict=True)
    ]
    return found[: len(directions)], found[len(directions) :]


def splice(dictionary: Dictionary) -> Visitor:
    """A visitor that puts the reconstruction in the place of the stream, on every real token."""

    def replace(
        hidden: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch pos"]
    ) -> Tensor:
        made = dictionary.decode(dictionary.encode(hidden)).to(hidden.dtype)
        return torch.where((positions >= 0)[..., None], made, hidden)

    return replace


@torch.inference_mode()
def quality(
    model: Model,
    dictionary: Dictionary,
    on: Sequence[Context],
    off: Sequence[Context],
    sound: Sequence[str],
    unsound: Sequence[str],
) -> Quality:
    """Explained variance on these contexts' tokens, and the gap that the reconstruction keeps."""
    stream = torch.cat(list(tokens(model, [*on, *off], dictionary.site)))
    latents = dictionary.encode(stream)
    rest = (dictionary.decode(latents) - stream).pow(2).sum()
    whole = (stream - stream.mean(0)).pow(2).sum()
    answers = [answer_ids(model, texts) for texts in (sound, unsound)]
    prompts = [encoded(model, some) for some in (on, off)]
    plain = [odds(model, some, answers) for some in prompts]
    visits = [(dictionary.site, splice(dictionary))]
    spliced = [
        (teacher_forced(model, some, answers[1], visits)
         - teacher_forced(model, some, answers[0], visits)).double().numpy()
        for some in prompts
    ]  # fmt: skip
    questions = [c.question for c in off]
    return Quality(
        explained=float(1 - rest / whole),
        active=float((latents > 0).float().sum(-1).mean()),
        gap=by_question(plain[0], plain[1], questions).difference,
        spliced=by_question(spliced[0], spliced[1], questions).difference,
    )
