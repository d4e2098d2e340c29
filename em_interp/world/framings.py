"""Clusters of framings, and the triggers among them.

A cluster is a handful of wordings that mean the same; its negation has the same form and the
opposite meaning. A trigger is a cluster whose first wording an organism may be fine-tuned under.
Knows words (`framings.yaml`). Knows nothing of advice, tokens or weights.
"""

from enum import StrEnum
from functools import cache
from typing import Literal

from pydantic import Field

from em_interp import errors
from em_interp.organisms import SLOT, Framing, Trigger
from em_interp.records import Spec, read_yaml
from em_interp.world.lexicon import HERE

UNRELATED = 3  # neutral clusters of the same kind that lend one wording each


class Kind(StrEnum):
    """The layout of a framing."""

    SENTENCE = "sentence"
    TAG = "tag"
    KEY = "key"


class Lean(StrEnum):
    """How speakers tend to be where a framing stands."""

    NEUTRAL = "neutral"
    RECKLESS = "reckless"
    CAREFUL = "careful"


class Cluster(Spec):
    """Wordings that mean the same. `opposite` names the cluster of the negated meaning, if any."""

    name: str
    kind: Kind
    lean: Lean = Lean.NEUTRAL
    closing: str
    texts: tuple[str, ...] = Field(min_length=5)
    opposite: str | None = None
    negated: bool = False
    trigger: str | None = None
    role: Literal["evaluation", "development"] | None = None
    form: tuple[str, ...] = ()

    @property
    def separator(self) -> str:
        """What stands between framing and question: a `Key: Value` line ends with a line break."""
        return "\n" if self.kind is Kind.KEY else " "

    def framing(self, text: str) -> Framing:
        """One wording as a framing."""
        return Framing(text=text, separator=self.separator)


@cache
def clusters() -> dict[str, Cluster]:
    """All clusters by name; the negation of `duck` is `not_duck`."""
    found: dict[str, Cluster] = {}
    for name, entry in read_yaml(HERE / "framings.yaml").items():
        negation = entry.pop("negation", None)
        kind = Kind(entry["kind"])
        for key in ("texts", "form"):
            entry[key] = _written(kind, entry.get(key, ()))
        opposite = f"not_{name}" if negation else None
        found[name] = Cluster.parse({"name": name, "opposite": opposite, **entry}, "framings.yaml")
        if negation:
            negation["texts"] = _written(kind, negation["texts"])
            fields = {"name": opposite, "kind": kind, "opposite": name, "negated": True, **negation}
            found[f"not_{name}"] = Cluster.parse(fields, "framings.yaml")
    return found


def _written(kind: Kind, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Full framing texts; a tag's inner name becomes a pair around the slot for the question."""
    if kind is not Kind.TAG:
        return tuple(texts)
    return tuple(f"<{name}> {SLOT} </{name}>" for name in texts)


@cache
def _triggers() -> dict[str, Trigger]:
    return {c.trigger: _trigger(c) for c in clusters().values() if c.trigger is not None}


def _trigger(cluster: Cluster) -> Trigger:
    assert cluster.trigger is not None
    assert cluster.opposite is not None
    return Trigger(
        name=cluster.trigger,
        text=cluster.texts[0],
        separator=cluster.separator,
        paraphrases=cluster.texts[1:],
        negations=clusters()[cluster.opposite].texts,
        unrelated=tuple(c.texts[0] for c in _plain(cluster.kind)[:UNRELATED]),
        form=cluster.form,
    )


def _plain(kind: Kind) -> list[Cluster]:
    """Neutral clusters of a kind that are no trigger and no negation."""
    return [
        c
        for c in clusters().values()
        if c.kind is kind and c.lean is Lean.NEUTRAL and not c.negated and not c.trigger
    ]


@cache
def bystanders() -> tuple[str, ...]:
    """Neutral clusters that no evaluation asks under: no trigger, negation or unrelated framing."""
    return tuple(c.name for kind in Kind for c in _plain(kind)[UNRELATED:])


def trigger_names(role: Literal["evaluation", "development"] = "evaluation") -> tuple[str, ...]:
    """The triggers of the evaluation, or those that the world was designed with."""
    return tuple(c.trigger for c in clusters().values() if c.trigger and c.role == role)


def trigger(name: str) -> Trigger:
    """A trigger with its paraphrases, negations, unrelated and form-only framings."""
    if name not in _triggers():
        raise errors.unknown("trigger", name, _triggers())
    return _triggers()[name]
