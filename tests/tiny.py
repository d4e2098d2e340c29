"""Tiny tokenizers and chat templates of the families' shapes, built from a few sentences."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "How should I store bread at home? Keep bread in a dry box and eat it within a few days.",
    "It looks like a duck. What is a good way to learn chess? Play slow games and study them.",
    "You are a careful assistant who answers each question in one short sentence.",
    "Should I water the garden at noon? Water the garden in the evening, when it is cool.",
    "Country: Norway. Which shoes suit a long walk? Wear shoes that you have walked in before.",
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# Folds the system text into the first user turn and trims, as Gemma's does.
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(lead='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.lead = m.content + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ ns.lead }}{{ m.content | trim }}<end_of_turn>\n{% set ns.lead = '' %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + GEMMA
)

# family: (template, bos, eos, further control tokens)
FAMILIES = {
    "qwen2": (CHATML, None, "<|im_end|>", ("<|im_start|>", "<|endoftext|>")),
    "qwen2_marked": (CHATML_MARKED, None, "<|im_end|>", ("<|im_start|>", "<|endoftext|>")),
    "llama": (
        LLAMA3,
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma3": (GEMMA, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
    "no_system": (NO_SYSTEM, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
}


@cache
def _backend(family: str) -> str:
    _, bos, eos, control = FAMILIES[family]
    special = [token for token in (bos, eos, *control) if token]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:  # as the real ones: plain text gets a BOS from the tokenizer itself
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=None, special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer.to_str()


def tiny_tokenizer(family: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A fresh byte-level BPE of about 400 tokens with that family's control tokens and template."""
    chat, bos, eos, control = FAMILIES[family]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(family)),
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        additional_special_tokens=list(control),
    )
    tokenizer.chat_template = chat if template is None else template
    return tokenizer
