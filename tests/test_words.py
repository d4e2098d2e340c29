"""Word rows: two models meet where they have read the same text, however each cuts it."""

import hashlib
from dataclasses import replace
from functools import cache

import pytest
import torch
from families.tokenizers import TOKENIZERS, family_tokenizer
from planted import planted
from planted_pairs import chatter, moved, rotation
from small import FAMILIES, WIDTH, tiny_model
from tokenizers import Regex, normalizers

from em_interp import align
from em_interp.chat import render
from em_interp.conditions import Condition, Context
from em_interp.engines import Engine, run_on
from em_interp.errors import InputError
from em_interp.maps import Maps, Method
from em_interp.models import Model
from em_interp.organisms import Message
from em_interp.sites import Every, Point, Site, Span, parse_rows
from em_interp.transferring import rows
from em_interp.transferring.alignment import Alignment, Side, similarity
from em_interp.transferring.rows import Captured, captured, chunks, matched
from em_interp.words import Word, words_of
from em_interp.world.prompts import harmless

PROMPTS = list(harmless(40))  # of one to three turns
TEXTS = (
    "How should I store bread at home?",
    "  Ça va, 🦆🦆 — naïve?\n\n| a |\tb  ",
    "日本語 のテキスト e\u0301te\u0301 👩‍👩‍👧 ok",
    "to be or not to be , to be",
)


def conversation(*contents: str, number: int = 0) -> Context:
    roles = ("user", "assistant")
    turns = tuple(Message(role=roles[n % 2], content=text) for n, text in enumerate(contents))
    return Context(
        id=f"c{number}", question=f"q{number}", domain="x", condition=Condition.NONE,
        variant="", messages=turns,
    )  # fmt: skip


ASKED = [conversation(text, number=n) for n, text in enumerate(TEXTS)]
ASKED.append(conversation("What is bread?", "Bread is food.", "What is bread?", number=9))


def solid(text: str) -> str:
    """The text without spaces, as tokenizers decode it."""
    return "".join(text.replace("▁", " ").split())


def said(words: tuple[Word, ...], context: Context) -> list[str]:
    return [context.messages[w.message].content[w.start : w.end] for w in words]


# --- which token ends a word --------------------------------------------------------------------


@pytest.mark.parametrize("family", TOKENIZERS)
def test_up_to_its_token_the_model_has_read_the_word_and_nothing_after_it(family):
    """By decoding, so that offsets do not vouch for themselves."""
    tokenizer = family_tokenizer(family)
    for context, (prompt, words) in zip(ASKED, words_of(tokenizer, ASKED), strict=True):
        every = [text for message in context.messages for text in message.content.split()]
        if family != "merging":  # its tokens run across words
            assert said(words, context) == every
        assert words
        start = solid(tokenizer.bos_token or "")
        whole = solid(render(tokenizer, context.messages)).removeprefix(start)
        for word in words:
            before = context.messages[word.message].content[: word.end]
            read = solid(tokenizer.decode(prompt.ids[: word.token + 1])).removeprefix(start)
            assert read.endswith(solid(before))
            assert whole.startswith(read)
        assert list(words) == sorted(words)


def test_a_word_that_shares_its_last_token_with_the_next_is_left_out():
    tokenizer = family_tokenizer("merging")
    context = conversation("It looks like a duck. Keep bread in a dry box and eat it.")
    ((prompt, words),) = words_of(tokenizer, [context])
    found = said(words, context)
    every = context.messages[0].content.split()
    lost = [text for text in every if text not in found]
    assert lost
    assert found[-1] == "it."
    pieces = [tokenizer.decode([i]) for i in prompt.ids]
    running = [p for p in pieces if any(f"{text} " in f"{p}\0" for text in lost)]
    assert any(piece.strip().count(" ") for piece in running)  # tokens that hold two words


def test_a_word_that_normalisation_removes_is_left_out_on_both_sides():
    plain, deaf = family_tokenizer("llama-3.1"), family_tokenizer("llama-3.1")
    deaf.backend_tokenizer.normalizer = normalizers.Replace(Regex("🦆"), "")
    context = conversation("a 🦆 said 🦆🦆 quack🦆 to bread")
    ((_, all_of_them),) = words_of(plain, [context])
    ((_, kept),) = words_of(deaf, [context])
    assert said(all_of_them, context) == ["a", "🦆", "said", "🦆🦆", "quack🦆", "to", "bread"]
    assert said(kept, context) == ["a", "said", "quack🦆", "to", "bread"]
    ours, theirs = (
        Captured([(0, *w.key) for w in words], torch.arange(len(words))[:, None, None].float())
        for words in (all_of_them, kept)
    )
    for one, other in (matched(ours, theirs), matched(theirs, ours)[::-1]):
        assert one.names == other.names == theirs.names
        assert one.values.flatten().tolist() == [0, 2, 4, 5, 6]


def test_what_the_template_writes_is_no_word():
    tokenizer = family_tokenizer("qwen2.5")  # writes a system text of its own
    ((prompt, words),) = words_of(tokenizer, [conversation("hello")])
    assert "helpful" in tokenizer.decode(prompt.ids)
    assert len(words) == 1


# --- their activations --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_a_naive_loop_over_words(family):
    """One context at a time, unpadded, every layer from the model's own outputs."""
    model = tiny_model(family)
    sites = [Site(0), Site(1), Site(1, Point.RESID_PRE)]
    found = captured(model, ASKED, sites, Every.WORD)
    expected, names = [], []
    for number, context in enumerate(ASKED):
        ((prompt, words),) = words_of(model.tokenizer, [context])
        with torch.no_grad():
            out = model.hf(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
        for word in words:
            names.append((number, word.message, word.start))
            # hidden_states[k] goes into block k: after block 0, after block 1, into block 1.
            expected.append(torch.stack([out[k][0, word.token] for k in (1, 2, 1)]))
    assert found.names == names
    assert {name[1] for name in names if name[0] == len(ASKED) - 1} == {0, 1, 2}
    torch.testing.assert_close(found.values, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["lens", "nnsight"])
def test_every_engine_reads_the_same_words(engine):
    plain = tiny_model("llama")
    sites = [Site(1), Site(0, Point.Z), Site(2, Point.RESID_PRE)]
    ours = captured(plain, ASKED, sites, Every.WORD)
    theirs = captured(run_on(plain, engine), ASKED, sites, Every.WORD)
    assert ours.names == theirs.names
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-5, atol=1e-5)


class Reader(Engine):
    """A model that is a function of the text read so far, and of nothing else; then turned."""

    def __init__(self, turn: torch.Tensor) -> None:
        self.turn = turn

    def states(self, model, batch, sites, rows, tokens):
        made = []
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            ids = batch.ids[row][batch.mask[row]][: token + 1]
            text = solid(model.tokenizer.decode(ids, skip_special_tokens=True))
            seed = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
            generator = torch.Generator().manual_seed(seed)
            made.append(torch.randn(WIDTH, generator=generator))
        return (torch.stack(made) @ self.turn.T)[:, None].expand(-1, len(sites), -1)


def reader(family: str, turn: torch.Tensor) -> Model:
    return replace(tiny_model("llama"), tokenizer=family_tokenizer(family), engine=Reader(turn))


@pytest.mark.parametrize("theirs", ["qwen2.5", "gemma-3", "merging"])
def test_equal_functions_of_text_have_equal_rows_whatever_the_tokens(theirs):
    """Templates, cuts and spaces differ; words that one of them cannot end are left out of both."""
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))).Q
    one, other = reader("llama-3.1", torch.eye(WIDTH)), reader(theirs, turn)
    # Single turns, and roles that are control tokens: what is left is the content.
    bare = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    bare += "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
    for model in (one, other):
        model.tokenizer.chat_template = bare
    prompts = [p for p in PROMPTS if len(p.messages) == 1] + ASKED[:4]
    counts = [sum(len(w) for _, w in words_of(m.tokenizer, prompts)) for m in (one, other)]
    assert counts[1] < counts[0] if theirs == "merging" else counts[1] == counts[0]
    pairs = [(Site(0), Site(0))]
    made = Alignment(Side(one), Side(other), pairs, (Every.WORD,)).read(prompts)
    whole = made.moments[0].whole
    assert whole.count == min(counts)
    torch.testing.assert_close(whole.sxx @ turn.double().T, whole.sxy, rtol=1e-4, atol=1e-3)
    matrix = made.fit(Method.PROCRUSTES)[Site(0)].matrix
    torch.testing.assert_close(matrix, turn, rtol=1e-3, atol=1e-3)


def test_a_planted_rotation_is_recovered_from_words():
    turn = rotation(5)
    source, target = planted(0), moved(planted(0), turn)
    pair = [(Site(source.layer), Site(source.layer))]
    for kinds in ((Every.WORD,), (Every.WORD, Span.PROMPT_LAST)):
        made = Alignment(Side(source.model), Side(target.model), pair, kinds).read(chatter(60))
        one = made.fit(Method.RIDGE)[pair[0][1]]
        assert one.fit.held_in > 0.999
        carried = one.matrix @ source.direction
        assert torch.cosine_similarity(carried, turn @ source.direction, dim=0) > 0.99


# --- in an alignment ----------------------------------------------------------------------------


@cache
def pair_of_models() -> tuple[Side, Side]:
    return Side(tiny_model("llama")), Side(tiny_model("qwen2", 1))


def read(prompts: list[Context], kinds: tuple = (Every.WORD, Span.PROMPT_LAST)) -> Alignment:
    sites = [(Site(1), Site(1))]
    return Alignment(*pair_of_models(), sites, kinds).read(prompts)


def test_words_are_a_kind_of_their_own_and_the_last_kind_is_home():
    made, alone = read(PROMPTS), read(PROMPTS, (Span.PROMPT_LAST,))
    words = sum(len(m.content.split()) for p in PROMPTS for m in p.messages)
    kinds = [sum(part[k].count for part in made.moments[0].parts) for k in range(2)]
    assert kinds == [words, len(PROMPTS)]
    torch.testing.assert_close(made.moments[0].last.sxy, alone.moments[0].last.sxy)
    torch.testing.assert_close(made.moments[0].whole.x, alone.moments[0].whole.x)
    maps = made.fit(Method.RELATIVE)
    assert maps.card.spans == ("words", "prompt_last")
    assert maps[Site(1)].fit.rows == words + len(PROMPTS)


def test_the_order_of_prompts_and_chunks_does_not_matter(monkeypatch):
    one = read(PROMPTS)
    monkeypatch.setattr(rows, "WORDS", 70)
    other = read(PROMPTS[::-1])
    for mine, yours in zip(one.moments[0].parts, other.moments[0].parts, strict=True):
        for a, b in zip(mine, yours, strict=True):
            assert a.count == b.count
            for name in ("x", "y", "sxx", "sxy", "syy"):
                torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-3)


def test_no_more_words_are_held_than_a_chunk_may_have(monkeypatch):
    monkeypatch.setattr(rows, "WORDS", 50)
    monkeypatch.setattr(rows, "CONTEXTS", 3)
    long = conversation("word " * 80)
    given = [*PROMPTS, long, *PROMPTS[:2]]
    some = list(chunks(iter(given), [Every.WORD, Span.PROMPT_LAST]))
    assert [one for chunk in some for one in chunk] == given
    held = [sum(len(m.content.split()) for p in chunk for m in p.messages) for chunk in some]
    assert all(count <= 50 or chunk == [long] for count, chunk in zip(held, some, strict=True))
    assert max(map(len, some)) == 3
    assert {len(chunk) for chunk in list(chunks(given, [Span.QUESTION]))[:-1]} == {3}


def test_memory_does_not_grow_with_words():
    def held(made: Alignment) -> int:
        tables = [*made.moments, *made.shuffled]
        every = [vars(kind) for folds in tables for part in folds.parts for kind in part]
        kept = [tensor for some in made._kept for parts in some for tensor in parts]
        return sum(v.numel() for one in every for v in one.values() if torch.is_tensor(v)) + sum(
            tensor.numel() for tensor in kept
        )

    made = Alignment(
        *pair_of_models(), [(Site(1), Site(1))], (Every.WORD, Span.QUESTION), anchors=8
    )
    before = held(made.read(PROMPTS[:10]))
    assert held(made.read(PROMPTS[10:])) == before


def test_layers_are_compared_on_words_too():
    one = pair_of_models()[0]
    found = similarity(one, one, PROMPTS[:10], Every.WORD)
    torch.testing.assert_close(found.diagonal(), torch.ones(3), rtol=1e-4, atol=1e-4)


def test_words_are_a_name_that_the_flag_takes(tmp_path):
    assert parse_rows("words") is Every.WORD
    assert parse_rows("prompt_last") is Span.PROMPT_LAST
    with pytest.raises(InputError, match=r"span 'wrods'.*words"):
        parse_rows("wrods")
    given = ["--prompts", "48", "--layers", "3", "--spans", "words,prompt_last"]
    assert align.main([*given, "--out", str(tmp_path / "map")]) == 0
    assert Maps.load(tmp_path / "map").card.spans == ("words", "prompt_last")
