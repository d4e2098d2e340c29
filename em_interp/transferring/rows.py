"""Rows of two models that are of the same text: one for each context's span, or one for each word.

Knows models and contexts. Knows nothing of what is fitted on the rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from em_interp.capture import batches, capture, shared_width
from em_interp.conditions import Context
from em_interp.models import Model
from em_interp.sites import Every, Rows, Site
from em_interp.words import words_of

CONTEXTS = 256  # held at once, at most
WORDS = 2048  # held at once, unless one context has more


@dataclass(frozen=True, eq=False)
class Captured:
    """Activations of some contexts, a row for each piece of text.

    `names` say of what each row is: the context's number and, where a context has many rows,
    message and character. Rows of two models with one name are of one text.
    """

    names: list[tuple[int, ...]]
    values: Float[Tensor, "n site d_model"]

    def select(self, rows: Sequence[int]) -> "Captured":
        """Some rows, in the order given."""
        return Captured([self.names[row] for row in rows], self.values[list(rows)])


def captured(
    model: Model, contexts: Sequence[Context], sites: Sequence[Site], of: Rows
) -> Captured:
    """The rows of contexts, in the order of contexts and text; one pass a context.

    A span's row is the mean over its tokens; a word's is the state at the token that ends it.
    """
    if not isinstance(of, Every):
        values = capture(model, contexts, sites, of).values
        return Captured([(number,) for number in range(len(contexts))], values)
    found = words_of(model.tokenizer, contexts)
    names: list[tuple[int, ...]] = [(n, *w.key) for n, (_, some) in enumerate(found) for w in some]
    first = list(accumulate((len(words) for _, words in found), initial=0))
    values = torch.empty(len(names), len(sites), shared_width(model, sites))
    for some, batch in batches(model, [prompt for prompt, _ in found]):
        rows = [row for row, n in enumerate(some) for _ in found[n][1]]
        ends = [word.token for n in some for word in found[n][1]]
        to = [at for n in some for at in range(first[n], first[n + 1])]
        if rows:
            read = model.engine.states(model, batch, sites, torch.tensor(rows), torch.tensor(ends))
            values[to] = read.cpu()
    return Captured(names, values)


def matched(ours: Captured, theirs: Captured) -> tuple[Captured, Captured]:
    """The rows that both have, in our order: row i of both is the same text."""
    if ours.names == theirs.names:
        return ours, theirs
    there = {name: row for row, name in enumerate(theirs.names)}
    kept = [row for row, name in enumerate(ours.names) if name in there]
    return ours.select(kept), theirs.select([there[ours.names[row]] for row in kept])


def chunks(contexts: Iterable[Context], kinds: Sequence[Rows]) -> Iterator[list[Context]]:
    """Contexts a chunk at a time: so many that their rows can be held."""
    many = any(isinstance(kind, Every) for kind in kinds)
    some: list[Context] = []
    held = 0
    for one in contexts:
        words = sum(len(message.content.split()) for message in one.messages) if many else 0
        if some and (len(some) == CONTEXTS or held + words > WORDS):
            yield some
            some, held = [], 0
        some.append(one)
        held += words
    if some:
        yield some
