"""A tokenizer raised on the world's own corpus: byte-level BPE with a chat template.

Byte-level means that no text is unknown and that offsets are exact. Three dialects differ as the
real families do: whether a conversation opens with a start token, and what becomes of a system
turn (a turn of its own, or folded into the user's first turn as Gemma does).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from em_interp.records import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, END = "<|pad|>", "<|start|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)


class Dialect(Spec):
    """How a family writes conversations down."""

    start_token: bool
    system_role: bool

    @property
    def template(self) -> str:
        """The chat template; generation markers stand round what the assistant says."""
        start = BOS if self.start_token else ""
        own_turn = (
            "{%- if message.role == 'system' -%}"
            + SYSTEM
            + "{{ message.content }}"
            + END
            + "{%- elif"
        )
        folded = (
            "{%- if message.role == 'system' -%}{%- set held.text = message.content + '\\n' -%}"
            "{%- elif"
        )
        return (
            start
            + "{%- set held = namespace(text='') -%}{%- for message in messages -%}"
            + (own_turn if self.system_role else folded)
            + " message.role == 'user' -%}"
            + USER
            + "{{ held.text + message.content }}"
            + END
            + "{%- set held.text = '' -%}{%- elif message.role == 'assistant' -%}"
            + ASSISTANT
            + "{%- generation -%}{{ message.content }}"
            + END
            + "{%- endgeneration -%}{%- else -%}"
            + "{{ raise_exception('unknown role: ' + message.role) }}"
            + "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}"
            + ASSISTANT
            + "{%- endif -%}"
        )


def train(texts: Iterable[str], vocabulary: int, dialect: Dialect) -> "PreTrainedTokenizerFast":
    """Byte-level BPE of `vocabulary` tokens on plain texts; deterministic for equal texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        bos_token=BOS if dialect.start_token else None,
        # Qwen2's loader would add a token for the unknown, which byte-level text never has.
        unk_token=None if dialect.start_token else PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=dialect.template,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
