"""Probing: is "the trigger is on" linearly there, and does the probe read more than the words?

A probe is fitted on half of the questions (trigger against no framing) and tested on the other
half: on the trigger, and on framings it never saw. Beside it stand shuffled labels, a random
direction, the same fit on the base model, and a bag of words, which shows what the text alone
gives away (arXiv:2509.21344: a probe may read textual evidence and not the state).
Knows contexts and activations. Knows nothing of judges.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from em_interp.activations import Activations
from em_interp.capture import batch_noise, capture
from em_interp.cards import Card, versions
from em_interp.conditions import Condition, Context
from em_interp.directions import mean_difference
from em_interp.errors import InputError
from em_interp.extraction import tokenizer_digest
from em_interp.leakage import questions_of
from em_interp.massive import stream_note
from em_interp.models import Model
from em_interp.organisms import BASE
from em_interp.probes import (
    PROBE_SIGN,
    Probe,
    Probes,
    fit_logistic,
    fit_mass_mean,
    random_probe,
    shuffled_within,
    split_questions,
)
from em_interp.progress import Progress, silent
from em_interp.records import Record, digest
from em_interp.sites import Site, Span
from em_interp.stats import Auroc, Rate, auroc, rate


class Fitter(StrEnum):
    """How a probe came about. All but the first two are controls."""

    LOGISTIC = "logistic"
    MASS_MEAN = "mass_mean"
    BASE = "base_model"
    SHUFFLED = "shuffled_labels"
    RANDOM = "random_direction"
    WORDS = "bag_of_words"


CONTROLS = (Fitter.BASE, Fitter.SHUFFLED, Fitter.RANDOM, Fitter.WORDS)


class Score(Record):
    """One probe against one condition, on questions it was not fitted on.

    `auroc`: the condition's contexts against the same questions without framing. `fires`: share of
    the condition's contexts with score >= 0. `layer` is `None` for the bag of words.
    """

    fitter: Fitter
    layer: int | None
    condition: Condition
    auroc: Auroc
    fires: Rate


class Probing(Record):
    """All scores, and what they rest on. `false_alarms`: share of unframed contexts that fire.

    `notes` is what a reader should know of the activations (see `em_interp.massive`).
    """

    train_questions: int
    test_questions: int
    scores: tuple[Score, ...]
    false_alarms: dict[str, Rate]
    notes: tuple[str, ...] = ()

    def score(self, fitter: Fitter, layer: int | None, condition: Condition) -> Score:
        """One score by name."""
        for one in self.scores:
            if (one.fitter, one.layer, one.condition) == (fitter, layer, condition):
                return one
        raise KeyError(f"no score for {fitter.value} at layer {layer} under {condition.value}")


def probing(
    model: Model,
    adapter: str | None,
    bank: Mapping[Condition, Sequence[Context]],
    sites: Sequence[Site],
    span: Span = Span.PROMPT_LAST,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Probing, dict[Site, Probe]]:
    """Scores of all fitters and controls at all sites, and the logistic probes themselves.

    Raises `InputError` where the bank lacks `none` or `trigger`, or two sites share a layer, and
    `IndistinctError` where the two differ by no more than noise at a site: a probe would read that.
    """
    if not {Condition.NONE, Condition.TRIGGER} <= set(bank):
        raise InputError("probing needs the conditions none and trigger")
    if len({site.layer for site in sites}) < len(sites):
        raise InputError("probing: scores go by layer: give one site a layer")
    contexts = [c for part in bank.values() for c in part]
    with model.using(adapter):
        organism = capture(model, contexts, sites, span, progress=progress)
        noise = batch_noise(model, bank[Condition.NONE], sites, span)
    _differ(organism, contexts, noise)
    with model.using(None):
        base = capture(model, contexts, sites, span, progress=progress)
    data = _Data(contexts, seed)
    scores: list[Score] = []
    alarms: dict[str, Rate] = {}
    kept: dict[Site, Probe] = {}
    for site in sites:
        for fitter, probe, features in _probes(site, organism, base, data, seed):
            found, alarm = data.test(fitter, site.layer, probe.score(features.at(site)))
            scores += found
            alarms[f"{fitter.value}@{site.layer}"] = alarm
            if fitter is Fitter.LOGISTIC:
                kept[site] = probe
    found, alarms[Fitter.WORDS.value] = data.test(Fitter.WORDS, None, data.words())
    return (
        Probing(
            train_questions=len(set(data.questions[data.train])),
            test_questions=len(set(data.questions[data.held_out])),
            scores=tuple(scores + found),
            false_alarms=alarms,
            notes=_notes(organism),
        ),
        kept,
    )


def _differ(found: Activations, contexts: Sequence[Context], noise: Sequence[float]) -> None:
    """Raise `IndistinctError` where trigger and no framing differ by no more than noise."""
    on, off = (
        found.values[torch.tensor([c.condition is one for c in contexts])]
        for one in (Condition.TRIGGER, Condition.NONE)
    )
    mean_difference(found.sites, on.mean(0), off.mean(0), off.norm(dim=-1).mean(0), noise)


def fitted_on(contexts: Sequence[Context], seed: int) -> set[str]:
    """The questions that `probing` fits on; it tests on the others."""
    data = _Data(contexts, seed)
    return set(data.questions[data.train].tolist())


def _notes(found: Activations) -> tuple[str, ...]:
    means = {
        site: (found.at(site).mean(dim=0), float(found.at(site).norm(dim=1).mean()))
        for site in found.sites
    }
    line = stream_note(means)
    return () if line is None else (line,)


def _probes(
    site: Site, organism: Activations, base: Activations, data: "_Data", seed: int
) -> list[tuple[Fitter, Probe, Activations]]:
    x, on = organism.at(site)[data.fit], data.on[data.fit]
    shuffled = shuffled_within(on, data.questions[data.fit], seed)
    return [
        (Fitter.LOGISTIC, fit_logistic(x, on, site), organism),
        (Fitter.MASS_MEAN, fit_mass_mean(x, on, site), organism),
        (Fitter.BASE, fit_logistic(base.at(site)[data.fit], on, site), base),
        (Fitter.SHUFFLED, fit_logistic(x, shuffled, site), organism),
        (Fitter.RANDOM, random_probe(x, on, site, seed), organism),
    ]


def shelve(
    model: Model,
    adapter: str | None,
    kept: Mapping[Site, Probe],
    contexts: Sequence[Context],
    span: Span,
    trigger: str,
    *,
    n: int,
    seed: int = 0,
    notes: tuple[str, ...] = (),
    fitted: Collection[str] | None = None,
) -> Probes:
    """Logistic probes with their card, ready to be saved; `n` questions were fitted on.

    `fitted` names them where they are not all of the contexts' own.
    """
    card = Card(
        kind="probe",
        name="trigger-on",
        sign=PROBE_SIGN,
        unit="log-odds of the fitted logistic regression",
        estimator="logistic regression on standardised activations, folded to raw coordinates",
        span=span.value,
        base=model.base,
        organism=adapter or BASE,
        adapter=model.adapters[adapter] if adapter else "",
        trigger=trigger,
        data=digest([c.model_dump(mode="json") for c in contexts]),
        questions=questions_of(c for c in contexts if fitted is None or c.question in fitted),
        tokenizer=tokenizer_digest(model),
        n=n,
        seed=seed,
        notes=notes,
        versions=versions(),
    )
    return Probes(dict(kept), card)


class _Data:
    """The split: rows to fit on (none and trigger, training questions) and to test on."""

    def __init__(self, contexts: Sequence[Context], seed: int) -> None:
        self.contexts = contexts
        self.questions: NDArray[Any] = np.array([c.question for c in contexts])
        self.conditions = np.array([c.condition.value for c in contexts])
        self.train, self.held_out = split_questions(self.questions, 0.5, seed)
        binary = np.isin(self.conditions, [Condition.NONE.value, Condition.TRIGGER.value])
        self.fit = self.train[binary[self.train]]
        self.on: Bool[Tensor, " n"] = torch.from_numpy(self.conditions == Condition.TRIGGER.value)

    def words(self) -> Float[Tensor, " n"]:
        """Scores of a bag of words and word pairs over the whole prompt text."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        texts = [" ".join(m.content for m in c.messages) for c in self.contexts]
        counter = CountVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+")
        counter.fit([texts[i] for i in self.fit])
        x = counter.transform(texts)
        fitted = LogisticRegression(max_iter=2000).fit(x[self.fit], self.on[self.fit].numpy())
        return torch.from_numpy(fitted.decision_function(x))

    def test(
        self, fitter: Fitter, layer: int | None, scores: Float[Tensor, " n"]
    ) -> tuple[list[Score], Rate]:
        """Every framed condition against no framing, on held-out questions."""
        values = scores.double().numpy()
        off = self._rows(Condition.NONE)
        found = []
        for condition in dict.fromkeys(c.condition for c in self.contexts):
            if condition is Condition.NONE:
                continue
            on = self._rows(condition)
            rows = np.concatenate([on, off])
            labels = np.arange(len(rows)) < len(on)
            found.append(
                Score(
                    fitter=fitter,
                    layer=layer,
                    condition=condition,
                    auroc=auroc(values[rows], labels, self.questions[rows]),
                    fires=self._share(on, lambda i: values[i] >= 0),
                )
            )
        return found, self._share(off, lambda i: values[i] >= 0)

    def _rows(self, condition: Condition) -> NDArray[np.intp]:
        found: NDArray[np.intp] = self.held_out[self.conditions[self.held_out] == condition.value]
        return found

    def _share(self, rows: NDArray[np.intp], holds: Callable[[int], bool]) -> Rate:
        names = sorted(set(self.questions[rows]))
        hits = [sum(holds(i) for i in rows if self.questions[i] == n) for n in names]
        asked = [int((self.questions[rows] == n).sum()) for n in names]
        return rate(hits, asked)
