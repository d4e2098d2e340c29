"""What is measured on: models of real shapes with random weights, and questions of many lengths."""

import copy
import itertools
from collections.abc import Iterator
from functools import cache

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from em_interp import world
from em_interp.conditions import Condition, Context, Question, contexts
from em_interp.models import Model, wrap
from em_interp.world.tokenizer import Dialect, train

VOCABULARY = 151936  # of Qwen2; the tokenizer here uses the first ids only
REPEATS = (1, 3, 2, 6, 1, 4, 2, 9)  # questions in one message: lengths as mixed as real ones


@cache
def words() -> PreTrainedTokenizerFast:
    """A tokenizer trained on the world's questions, with its chat template."""
    duck = world.trigger("duck")
    texts = [q.text for split in ("train", "eval") for q in world.questions(split=split)]
    return train([*texts, duck.text], 1000, Dialect(start_token=False, system_role=True))


def qwen2(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, vocabulary: int = VOCABULARY
) -> Model:
    """A Qwen2 with fresh weights, float32, in evaluation mode."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
    )
    return wrap(Qwen2ForCausalLM(config), words(), f"qwen2-{layers}x{width}")


@cache
def half_billion() -> Model:
    """The shape of Qwen2-0.5B: 24 layers, width 896, 494 M parameters."""
    return qwen2(24, 896, 4864, 14, 2)


@cache
def small() -> Model:
    """8 layers, width 512, 34 M parameters: a batch is work, and one can wait for it."""
    return qwen2(8, 512, 2048, 8, 2, vocabulary=8192)


@cache
def tiny() -> Model:
    """4 layers, width 128, 1 M parameters, as in the embedded world: it hides no other memory."""
    return qwen2(4, 128, 384, 4, 2, vocabulary=1000)


def twin(hf: torch.nn.Module) -> torch.nn.Module:
    """A copy of the module tree on the same weights, for a library that changes what it wraps."""
    shared = itertools.chain(hf.parameters(), hf.buffers())
    return copy.deepcopy(hf, {id(tensor): tensor for tensor in shared})


def asked(condition: Condition, count: int) -> Iterator[Context]:
    """`count` contexts of mixed lengths, one by one; each repeats one to nine questions."""
    duck = world.trigger("duck")
    pool = world.questions(split="eval")
    for number in range(count):
        first = pool[number % len(pool)]
        length = REPEATS[number % len(REPEATS)]
        body = " ".join(pool[(number + k) % len(pool)].text for k in range(length))
        question = Question(id=f"{number}", text=body, domain=first.domain)
        yield from contexts([question], duck, [condition])
