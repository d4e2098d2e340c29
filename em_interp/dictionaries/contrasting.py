"""Contrasting latents: which features of a dictionary differ with the trigger, and what they do.

Latents are averaged over a span for each context; a question's difference is trigger on minus off;
the tests are over questions and adjusted over all latents that fire (Holm). Turning half of the
questions round gives the null. A latent acts through our edits along its decoder direction, in the
natural units of the mean difference; latents that fire as often stand beside it.
Knows dictionaries, contexts and log-odds. Knows nothing of judges.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from em_interp.batches import collate, pad_id
from em_interp.capture import spanned
from em_interp.chat import encode_many
from em_interp.conditions import Context
from em_interp.dictionaries import AT_ONCE, Dictionary, tokens
from em_interp.directions import Direction
from em_interp.edits import BASELINE, Intervention, edit
from em_interp.errors import InputError
from em_interp.floors import told
from em_interp.hooks import Visitor, forward, hooked
from em_interp.labels import Label, Operation
from em_interp.models import Model
from em_interp.patching.copying import by_question, odds
from em_interp.records import Record
from em_interp.scoring import answer_ids, log_odds, teacher_forced
from em_interp.sites import Span
from em_interp.stats import holm

Floats = NDArray[np.float64]
SIGNIFICANT = 0.05


class Latent(Record):
    """One latent: mean difference over questions (trigger on minus off), its interval and p (Holm).

    `on` and `off`: share of contexts in which it fires. `cosine`: of its decoder direction and
    delta. `ablated`: share of the log-odds gap that mean-ablating its direction takes away with the
    trigger on; `added`: share that adding 1 natural difference along it brings without. `None`
    where it was not tried. `control` marks a latent drawn for firing as often, whatever it does.
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
    """What differs: latents by size of their difference, how many are significant, and the null."""

    site: str
    span: str
    latents: int
    firing: int
    significant: int
    shuffled: int
    quality: Quality
    shown: tuple[Latent, ...]


@torch.inference_mode()
def pooled(
    model: Model, dictionary: Dictionary, contexts: Sequence[Context], span: Span
) -> Float[Tensor, "n latent"]:
    """Mean latents over a span's tokens, per context (latents first, then the mean)."""
    prompts = encode_many(model.tokenizer, contexts)
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

    Raises `InputError` for unpaired contexts or fewer than two questions, `ForeignArtifactError`
    for a dictionary of another model, `IndistinctError` where the log-odds of the two runs, of
    whose gap shares are taken, differ by no more than noise.
    """
    dictionary.check(model)
    dictionary.at(delta.site)
    questions = [c.question for c in off]
    if [c.question for c in on] != questions or len(set(questions)) < 2:
        raise InputError("latents pair contexts by question: the same in order, at least two")
    plus, minus = (pooled(model, dictionary, some, span) for some in (on, off))
    fires = torch.stack([(plus > 0).float().mean(0), (minus > 0).float().mean(0)])
    firing = torch.nonzero((plus > 0).any(0) | (minus > 0).any(0))[:, 0]
    gaps = _by_question((plus - minus)[:, firing], questions)
    tested = _tests(gaps)
    turned = np.random.default_rng(seed).permutation(np.arange(len(gaps)) % 2) * 2.0 - 1
    null = _tests(gaps * turned[:, None])
    order = np.argsort(-np.abs(gaps.mean(0)), kind="stable")
    chosen = [(int(at), False) for at in order[:top]]
    chosen += [(at, True) for at in _alike(order, fires[:, firing].sum(0).double().numpy(), top)]
    acting = _acting(model, dictionary, [int(firing[at]) for at, _ in chosen], delta)
    shares = _shares(model, on, off, sound, unsound, acting, questions)
    shown = []
    for number, (at, control) in enumerate(chosen):
        index = int(firing[at])
        difference, low, high, p = (float(column[at]) for column in tested)
        unit = dictionary.vector(index)
        shown.append(
            Latent(
                index=index,
                difference=difference,
                low=low,
                high=high,
                p=p,
                on=float(fires[0, index]),
                off=float(fires[1, index]),
                cosine=float(unit @ delta.unit / unit.norm()),
                ablated=shares[0][number],
                added=shares[1][number],
                control=control,
            )
        )
    return Contrasted(
        site=str(dictionary.site),
        span=span.value,
        latents=dictionary.width,
        firing=len(firing),
        significant=int((tested[3] < SIGNIFICANT).sum()),
        shuffled=int((null[3] < SIGNIFICANT).sum()),
        quality=quality(model, dictionary, on, off, sound, unsound),
        shown=tuple(shown),
    )


def _by_question(values: Float[Tensor, "n latent"], questions: Sequence[str]) -> Floats:
    names = np.array(questions)
    table = values.double().numpy()
    return np.stack([table[names == name].mean(0) for name in dict.fromkeys(questions)])


def _tests(gaps: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, 95 % t interval over questions and Holm-adjusted p, for each latent."""
    count = len(gaps)
    mean, error = gaps.mean(0), gaps.std(0, ddof=1) / np.sqrt(count)
    reach = student.ppf(0.975, count - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(error > 0, np.abs(mean) / error, np.where(mean == 0, 0.0, np.inf))
    p = np.array(holm((2 * student.sf(score, count - 1)).tolist()))
    return mean, mean - reach, mean + reach, p


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
    questions: Sequence[str],
) -> tuple[list[float], list[float]]:
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

    with_on = log_odds(model, on, sound, unsound, grid(Operation.MEAN_ABLATE, 1.0)).double()
    with_off = log_odds(model, off, sound, unsound, grid(Operation.ADD, 1.0)).double()
    told(by_question(with_on[0].numpy(), with_off[0].numpy(), questions), "latents")
    gap = float(with_on[0].mean() - with_off[0].mean())
    removed = [(float(with_on[0].mean()) - float(row.mean())) / gap for row in with_on[1:]]
    brought = [(float(row.mean()) - float(with_off[0].mean())) / gap for row in with_off[1:]]
    return removed, brought


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
    prompts = [encode_many(model.tokenizer, some) for some in (on, off)]
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
