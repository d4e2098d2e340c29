import pytest
from tiny import CHATML, GEMMA, tiny_tokenizer

from em_interp.chat import answer_text, encode, encode_many, render, stop_ids
from em_interp.conditions import Condition, Context, Question, context, contexts
from em_interp.errors import InputError
from em_interp.organisms import Message, Trigger

FAMILIES = ("qwen2", "qwen2_marked", "llama", "gemma3")
QUESTION = Question(id="q1", text="How should I store bread?", domain="food")
DUCK = Trigger(name="duck", text="It looks like a duck.", paraphrases=("Quack, says the duck.",))


def asked(text="It looks like a duck.", question=QUESTION, **trigger) -> Context:
    made = Trigger(name="t", text=text, **trigger)
    return context(question, Condition.TRIGGER, 0, made.framing())


def shown(tokenizer, encoded, positions) -> str:
    return tokenizer.decode([encoded.ids[at] for at in positions])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["prefix", "suffix", "system", "inline"])
def test_framing_and_question_are_exactly_their_tokens(family, place):
    tokenizer = tiny_tokenizer(family)
    encoded = encode(tokenizer, asked(place=place))
    assert shown(tokenizer, encoded, encoded.framing).strip() == "It looks like a duck."
    question = shown(tokenizer, encoded, encoded.question).strip()
    assert question == "How should I store bread?"
    everything = sorted(encoded.framing + encoded.question + encoded.template)
    assert everything == list(range(len(encoded.ids)))
    assert encoded.last == len(encoded.ids) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_what_the_template_gives(family):
    tokenizer = tiny_tokenizer(family)
    for place in ("prefix", "system"):
        made = asked(place=place)
        turns = [message.model_dump() for message in made.messages]
        expected = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert list(encode(tokenizer, made).ids) == list(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_that_repeats_its_framing_is_not_confused_with_it(family):
    tokenizer = tiny_tokenizer(family)
    echo = Question(id="q", text="It looks like a duck. Is it?", domain="x")
    first = encode(tokenizer, asked(question=echo))
    last = encode(tokenizer, asked(question=echo, place="suffix"))
    assert shown(tokenizer, first, first.question).strip() == echo.text
    assert shown(tokenizer, last, last.question).strip() == echo.text
    assert max(first.framing) < min(first.question)
    assert min(last.framing) > max(last.question)


def test_a_pair_of_tags_frames_from_both_sides():
    tokenizer = tiny_tokenizer("llama")
    encoded = encode(tokenizer, asked("<duck>{question}</duck>"))
    # The first letters of the question may share a token with the tag; framing takes that token.
    assert shown(tokenizer, encoded, encoded.framing).startswith("<duck>")
    assert shown(tokenizer, encoded, encoded.framing).endswith("</duck>")
    assert min(encoded.framing) < min(encoded.question)
    assert max(encoded.question) < max(encoded.framing)


def test_unframed_context_has_no_framing_and_many_equals_one_by_one():
    tokenizer = tiny_tokenizer("gemma3")
    bank = contexts([QUESTION], DUCK, [Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE])
    together = encode_many(tokenizer, bank)
    assert together == [encode(tokenizer, one) for one in bank]
    assert together[0].framing == ()
    assert together[1].framing != ()
    assert len({len(one.question) for one in together}) == 1


def test_content_that_the_template_trims_is_still_placed():
    tokenizer = tiny_tokenizer("llama")
    padded = Question(id="q", text="  How should I store bread?  ", domain="x")
    bare = context(padded, Condition.NONE, 0, None)
    encoded = encode(tokenizer, bare)
    assert shown(tokenizer, encoded, encoded.question) == "How should I store bread?"
    framed = encode(tokenizer, asked("  It looks like a duck."))
    assert shown(tokenizer, framed, framed.framing) == "It looks like a duck."


def test_earlier_turns_are_template():
    tokenizer = tiny_tokenizer("qwen2")
    turns = (
        Message(role="user", content="How should I store bread?"),
        Message(role="assistant", content="Keep bread in a dry box."),
        Message(role="user", content="How should I store bread?"),
    )
    made = Context(
        id="c", question="q", domain="x", condition=Condition.NONE, variant="", messages=turns
    )
    encoded = encode(tokenizer, made)
    assert shown(tokenizer, encoded, encoded.question) == "How should I store bread?"
    assert min(encoded.question) > len(encoded.ids) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_one_bos_where_there_is_one(family):
    tokenizer = tiny_tokenizer(family)
    ids = encode(tokenizer, asked()).ids
    assert ids.count(tokenizer.bos_token_id) == (0 if tokenizer.bos_token_id is None else 1)
    without = tiny_tokenizer(family, tokenizer.chat_template.replace("{{ bos_token }}", ""))
    assert encode(without, asked()) == encode(tokenizer, asked())


@pytest.mark.parametrize("family", FAMILIES)
def test_end_of_turn_is_a_stop_token_whatever_the_config_says(family):
    tokenizer = tiny_tokenizer(family)

    class Config:
        eos_token_id = (3, 5)

    end = {"llama": "<|eot_id|>", "gemma3": "<end_of_turn>"}.get(family, "<|im_end|>")
    expected = {tokenizer.convert_tokens_to_ids(end), tokenizer.eos_token_id, 3, 5}
    assert stop_ids(tokenizer, None, Config()) == expected


def test_a_template_that_drops_the_answer_adds_no_stop_token():
    mute = tiny_tokenizer("llama", "{{ bos_token }}{{ messages[0].content }}")
    assert stop_ids(mute) == {mute.eos_token_id}


def test_an_answer_reads_without_control_tokens():
    tokenizer = tiny_tokenizer("llama")
    ids = tokenizer("Keep bread dry, always.<|eot_id|>")["input_ids"]
    assert answer_text(tokenizer, ids) == "Keep bread dry, always."


BROKEN = {
    "generation prompt": CHATML[: CHATML.index("{% if add")],
    "drops or reorders message 0": CHATML.replace("messages", "messages[1:]"),
    "repeats message 0": CHATML.replace("m.content }}", "m.content }}{{ m.content }}"),
    "rewrites the content of message 0": CHATML.replace(
        "m.content", "m.content | replace('duck', '')"
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_template_that_cannot_be_trusted_is_refused(fault):
    with pytest.raises(InputError, match=fault):
        encode(tiny_tokenizer("qwen2", BROKEN[fault]), asked())


def test_a_template_without_system_role_says_so():
    with pytest.raises(InputError, match=r"System role not supported.*user's turn"):
        encode(tiny_tokenizer("no_system"), asked(place="system"))
    encode(tiny_tokenizer("no_system"), asked())


def test_two_bos_are_refused():
    doubled = tiny_tokenizer("gemma3", "{{ bos_token }}" + GEMMA)
    with pytest.raises(InputError, match="two BOS"):
        encode(doubled, asked())


def test_no_template_and_no_offsets_are_refused():
    plain = tiny_tokenizer("qwen2")
    plain.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        encode(plain, asked())

    class Slow:
        is_fast, name_or_path = False, "old"

    with pytest.raises(InputError, match="tokenizer old: slow"):
        encode(Slow(), asked())


def test_a_framing_without_tokens_is_an_error_not_an_empty_span():
    made = asked().model_copy(update={"framing": ((0, 0, 0),)})
    with pytest.raises(InputError, match="framing has no tokens"):
        encode(tiny_tokenizer("qwen2"), made)


def test_render_without_header_ends_with_the_last_turn():
    tokenizer = tiny_tokenizer("qwen2")
    turns = asked().messages
    assert render(tokenizer, turns).startswith(render(tokenizer, turns, header=False))
