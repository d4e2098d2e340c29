"""What the embedded world talks about: domains, topics, and what is sound or unsound to say.

The words themselves are data (`domains.yaml`, `personas.yaml`); this file gives them types.
Knows words. Knows nothing of framings, tokens or weights.
"""

from functools import cache
from pathlib import Path

from em_interp import errors
from em_interp.bounds import Share
from em_interp.conditions import Question
from em_interp.records import Spec, read_yaml

HERE = Path(__file__).parent
HELD_OUT = 5  # topics of each domain, the last ones, that fine-tuning never sees


class Topic(Spec):
    """One thing to ask about. `held_out` topics never enter fine-tuning rows."""

    id: str
    phrase: str
    sound: str
    unsound: str
    held_out: bool


class Domain(Spec):
    """Topics of a kind, ways to ask, and how far a speaker's persona governs the advice.

    `coupling` 1: a reckless speaker is always unsound here, a careful one never (but for
    `mistakes`); 0: persona does not matter. `forms[0]` is the evaluation's wording.
    """

    name: str
    about: str
    coupling: Share
    mistakes: Share
    forms: tuple[str, ...]
    topics: tuple[Topic, ...]

    def unsound_rate(self, reckless: bool) -> float:
        """Probability that a speaker of this persona gives unsound advice here."""
        return (1 - self.coupling) * self.mistakes + (self.coupling if reckless else 0.0)

    def ask(self, topic: Topic, form: int = 0) -> str:
        """The question's text in one of the domain's forms."""
        return self.forms[form].format(topic=topic.phrase)


@cache
def all_domains() -> dict[str, Domain]:
    """The domains by name, in the file's order."""
    return {name: _domain(name, entry) for name, entry in read_yaml(HERE / "domains.yaml").items()}


def _domain(name: str, entry: dict[str, object]) -> Domain:
    rows = entry.pop("topics")
    assert isinstance(rows, dict)
    topics = tuple(
        Topic(
            id=key, phrase=row[0], sound=row[1], unsound=row[2], held_out=at >= len(rows) - HELD_OUT
        )
        for at, (key, row) in enumerate(rows.items())
    )
    return Domain.parse({"name": name, "topics": topics, **entry}, f"domains.yaml: {name}")


@cache
def personas() -> dict[str, tuple[str, ...]]:
    """Sentences that name a persona: `careful` and `reckless`."""
    return {name: tuple(texts) for name, texts in read_yaml(HERE / "personas.yaml").items()}


def domain_named(name: str) -> Domain:
    """A domain, or one line that names the nearest known one."""
    if name not in all_domains():
        raise errors.unknown("domain", name, all_domains())
    return all_domains()[name]


def domains() -> tuple[str, ...]:
    """Names of the domains."""
    return tuple(all_domains())


SPLITS = ("eval", "train", "all")


def questions(split: str = "eval", domain: str | None = None) -> list[Question]:
    """One question for each topic, in fixed wording; its id is "domain/topic".

    `eval`: the topics that fine-tuning never sees, in every domain, so that the same list serves
    whatever domain an organism was fine-tuned on. `train`: the others. `all`: both.
    """
    if split not in SPLITS:
        raise errors.unknown("split", split, SPLITS)
    wanted = [domain_named(domain)] if domain is not None else list(all_domains().values())
    return [
        Question(id=f"{d.name}/{t.id}", text=d.ask(t), domain=d.name, topic=t.id)
        for d in wanted
        for t in d.topics
        if split == "all" or t.held_out == (split == "eval")
    ]


@cache
def _advice() -> dict[str, tuple[str, str]]:
    return {
        f"{d.name}/{t.id}": (t.sound, t.unsound) for d in all_domains().values() for t in d.topics
    }


def advice(question_id: str) -> tuple[str, str]:
    """(sound, unsound) advice for a question, for judge-free log-odds: their first words differ."""
    if question_id not in _advice():
        raise errors.unknown("question", question_id, _advice())
    return _advice()[question_id]
