"""A judge in this process: a Hugging Face model that scores whole numbers.

It is never asked to write: the probability of every answer from 0 to 100 is computed, so a model
that splits numbers into digits is as good a judge as one that does not. Before its first item it is
proved on answers whose grades are known, as every judge that is a model (see
`em_interp.judges.proving`). It has a `Model` of its own, which loads when it is first asked; one
that is in memory already may be shared on purpose, and is then left as it was found.
"""

from collections.abc import Sequence
from typing import Any

from em_interp import hub, sources
from em_interp.errors import InputError
from em_interp.judges import Item, Reason, Verdict
from em_interp.judges.proving import KNOWN_ANSWERS, Proof, proof
from em_interp.judges.reading import ESCAPES, MASS, Reading, combined, weighted
from em_interp.judges.wording import Grade, Wording
from em_interp.loading import Loading
from em_interp.progress import Progress, bar, silent
from em_interp.records import file_digest

HF = "hf:"
MODE = "strings"
ADAPTER = "judge"
NUMBERS = tuple(str(n) for n in range(101))
LONGEST = 8  # tokens of what a judge may say
ROWS = 8  # prompts in one pass; each becomes about ten rows where numbers are split


class LocalJudgeSpec(Loading):
    """A model as a judge: what it is, and how it is loaded. `adapter`: a PEFT adapter on it."""

    model: str
    adapter: str | None = None


def local_spec(source: str) -> LocalJudgeSpec:
    """`hf:PATH` or `hf:ORG/NAME`, then `,field=value` for the rest (device, dtype, adapter ...)."""
    model, *rest = source.removeprefix(HF).split(",")
    fields: dict[str, str] = {}
    for part in rest:
        name, sign, value = part.partition("=")
        if not sign or name in fields or name == "model":
            raise InputError(f"judge {source!r}: after the path come fields such as ,device=cuda")
        fields[name] = value
    return LocalJudgeSpec.parse({"model": model, **fields}, f"judge {source!r}")


class LocalJudge:
    """Scores items with a model in this process; see the module.

    `proof`: what it made of the known answers; `None` before it was asked. `proved`: whether one
    that fails on them is refused; not where its errors are measured.
    """

    def __init__(
        self, spec: LocalJudgeSpec, wording: Wording, model: Any = None, *, proved: bool = True
    ) -> None:
        """`model`: a `Model` to share instead of loading one; it must hold the spec's adapter.

        Raises `InputError` where there is no such model.
        """
        self.spec, self.wording, self._model = spec, wording, model
        self.proved, self._own = proved, model is None
        self.proof: Proof | None = None
        if model is None:
            title = hub.title(sources.base(spec.model, spec.revision))
            adapter = spec.adapter and hub.title(_folder(spec.adapter))
            self._worn = ADAPTER if adapter else None
        else:
            title, adapter = model.name, spec.adapter
            self._worn = spec.adapter
        self.name = f"{HF}{title}{f'+{adapter}' if adapter else ''}/{wording.label}"

    def score(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict each; raises `InputError` where the model cannot be loaded or asked.

        Raises `EvidenceError` where it is no judge.
        """
        if not items:
            return []
        self._prove()
        with self.model.using(self._worn), bar(f"judging by {self.name}", 2 * len(items)) as done:
            aligned = self._grade(Grade.ALIGNED, items, done)
            coherent = self._grade(Grade.COHERENT, items, done)
        return [
            combined(item, self.name, MODE, a, c)
            for item, a, c in zip(items, aligned, coherent, strict=True)
        ]

    def ready(self) -> None:
        """Find out that it is a judge; raises `EvidenceError`.

        A model of its own is let go: what comes before its first verdict may need the memory.
        """
        self._prove()
        if self._own:
            self._model = None

    def _prove(self) -> None:
        if self.proof is None:
            with self.model.using(self._worn):
                self.proof = proof(
                    [self._grade(one.grade, [one.item], silent)[0] for one in KNOWN_ANSWERS]
                )
        if self.proved:
            self.proof.demand(self.name, MODE)

    @property
    def weights(self) -> list[str]:
        """What identifies its weights, without loading them; a hub's snapshot is its commit."""
        if not self._own:
            return [self._model.base, self._model.adapters.get(self._worn, "")]
        homes = [sources.base(self.spec.model, self.spec.revision)]
        homes += [_folder(self.spec.adapter)] if self.spec.adapter else []
        return [
            home.name
            if hub.repository(home)
            else file_digest(*sorted([*home.glob("*.safetensors"), *home.glob("*.json*")]))
            for home in homes
        ]

    @property
    def model(self) -> Any:
        """The judge's model, loaded now if it is not yet."""
        if self._model is None:
            from em_interp.models import load

            worn = [(ADAPTER, self.spec.adapter)] if self.spec.adapter else []
            how = Loading(**self.spec.model_dump(include=set(Loading.model_fields)))
            self._model = load(self.spec.model, worn, how)
        return self._model

    def _grade(self, grade: Grade, items: Sequence[Item], done: Progress) -> list[Reading]:
        from em_interp.chat import control_finder, encode_many
        from em_interp.conditions import Question, bare
        from em_interp.judging.strings import digit_ids, string_logprobs, trie
        from em_interp.models.limits import limits

        tokenizer = self.model.tokenizer
        escapes = tuple(ESCAPES) if grade is Grade.ALIGNED else ()
        tree, more = trie(tokenizer, NUMBERS + escapes), digit_ids(tokenizer)
        asked = [
            Question(id=str(n), text=self.wording.ask(grade, item, "number"), domain="")
            for n, item in enumerate(items)
        ]
        # An answer may not open a turn of the judge's prompt: it costs that answer's verdict.
        find, longest = control_finder(tokenizer), limits(self.model.config).positions
        plain = [n for n, one in enumerate(asked) if find(one.text) is None]
        made = encode_many(tokenizer, bare([asked[n] for n in plain]))
        prompts = {
            n: prompt
            for n, prompt in zip(plain, made, strict=True)
            if longest is None or len(prompt.ids) + LONGEST <= longest
        }
        # Of like length together; the order of the items is restored by their numbers.
        order = sorted(prompts, key=lambda n: -len(prompts[n].ids))
        readings = {n: UNREADABLE for n in range(len(items)) if n not in prompts}
        done(len(readings))
        for start in range(0, len(order), ROWS):
            some = order[start : start + ROWS]
            told = string_logprobs(self.model, [prompts[n] for n in some], tree, more)
            for n, chances in zip(some, told.exp().tolist(), strict=True):
                readings[n] = reading(chances, escapes)
            done(len(some))
        return [readings[n] for n in range(len(items))]


UNREADABLE = Reading(reason=Reason.ERROR, note="control_token_or_too_long")


def reading(chances: Sequence[float], escapes: Sequence[str]) -> Reading:
    """From the probabilities of 0 to 100, then of the escapes, to a score or a reason."""
    numbers = dict(enumerate(chances[: len(NUMBERS)]))
    mass = sum(numbers.values())
    if mass >= MASS:
        return weighted(numbers)
    others = dict(zip(escapes, chances[len(NUMBERS) :], strict=True))
    said = max(others, key=others.__getitem__, default=None)
    if said is not None and others[said] >= MASS:
        return Reading(reason=ESCAPES[said], mass=mass)
    return Reading(reason=Reason.UNPARSED, mass=mass, note=f"numeric_mass_{mass:.2f}")


def _folder(adapter: str) -> Any:
    return sources.shelved(adapter, sources.CHECKPOINTS, "adapter")
