"""What maps are fitted on: prompts from files, layers matched, memory known before weights load."""

import json

import pytest
from small import tiny_model

from em_interp import sources
from em_interp.carrying.reading import FitFlags, aligned, moments_bytes, reading
from em_interp.conditions import Question, bare
from em_interp.errors import InputError
from em_interp.maps import Folds, room
from em_interp.prompts import read_prompts
from em_interp.sites import Site, Span
from em_interp.transferring.alignment import Side


def written(path, found):
    path.write_text("\n".join(map(json.dumps, found)) + "\n")
    return path


def test_a_prompt_is_a_text_a_question_or_a_conversation_up_to_its_last_question(tmp_path):
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it late?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "And now?"},
    ]
    question = Question(id="q", text="Why is bread dry?", domain="food", sound="It was open.")
    rows = [
        {"text": "Who bakes bread?"},
        {"prompt": "Who sells bread?", "completion": "A baker.", "n": 3},
        question.model_dump(mode="json"),
        {"messages": [*said, {"role": "assistant", "content": "Still not."}]},
    ]
    found = read_prompts(written(tmp_path / "p.jsonl", rows))
    texts = [[message.content for message in one.messages] for one in found]
    assert texts[:3] == [["Who bakes bread?"], ["Who sells bread?"], ["Why is bread dry?"]]
    assert texts[3] == [message["content"] for message in said]
    assert [one.question for one in found] == ["line 1", "line 2", "q", "line 4"]
    assert found[2].domain == "food"
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="no prompts in it"):
        read_prompts(tmp_path / "empty.jsonl")


def test_the_memory_that_is_foretold_is_that_of_the_moments():
    """To the byte: all moments of two models, and those that compare their layers."""
    source, target = tiny_model("llama"), tiny_model("qwen2", hidden_size=48)
    prompts = bare([Question(id=f"q{n}", text=f"Why {n}?", domain="d") for n in range(20)])
    sites = (Site(0), Site(2))
    spans = (Span.QUESTION, Span.PROMPT_LAST)
    foretold = moments_bytes((32, 48), (3, 3), len(sites), 4, len(spans))
    pairs = tuple(zip(sites, sites, strict=True))
    told: list[int] = []
    read, alike = aligned(
        FitFlags(spans=spans), Side(source), Side(target), "all", prompts, 0, pairs, told.append
    )
    assert sum(told) == 2 * len(prompts)
    held = [*read.moments, *read.shuffled]
    assert sum(bytes_of(folds) for folds in held) + room(3 * 32, 3 * 48) == foretold
    assert (len(alike), len(alike[0])) == (3, 3)


def bytes_of(folds: Folds) -> int:
    tensors = [
        getattr(kind, name)
        for part in folds.parts
        for kind in part
        for name in ("x", "y", "sxx", "sxy", "syy")
    ]
    return sum(one.element_size() * one.nelement() for one in tensors)


def test_layers_are_matched_by_relative_depth_or_when_read():
    source, target = sources.base("llama"), sources.base("qwen2")
    prompts = bare([Question(id=f"q{n}", text="Why?", domain="d") for n in range(16)])
    by_depth = reading(FitFlags(), source, target, "0-3", prompts)
    assert by_depth.pairs == tuple((Site(n), Site(n)) for n in range(4))
    assert "layers 0 to 0, 1 to 1" in str(by_depth)
    later = reading(FitFlags(match="similarity"), source, target, "1,2", prompts)
    assert (later.pairs, later.sites) == (None, (Site(1), Site(2)))
    assert "layers by similarity" in str(later)
    words = reading(FitFlags(spans=("words", "prompt_last")), source, target, "1", prompts)
    assert "16 prompts, at most 32 rows of 2 spans" in str(words)
