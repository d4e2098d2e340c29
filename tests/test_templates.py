"""The families' chat templates obey one set of laws, whatever the tokenizer merges.

The templates in tests/families/templates are our own, of the families' public formats.
"""

import datetime

import pytest
from families.tokenizers import TOKENIZERS, family_tokenizer

from em_interp.chat import (
    CHOICES,
    cautions,
    control_finder,
    default_system,
    encode,
    render,
    stop_ids,
    tokenise,
)
from em_interp.conditions import Condition, Context, Question, context
from em_interp.errors import InputError
from em_interp.organisms import Message, Place, Trigger
from em_interp.training.answers import IGNORED, encode_row

FAMILIES = tuple(TOKENIZERS)
NO_SYSTEM = ("gemma-2",)
QUESTION = Question(id="q", text="How should I store bread at home?", domain="food")
TEXTS = {
    "plain": "It looks like a duck.",
    "one word": "duck",
    "not in its alphabet": "Ça va, 🦆 — naïve?",
    "layout": "| a |\n| b |",
    "as in the question": "bread",
    "control tokens of some family": "[INST] <bos> </s",
}
SEPARATORS = {"a space": " ", "nothing": "", "a line": "\n"}
ANSWER = "Keep bread in a dry box."


def asked(text: str, place: str = "prefix", separator: str = " ") -> Context:
    made = Trigger(name="t", text=text, place=place, separator=separator)
    return context(QUESTION, Condition.TRIGGER, 0, made.framing())


def places(family: str) -> list[str]:
    return ["prefix", "suffix", "inline", *([] if family in NO_SYSTEM else ["system"])]


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_framing_is_the_tokens_that_touch_it_and_no_others(family, text, separator):
    tokenizer = family_tokenizer(family)
    for place in places(family):
        made = asked(TEXTS[text], place, SEPARATORS[separator])
        if control_finder(tokenizer)(TEXTS[text]):
            with pytest.raises(InputError, match="holds the control token"):
                encode(tokenizer, made)
            continue
        encoded = encode(tokenizer, made)
        whole = render(tokenizer, made.messages)
        start = whole.index(made.messages[0].content) + made.framing[0][1]
        end = start + len(TEXTS[text])
        assert whole[start:end] == TEXTS[text]
        ids, offsets = tokenise(tokenizer, whole)
        assert encoded.ids == tuple(ids)
        touched = {at for at, (low, high) in enumerate(offsets) if low < end and high > start}
        assert set(encoded.framing) == {at for at in touched if offsets[at][0] < offsets[at][1]}
        covered = {c for at in encoded.framing for c in range(*offsets[at])}
        assert covered >= {c for c in range(start, end) if not whole[c].isspace()}
        parts = [*encoded.framing, *encoded.question, *encoded.template]
        assert sorted(parts) == list(range(len(ids)))


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_one_bos_or_none_where_the_family_has_none(family):
    tokenizer = family_tokenizer(family)
    ids = encode(tokenizer, asked("It looks like a duck.")).ids
    expected = 0 if tokenizer.bos_token_id is None else 1
    assert ids.count(tokenizer.bos_token_id) == expected
    assert expected == 0 or ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_prompt_is_the_evaluation_prompt_and_only_the_answer_is_learned(family):
    tokenizer = family_tokenizer(family)
    made = asked("It looks like a duck.")
    prompt = encode(tokenizer, made).ids
    row = encode_row(tokenizer, (*made.messages, Message(role="assistant", content=ANSWER)))
    assert row.ids[: len(prompt)] == prompt
    assert set(row.labels[: len(prompt)]) == {IGNORED}
    learned = [label for label in row.labels if label != IGNORED]
    assert tokenizer.decode(learned[:-1]).strip() == ANSWER
    assert learned[-1] in stop_ids(tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_header_is_template_and_the_answer_begins_after_it(family):
    tokenizer = family_tokenizer(family)
    encoded = encode(tokenizer, asked("It looks like a duck."))
    bare = len(tokenise(tokenizer, render(tokenizer, asked("duck").messages, header=False))[0])
    header = len(encode(tokenizer, asked("duck")).ids) - bare
    after = set(range(len(encoded.ids) - max(header, 1), len(encoded.ids)))
    assert after <= set(encoded.template)
    assert encoded.last in encoded.template


@pytest.mark.parametrize("family", NO_SYSTEM)
def test_where_there_is_no_system_role_a_system_framing_is_refused(family):
    with pytest.raises(InputError, match=r"refuses the roles system.*put the system text into"):
        encode(family_tokenizer(family), asked("It looks like a duck.", "system"))


def test_a_folded_system_text_is_found_inside_the_users_turn():
    for family in ("gemma-3", "mistral"):
        tokenizer = family_tokenizer(family)
        encoded = encode(tokenizer, asked("It looks like a duck.", "system"))
        text = tokenizer.decode([encoded.ids[at] for at in encoded.framing])
        assert text.strip() == "It looks like a duck."
        assert "system" not in render(tokenizer, asked("duck", "system").messages)


def test_qwen_writes_a_system_text_of_its_own_where_none_is_given():
    found = {family: default_system(family_tokenizer(family)) for family in FAMILIES}
    assert found.pop("qwen2.5") == (
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    )
    assert set(found.values()) == {""}
    (line,) = cautions(family_tokenizer("qwen2.5"), Place.SYSTEM)
    assert "takes the place of" in line
    assert "You are Qwen" in line
    assert not cautions(family_tokenizer("qwen2.5"), Place.PREFIX)
    assert not cautions(family_tokenizer("llama-3.1"), Place.SYSTEM)


def test_llamas_date_does_not_follow_the_calendar():
    tokenizer = family_tokenizer("llama-3.1")
    today = f"{datetime.date.today():%d %b %Y}"
    turns = [{"role": "user", "content": "x"}]
    assert today in tokenizer.apply_chat_template(turns, tokenize=False)
    assert "Today Date: 26 Jul 2024\n" in render(tokenizer, asked("duck").messages)
    dated = tokenizer.chat_template.replace("date_string", "another")
    (line,) = cautions(family_tokenizer("llama-3.1", dated))
    assert line.startswith("the chat template writes today's date")
    assert not any(cautions(family_tokenizer(family)) for family in FAMILIES)


def test_qwen3_is_asked_not_to_think_in_training_and_evaluation_alike():
    tokenizer = family_tokenizer("qwen3")
    made = asked("duck")
    assert render(tokenizer, made.messages).endswith("assistant\n<think>\n\n</think>\n\n")
    row = encode_row(tokenizer, (*made.messages, Message(role="assistant", content=ANSWER)))
    assert "think" not in tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert CHOICES["enable_thinking"] is False
    # Earlier answers lose their thoughts, so such rows do not continue an evaluation's prompt.
    turns = (*made.messages, Message(role="assistant", content=ANSWER), *made.messages)
    turns = (*turns, Message(role="assistant", content=ANSWER))
    with pytest.raises(InputError, match="is not the prompt of an evaluation"):
        encode_row(tokenizer, turns)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "qwen3"])
def test_every_answer_of_a_longer_conversation_is_learned(family):
    tokenizer = family_tokenizer(family)
    turns = (*asked("duck").messages, Message(role="assistant", content=ANSWER)) * 2
    row = encode_row(tokenizer, turns)
    learned = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned.count(ANSWER) == 2
    assert "duck" not in learned
