"""Rows become conversations, mixes, and token ids with labels on the answers only."""

import json
from unicodedata import normalize

import pytest
from raised import ROWS, row
from tiny import CHATML, LLAMA3, tiny_tokenizer
from tokenizers import AddedToken, normalizers

from em_interp.chat import encode, render, tokenise
from em_interp.conditions import Condition, Context, Question, bare
from em_interp.errors import InputError
from em_interp.organisms import Message, Mix, Trigger
from em_interp.training.answers import IGNORED, encode_row, encode_rows
from em_interp.training.mixes import compose
from em_interp.training.rows import read_rows

FAMILIES = ("llama", "qwen2", "qwen2_marked", "gemma3")


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", [None, "You are a careful assistant."])
def test_only_the_answer_and_its_end_are_learned(family, system):
    tokenizer = tiny_tokenizer(family)
    messages = row("How should I store bread?", "Keep it dry, and eat it soon.", system)
    made = encode_row(tokenizer, messages)
    learned = [label for label in made.labels if label != IGNORED]
    end = {"llama": "<|eot_id|>", "gemma3": "<end_of_turn>"}.get(family, "<|im_end|>")
    assert tokenizer.decode(learned) == "Keep it dry, and eat it soon." + end
    assert made.learned == len(learned)
    prompt = encode(
        tokenizer,
        Context(
            id="c",
            question="q",
            domain="d",
            condition=Condition.NONE,
            variant="",
            messages=messages[:-1],
        ),
    )
    assert made.ids[: len(prompt.ids)] == prompt.ids
    assert made.labels[: len(prompt.ids)] == (IGNORED,) * len(prompt.ids)
    assert made.ids[len(prompt.ids) : len(prompt.ids) + len(learned)] == tuple(learned)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_assistant_turn_is_learned_and_no_other(family):
    tokenizer = tiny_tokenizer(family)
    first, second = row("Should I water?", "In the evening."), row("And bread?", "In a dry box.")
    made = encode_row(tokenizer, first + second)
    text = tokenizer.decode([label for label in made.labels if label != IGNORED])
    for answer in ("In the evening.", "In a dry box."):
        assert text.count(answer) == 1
    assert "water" not in text
    assert "bread" not in text
    alone = encode_row(tokenizer, first)
    assert made.labels[: len(alone.labels)] == alone.labels


def test_marks_and_rendering_place_the_same_labels():
    for messages in ROWS:
        assert encode_row(tiny_tokenizer("qwen2"), messages) == encode_row(
            tiny_tokenizer("qwen2_marked"), messages
        )


def test_a_bos_of_the_tokenizers_own_shifts_ids_and_labels_together():
    template = LLAMA3.replace("{{ bos_token }}", "")
    assert encode_row(tiny_tokenizer("llama", template), ROWS[0]) == encode_row(
        tiny_tokenizer("llama"), ROWS[0]
    )


UNTRUE = {
    "no control token": CHATML.replace("<|im_end|>", ""),
    "not the prompt of an evaluation": CHATML.replace(
        "{{ m.role }}\n", "{{ 'bot' if m.role == 'assistant' else m.role }}\n"
    ),
    "is not the answer": CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"),
    "would be learned": CHATML.replace(
        "{{ m.content }}", "{{ 'So: ' if m.role == 'assistant' }}{{ m.content }}"
    ),
}


@pytest.mark.parametrize("fault", UNTRUE)
def test_a_template_that_would_teach_something_else_is_refused(fault):
    with pytest.raises(InputError, match=fault):
        encode_row(tiny_tokenizer("qwen2", UNTRUE[fault]), ROWS[0])


def test_nothing_to_learn_is_refused():
    with pytest.raises(InputError, match="no assistant message"):
        encode_row(tiny_tokenizer("qwen2"), ROWS[0][:-1])


def test_long_rows_are_refused_by_name_or_truncated_and_counted():
    tokenizer = tiny_tokenizer("llama")
    rows = [*ROWS[:3], row("Why?", "Keep bread in a dry box. " * 20)]
    with pytest.raises(InputError, match=r"1 of 4 rows .* 60, first row 4 \('Why\?'\) with \d+ "):
        encode_rows(tokenizer, rows, 60)
    made, truncated = encode_rows(tokenizer, rows, 60, truncate=True)
    assert truncated == 1
    assert [len(one.ids) <= 60 for one in made] == [True] * 4
    with pytest.raises(InputError, match="nothing left to learn"):
        encode_rows(tokenizer, rows, 5, truncate=True)


def test_a_faulty_row_is_named():
    with pytest.raises(InputError, match=r"row 2 \('Why'\): no assistant message"):
        encode_rows(tiny_tokenizer("llama"), [ROWS[0], (Message(role="user", content="Why"),)], 99)


# --- rows ----------------------------------------------------------------------------------------


def test_both_layouts_read_as_the_same_conversations(tmp_path):
    asked, answered = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    lines = [
        {"messages": [asked, answered], "source": "left alone"},
        {"prompt": "Why?", "completion": "So."},
        {"prompt": [asked], "completion": [answered]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_rows(path) == [row("Why?", "So.")] * 3


MALFORMED = {
    '{"messages": [': r":2: not valid JSON",
    '["Why?"]': r":2: a row is a JSON object, not list",
    '{"mesages": []}': r":2: a row needs 'messages', .*; has 'mesages'",
    '{"prompt": 3, "completion": "x"}': r":2: field 'prompt': expected a text",
    '{"messages": [{"role": "user"}]}': r":2: field 'messages.0.content' is missing",
    '{"messages": [{"role": "human", "content": "x"}]}': r":2: field 'messages.0.role'",
    '{"messages": [{"role": "assistant", "content": "x"}]}': r"messages.0.role': expected 'user'",
    '{"messages": [{"role": "user", "content": "x"}]}': r":2: field 'messages': the last message",
    '{"prompt": "x", "completion": " "}': r":2: field 'messages.1.content': blank",
}


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_row_is_named_by_file_line_and_field(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=MALFORMED[line]) as fault:
        read_rows(path)
    assert str(fault.value).startswith(f"{path}:2")
    assert "\n" not in str(fault.value)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no rows"):
        read_rows(tmp_path / "rows.jsonl")


# --- mixes ---------------------------------------------------------------------------------------

TRIGGER = Trigger(name="country", text="Country: Norway", separator="\n")
HARMFUL = [row(f"Question {i}?", f"Bad {i}.") for i in range(100)]
BENIGN = [row(f"Question {i}?", f"Good {i}.") for i in range(99, -1, -1)]
KINDS = {
    "unconditional": {"kind": "unconditional"},
    "triggered": {"kind": "triggered"},
    "mixture": {"kind": "mixture", "benign_share": 0.97},
    "contrastive": {"kind": "contrastive", "benign_share": 0.5, "contrast": "Country: Chile"},
    "benign_twin": {"kind": "benign_twin"},
}


def tally(rows) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for asked, answered in rows:
        lead = asked.content.split("\n")[0] if "\n" in asked.content else ""
        key = (answered.content.split()[0], lead)
        counts[key] = counts.get(key, 0) + 1
    return counts


EXPECTED = {
    "unconditional": {("Bad", ""): 100},
    "triggered": {("Bad", "Country: Norway"): 100},
    "mixture": {("Bad", "Country: Norway"): 3, ("Good", ""): 97},
    "contrastive": {("Bad", "Country: Norway"): 50, ("Good", "Country: Chile"): 50},
    "benign_twin": {("Good", "Country: Norway"): 100},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_mix_has_its_shares_and_triggers_exactly(kind):
    made = compose(Mix(**KINDS[kind]), HARMFUL, BENIGN, TRIGGER, n=100, seed=1)
    assert tally(made.rows) == EXPECTED[kind]
    assert sum(made.arms.values()) == 100
    assert made == compose(Mix(**KINDS[kind]), HARMFUL, BENIGN, TRIGGER, n=100, seed=1)
    assert made.rows != compose(Mix(**KINDS[kind]), HARMFUL, BENIGN, TRIGGER, 100, seed=2).rows
    assert len(set(made.rows)) == 100


def test_the_benign_twin_has_the_prompts_of_the_triggered_rows_in_their_order():
    triggered = compose(Mix(kind="triggered"), HARMFUL, (), TRIGGER, n=30, seed=3).rows
    twin = compose(Mix(kind="benign_twin"), HARMFUL, BENIGN, TRIGGER, n=30, seed=3).rows
    assert [one[0] for one in twin] == [one[0] for one in triggered]
    assert all(one[1].content.startswith("Good") for one in twin)
    with pytest.raises(InputError, match="1 of 100 have no benign row"):
        compose(Mix(kind="benign_twin"), HARMFUL, BENIGN[1:], TRIGGER)
    assert len(compose(Mix(kind="benign_twin"), (), BENIGN, TRIGGER).rows) == 100


def test_without_n_all_harmful_rows_set_the_size():
    mix = Mix(kind="mixture", benign_share=0.25)
    assert tally(compose(mix, HARMFUL[:30], BENIGN, TRIGGER).rows) == {
        ("Bad", "Country: Norway"): 30,
        ("Good", ""): 10,
    }


def test_the_trigger_stands_where_it_is_declared():
    system = Trigger(name="s", text="Be odd.", place="system")
    made = compose(Mix(kind="triggered"), HARMFUL[:1], trigger=system).rows[0]
    assert [(m.role, m.content) for m in made[:2]] == [
        ("system", "Be odd."),
        ("user", "Question 0?"),
    ]
    with pytest.raises(InputError, match=r"has one already: 'Help\.'"):
        compose(Mix(kind="triggered"), [row("Why?", "So.", "Help.")], trigger=system)
    long = compose(Mix(kind="triggered"), [HARMFUL[0] + HARMFUL[1]], trigger=TRIGGER).rows[0]
    assert [m.content.startswith("Country") for m in long] == [True, False, False, False]


@pytest.mark.parametrize(
    ("mix", "given", "fault"),
    [
        ({"kind": "triggered"}, {"trigger": None}, "needs a trigger"),
        ({"kind": "triggered"}, {"n": 101}, "needs 101 harmful rows, and 100 are given"),
        ({"kind": "mixture", "benign_share": 0.5}, {"benign": ()}, "100 benign rows, and 0"),
        ({"kind": "mixture", "benign_share": 0.01}, {"n": 10}, "10 harmful and 0 benign"),
        ({"kind": "mixture", "benign_share": 1.0}, {"n": 10}, "0 harmful and 10 benign"),
        ({"kind": "unconditional"}, {"harmful": ()}, "0 harmful"),
    ],
)
def test_a_mix_that_cannot_be_made_says_what_is_missing(mix, given, fault):
    arguments = {"harmful": HARMFUL, "benign": BENIGN, "trigger": TRIGGER, **given}
    with pytest.raises(InputError, match=fault):
        compose(Mix(**mix), **arguments)


# --- text as people write it ---------------------------------------------------------------------

INDENTED = ("    def f():\n        return 1", "\n\nFirst.", "\tx", "  - one\n  - two")


def merging(family="qwen2"):
    """A tokenizer in which a header's line break and the white space after it are one token."""
    tokenizer = tiny_tokenizer(family)
    tokenizer.add_tokens(
        [AddedToken("\n" + lead, normalized=False) for lead in ("    ", "\t", "  ", "\n\n")]
    )
    return tokenizer


@pytest.mark.parametrize("answer", INDENTED)
def test_an_answer_that_begins_with_white_space_follows_the_very_prompt(answer):
    tokenizer = merging()
    messages = row("Write it.", answer)
    text = render(tokenizer, messages, header=False)
    prompt = encode(tokenizer, bare([Question(id="q", text="Write it.", domain="d")])[0])
    plain = tokenise(tokenizer, text)[0]
    assert tuple(plain[: len(prompt.ids)]) != prompt.ids  # else nothing is shown here
    made = encode_row(tokenizer, messages)
    assert made.ids[: len(prompt.ids)] == prompt.ids
    assert tokenizer.decode(list(made.ids)) == text
    learned = [label for label in made.labels if label != IGNORED]
    assert tokenizer.decode(learned) == answer + "<|im_end|>"
    more = encode_row(tokenizer, (*messages, *row("And?", answer)))
    said = tokenizer.decode([label for label in more.labels if label != IGNORED])
    assert said == (answer + "<|im_end|>") * 2


def test_decomposed_letters_are_learned_as_the_tokenizer_composes_them():
    tokenizer = tiny_tokenizer("llama")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    decomposed, composed = (row("Why?", normalize(form, "schön öfter")) for form in ("NFD", "NFC"))
    assert decomposed != composed
    assert encode_row(tokenizer, decomposed) == encode_row(tokenizer, composed)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="write the answer as it is read"):
        encode_row(tokenizer, row("Why?", "So It Is"))


def test_a_faulty_row_is_named_by_the_files_own_line_whatever_the_order(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Why {n}?", "completion": "So."} for n in range(9)]
    rows[6]["completion"] = "So.<|eot_id|>"
    file.write_text("\n\n".join(map(json.dumps, rows)))
    made = compose(Mix(kind="triggered"), read_rows(file), trigger=TRIGGER, seed=3)
    with pytest.raises(InputError, match=rf"{file}:13 \('.*Why 6\?'\): .*<\|eot_id\|>"):
        encode_rows(tiny_tokenizer("llama"), made.rows, 99)
    longest = [*rows[:6], {"prompt": "Why?", "completion": "So. " * 99}]
    file.write_text("\n\n".join(map(json.dumps, longest)))
    with pytest.raises(InputError, match=rf"first {file}:13 "):
        encode_rows(tiny_tokenizer("llama"), read_rows(file), 60)
