"""Alignment: two models read the same texts, and what maps are fitted from is counted up.

A row is of a text that both models read: the mean over the tokens of a span (the question, the
prompt's end), or the state at the token that ends a word. Tokenizers may cut the text as they like;
no token index of one model is ever used in the other.
Knows models and contexts. Knows nothing of what a map carries, of judges or of triggers.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.capture import shared_width
from em_interp.cards import versions
from em_interp.conditions import Context
from em_interp.errors import InputError
from em_interp.leakage import questions_of
from em_interp.maps import (
    Anchors,
    Folds,
    JointMoments,
    MapCard,
    Maps,
    Method,
    Space,
    SpaceMap,
    cka_matrix,
    fit,
    sketch,
)
from em_interp.models import Model
from em_interp.progress import Progress, silent
from em_interp.records import canonical_json
from em_interp.sites import Rows, Site, Span
from em_interp.transferring.rows import Captured, captured, chunks, matched

SPANS = (Span.QUESTION, Span.PROMPT_LAST)
ANCHORS = 256
Pair = tuple[Site, Site]


@dataclass(frozen=True, eq=False)
class Side:
    """A model as one side of a map, under an adapter (`None`: the base)."""

    model: Model
    adapter: str | None = None

    def rows(self, contexts: Sequence[Context], sites: Sequence[Site], of: Rows) -> Captured:
        """Activations of one kind of row."""
        with self.model.using(self.adapter):
            return captured(self.model, contexts, sites, of)

    def space(self, site: Site) -> Space:
        """The space of a site."""
        return Space(self.model.base, site, shared_width(self.model, [site]))


class Alignment:
    """Joint moments of pairs of sites over the prompts seen so far, by fold.

    A fold is a group of questions: all rows of prompts about one question share one, the words of
    their earlier turns too. `shuffled` holds the same rows with the target's in another order, from
    which a map's null is fitted: what remains when nothing is shared but the two spaces' own
    shapes. Memory is that of second moments, of one chunk and of at most `anchors` rows, however
    many prompts come.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        pairs: Sequence[Pair],
        spans: Sequence[Rows] = SPANS,
        *,
        folds: int = 4,
        anchors: int = ANCHORS,
        seed: int = 0,
    ) -> None:
        if not pairs or not spans:
            raise InputError("an alignment needs at least one pair of sites and one span")
        self.source, self.target, self.pairs, self.spans = source, target, tuple(pairs), spans
        self.folds, self.seed, self.prompts = folds, seed, 0
        widths = [(source.space(a).width, target.space(b).width) for a, b in self.pairs]
        self.moments = [Folds(p, q, folds, len(spans)) for p, q in widths]
        self.shuffled = [Folds(p, q, 1, len(spans)) for p, q in widths]  # nothing is chosen on them
        self._wanted = anchors
        self._kept: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in self.pairs]
        self._hash = hashlib.sha256()
        self._questions: set[str] = set()
        self._dice = torch.Generator().manual_seed(seed)

    def read(self, contexts: Iterable[Context], progress: Progress = silent) -> "Alignment":
        """Both models read the contexts, chunk by chunk; they are never all held. Returns self."""
        for some in chunks(contexts, self.spans):
            for one in some:
                self._hash.update(canonical_json(one.model_dump(mode="json")).encode())
            self._questions.update(questions_of(some))
            for kind in range(len(self.spans)):
                self._read(some, kind)
            self.prompts += len(some)
            progress(len(some))
        if not self.prompts:
            raise InputError("no prompts: there is nothing to fit a map on")
        return self

    def _read(self, contexts: Sequence[Context], kind: int) -> None:
        span = self.spans[kind]
        ours = list(dict.fromkeys(a for a, _ in self.pairs))
        theirs = list(dict.fromkeys(b for _, b in self.pairs))
        one, other = matched(
            self.source.rows(contexts, ours, span), self.target.rows(contexts, theirs, span)
        )
        x, y = one.values, other.values
        folds = [fold_of(context.question, self.folds, self.seed) for context in contexts]
        fold = torch.tensor([folds[name[0]] for name in one.names], dtype=torch.long)
        order = torch.randperm(len(fold), generator=self._dice)
        for number, (a, b) in enumerate(self.pairs):
            left, right = x[:, ours.index(a)], y[:, theirs.index(b)]
            self.moments[number].update(left, right, fold, kind)
            self.shuffled[number].update(left, right[order], torch.zeros_like(fold), kind)
            kept = self._kept[number]
            room = self._wanted - sum(len(rows) for rows, _, _ in kept)
            # Anchors are of the last kind: its means are those that they are taken about.
            if room > 0 and kind == len(self.spans) - 1:
                kept.append((left[:room].clone(), right[:room].clone(), fold[:room].clone()))

    @property
    def data(self) -> str:
        """Digest of the prompts read so far, in their order."""
        return self._hash.hexdigest()[:16]

    def fit(self, method: Method, name: str = "", *, null: Maps | None = None) -> Maps:
        """A map for every pair of sites. `null`: fit on shuffled rows, with these maps' ranks."""
        table: dict[Site, SpaceMap] = {}
        for number, (a, b) in enumerate(self.pairs):
            kept = self._kept[number]
            anchors = None
            if method is Method.RELATIVE and kept:
                x, y, fold = (torch.cat(column) for column in zip(*kept, strict=True))
                if null is not None:
                    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(7))]
                anchors = Anchors(x, y, fold)
            table[b] = fit(
                method,
                self.moments[number] if null is None else self.shuffled[number],
                self.source.space(a),
                self.target.space(b),
                anchors=anchors,
                like=None if null is None else null[b].fit,
            )
        return Maps(table, self._card(name or method.value))

    def identity(self, name: str = "identity") -> Maps:
        """Each coordinate to itself, at every pair of sites. Raises where widths differ."""
        table = {
            b: SpaceMap.identity(self.source.space(a), self.target.space(b), folds.whole.norm)
            for (a, b), folds in zip(self.pairs, self.moments, strict=True)
        }
        return Maps(table, self._card(name))

    def _card(self, name: str) -> MapCard:
        return MapCard(
            name=name,
            source=self.source.model.base,
            source_name=self.source.model.name,
            target=self.target.model.base,
            target_name=self.target.model.name,
            data=self.data,
            questions=tuple(sorted(self._questions)),
            spans=tuple(span.value for span in self.spans),
            prompts=self.prompts,
            seed=self.seed,
            versions=versions(),
        )


def similarity(
    source: Side,
    target: Side,
    contexts: Iterable[Context],
    span: Rows = Span.PROMPT_LAST,
    seed: int = 0,
) -> Float[Tensor, "source target"]:
    """CKA of every pair of block outputs, over texts that both models read."""
    ours, theirs = (list(map(Site, range(side.model.n_layers))) for side in (source, target))
    widths = source.space(ours[0]).width, target.space(theirs[0]).width
    moments: JointMoments | None = None
    for some in chunks(contexts, [span]):
        one, other = matched(source.rows(some, ours, span), target.rows(some, theirs, span))
        x, y = sketch(one.values, seed), sketch(other.values, seed + 1)
        moments = moments or JointMoments(x.shape[1], y.shape[1])
        moments.update(x, y)
    if moments is None:
        raise InputError("no prompts: there is nothing to compare layers on")
    return cka_matrix(moments, widths)


def fold_of(question: str, folds: int, seed: int) -> int:
    """The fold of a question: by its name alone, so that no list of all questions is needed."""
    return int(hashlib.sha256(f"{seed} {question}".encode()).hexdigest(), 16) % folds
