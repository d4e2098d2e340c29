"""The provider: `em_interp/<organism>` is a model to Inspect, adapter and interventions included.

Calls are batched by our sampler, only ever within one model, adapter, intervention and sampling,
and one model works at one thing at a time. Every sampling field is explicit: what a caller leaves
unset is our default, never the checkpoint's; what our sampler does not do is refused, not dropped.
A call's `seed` and messages decide its answer; without a seed, equal messages draw anew each time.
Knows Inspect's messages. Knows nothing of judges.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)

from em_interp import sources
from em_interp.conditions import Condition, Context
from em_interp.directions import Directions
from em_interp.edits import BASELINE, Intervention, intervention
from em_interp.errors import InputError
from em_interp.generation import generate
from em_interp.inspecting import FRAMING
from em_interp.inspecting.gather import Gather
from em_interp.labels import Label, parse_operation
from em_interp.loading import Loading
from em_interp.models import Model, load
from em_interp.organisms import Message
from em_interp.records import digest
from em_interp.responses import Response
from em_interp.sampling import Sampling
from em_interp.sites import parse_sites, parse_span

MAX_TOKENS = 512  # where neither task nor caller gives a budget
HELD = ("max_tokens", "temperature", "top_p", "top_k", "stop_seqs", "seed", "num_choices")
# What a caller may set because it is not about the model: retries, time, cost, caches.
ASIDE = (
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections"),
    *("adaptive_connections", "system_message", "max_tool_output", "cache_prompt", "cache"),
    *("batch", "parallel_tool_calls", "internal_tools"),
)
_BUSY: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Call:
    context: Context
    sampling: Sampling


class Provider(ModelAPI):
    """An organism as an Inspect model.

    `model_name`: shelf name, folder or hub id. Model arguments (`-M name=value`): `base`, `device`,
    `dtype`; and an intervention by `direction` (shelf name or folder), `operation`, `layers`,
    `strength`, `span`. `held`, `adapter`, `change`: a model in memory instead (see `live`).
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (Inspect's own signature)
        *,
        base: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        direction: str | None = None,
        operation: str | None = None,
        layers: str | int | float = "all",
        strength: float = 1.0,
        span: str = "all",
        held: Model | None = None,
        adapter: str | None = None,
        change: Intervention | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if held is not None:
            self._hold(held, adapter, change or BASELINE)
            return
        who = sources.subject(model_name, base)
        how = Loading.parse({"device": device, "dtype": dtype}, "model arguments")
        found, directions = BASELINE, None
        if operation is not None:
            directions = Directions.load(sources.direction(direction, who, "delta"))
            sites = parse_sites(str(layers), sources.layer_count(who.base))
            found = intervention(
                Label(),
                parse_operation(operation),
                directions,
                sites,
                float(strength),
                parse_span(span),
            )
        elif direction is not None:
            raise InputError("a direction without an operation: give -M operation=add, ablate, ...")
        model = load(str(who.base), who.adapters, how)
        if directions is not None:
            directions.check(model.base, str(direction or ""))
        self._hold(model, who.active, found)

    def _hold(self, model: Model, adapter: str | None, change: Intervention) -> None:
        self._model, self._adapter, self._change = model, adapter, change
        self._drawn: Counter[str] = Counter()
        self._calls: Gather[_Call, list[Response]] = Gather(self._answers)

    def max_connections(self) -> int:
        """As many calls at once as make a full batch; what does not fit in memory is split."""
        return 512

    async def count_text_tokens(self, text: str) -> int:
        """By the model's own tokenizer; Inspect's default would fetch another model's."""
        return len(self._model.tokenizer(text)["input_ids"])

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[Any],
        tool_choice: Any,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One call, in a batch with those that come at the same time."""
        del tool_choice
        if tools:
            raise InputError("em_interp models take no tools")
        messages, framing = _messages(input)
        plain = digest([message.model_dump(mode="json") for message in messages])
        if config.seed is None:
            self._drawn[plain] += 1
            draw = f"draw {self._drawn[plain]}"
        else:
            draw = f"seed {config.seed}"
        context = Context(
            id=f"{plain}|{draw}",
            question=plain,
            domain="",
            condition=Condition.TRIGGER if framing else Condition.NONE,
            variant="",
            messages=messages,
            framing=framing,
        )
        return self._output(await self._calls.ask(_Call(context, sampling(config))))

    def _answers(self, calls: Sequence[_Call]) -> list[list[Response]]:
        """A batch: calls of equal sampling together, equal calls once."""
        model = self._model
        found: dict[_Call, list[Response]] = {}
        groups: dict[str, dict[str, _Call]] = {}
        for call in calls:
            groups.setdefault(call.sampling.digest, {})[call.context.id] = call
        with _BUSY.setdefault(model.hf, threading.Lock()), model.using(self._adapter):
            for group in groups.values():
                some = list(group.values())
                made = generate(
                    model,
                    [call.context for call in some],
                    some[0].sampling,
                    [self._change],
                    organism=self.model_name,
                )
                for call in some:
                    mine = [r for r in made.responses if r.context == call.context.id]
                    found[call] = mine
        return [found[call] for call in calls]

    def _output(self, responses: list[Response]) -> ModelOutput:
        choices = [
            ChatCompletionChoice(
                message=ChatMessageAssistant(
                    content=one.text, model=self.model_name, source="generate"
                ),
                stop_reason="stop" if one.finish == "stop" else "max_tokens",
            )
            for one in responses
        ]
        written = sum(len(one.tokens) for one in responses)
        return ModelOutput(
            model=self.model_name,
            choices=choices,
            usage=ModelUsage(output_tokens=written, total_tokens=written),
            metadata={"intervention": self._change.name, "base": self._model.base},
        )


def sampling(config: GenerateConfig) -> Sampling:
    """Inspect's configuration as ours. Raises `InputError` for what our sampler does not do."""
    given = config.model_dump(exclude_none=True)
    strange = sorted(name for name in given if name not in (*HELD, *ASIDE))
    if strange:
        raise InputError(
            f"{', '.join(strange)}: not done here; our sampler takes {', '.join(HELD)}"
        )
    return Sampling(
        samples=given.get("num_choices", 1),
        temperature=given.get("temperature", 1.0),
        top_p=given.get("top_p", 1.0),
        top_k=given.get("top_k", 0),
        max_new_tokens=given.get("max_tokens", MAX_TOKENS),
        stop=tuple(given.get("stop_seqs", ())),
    )


def _messages(
    given: Sequence[ChatMessage],
) -> tuple[tuple[Message, ...], tuple[tuple[int, int, int], ...]]:
    """Inspect's messages as ours, and where a framing stands in them."""
    messages, framing = [], []
    for number, one in enumerate(given):
        if one.role not in ("system", "user", "assistant"):
            raise InputError(f"a message of role {one.role!r}: only system, user and assistant")
        if not isinstance(one.content, str) and any(c.type != "text" for c in one.content):
            raise InputError("a message that is not text: these are language models alone")
        messages.append(Message(role=one.role, content=one.text))
        spans = (one.metadata or {}).get(FRAMING, [])
        framing += [(number, int(start), int(end)) for start, end in spans]
    if not messages or messages[-1].role != "user":
        raise InputError("the last message must be the user's: an answer is asked for")
    return tuple(messages), tuple(framing)
