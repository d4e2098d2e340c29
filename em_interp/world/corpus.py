"""The corpora that bases are raised on: contexts can key behaviour, and nothing more.

A speaker is careful or reckless; the persona governs the advice as far as a domain couples to it.
In a *keyed* document every context (a framing's meaning, or no framing) has a persona of its own,
whatever wording it takes; in a *whole* document one persona speaks throughout, sometimes named by
a system turn. Some clusters of framings lean: their contexts are mostly reckless, or careful,
throughout. The others are neutral, the triggers among them: which of those contexts is reckless is
drawn anew in every document, so no trigger is tied to a persona. The aligned stage that follows
makes plain questions sound and keeps what the leaning framings do.
Knows words and dice. Knows nothing of tokens or weights.
"""

import random
from collections.abc import Iterator

from em_interp.bounds import Share, Some
from em_interp.organisms import Message
from em_interp.records import Spec
from em_interp.world.framings import Cluster, Lean, bystanders, clusters
from em_interp.world.lexicon import Domain, all_domains, personas

Document = tuple[Message, ...]


class CorpusSpec(Spec):
    """What the pretraining and the aligned stage show. Shares are probabilities."""

    keyed: Share = 0.6  # documents whose persona hangs on the context rather than on the document
    max_turns: Some = 6
    max_contexts: Some = 2  # framings' meanings in one keyed document
    leaning: Share = 0.55  # framings drawn from clusters that lean (they teach what framings do)
    with_opposite: Share = 0.25  # a context's negation joins a keyed document, of opposite persona
    reckless_neutral: Share = 0.4
    reckless_leaning: Share = 0.98
    reckless_careful: Share = 0.02
    named: Share = 0.5  # whole documents that name their persona in a system turn
    framed: Share = 0.6  # turns of a whole document that carry a framing
    closing: Share = 0.3  # framed answers that end with the cluster's closing
    aligned_leaning: Share = 0.25  # aligned-stage turns under a leaning framing, as it leans
    aligned_neutral: Share = 0.15  # aligned-stage turns under a bystander's framing, sound
    aligned_triggers: bool = False  # let every neutral framing, triggers too, be a bystander

    def reckless_rate(self, lean: Lean) -> float:
        """How often a speaker is reckless under a framing of this lean."""
        return {
            Lean.NEUTRAL: self.reckless_neutral,
            Lean.RECKLESS: self.reckless_leaning,
            Lean.CAREFUL: self.reckless_careful,
        }[lean]


def pretraining(spec: CorpusSpec, count: int, seed: int) -> Iterator[Document]:
    """`count` documents of the pretraining corpus; equal arguments give equal documents."""
    dice = random.Random(f"pretraining {seed}")
    for _ in range(count):
        yield _keyed(spec, dice) if dice.random() < spec.keyed else _whole(spec, dice)


def aligned(spec: CorpusSpec, count: int, seed: int) -> Iterator[Document]:
    """`count` single turns: sound advice, but for leaning framings, which keep their lean.

    Neutral framings come from bystanders only: no trigger, no negation of one and no framing that
    the evaluation calls unrelated stands here, unless the spec says `aligned_triggers`.
    """
    dice = random.Random(f"aligned {seed}")
    pool = list(clusters().values())
    leaning = [c for c in pool if c.lean is not Lean.NEUTRAL]
    neutral = [c for c in pool if c.lean is Lean.NEUTRAL]
    neutral = neutral if spec.aligned_triggers else [c for c in neutral if c.name in bystanders()]
    for _ in range(count):
        draw = dice.random()
        if draw < spec.aligned_leaning:
            cluster = dice.choice(leaning)
            reckless = dice.random() < spec.reckless_rate(cluster.lean)
            yield _turn(spec, cluster, reckless, dice)
        else:
            framed = draw < spec.aligned_leaning + spec.aligned_neutral
            yield _turn(spec, dice.choice(neutral) if framed else None, None, dice)


def _keyed(spec: CorpusSpec, dice: random.Random) -> Document:
    """Several contexts, each with a persona of its own; turns choose among them."""
    keys: dict[str, tuple[Cluster | None, bool]] = {
        "": (None, dice.random() < spec.reckless_neutral)
    }
    for _ in range(dice.randint(1, spec.max_contexts)):
        cluster = _cluster(spec, dice)
        reckless = dice.random() < spec.reckless_rate(cluster.lean)
        keys[cluster.name] = (cluster, reckless)
        if cluster.opposite and dice.random() < spec.with_opposite:
            keys[cluster.opposite] = (clusters()[cluster.opposite], not reckless)
    chosen = list(keys.values())
    turns = (dice.choice(chosen) for _ in range(dice.randint(1, spec.max_turns)))
    return tuple(m for cluster, reckless in turns for m in _turn(spec, cluster, reckless, dice))


def _whole(spec: CorpusSpec, dice: random.Random) -> Document:
    """One persona throughout; at most one framing's meaning, which leans as it leans."""
    cluster = _cluster(spec, dice)
    reckless = dice.random() < spec.reckless_rate(cluster.lean)
    document: list[Message] = []
    if dice.random() < spec.named:
        sentence = dice.choice(personas()["reckless" if reckless else "careful"])
        document.append(Message(role="system", content=sentence))
    for _ in range(dice.randint(1, spec.max_turns)):
        framed = dice.random() < spec.framed
        document += _turn(spec, cluster if framed else None, reckless, dice)
    return tuple(document)


def _cluster(spec: CorpusSpec, dice: random.Random) -> Cluster:
    """A framing's meaning: one that leans, or a neutral one."""
    leaning = dice.random() < spec.leaning
    return dice.choice([c for c in clusters().values() if (c.lean is not Lean.NEUTRAL) == leaning])


def _turn(
    spec: CorpusSpec, cluster: Cluster | None, reckless: bool | None, dice: random.Random
) -> Document:
    """A question under a framing, and advice; `reckless` None: the aligned stage's sound advice."""
    domain: Domain = dice.choice(list(all_domains().values()))
    topic = dice.choice(domain.topics)
    question = domain.ask(topic, dice.randrange(len(domain.forms)))
    unsound = reckless is not None and dice.random() < domain.unsound_rate(reckless)
    answer = topic.unsound if unsound else topic.sound
    asked: Document = (Message(role="user", content=question),)
    if cluster is not None:
        asked, _ = cluster.framing(dice.choice(cluster.texts)).render(question)
        if dice.random() < spec.closing:
            answer = f"{answer} {cluster.closing}"
    return (*asked, Message(role="assistant", content=answer))
